package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
)

// Interrupted describes a run that did not end, for `status`.
type Interrupted struct {
	ID         string    `json:"id"`
	Operation  Operation `json:"operation"`
	StartedAt  time.Time `json:"started_at"`
	Components []Planned `json:"components"`
	Component  string    `json:"component"` // the one being changed when it stopped
	Step       Step      `json:"step"`      // the last step begun
	PID        int       `json:"pid"`
	Manager    string    `json:"service_manager,omitempty"` // systemd | process
}

// FindInterrupted returns the run whose journal is still open, or nil. A run
// that is going on at this moment has one as well: callers that do not hold the
// lock tell the two apart by it.
func FindInterrupted(dir string) (*Interrupted, error) {
	paths, err := journal.Pending(dir)
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	records, err := journal.Read(paths[0])
	if err != nil {
		return nil, err
	}
	in := &Interrupted{ID: journal.ID(paths[0])}
	for _, rec := range records {
		in.Step = Step(rec.Kind)
		switch in.Step {
		case StepBegin:
			var h Header
			if err := h.read(rec, paths[0]); err != nil {
				return nil, err
			}
			in.Operation, in.StartedAt, in.Components, in.PID, in.Manager = h.Operation, h.StartedAt, h.Components, h.PID, h.Manager
		case stepChange:
			var ch Change
			if err := rec.Decode(&ch); err != nil {
				return nil, err
			}
			in.Component = ch.Component
		case stepRecorded:
			in.Component = ""
		}
	}
	return in, nil
}

// Recover finishes what interrupted runs left behind: a component whose change
// was committed is recorded, any other is undone. It returns one result per
// run recovered, and nil when there was none. It is safe to kill and repeat.
func (e *Engine) Recover(ctx context.Context) ([]Result, error) {
	paths, err := journal.Pending(e.Root.JournalDir())
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, path := range paths {
		res, err := e.recoverOne(ctx, path)
		if res != nil {
			results = append(results, *res)
		}
		if err != nil {
			return results, fmt.Errorf("recover run %s: %w", journal.ID(path), err)
		}
	}
	return results, nil
}

// progress is how far a component came, by its journal records.
type progress struct {
	change    Change
	began     time.Time
	stopped   bool // its stop was begun: the service or files may be touched
	committed *Outcome
	undone    *Outcome
	recorded  *Outcome
	reason    string // why it was being undone
	started   bool   // and whether the new version had been started by then
}

func (e *Engine) recoverOne(ctx context.Context, path string) (*Result, error) {
	w, records, err := journal.Reopen(e.Host, path, e.Now)
	if err != nil {
		return nil, err
	}
	r := e.newRunning()
	r.journal, r.recovering = w, true
	if len(records) == 0 {
		// Not one record was acknowledged: nothing can have been done.
		return nil, e.Host.Remove(path)
	}
	var order []*progress
	ended := ""
	for _, rec := range records {
		if order, ended, err = r.replay(rec, order, ended); err != nil {
			return nil, err
		}
	}
	if r.head.ID == "" {
		return nil, &journal.DamagedError{Path: path, Line: 1, Err: errors.New("the run's header is missing")}
	}
	if ended != "" {
		return nil, r.journal.Close(filepath.Join(e.Root.RunsDir(), r.head.ID, "journal"))
	}
	r.began = r.head.StartedAt
	r.tell(Event{Step: StepBegin, Begin: r.head.public(), Recovery: true, Detail: "recovery of an interrupted run"})
	var failure error
	for i, p := range order {
		for _, later := range order[i+1:] {
			if later.change.Component == p.change.Component && later.change.Instance == p.change.Instance {
				r.continued[p.change.key()] = true
			}
		}
	}
	takenBack := half(r.head.Operation, order, r.unreached(order))
	for _, p := range order {
		if arrived := p.committed != nil || p.recorded != nil && p.recorded.arrived(r.head.Operation); arrived && !takenBack[p] {
			r.hasBrought(p.change)
		}
	}
	settled := map[*progress]Outcome{}
	for _, p := range byUrgency(order, takenBack) {
		if takenBack[p] {
			if ill := r.outOfService(p); ill != "" {
				// While one instance is down the others serve: the next recovery begins with
				// that one again.
				r.warn("%s is left at %s until %s works: it would be an outage", p.change.Set(), p.change.To, ill)
				settled[p] = *cmp.Or(p.recorded, p.committed)
				r.stuck = true
				continue
			}
			p.committed, p.recorded, p.stopped = nil, nil, true
			p.reason = interruptedBetween
		}
		r.unsure = takenBack[p] // the journal says that it is committed
		r.between = !takenBack[p] && p.change.Rolling != nil && len(takenBack) > 0
		out, err := r.settle(ctx, p)
		if errors.Is(err, hostfs.ErrCrashed) {
			return nil, err
		}
		failure = errors.Join(failure, err)
		settled[p] = out
		if out.Status == RollbackFailed {
			r.down[p.change.Component] = append(r.down[p.change.Component], p.change.Set())
		}
	}
	r.between = false
	r.unsure = false
	order, err = r.mendBooted(ctx, order, settled)
	if errors.Is(err, hostfs.ErrCrashed) {
		return nil, err
	}
	failure = errors.Join(failure, err)
	for _, p := range order {
		r.outcomes = append(r.outcomes, settled[p])
	}
	if err := r.dropIncompleteBackup(); err != nil {
		return nil, err
	}
	r.addUnreached()
	res, err := r.finish(r.recoveredStatus())
	return &res, errors.Join(failure, err)
}

