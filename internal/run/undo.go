package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// RollbackError says that a component could not be brought back to health: a
// person is needed.
type RollbackError struct {
	Component string
	Version   string
	Restored  bool // its files are those of Version; only health is missing
	Open      bool // the run stays open, and a recovery tries again
	Err       error
}

func (e *RollbackError) Error() string {
	state := "its files could not all be restored"
	if e.Restored {
		state = "its files are those of " + e.Version
	}
	return fmt.Sprintf("%s: rollback to %s failed: %v; %s", e.Component, e.Version, e.Err, state)
}

func (e *RollbackError) Unwrap() error { return e.Err }

// undo brings a component back to the version it had before the run. It looks
// at the digests on disk to decide what there is to do, so it may be repeated
// from any state, and it uses local bytes only.
func (r *running) undo(ctx context.Context, ch Change, out *Outcome, start time.Time) error {
	out.Healthy = false
	if r.head.Operation == Restart {
		return r.undoRestart(ctx, ch, out, start)
	}
	out.Evidence = r.saveEvidence(ctx, ch, out.Error)
	if err := r.noteUndo(StepUndo, ch, note{Reason: out.Error, Started: out.Started}); err != nil {
		return err
	}
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepUndo, Detail: "back to " + ch.From.String(), Reason: out.Error})
	down, stopped := r.stops[ch.key()]
	if !stopped {
		down = r.Now() // what stops it is this undo
	}
	up := false
	ready := func(t time.Time) {
		// The whole time counts: what the failed version answered in between helped nobody.
		out.Downtime, up = Seconds(max(0, t.Sub(down))), true
	}
	restored, err := r.bringBack(ctx, ch, ready)
	restored = restored && !r.unmended[ch.key()]
	r.tellLeft(ch)
	if err == nil {
		err = r.readmit(ctx, ch)
	}
	out.Duration = Seconds(max(0, r.Now().Sub(start)))
	if err != nil && !up && ch.hasService() && ch.WasActive {
		out.Downtime = Seconds(max(0, r.Now().Sub(down))) // and it is down still
	}
	out.Status = RolledBack
	out.Healthy = err == nil && !ch.Health.Skip && (ch.remote() || ch.hasService() && ch.WasActive)
	if r.head.Operation == Rollback && err == nil {
		out.Status = RollbackFailed
		if WasInterrupted(out.Error) {
			out.Status = Failed
		}
		out.Error += fmt.Sprintf("; it was undone: %s is back at %s", ch.Set(), ch.From)
		if out.Healthy {
			out.Error += " and healthy"
		}
	}
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepUndo, Done: true, Detail: "back at " + ch.From.String(), Err: err})
	if errors.Is(err, hostfs.ErrCrashed) {
		return err
	}
	if err != nil {
		out.Status = RollbackFailed
		out.Error += "; " + err.Error()
		failed := &RollbackError{Component: ch.Set(), Version: ch.From.String(), Restored: restored, Err: err}
		failed.Open = !restored || r.between || r.drained[ch.key()]
		err = failed
		if failed.Open {
			// `recover` tries again once the cause is gone, and puts the instance back into
			// the balancer.
			r.stuck = true
			return errors.Join(err, r.Recorder.Record(ctx, r.head, ch, *out))
		}
	}
	if noteErr := r.noteUndo(stepUndone, ch, note{Outcome: out}); noteErr != nil {
		return errors.Join(err, noteErr)
	}
	return errors.Join(err, r.close(ctx, ch, out))
}

// noteUndo journals a step of an undo. A journal that cannot be written, on a disk
// that is full or broken, must not leave a service stopped: the undo goes by what
// is on disk, and without its record recovery only does it once more. So the run
// goes on, and its journal stays open.
func (r *running) noteUndo(step Step, ch Change, n note) error {
	err := r.noteOf(ch, step, n)
	if err == nil {
		return nil
	}
	if errors.Is(err, hostfs.ErrCrashed) || step == StepUndo && r.unsure {
		return r.leaveOpen(err)
	}
	if !r.stuck {
		r.warn("%s: %v; it is undone all the same", ch.Set(), err)
	}
	return r.leaveOpen(nil)
}

