package stack

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// hook is what an administrator's commands are told, through their environment.
type hook struct {
	moment     string // before | after
	run        string // id; empty before
	trigger    string
	status     string // of the run; empty before
	components []run.Outcome
}

// environment is the caller's, with what happens.
func (h hook) environment() []string {
	var list []string
	for _, o := range h.components {
		list = append(list, fmt.Sprintf("%s:%s:%s", component.SetName(o.Name, o.Instance), o.From, o.To))
	}
	return append(os.Environ(),
		"OBSERVABILITY_UPGRADE_HOOK="+h.moment, "OBSERVABILITY_UPGRADE_RUN="+h.run, "OBSERVABILITY_UPGRADE_TRIGGERED_BY="+h.trigger,
		"OBSERVABILITY_UPGRADE_STATUS="+h.status, "OBSERVABILITY_UPGRADE_COMPONENTS="+strings.Join(list, " "))
}

// hooksBefore runs the commands before a run; the first that fails refuses it.
func (s *Stack) hooksBefore(ctx context.Context, h hook) error {
	h.moment = "before"
	for _, argv := range s.Policy.Hooks.Before {
		out, err := s.runHook(ctx, argv, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return &RefusedError{
				Check: "hook", Err: fmt.Errorf("%s: expected exit code 0, found: %w%s; nothing was stopped", strings.Join(argv, " "), err, prefixed(": ", out)),
				Next: "mend the command, or take it out of hooks.before in " + s.Policy.File,
			}
		}
	}
	return nil
}

// hooksAfter runs the commands after a run, all of them, also when it was
// interrupted. What fails is a warning.
func (s *Stack) hooksAfter(ctx context.Context, h hook, res *run.Result) {
	h.moment, h.run, h.status, h.components = "after", res.ID, res.Status, res.Components
	for _, argv := range s.Policy.Hooks.After {
		if out, err := s.runHook(context.WithoutCancel(ctx), argv, h); err != nil {
			res.Warnings = append(res.Warnings, fmt.Sprintf("hook %s: %v%s", strings.Join(argv, " "), err, prefixed(": ", out)))
		}
	}
}

func (s *Stack) runHook(ctx context.Context, argv []string, h hook) (string, error) {
	if err := s.host.Check("hook", argv[0]); err != nil {
		return "", err
	}
	began := time.Now()
	ctx, end := s.Tracer.Span(ctx, "hook", slog.String("moment", h.moment), slog.String("command", argv[0]))
	out, err := artifact.RunCommand(ctx, argv, h.environment(), s.Policy.Hooks.Timeout.Std())
	end(err)
	attrs := []slog.Attr{
		slog.String("moment", h.moment), slog.String("command", strings.Join(argv, " ")), slog.Float64("duration_seconds", time.Since(began).Seconds()),
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error())) // the caller tells it to people
	}
	s.Logger.LogAttrs(ctx, slog.LevelInfo, "hook", attrs...)
	return strings.TrimSpace(out), err
}