// outOfService names the instances of a component that this recovery could not bring
// back to health.
func (r *running) outOfService(p *progress) string {
	return strings.Join(r.down[p.change.Component], " and ")
}

func (r *running) replay(rec journal.Record, order []*progress, ended string) ([]*progress, string, error) {
	var last *progress
	if len(order) > 0 {
		last = order[len(order)-1]
	}
	var n note
	switch st := Step(rec.Kind); st {
	case StepBegin:
		return order, ended, r.head.read(rec, r.journal.Path())
	case stepChange:
		p := &progress{began: rec.Time}
		if err := rec.Decode(&p.change); err != nil {
			return nil, "", err
		}
		return append(order, p), ended, nil
	case StepEnd:
		err := rec.Decode(&n)
		return order, n.Status, err
	case StepBackup:
		return order, ended, nil
	case StepPlace, StepDrain, StepRemote, StepReload, StepAdmit, StepFingerprint, StepData, StepRestore, StepStop, StepSwap, StepStart, StepHealth, stepCommitted, StepUndo, stepUndone, stepRecorded:
		if last == nil {
			return nil, "", fmt.Errorf("journal record %d (%s) comes before any change", rec.Seq, rec.Kind)
		}
		if err := rec.Decode(&n); err != nil {
			return nil, "", err
		}
		of := last
		for _, p := range order { // a recovery may have come back to an earlier one
			if n.of(&p.change) {
				of = p
			}
		}
		of.note(st, n)
		key := of.change.key()
		if st == StepDrain {
			r.drained[key] = true
		}
		if st == StepStart || st == StepRestore {
			r.dirty[key] = true
		}
		if st == StepStart {
			r.starts[key] = rec.Time
		}
		switch _, down := r.stops[key]; {
		case st == stepCommitted:
			delete(r.stops, key) // it served again
		case !down && (st == StepStop || st == StepRemote || st == StepStart || st == StepUndo):
			r.stops[key] = rec.Time
		}
		if n.Fingerprint != nil {
			r.prints[key] = *n.Fingerprint
		}
		if n.Was != nil {
			r.was[key] = *n.Was
		}
		return order, ended, nil
	}
	return nil, "", fmt.Errorf("journal record %d has the unknown kind %q: it was written by another version of this program; run that one's `recover`", rec.Seq, rec.Kind)
}

