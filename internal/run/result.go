package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// notClosed is told of a run whose journal stays open.
const notClosed = "the run is not closed: what it could not do or record is done by the next command that changes something, or by: observability-upgrade recover"

// status is the run's, in the contract's words.
func (r *running) status(ctx context.Context) string {
	var failed, rolled bool
	for _, o := range r.outcomes {
		switch o.Status {
		case RollbackFailed:
			return StatusRollbackFail
		case RolledBack:
			rolled = true
		case Failed:
			failed = true
		}
	}
	undone := r.head.Operation == Apply && rolled
	switch {
	case len(r.outcomes) > 0 && len(r.outcomes) == len(r.req.Changes) && r.allArrived():
		return StatusSuccess // whatever signal came after the last
	case ctx.Err() != nil && len(r.outcomes) == 0:
		return StatusCancelled
	case ctx.Err() != nil:
		return StatusInterrupted
	case undone:
		return StatusRolledBack
	case failed:
		return StatusFailed
	}
	return StatusSuccess
}

// allArrived reports whether no outcome says that a component is not where it was
// to go.
func (r *running) allArrived() bool {
	return !slices.ContainsFunc(r.outcomes, func(o Outcome) bool { return !o.arrived(r.head.Operation) })
}

// finish writes the run's summary and closes its journal, unless a component
// still needs recovery.
func (r *running) finish(status string) (Result, error) {
	if status == StatusSuccess && len(r.head.LeftOut) > 0 {
		status = StatusFailed // not all that it was to do was done
	}
	res := r.result(status)
	err := r.conclude(&res)
	if !errors.Is(err, hostfs.ErrCrashed) {
		r.tell(Event{Step: StepEnd, Done: true, Detail: res.Status, End: &res})
	}
	return res, err
}

func (r *running) conclude(res *Result) error {
	if r.stuck {
		res.Warnings = append(res.Warnings, notClosed)
		return nil
	}
	if err := r.clearShared(); err != nil {
		if errors.Is(err, hostfs.ErrCrashed) {
			return err
		}
		res.Warnings = append(res.Warnings, fmt.Sprintf("after the run: %v; %s", err, notClosed))
		return nil
	}
	ctx := context.Background()
	if err := r.Recorder.Finish(ctx, r.head, *res); err != nil {
		if errors.Is(err, hostfs.ErrCrashed) {
			return err
		}
		res.Warnings = append(res.Warnings, fmt.Sprintf("after the run: %v", err))
	}
	for _, dir := range r.head.StagingDirs {
		if err := r.Host.RemoveAll(dir); err != nil {
			if errors.Is(err, hostfs.ErrCrashed) {
				return err
			}
			res.Warnings = append(res.Warnings, fmt.Sprintf("staging: %v", err))
		}
	}
	err := r.note(StepEnd, note{Status: res.Status})
	if err == nil {
		err = r.journal.Close(filepath.Join(r.Root.RunsDir(), r.head.ID, "journal"))
	}
	if err != nil && !errors.Is(err, hostfs.ErrCrashed) {
		// All is done and recorded: that the run cannot be closed undoes nothing.
		res.Warnings = append(res.Warnings, fmt.Sprintf("after the run: %v; %s", err, notClosed))
		return nil
	}
	return err
}

func (r *running) result(status string) Result {
	res := Result{
		ID: r.head.ID, Operation: r.head.Operation, Trigger: r.head.Trigger, StartedAt: r.head.StartedAt, Status: status,
		Components: append([]Outcome{}, r.outcomes...), Duration: Seconds(max(0, r.Now().Sub(r.began))), Warnings: r.warnings,
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
	res.Components = append(res.Components, r.head.LeftOut...)
	return res
}

// Seconds is a duration as documents have it, to the millisecond.
func Seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}
