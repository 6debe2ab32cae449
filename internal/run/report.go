package run

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

func (r *running) result(status string) Result {
	res := Result{
		ID: r.head.ID, Operation: r.head.Operation, Trigger: r.head.Trigger, StartedAt: r.head.StartedAt, Status: status,
		Components: append([]Outcome{}, r.outcomes...), Duration: Seconds(r.Now().Sub(r.head.StartedAt)), Warnings: r.warnings,
	}
	if r.point != nil {
		res.BackupPath = r.point.Path
	}
	seen := map[Planned]bool{}
	for _, o := range r.outcomes {
		seen[Planned{o.Name, o.Instance, o.From.String(), o.To.String()}] = true
	}
	for _, ch := range r.req.Changes {
		if !seen[Planned{ch.Component, ch.Instance, ch.From.String(), ch.To.String()}] {
			res.Components = append(res.Components, Outcome{Name: ch.Component, Instance: ch.Instance, From: ch.From, To: ch.To, Status: NotAttempted})
		}
	}
	return res
}

func (r *running) warn(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	r.warnings = append(r.warnings, msg)
	r.Logger.Warn(msg, "run", r.head.ID)
}

func (r *running) tell(ev Event) {
	ev.Run, ev.Time = r.head.ID, r.Now()
	level := slog.LevelDebug
	if ev.Done {
		level = slog.LevelInfo
	}
	attrs := []any{"run", r.head.ID, "component", ev.Component, "instance", ev.Instance, "step", string(ev.Step), "done", ev.Done}
	if ev.Err != nil {
		attrs = append(attrs, "error", ev.Err)
	}
	r.Logger.Log(context.Background(), level, "step", attrs...)
	if r.Report != nil {
		r.Report(ev)
	}
}

// Seconds is a duration as documents have it, to the millisecond.
func Seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}