// leaveOpen keeps the journal open for the next recovery.
func (r *running) leaveOpen(err error) error {
	r.stuck = true
	return err
}

// tellLeft warns of instances that run the new version from memory, now that the
// file they share with an instance that failed is the old one again.
func (r *running) tellLeft(ch Change) {
	if ch.Rolling == nil || ch.remote() {
		return
	}
	for _, o := range r.outcomes {
		done := o.arrived(r.head.Operation)
		away := slices.ContainsFunc(r.req.Changes, func(c Change) bool {
			return c.Component == o.Name && c.Instance == o.Instance && c.remote()
		})
		if o.Name == ch.Component && o.Instance != ch.Instance && done && !away && o.To.Equal(ch.To) {
			r.warn("%s@%s goes on running %s, and starts as %s when it is restarted: they share their files", o.Name, o.Instance, ch.To, ch.From)
		}
	}
}

// bringBack restores an instance wherever it is. One that took traffic again is
// drained first, and what runs on it may end.
func (r *running) bringBack(ctx context.Context, ch Change, ready func(time.Time)) (restored bool, err error) {
	if r.drained[ch.key()] {
		if err := r.drainAgain(ctx, ch); err != nil {
			r.warn("%s could not be taken out of the balancer while it is restored: %v", ch.Set(), err)
		}
	}
	if ch.remote() {
		return r.restoreAway(ctx, ch, ready)
	}
	return r.restore(ctx, ch, ready)
}

// drainAgain takes an instance out that was put back before its undo. Where it is
// out still, or its process is gone, there is nothing to wait for.
func (r *running) drainAgain(ctx context.Context, ch Change) error {
	b, err := r.at(ch)
	if err != nil {
		return err
	}
	was, err := b.State(ctx)
	if err != nil {
		return err
	}
	if err := b.Drain(ctx); err != nil || !was.Admitted {
		return err
	}
	if !ch.remote() {
		if st, err := r.Services.Status(ctx, ch.Service); err == nil && !st.Active {
			return nil
		}
	}
	_, err = r.quiet(ctx, ch, b)
	return err
}

// undoRestart makes sure that a service whose restart failed was at least
// started, and puts its instance back where it works.
func (r *running) undoRestart(ctx context.Context, ch Change, out *Outcome, start time.Time) error {
	if err := r.noteUndo(StepUndo, ch, note{Reason: out.Error}); err != nil {
		return err
	}
	var err error
	if ch.WasActive && !ch.remote() {
		r.goesOn(ch, r.restarts(ctx, ch)) // one that runs is not started again
		if err = r.start(ctx, ch); err == nil {
			_, err = r.prove(ctx, ch, "", func(time.Time) {})
		}
	}
	if err == nil {
		out.Healthy = true
		err = r.readmit(ctx, ch)
	}
	out.Status, out.Duration = Failed, Seconds(r.Now().Sub(start))
	if errors.Is(err, hostfs.ErrCrashed) {
		return err
	}
	if err != nil && r.drained[ch.key()] {
		return r.leaveOpen(err) // for recovery to put it back into the balancer
	}
	if noteErr := r.noteUndo(stepUndone, ch, note{Outcome: out}); noteErr != nil {
		return errors.Join(err, noteErr)
	}
	return errors.Join(err, r.close(ctx, ch, out))
}

