package run

import (
	"context"
	"fmt"
	"log/slog"
)

// StepMessage is the message of every log record that tells of a step.
const StepMessage = "step"

// tell logs an event and hands it to the onlooker.
func (r *running) tell(ev Event) {
	ev.Run, ev.Time = r.head.ID, r.Now()
	if c := r.working; c != nil && ev.Component == c.Component && ev.Instance == c.Instance {
		ev.From, ev.To = c.From.String(), c.To.String()
	}
	r.Logger.LogAttrs(context.Background(), ev.level(), StepMessage, ev.attrs()...)
	if r.Report != nil {
		r.Report(ev)
	}
}

// level is that of the event's log record: at info there is exactly one of each
// step, and one where the run begins.
func (ev Event) level() slog.Level {
	switch {
	case ev.Err != nil:
		return slog.LevelError
	case ev.Done, ev.Step == StepBegin:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// attrs are the keys of the event's log record, docs/logs-and-traces.md. What is
// empty is left out.
func (ev Event) attrs() []slog.Attr {
	attrs := make([]slog.Attr, 0, 12)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	text("run", ev.Run)
	text("component", ev.Component)
	text("instance", ev.Instance)
	text("from", ev.From)
	text("to", ev.To)
	text("step", string(ev.Step))
	attrs = append(attrs, slog.Bool("done", ev.Done))
	text("detail", ev.Detail)
	if ev.Err != nil {
		text("error", ev.Err.Error())
	}
	if ev.Begin != nil {
		text("operation", string(ev.Begin.Operation))
		text("triggered_by", ev.Begin.Trigger)
	}
	if ev.End != nil {
		text("operation", string(ev.End.Operation))
		text("status", ev.End.Status)
		attrs = append(attrs, slog.Float64("duration_seconds", ev.End.Duration))
	}
	return attrs
}

func (r *running) warn(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	r.warnings = append(r.warnings, msg)
	r.Logger.Warn(msg, "run", r.head.ID)
}
