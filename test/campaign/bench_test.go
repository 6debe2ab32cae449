package campaign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/test/campaign/modeldisk"
)

// bench is one world on one model disk, on which points are tried one after the
// other.
type bench struct {
	disk  *modeldisk.Disk
	w     *runtest.World
	clock *clock
	empty modeldisk.Image
	plain string // a directory in memory, for files that need not be on the disk

	sc     scenario
	base   modeldisk.Image // the scenario before its operation
	world  runtest.Snapshot
	rows   []history.Upgrade // of the history then
	audits []byte            // and what the audit log had
}

// clock goes on by a millisecond whenever it is read.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Millisecond)
	return c.now
}

// set puts the clock to an hour of the day on which all of this happens.
func (c *clock) set(hour int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = time.Date(2026, time.January, 1, hour, 0, 0, 0, time.UTC)
}

// broken is what a world's helper throws where it cannot go on.
type broken struct{ text string }

// thrower lets a world say so without ending the test.
type thrower struct{ testing.TB }

func (thrower) Fatal(args ...any)                 { panic(broken{fmt.Sprint(args...)}) }
func (thrower) Fatalf(format string, args ...any) { panic(broken{fmt.Sprintf(format, args...)}) }
func (thrower) Error(args ...any)                 { panic(broken{fmt.Sprint(args...)}) }

// caught runs do, and returns what it threw as an error.
func caught(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(r)
			}
			err = errors.New(b.text)
		}
	}()
	return do()
}

// newBench mounts a disk; it skips the test where that cannot be.
func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	disk, err := modeldisk.Start(dir)
	if err != nil {
		t.Skipf("the campaign needs a model disk, which is mounted by FUSE: %v", err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Errorf("close the model disk: %v", err)
		}
	})
	b := &bench{disk: disk, clock: &clock{}}
	if b.plain, err = os.MkdirTemp("/dev/shm", "obsup-campaign-"); err != nil {
		b.plain = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(b.plain) })
	if b.empty, err = disk.Save(); err != nil {
		t.Fatal(err)
	}
	b.w = runtest.At(t, dir)
	b.w.T = thrower{t}
	return b
}

// prepare sets the host up for a scenario.
func (b *bench) prepare(ctx context.Context, sc scenario) error {
	if b.sc.name == sc.name {
		return nil
	}
	b.sc = scenario{}
	if err := b.disk.Load(b.empty); err != nil {
		return err
	}
	w := b.w
	w.Restore(runtest.Snapshot{})
	w.Balancer = nil
	w.Settle, w.Wait, w.Now, w.SyncFS = 1, 25*time.Millisecond, b.clock.Now, b.disk.SyncFS
	w.Changed, w.Refuse, w.Rebuild, w.Retain, w.RetainRuns = nil, nil, false, 0, 0
	if sc.set != nil {
		sc.set(w)
	}
	b.clock.set(1)
	log := b.audit()
	err := caught(func() error {
		return errors.Join(sc.setup(ctx, w), log.Write(audit.Entry{Command: "adopt", Outcome: "ok"}), log.Write(audit.Entry{Command: "hold", Outcome: "ok"}))
	})
	if err != nil {
		return fmt.Errorf("set up %s: %w", sc.name, err)
	}
	if b.rows, err = b.history(ctx); err != nil {
		return err
	}
	if b.audits, err = os.ReadFile(w.Root.Audit()); err != nil {
		return err
	}
	if b.base, err = b.disk.Save(); err != nil {
		return err
	}
	b.world = w.Snapshot()
	b.sc = sc
	return nil
}

func (b *bench) audit() *audit.Log {
	return audit.New(&hostfs.Host{SyncFS: b.w.SyncFS}, b.w.Root.Audit())
}

func (b *bench) history(ctx context.Context) ([]history.Upgrade, error) {
	db, err := history.OpenReadOnly(ctx, b.w.Root.History())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return db.List(ctx, history.Filter{})
}

// record is an episode as it went undisturbed by a crash, or by anything.
type record struct {
	level int // 0: the operation; from 1: recoveries
	log   modeldisk.Log
	ops   []string
	snaps []moment
	err   error
	calls int      // that a fault could have hit
	hit   []string // that it did

	down string // a service that did not run in the end
	told bool   // a person was told that a component could not be brought back to health
}

// moment is the world after so many operations of the disk.
type moment struct {
	after int
	world runtest.Snapshot
}

// at is the world after n operations.
func (r *record) at(n int) runtest.Snapshot {
	s := r.snaps[0].world
	for _, m := range r.snaps {
		if m.after <= n {
			s = m.world
		}
	}
	return s
}

// stopped reports whether a service had been stopped by then.
func (r *record) stopped(n int) bool {
	for _, op := range r.ops[:n] {
		if strings.HasPrefix(op, "stop ") {
			return true
		}
	}
	return false
}

// start puts the scenario in place as it was before its operation.
func (b *bench) start() error {
	b.w.Restore(b.world)
	return b.disk.Load(b.base)
}

