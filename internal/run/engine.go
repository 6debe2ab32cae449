package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Services is the part of a service manager that a run uses. All methods are
// idempotent; a cancelled context leaves the unit in whatever state it is in.
type Services interface {
	health.Services
	// Start starts a unit, clearing failed states and start limits first; it
	// returns when the start is done, not when the service is ready.
	Start(ctx context.Context, s service.Service) error
	// Restart stops and starts in one go; timeout is that of the stop.
	Restart(ctx context.Context, s service.Service, timeout time.Duration) error
	// Stop stops a unit and returns when no process of it is left.
	Stop(ctx context.Context, s service.Service, timeout time.Duration) (service.StopResult, error)
	// DaemonReload makes the manager read unit files again.
	DaemonReload(ctx context.Context) error
}

// Recorder writes what became of a component into the state file and the
// history. It is called again after a crash, so it must be idempotent.
type Recorder interface {
	Record(ctx context.Context, run Header, ch Change, out Outcome) error
	// Finish writes the run's summary, once all its components are recorded.
	Finish(ctx context.Context, run Header, res Result) error
}

// Engine executes runs. Its fields are set once; one run at a time, under the
// caller's lock.
type Engine struct {
	Root     layout.Root
	Host     *hostfs.Host
	Services Services
	Prober   *health.Prober
	Recorder Recorder
	Timeouts Timeouts
	Now      func() time.Time
	Logger   *slog.Logger
	Report   func(Event) // may be nil
	Build    string      // version of this program
	Manager  string      // kind of Services, for the journal

	// Balancer opens the load balancer of an instance; nil where there are none.
	Balancer func(b component.Balancer, server string) (balancer.Balancer, error)
	// Remote runs a command and returns its standard output; nil where no instance
	// is on another host.
	Remote func(ctx context.Context, args []string, limit time.Duration) (string, error)
	// ReloadConfig has a component re-read its configuration; done is false where it
	// cannot.
	ReloadConfig func(ctx context.Context, ch Change) (done bool, err error)
}

// Timeouts bound the steps.
type Timeouts struct {
	Stop, Start, Health time.Duration
	Compare             time.Duration // for data to answer as before, once a component is ready; 30 s when 0
	Admit               time.Duration // for a balancer to answer, and for its own check to take an instance back; 60 s each when 0
}

// Request is a run to execute.
type Request struct {
	Operation         Operation
	Trigger           string // manual | auto | scheduled
	Changes           []Change
	Subjects          []backup.Subject            // what the backup point keeps
	Plan              any                         // stored in the backup point
	ID                string                      // what the run is to be called, where that is still possible; may be empty
	Named             func(id, backupPath string) // told what it is called, before anything is stored; may be nil
	ContinueOnFailure bool
	// LeftOut are steps that were refused before the run, which goes on without them:
	// its result tells of them, and is no success.
	LeftOut     []Outcome
	Warnings    []string      // what the result is to say besides
	StagingDirs []string      // removed when the run ends
	Pause       time.Duration // between one change and the next
	// Allow says, after an earlier change failed, whether this one still fits what
	// is installed now, by component; nil allows all.
	Allow func(ch Change, at map[string]component.Version) error
}

// Execute runs the changes in order. The error tells why a run could not be
// carried out at all or what a person must know; the result is filled as far as
// the run came, also with an error.
//
// When ctx is cancelled, the component being changed is undone, nothing further
// is started, and the status is "interrupted" (or "cancelled" when nothing had
// been touched).
func (e *Engine) Execute(ctx context.Context, req Request) (Result, error) {
	now := e.Now()
	stamp := e.name(req.ID, now)
	req.Changes = nameCopies(req.Changes)
	r := e.newRunning()
	r.req, r.began, r.warnings = req, now, slices.Clone(req.Warnings)
	started := now.UTC()
	if at, ok := backup.StampTime(stamp); ok && at.After(started) {
		// History is in the order of time, as the names of runs are.
		r.behind, started = at.Sub(started), at
	}
	r.head = Header{
		Format: journalFormat, ID: stamp, Operation: req.Operation, Trigger: req.Trigger, StartedAt: started, PID: os.Getpid(),
		BackupPath: filepath.Join(e.Root.Backups(), stamp), StagingDirs: req.StagingDirs, LeftOut: req.LeftOut, ProgramBuild: e.Build, Manager: e.Manager,
	}
	for _, ch := range req.Changes {
		r.head.Components = append(r.head.Components, ch.planned())
		if ch.Rolling != nil && !ch.remote() {
			r.head.Instances = append(r.head.Instances, ch)
		}
	}
	if err := eachOnce(req.Changes); err != nil {
		return r.result(StatusFailed), err
	}
	if req.Named != nil {
		req.Named(r.head.ID, r.head.BackupPath)
	}
	var err error
	if r.journal, err = journal.Create(e.Host, e.Root.JournalDir(), r.head.ID, e.Now); err != nil {
		return r.result(StatusFailed), err
	}
	if err := r.note(StepBegin, r.head); err != nil {
		if !errors.Is(err, hostfs.ErrCrashed) {
			_ = e.Host.Remove(r.journal.Path()) // a journal without a record is one of no run
		}
		return r.result(StatusFailed), err
	}
	r.tell(Event{Step: StepBegin, Begin: r.head.public(), Plan: req.Plan})
	if r.behind > wishAge {
		r.warn("the clock is %s behind the run before this one, which is named after that one's time so that their order stays right; is it set right? timedatectl", r.behind.Round(time.Second))
	}
	return r.execute(ctx)
}