// restore puts the old bytes back and proves the old version healthy. A service
// that never stopped and runs the old bytes is left alone.
//
// The power may fail in between, and what is in place then starts at boot, before
// anything is recovered. So at no moment a version lies there that cannot read the
// data: going down the data comes first, going up the files do.
func (r *running) restore(ctx context.Context, ch Change, ready func(time.Time)) (restored bool, err error) {
	inPlace, err := r.oldInPlace(ch)
	if err != nil {
		return false, err
	}
	if ch.TakeBack && !inPlace && !r.dirty[ch.key()] {
		if err := r.startedMeanwhile(ctx, ch); err != nil {
			return false, err
		}
	}
	touched := ch.TakeBack && r.dirty[ch.key()] || r.restoring(ch)
	if inPlace && !touched && r.untouched(ctx, ch) {
		r.cameBack(ctx, ch, ready)
		return true, nil
	}
	if ch.hasService() {
		if _, err := r.stop(ctx, ch); err != nil {
			return false, err
		}
	}
	taken, down := false, ch.From.Less(ch.To)
	if touched && down {
		if taken, err = r.takeBack(ctx, ch); err != nil {
			return false, err
		}
	}
	if err := r.putAllBack(ctx, ch); err != nil {
		return false, err
	}
	if touched && !down {
		if taken, err = r.takeBack(ctx, ch); err != nil {
			return false, err
		}
	}
	if touched && !taken {
		return true, &NotStartedError{Component: ch.Set(), Old: ch.From.String(), New: ch.To.String()}
	}
	if !ch.hasService() || !ch.WasActive {
		return true, nil
	}
	err = r.startOld(ctx, ch, ready)
	var lost *health.LostDataError
	if !errors.As(err, &lost) || taken {
		return true, err
	}
	// The old version does not answer as it did: what the new one wrote is beyond
	// it. The copy is put back while it is still there.
	if _, err := r.stop(ctx, ch); err != nil {
		return true, err
	}
	if taken, err = r.takeBack(ctx, ch); err != nil {
		return false, errors.Join(lost, err) // it is not started on data half put back
	}
	if !taken {
		return true, errors.Join(lost, r.start(ctx, ch))
	}
	r.warn("%v; its data was put back as it was before the run", lost)
	return true, r.startOld(ctx, ch, ready)
}

// startedMeanwhile looks whether somebody else, such as the boot of the host, started
// the new version that a run had only put in place, and journals that it did: once
// the old files are back nobody could tell.
func (r *running) startedMeanwhile(ctx context.Context, ch Change) error {
	if !ch.hasService() {
		return nil
	}
	for _, s := range ch.Swaps {
		if s.Path != ch.Executable {
			continue
		}
		if got, err := hostfs.Digest(s.Path); err != nil || got == s.Old {
			return err
		}
	}
	st, err := r.Services.Status(ctx, ch.Service)
	if err != nil || !st.Active && !st.Activating && !st.Failed {
		return err
	}
	r.dirty[ch.key()] = true
	return r.noteOf(ch, StepStart, note{})
}

// putAllBack makes all files of a stopped component what they were, durably.
func (r *running) putAllBack(ctx context.Context, ch Change) error {
	for i := len(ch.Swaps) - 1; i >= 0; i-- {
		if err := r.putBack(ch, ch.Swaps[i]); err != nil {
			return err
		}
	}
	if err := r.Host.SyncDirs(paths(ch)...); err != nil {
		return err
	}
	units, err := r.restoreConfig(ch)
	if err != nil {
		return err
	}
	if units || ch.touchesUnits() {
		return r.daemonReload(ctx)
	}
	return nil
}

// startOld starts the old version and proves it healthy and its data there.
func (r *running) startOld(ctx context.Context, ch Change, ready func(time.Time)) error {
	if err := r.start(ctx, ch); err != nil {
		return err
	}
	if _, err := r.prove(ctx, ch, ch.From.String(), ready); err != nil {
		return err
	}
	return r.compare(ctx, ch, ch.From.String(), r.was)
}

func (r *running) oldInPlace(ch Change) (bool, error) {
	for _, s := range ch.Swaps {
		got, err := hostfs.Digest(s.Path)
		if err != nil {
			return false, err
		}
		if got != s.Old {
			return false, nil
		}
	}
	return true, nil
}

// untouched reports whether the service still runs, healthy, from the old bytes.
func (r *running) untouched(ctx context.Context, ch Change) bool {
	if !ch.hasService() || !ch.WasActive {
		return true
	}
	t, err := r.target(ch, ch.From.String())
	if err != nil {
		return false
	}
	return r.Prober.Once(ctx, t).Healthy
}