// play plays the episode of a level from what is in place, with a fault or none,
// and keeps what the disk did.
func (b *bench) play(ctx context.Context, level int, f *fault) (*record, error) {
	r := &record{level: level}
	b.clock.set(2 + level)
	if err := b.disk.Begin(); err != nil {
		return nil, err
	}
	var req run.Request
	if level == 0 {
		if err := caught(func() error { req = b.sc.request(b.w); return nil }); err != nil {
			return nil, fmt.Errorf("the request: %w", err)
		}
	}
	r.snaps = []moment{{0, b.w.Snapshot()}}
	var trouble error
	b.w.Changed = func(what string) {
		n, err := b.disk.Mark(what)
		trouble = errors.Join(trouble, err)
		r.snaps = append(r.snaps, moment{n, b.w.Snapshot()})
	}
	calls, hit, err := b.arm(f)
	if err != nil {
		return nil, err
	}
	if level == 0 {
		_, r.err = b.w.Engine(nil).Execute(ctx, req)
	} else {
		_, r.err = b.recover(ctx)
	}
	r.told = errors.As(r.err, new(*run.RollbackError))
	for _, unit := range b.world.Units() {
		if b.w.Running(strings.TrimSuffix(unit, ".service")) == "" {
			r.down = unit
		}
	}
	// As the command does in the end, whatever the disk is like.
	_ = b.audit().Write(audit.Entry{Command: "apply", Outcome: "done"})
	r.calls, r.hit, err = disarmed(calls, hit, b)
	b.w.Changed = nil
	if err := errors.Join(err, trouble); err != nil {
		return nil, err
	}
	r.log, r.ops, err = b.disk.Keep()
	return r, err
}

// recover does what every command does first that changes something: it finishes an
// interrupted run, and makes a state file anew that cannot be read.
func (b *bench) recover(ctx context.Context) ([]run.Result, error) { return recovered(ctx, b.w) }

func recovered(ctx context.Context, w *runtest.World) ([]run.Result, error) {
	e := w.Engine(nil)
	results, err := e.Recover(ctx)
	if err == nil {
		_, err = e.Recorder.(*run.Books).State(ctx)
	}
	return results, err
}

// arm makes a fault happen; what it returns tells, for a fault of the service
// manager, how often that was asked and what failed.
func (b *bench) arm(f *fault) (*int, *[]string, error) {
	if f == nil {
		return nil, nil, nil
	}
	if f.what != "timeout" {
		return nil, nil, b.disk.Fail(modeldisk.Fault{Errno: errnos[f.what], At: f.at, Stays: f.stays, Reads: strings.HasSuffix(f.what, "-any")})
	}
	calls, hit := new(int), &[]string{}
	b.w.Refuse = func(op, unit string) error {
		*calls++
		if *calls < f.at || *calls > f.at && !f.stays {
			return nil
		}
		*hit = append(*hit, op+" "+unit)
		return fmt.Errorf("%s %s: %w", op, unit, context.DeadlineExceeded)
	}
	return calls, hit, nil
}

func disarmed(calls *int, hit *[]string, b *bench) (int, []string, error) {
	if calls != nil {
		b.w.Refuse = nil
		return *calls, *hit, nil
	}
	return b.disk.Repair()
}

// crash puts in place what is left when a record is cut off, and says in words what
// was lost. sum tells states apart.
func (b *bench) crash(ctx context.Context, r *record, c *crash) (sum string, lost []string, err error) {
	if c.n > len(r.ops) {
		return "", nil, fmt.Errorf("it has %d operations, none is number %d", len(r.ops), c.n)
	}
	if sum, lost, err = b.disk.Crash(r.log, c.n, c.loss, c.seed); err != nil {
		return "", nil, err
	}
	b.reboot(ctx, r, c)
	return b.stateOf(sum, r, c), lost, nil
}

// reboot does to services what a crash does.
func (b *bench) reboot(ctx context.Context, r *record, c *crash) {
	b.w.Restore(r.at(c.n))
	if c.loss == modeldisk.Kill {
		return
	}
	b.w.PowerOff()
	if c.boot {
		b.boot(ctx)
	}
}

func (b *bench) boot(ctx context.Context) { b.sc.boot(ctx, b.w, b.world.Units()) }

// boot starts services as their manager does. Where a person forced an upgrade
// through a door without a way back, an old version that is put back is left stopped,
// and its manager knows nothing of that.
func (sc *scenario) boot(ctx context.Context, w *runtest.World, units []string) {
	w.Boot(ctx, units)
	if sc.stopped {
		w.Wrong = nil
	}
}

// stateOf names all that a recovery depends on.
func (b *bench) stateOf(sum string, r *record, c *crash) string {
	return fmt.Sprint(sum, r.at(c.n), c.boot, c.loss == modeldisk.Kill)
}