// running is one run in progress.
type running struct {
	*Engine
	req      Request
	head     Header
	began    time.Time     // by the clock, which may be behind StartedAt
	behind   time.Duration // by so much
	journal  *journal.Writer
	point    *backup.Point
	outcomes []Outcome
	warnings []string
	stuck    bool    // an undo could not restore the files: the journal stays open
	unsure   bool    // the journal may say, or not, that a change is committed
	between  bool    // other instances are to be taken back after the one at work
	working  *Change // the one at work, for its events

	// By Change.key:
	prints  map[string]health.Fingerprint // how data must answer after the change
	was     map[string]health.Fingerprint // how it answered before
	copied  map[string]bool               // its data is in the backup point
	drained map[string]bool               // this run took it out of its balancer
	leftIn  map[string]bool               // it served nobody and was not taken out, whatever its balancer says
	dirty   map[string]bool               // the new version, or a restore, may have touched the data
	starts  map[string]time.Time          // when the new version was started
	stops   map[string]time.Time          // since when it is down: its stop, or what stands for one, was journaled
	crashed map[string]int                // how often a process that goes on had been restarted by itself before

	already map[string]bool // paths that an earlier instance of the run put the new files in

	// continued are changes that another step of the same component has been begun
	// after: what lies beside is that one's, and its undo needs it.
	continued map[string]bool

	recovering bool // the run was cut off, and is brought to its end

	// brought are the files that a change brought which is committed, and its component.
	brought map[string]string
	// unmended are changes whose configuration could not be looked at in the backup point.
	unmended map[string]bool

	down map[string][]string // by component: instances that a recovery did not bring back to health

	unrecorded map[string]bool // components of which the journal does not say that an outcome is recorded
}

func (e *Engine) newRunning() *running {
	return &running{
		Engine: e,
		prints: map[string]health.Fingerprint{}, was: map[string]health.Fingerprint{}, copied: map[string]bool{}, drained: map[string]bool{}, leftIn: map[string]bool{},
		dirty: map[string]bool{}, starts: map[string]time.Time{}, stops: map[string]time.Time{}, crashed: map[string]int{}, already: map[string]bool{}, unrecorded: map[string]bool{}, down: map[string][]string{}, continued: map[string]bool{},
		unmended: map[string]bool{}, brought: map[string]string{},
	}
}

