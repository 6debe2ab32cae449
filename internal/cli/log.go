package cli

import (
	"context"
	"log/slog"

	"github.com/observability-upgrade/observability-upgrade/internal/journald"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

// startLog makes the logger that the flags ask for. Where standard error is the
// journal and nobody asked for a format, records go to it with their fields; there
// and as JSON, all that is told of a command's progress is a record (g.records).
func (g *global) startLog() error {
	chosen := func(flag string) bool { return g.flags.Changed(flag) }
	g.records = g.logFormat == "json" || g.Journal != "" && !chosen("log-format")
	if g.records && !g.quiet && !chosen("log-level") {
		g.logLevel = "info" // what is a line of progress elsewhere
	}
	var level slog.Level
	levelErr := level.UnmarshalText([]byte(g.logLevel))
	opts := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(g.Err, opts)
	switch {
	case g.logFormat == "json":
		handler = slog.NewJSONHandler(g.Err, opts)
	case g.records:
		j := journald.New(journald.Options{Socket: g.Journal, Level: level, Fallback: handler})
		g.closers = append(g.closers, j)
		handler = j
	case !chosen("log-level"):
		handler = shown{handler}
	}
	g.logger = slog.New(handler)
	if levelErr != nil {
		return badFlag("log-level", g.logLevel, "debug, info, warn or error")
	}
	if g.logFormat != "json" && g.logFormat != "text" {
		return badFlag("log-format", g.logFormat, "text or json")
	}
	return nil
}

// shown leaves out the records of steps, which people are shown as lines.
type shown struct{ slog.Handler }

// Handle implements slog.Handler.
func (h shown) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == run.StepMessage {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h shown) WithAttrs(attrs []slog.Attr) slog.Handler { return shown{h.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (h shown) WithGroup(name string) slog.Handler { return shown{h.Handler.WithGroup(name)} }

func badFlag(flag, got, want string) error {
	return &stack.UsageError{Message: "--" + flag + "=" + got + ": want " + want, Hint: "observability-upgrade --help"}
}

// asks looks for --flag=value, or its short form, in arguments that cannot be
// parsed.
func asks(args []string, flag, short, value string) bool {
	for i, a := range args {
		switch a {
		case "--":
			return false
		case "--" + flag + "=" + value:
			return true
		case "--" + flag:
			if i+1 < len(args) && args[i+1] == value {
				return true
			}
		}
		if short == "" {
			continue
		}
		switch a {
		case "-" + short + "=" + value, "-" + short + value:
			return true
		case "-" + short:
			if i+1 < len(args) && args[i+1] == value {
				return true
			}
		}
	}
	return false
}