// look has do look at what a crash leaves, and recover it, on plain files in memory
// in the disk's place: nothing of it is to be crashed again. It is not called for a
// state that new does not want.
func (b *bench) look(ctx context.Context, r *record, c *crash, fresh func(state string) bool, do func(lost []string) error) error {
	dir, err := os.MkdirTemp(b.plain, "")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sum, lost, err := b.disk.CrashTo(dir, r.log, c.n, c.loss, c.seed)
	if err != nil {
		return err
	}
	if !fresh(b.stateOf(sum, r, c)) {
		return nil
	}
	if err := unix.Mount(dir, b.disk.Dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over the model disk: %w", dir, err)
	}
	b.w.SyncFS = nil
	b.reboot(ctx, r, c)
	err = do(lost)
	b.w.SyncFS = b.disk.SyncFS
	return errors.Join(err, unix.Unmount(b.disk.Dir, unix.MNT_DETACH))
}

// interrupted asks for what must be so before anything is recovered: `status` can
// tell of the run, or there is nothing to tell, as all is whole; and before a
// service was stopped its backup was written and synced.
func (b *bench) interrupted(ctx context.Context, r *record, c *crash) error {
	in, err := run.FindInterrupted(b.w.Root.JournalDir())
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if in == nil {
		b.boot(ctx)
		_, err := b.recover(ctx) // there is none, but the state file may be what it was
		if err == nil {
			_, err = b.whole(b.sc.allowed)
		}
		if err != nil {
			return fmt.Errorf("no run is open, so status tells of none: %w", err)
		}
		return nil
	}
	if r.level > 0 || !r.stopped(c.n) || in.Operation == run.Restart {
		return nil
	}
	p, err := backup.Open(b.w.Root.Backups(), in.ID)
	if err == nil {
		err = backup.Verify(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("a service was stopped before its backup was safe: %w", err)
	}
	return nil
}

func (b *bench) whole(allowed map[string][]string) (at map[string]string, err error) {
	err = caught(func() error {
		at, err = b.w.Whole(allowed)
		return err
	})
	return at, err
}

// mended recovers undisturbed and asks for every promise. told says that a person
// was told before that a service does not run. thorough has it also prove that
// nothing is left to recover and that the next upgrade works.
func (b *bench) mended(ctx context.Context, told, thorough bool) error {
	b.clock.set(20)
	results, err := b.recover(ctx)
	if b.sc.stopped && errors.As(err, new(*run.NotStartedError)) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	b.boot(ctx) // as the manager does, after the recovery or before it, or a person who was told
	if err := b.promises(ctx); err != nil {
		for _, r := range results {
			err = fmt.Errorf("%w; recovered as %s, with %q", err, r.Status, r.Warnings)
		}
		return err
	}
	if !thorough {
		return nil
	}
	return b.goesOn(ctx)
}

// promises asks for all that must be so in the end.
func (b *bench) promises(ctx context.Context) error {
	at, err := b.whole(b.sc.allowed)
	if err != nil {
		return err
	}
	if err := caught(b.w.Clean); err != nil {
		return err
	}
	if b.sc.check != nil {
		if err := b.sc.check(b.w, at); err != nil {
			return err
		}
	}
	rows, err := b.history(ctx)
	if err != nil {
		return err
	}
	have := map[int64]history.Upgrade{}
	for _, r := range rows {
		have[r.ID] = r
	}
	for _, r := range b.rows {
		if got := have[r.ID]; got.Component != r.Component || got.NewVersion != r.NewVersion || got.RunID != r.RunID {
			return fmt.Errorf("history: row %d was %s %s of run %s, is %+v", r.ID, r.Component, r.NewVersion, r.RunID, got)
		}
	}
	if err := b.audit().Write(audit.Entry{Command: "recover", Outcome: "ok"}); err != nil {
		return err
	}
	text, err := os.ReadFile(b.w.Root.Audit())
	if err != nil || !strings.HasPrefix(string(text), string(b.audits)) || !strings.Contains(string(text[len(b.audits):]), `"recover"`) {
		return fmt.Errorf("audit log: expected what was there before the run and the recovery, found %q (%v)", text, err) //nolint:errorlint // there may be none
	}
	return nil
}

// goesOn proves that nothing is left to recover and that the next upgrade works to
// its end.
func (b *bench) goesOn(ctx context.Context) error {
	before, err := hostfs.Digest(b.disk.Dir)
	if err != nil {
		return err
	}
	again, err := b.w.Engine(nil).Recover(ctx)
	if err != nil || len(again) > 0 {
		return fmt.Errorf("a second recovery found something: %v %w", again, err)
	}
	after, err := hostfs.Digest(b.disk.Dir)
	if err != nil {
		return err
	}
	if before != after {
		return errors.New("a second recovery changed files")
	}
	b.clock.set(22)
	var req run.Request
	var to map[string]string
	if err := caught(func() error { req, to = b.sc.next(b.w); return nil }); err != nil {
		return fmt.Errorf("the next request: %w", err)
	}
	if err := done(ctx, b.w, req); err != nil {
		return fmt.Errorf("the next upgrade: %w", err)
	}
	allowed := map[string][]string{}
	for name, v := range to {
		allowed[name] = []string{b.sc.allowed[name][0], v}
	}
	at, err := b.whole(allowed)
	if err != nil {
		return fmt.Errorf("the next upgrade: %w", err)
	}
	for name, v := range to {
		if at[name] != v {
			return fmt.Errorf("the next upgrade left %s at %s, want %s", name, at[name], v)
		}
	}
	return nil
}