func (r *running) execute(ctx context.Context) (Result, error) {
	if err := r.begin(ctx); err != nil {
		if errors.Is(err, hostfs.ErrCrashed) {
			return r.result(StatusFailed), err
		}
		status := StatusFailed
		if ctx.Err() != nil {
			status = StatusCancelled
		}
		if _, left := os.Lstat(r.head.BackupPath); left == nil && r.point == nil {
			r.stuck = true // a backup point that could not be removed: recovery does
		}
		res, finErr := r.finish(status)
		return res, errors.Join(err, finErr)
	}
	var failure error
	ended := false
	for i := range r.req.Changes {
		ch := r.req.Changes[i]
		if ended && !r.another(ctx, ch) {
			continue
		}
		if i > 0 {
			r.pause(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		if why := r.barred(ch); why != nil && !ended {
			r.outcomes = append(r.outcomes, Outcome{Name: ch.Component, Instance: ch.Instance, From: ch.From, To: ch.To, Status: NotAttempted, Error: why.Error()})
			failure = errors.Join(failure, fmt.Errorf("%s %s → %s was not attempted: %w", ch.Set(), ch.From, ch.To, why))
			continue
		}
		out, err := r.change(ctx, ch)
		r.outcomes = append(r.outcomes, out)
		if errors.Is(err, hostfs.ErrCrashed) {
			return r.result(StatusInterrupted), err
		}
		if err == nil {
			continue
		}
		failure = errors.Join(failure, err)
		// A rollback that was undone stands in no other's way.
		ended = ended || !r.req.ContinueOnFailure || errors.As(err, new(*RollbackError))
	}
	res, err := r.finish(r.status(ctx))
	return res, errors.Join(failure, err)
}

// another reports whether a restart that failed goes on with this change all the
// same: an instance of the same component that does not run either. Starting it takes
// nothing away from anybody, and it may end the outage.
func (r *running) another(ctx context.Context, ch Change) bool {
	last := r.outcomes[len(r.outcomes)-1]
	return r.head.Operation == Restart && ch.Instance != "" && last.Name == ch.Component && r.idle(ctx, ch)
}

// pause lets what was changed settle before the next change.
func (r *running) pause(ctx context.Context) {
	if r.req.Pause <= 0 {
		return
	}
	t := time.NewTimer(r.req.Pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// barred says why a change cannot be made after others failed: an earlier step
// of its component did, or it does not fit what is installed now.
func (r *running) barred(ch Change) error {
	at := map[string]component.Version{}
	var mine component.Version // what this component, or this instance of it, is at
	failed := false
	for _, o := range r.outcomes {
		ok := o.arrived(r.head.Operation)
		failed = failed || !ok
		same := o.Name == ch.Component
		if same && o.Instance != ch.Instance && !ok && o.To.Equal(ch.To) {
			return fmt.Errorf("its instance %s failed, and the rest is left as it is", o.Instance)
		}
		if same && o.Instance == ch.Instance {
			mine = o.From
			if ok {
				mine = o.To
			}
		}
		if ok {
			at[o.Name] = o.To
		} else if at[o.Name].IsZero() {
			at[o.Name] = o.From
		}
	}
	if !mine.IsZero() && r.head.Operation == Apply && !mine.Equal(ch.From) {
		return fmt.Errorf("its step to %s failed", ch.From)
	}
	if !failed || r.req.Allow == nil {
		return nil
	}
	return r.req.Allow(ch, at)
}

// begin takes the backup point, where there is anything to go back to.
func (r *running) begin(ctx context.Context) error {
	if r.head.Operation == Restart {
		return ctx.Err()
	}
	return r.takeBackup(ctx)
}

func (r *running) takeBackup(ctx context.Context) error {
	r.tell(Event{Step: StepBackup, Detail: r.head.BackupPath})
	point, err := backup.Take(ctx, r.Host, r.head.ID, backup.Request{
		Dir: r.Root.Backups(), RunID: r.head.ID, Operation: string(r.head.Operation), Now: r.head.StartedAt,
		Subjects: r.req.Subjects, StateFile: r.Root.State(), Plan: r.req.Plan,
	})
	if err != nil {
		r.tell(Event{Step: StepBackup, Done: true, Err: err})
		return err
	}
	r.point = point
	r.tell(Event{Step: StepBackup, Done: true, Detail: r.head.BackupPath})
	return r.note(StepBackup, note{})
}

// change does one component. A non-nil error says that it was not brought to
// its new version; the outcome says what state it is in now.
func (r *running) change(ctx context.Context, ch Change) (Outcome, error) {
	start := r.Now()
	r.working = &ch
	out := Outcome{Name: ch.Component, Instance: ch.Instance, From: ch.From, To: ch.To, Status: Failed}
	var left error // out of its balancer
	journaled := r.note(stepChange, ch)
	err := journaled
	if err == nil {
		err = r.prepare(ctx, ch)
		if err != nil && !errors.Is(err, hostfs.ErrCrashed) {
			left = r.readmit(context.WithoutCancel(ctx), ch)
			err = errors.Join(err, left)
		}
	}
	if err != nil {
		// Nothing of the component is touched yet, only copies lie beside it.
		out.Error = err.Error()
		if ctx.Err() != nil {
			out.Error = interruptedBySignal
		}
		if errors.Is(err, hostfs.ErrCrashed) {
			return out, err
		}
		err = fmt.Errorf("%s: prepare: %w; nothing of it was changed", ch.Set(), err)
		other := ch.Rolling != nil && !ch.remote() && !ch.From.Equal(ch.To) && ch.filesAre(after)
		if other && !r.idle(context.WithoutCancel(ctx), ch) {
			r.warn("%s goes on running %s, and starts as %s when it is restarted: the instances share their files", ch.Set(), ch.From, ch.To)
		}
		if journaled != nil || left != nil {
			// The run stays open. Of instances that share their files, recovery takes back
			// those that came before this one.
			return out, r.leaveOpen(err)
		}
		return out, errors.Join(err, r.close(context.WithoutCancel(ctx), ch, &out))
	}
	err = r.cutOver(ctx, ch, &out, start)
	if err == nil {
		return out, nil
	}
	if errors.Is(err, hostfs.ErrCrashed) {
		out.Error = err.Error()
		return out, err
	}
	out.Error = err.Error()
	if ctx.Err() != nil {
		out.Error = interruptedBySignal
	}
	blamed := ch.filesRead() && !errors.As(err, new(*balancer.FaultError))
	out.Started = r.head.Operation == Apply && r.dirty[ch.key()] && blamed
	undoErr := r.undo(context.WithoutCancel(ctx), ch, &out, start)
	if undoErr != nil && undoErr.Error() == err.Error() {
		undoErr = nil // a restart whose service does not start, and not at the second try either
	}
	if !strings.HasPrefix(err.Error(), ch.title()+" ") { // it may name its component itself
		err = fmt.Errorf("%s: %w", ch.title(), err)
	}
	return out, errors.Join(err, undoErr)
}

// prepare does all that can be done while the service runs.
func (r *running) prepare(ctx context.Context, ch Change) error {
	if len(ch.Swaps) > 0 {
		if err := r.step(ctx, ch, StepPlace, func() (string, error) { return "", r.place(ctx, ch) }); err != nil {
			return err
		}
	}
	if err := r.drain(ctx, ch); err != nil {
		return err
	}
	if err := r.fingerprint(ctx, ch); err != nil {
		return err
	}
	r.tellBlind(ch)
	return r.copyData(ctx, ch, false)
}

// cutOver stops, swaps, starts and proves; whatever it returns an error for is
// undone by the caller.
func (r *running) cutOver(ctx context.Context, ch Change, out *Outcome, start time.Time) error {
	down, err := r.exchange(ctx, ch)
	if err != nil {
		return err
	}
	if err := r.Host.SyncDirs(paths(ch)...); err != nil {
		return err
	}
	if ch.remote() || ch.hasService() && ch.WasActive {
		err := r.step(ctx, ch, StepHealth, func() (string, error) {
			return r.prove(ctx, ch, ch.To.String(), func(t time.Time) { out.Downtime = Seconds(t.Sub(down)) })
		})
		if err == nil {
			err = r.compare(ctx, ch, ch.To.String(), r.prints)
		}
		if err == nil {
			err = r.rejoin(ctx, ch)
		}
		if err != nil {
			return err
		}
		out.Healthy = !ch.Health.Skip
	}
	out.Status = Upgraded
	if r.head.Operation == Rollback {
		out.Status = RolledBack
	}
	out.Duration = Seconds(r.Now().Sub(start))
	if err := r.noteOf(ch, stepCommitted, note{Outcome: out}); err != nil {
		out.Status = Failed
		r.unsure = true
		return err
	}
	r.hasBrought(ch)
	return r.close(context.WithoutCancel(ctx), ch, out)
}

// exchange puts the new version in the old one's place and starts it, by the
// change's strategy; it returns when the outage began.
func (r *running) exchange(ctx context.Context, ch Change) (time.Time, error) {
	if ch.remote() {
		down := r.Now()
		r.stops[ch.key()] = down
		return down, r.away(ctx, ch)
	}
	if done, down, err := r.reload(ctx, ch); done || err != nil {
		return down, err
	}
	if r.fast(ch) {
		return r.swapAndRestart(ctx, ch)
	}
	return r.stopSwapStart(ctx, ch)
}

// fast reports whether the files may be swapped under the running service: not
// where its directory must be copied while it is stopped, or a tree is read by it.
func (r *running) fast(ch Change) bool {
	if ch.Strategy != Fast || !ch.hasService() || !ch.WasActive {
		return false
	}
	if d := ch.Data; ch.TakeBack || d != nil && (d.From != "" || d.Copy && !r.copied[ch.key()]) {
		return false
	}
	for _, s := range ch.Swaps {
		if s.Tree {
			return false
		}
	}
	return true
}

func (r *running) swapAndRestart(ctx context.Context, ch Change) (time.Time, error) {
	if len(ch.Swaps) > 0 {
		if err := r.step(ctx, ch, StepSwap, func() (string, error) { return "", r.swap(ctx, ch) }); err != nil {
			return r.Now(), err
		}
	}
	if err := r.intend(ctx, ch, StepStart); err != nil {
		return r.Now(), err
	}
	r.dirty[ch.key()] = true
	down := r.Now()
	r.starts[ch.key()], r.stops[ch.key()] = down, down
	return down, r.act(ch, StepStart, func() (string, error) { return "restarted", r.restart(ctx, ch) })
}

func (r *running) stopSwapStart(ctx context.Context, ch Change) (time.Time, error) {
	if err := r.intend(ctx, ch, StepStop); err != nil {
		return r.Now(), err
	}
	// While the service stops, the intents of what follows are written and
	// synced, so that the outage does not wait for the disk.
	ahead := make(chan error, 1)
	go func() {
		var err error
		if len(ch.Swaps) > 0 {
			err = r.intend(ctx, ch, StepSwap)
		}
		if err == nil && !ch.TakeBack { // whose undo must know whether the new version ever ran
			err = r.intend(ctx, ch, StepStart)
		}
		ahead <- err
	}()
	down := r.Now()
	r.stops[ch.key()] = down
	err := r.act(ch, StepStop, func() (string, error) { return r.stop(ctx, ch) })
	if ready := <-ahead; err == nil || !errors.Is(ready, ctx.Err()) { // a signal ends both, and is told once
		err = errors.Join(err, ready)
	}
	if err != nil {
		return down, err
	}
	if err := r.copyData(ctx, ch, true); err != nil {
		return down, err
	}
	if err := r.putData(ctx, ch); err != nil {
		return down, err
	}
	if len(ch.Swaps) > 0 {
		if err := r.act(ch, StepSwap, func() (string, error) { return "", r.swap(ctx, ch) }); err != nil {
			return down, err
		}
	}
	if !ch.hasService() || !ch.WasActive {
		return down, nil
	}
	if ch.TakeBack {
		// What a power cut leaves in place starts at boot: from here on that must not
		// be the old version, which cannot read what the new one writes.
		if err := r.Host.SyncDirs(paths(ch)...); err != nil {
			return down, err
		}
		if err := r.intend(ctx, ch, StepStart); err != nil {
			return down, err
		}
	}
	r.dirty[ch.key()], r.starts[ch.key()] = true, r.Now()
	return down, r.act(ch, StepStart, func() (string, error) { return "", r.start(ctx, ch) })
}

// close records the outcome and clears what lies beside. An error here does not
// undo the change: recording is repeated by recovery.
func (r *running) close(ctx context.Context, ch Change, out *Outcome) error {
	if r.unrecorded[ch.Component] {
		// What is recorded last is what it is at, so an earlier step must come first.
		r.warn("%s: its outcome is recorded by the next run, after that of an earlier step", ch.Set())
		return nil
	}
	err := r.Recorder.Record(ctx, r.head, ch, *out)
	if err != nil {
		err = fmt.Errorf("its outcome could not be recorded: %w", err)
	} else if !r.continued[ch.key()] {
		err = errors.Join(r.clearBeside(ch), r.clearData(ch))
	}
	if err == nil {
		err = r.noteOf(ch, stepRecorded, note{Outcome: out})
	}
	if err == nil || errors.Is(err, hostfs.ErrCrashed) {
		return err
	}
	r.warn("%s: %v; the next run tries again", ch.Set(), err)
	r.unrecorded[ch.Component] = true
	return r.leaveOpen(nil)
}

// step journals a step's intent, announces it and does it.
func (r *running) step(ctx context.Context, ch Change, st Step, do func() (string, error)) error {
	if err := r.intend(ctx, ch, st); err != nil {
		return err
	}
	return r.act(ch, st, do)
}

// act announces a step whose intent is journaled, and does it.
func (r *running) act(ch Change, st Step, do func() (string, error)) error {
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: st})
	detail, err := do()
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: st, Done: true, Detail: detail, Err: err})
	return err
}