// cameBack tells when a service that the run had stopped was started again by
// somebody else, such as the boot of the host.
func (r *running) cameBack(ctx context.Context, ch Change, ready func(time.Time)) {
	down, stopped := r.stops[ch.key()]
	if !stopped || !ch.hasService() || !ch.WasActive {
		return
	}
	if st, err := r.Services.Status(ctx, ch.Service); err == nil && st.StartedAt.After(down) {
		ready(st.StartedAt)
	}
}

// putBack makes a path hold its old content, from the copy beside it or from
// the backup point, whichever has the right digest.
func (r *running) putBack(ch Change, s Swap) error {
	got, err := hostfs.Digest(s.Path)
	if err != nil {
		return err
	}
	if got == s.Old {
		return nil
	}
	if s.Old == "" {
		if got != s.New {
			r.warn("%s: there was none before the run, and it is not what the run put there; it is left as it is", s.Path)
			return nil
		}
		return r.Host.RemoveAll(s.Path)
	}
	if err := r.oldBeside(ch, s); err != nil {
		return err
	}
	if got == "" {
		err = r.Host.Rename(s.Beside, s.Path)
	} else {
		err = r.Host.Exchange(s.Path, s.Beside)
	}
	if err != nil {
		return err
	}
	if got, err = hostfs.Digest(s.Path); err == nil && got != s.Old {
		err = fmt.Errorf("%s has sha256 %s after it was put back, expected %s", s.Path, got, s.Old)
	}
	return err
}

// oldBeside makes what lies beside a path its old content.
func (r *running) oldBeside(ch Change, s Swap) error {
	for _, path := range []string{s.Beside, hostfs.Aside(s.Beside)} {
		got, err := hostfs.Digest(path)
		if err != nil {
			return err
		}
		if got != s.Old {
			continue
		}
		if path == s.Beside {
			return nil
		}
		if err := r.Host.RemoveAll(s.Beside); err != nil {
			return err
		}
		return r.Host.Rename(path, s.Beside)
	}
	return r.fetchOld(ch, s)
}

// fetchOld copies the old content from the run's backup point to beside its
// place, proving its digest.
func (r *running) fetchOld(ch Change, s Swap) error {
	p, err := r.backupPoint()
	if err != nil {
		return err
	}
	c, _ := p.Component(ch.Component)
	stored := ""
	for _, it := range c.Items {
		if it.Path == s.Path {
			stored = p.File(it)
		} else if rel, err := filepath.Rel(it.Path, s.Path); err == nil && it.Tree && filepath.IsLocal(rel) {
			stored = filepath.Join(p.File(it), rel)
		}
	}
	if stored == "" && p.Damage != nil {
		return fmt.Errorf("%s: the old content is not beside it, and %w", s.Path, p.Damage)
	}
	if stored == "" {
		return fmt.Errorf("%s: the old content is neither beside it nor in backup %s", s.Path, p.Timestamp)
	}
	// Proved before what lies beside makes room for it.
	got, err := hostfs.Digest(stored)
	if err != nil {
		return err
	}
	if got != s.Old {
		return fmt.Errorf("%s: the backup of it in %s has sha256 %s, expected %s", s.Path, p.Timestamp, got, s.Old)
	}
	// Under another name until it is complete: what lies beside is known by its
	// content, and a copy that was cut off may have that and not its mode.
	for _, path := range []string{s.unfinished(), s.Beside} {
		if err := r.Host.RemoveAll(path); err != nil {
			return err
		}
	}
	if err := r.Host.Copy(stored, s.unfinished(), ""); err != nil {
		return err
	}
	if got, err = hostfs.Digest(s.unfinished()); err != nil {
		return err
	}
	if got != s.Old {
		return fmt.Errorf("%s: the copy of its backup has sha256 %s, expected %s", s.Path, got, s.Old)
	}
	return r.Host.Rename(s.unfinished(), s.Beside)
}

func (r *running) backupPoint() (*backup.Point, error) {
	if r.point != nil {
		return r.point, nil
	}
	p, err := backup.Open(r.Root.Backups(), r.head.ID)
	if err != nil {
		return nil, err
	}
	r.point = p
	return p, nil
}