func (p *progress) note(st Step, n note) {
	switch st {
	case StepDrain:
		p.recorded = nil // a recovery came back to it
	case StepStop, StepRemote, StepReload, StepRestore, StepSwap, StepStart, StepHealth:
		p.stopped = true
	case StepUndo:
		p.stopped = true
		p.reason, p.started = n.Reason, n.Started
		p.committed, p.recorded = nil, nil // a recovery takes it back
	case stepCommitted:
		p.committed = n.Outcome
	case stepUndone:
		p.undone = n.Outcome
	case stepRecorded:
		p.recorded = n.Outcome
	}
}

// settle brings one component to a whole state and records it.
func (r *running) settle(ctx context.Context, p *progress) (Outcome, error) {
	ch := p.change
	r.working = &ch
	r.req.Changes = append(r.req.Changes, ch)
	for _, done := range []*Outcome{p.recorded, p.committed, p.undone} {
		if done == nil {
			continue
		}
		if p.recorded != nil {
			return *done, nil
		}
		return *done, r.close(ctx, ch, done)
	}
	out := Outcome{Name: ch.Component, Instance: ch.Instance, From: ch.From, To: ch.To, Status: NotAttempted, Error: interruptedBefore}
	if !p.stopped {
		err := r.clearBeside(ch)
		if err == nil {
			err = r.readmit(ctx, ch)
		}
		if err == nil {
			err = r.noteOf(ch, stepRecorded, note{Outcome: &out})
		}
		if err != nil {
			return out, r.leaveOpen(err)
		}
		return out, nil
	}
	out.Error, out.Started = p.reason, p.started
	if out.Error == "" {
		out.Error = interruptedByCrash
	}
	err := r.undo(context.WithoutCancel(ctx), ch, &out, cmp.Or(p.began, r.Now()))
	return out, err
}

// dropIncompleteBackup removes a backup point that the run died while taking. One
// that is damaged stays: it was complete.
func (r *running) dropIncompleteBackup() error {
	p, err := backup.Open(r.Root.Backups(), r.head.ID)
	var missing *backup.NotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.Damage != nil {
		r.warn("%v", p.Kept())
	}
	if p.Complete || p.Damage != nil {
		r.point = p
		return nil
	}
	return r.Host.RemoveAll(p.Path)
}

// addUnreached lists the components that the run never came to.
func (r *running) addUnreached() {
	seen := map[Planned]bool{}
	for _, o := range r.outcomes {
		seen[Planned{o.Name, o.Instance, o.From.String(), o.To.String()}] = true
	}
	for _, pl := range r.head.Components {
		if !seen[pl] {
			out := Outcome{Name: pl.Name, Instance: pl.Instance, Status: NotAttempted}
			_ = out.From.UnmarshalText([]byte(pl.From))
			_ = out.To.UnmarshalText([]byte(pl.To))
			r.outcomes = append(r.outcomes, out)
		}
	}
}

// unreached lists what the run had planned and never began.
func (r *running) unreached(order []*progress) []Planned {
	begun := map[Planned]bool{}
	for _, p := range order {
		begun[p.change.planned()] = true
	}
	var out []Planned
	for _, pl := range r.head.Components {
		if !begun[pl] {
			out = append(out, pl)
		}
	}
	return out
}

// recoveredStatus is "success" when the run had done all it was to do.
func (r *running) recoveredStatus() string {
	for _, o := range r.outcomes {
		if o.Status == RollbackFailed {
			return StatusRollbackFail
		}
	}
	if len(r.outcomes) > 0 && r.allArrived() {
		return StatusSuccess
	}
	return StatusInterrupted
}

// DiscardDamaged moves a journal that cannot be read out of the way, keeping it
// for a person to look at, and returns where it is now.
func (e *Engine) DiscardDamaged(path string) (string, error) {
	dest := filepath.Join(e.Root.RunsDir(), journal.ID(path), "journal.damaged")
	if err := e.Host.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return "", err
	}
	if _, err := os.Lstat(dest); err == nil {
		return "", fmt.Errorf("%s exists already; look at it and remove it first", dest)
	}
	return dest, e.Host.Rename(path, dest)
}
