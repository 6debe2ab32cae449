// Package servicetest is the contract that every service.Manager keeps, as
// tests. A manager's own tests call Run, and Main from TestMain, because the
// service under control is the test binary itself.
package servicetest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Definition describes the service a test wants.
type Definition struct {
	Name           string
	Command        []string
	Env            []string
	RestartsAlways bool // where the manager can
}

// Fixture is a manager under test and what the tests need around it.
type Fixture struct {
	// Manager is the one under test. The factory closes it.
	Manager service.Manager
	// Define makes the service known to the manager. The factory cleans up: it
	// stops the service and removes the definition.
	Define func(t *testing.T, d Definition) service.Service
	// Missing is a service that was never defined.
	Missing service.Service
	// Mask masks a service; nil when the manager has no such thing.
	Mask func(t *testing.T, s service.Service)
	// Restarts tells that the manager restarts services by itself.
	Restarts bool
}

// Factory makes a fixture for one test.
type Factory func(t *testing.T) *Fixture

// patience bounds every wait; it is long because test machines are slow.
const patience = 20 * time.Second

// Run runs the contract against the managers that the factory makes.
func Run(t *testing.T, factory Factory) {
	tests := []struct {
		name string
		run  func(t *testing.T, f *Fixture)
	}{
		{"StartStop", testStartStop},
		{"Restart", testRestart},
		{"StopForced", testStopForced},
		{"StopFamily", testStopFamily},
		{"StopFailed", testStopFailed},
		{"ExitsAtOnce", testExitsAtOnce},
		{"CannotExecute", testCannotExecute},
		{"Crash", testCrash},
		{"Missing", testMissing},
		{"Masked", testMasked},
		{"Signal", testSignal},
		{"Usage", testUsage},
		{"LogsOfThisStart", testLogs},
		{"LogLimit", testLogLimit},
		{"Concurrent", testConcurrent},
		{"Cancelled", testCancelled},
		{"CancelledStop", testCancelledStop},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, factory(t)) })
	}
}

func testStartStop(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	if st := f.status(t, s); !st.Exists || st.Active || st.Failed {
		t.Fatalf("before Start: %+v, expected existing and inactive", st)
	}
	f.stop(t, s, time.Second, false) // nothing to stop
	st := f.start(t, s, Serve)
	if st.ExecPath != Program(t) || st.ExecDeleted || st.Restarts != 0 || st.InvocationID == "" {
		t.Errorf("after Start: %+v, expected the program %s, no restart and an invocation", st, Program(t))
	}
	if d := time.Since(st.StartedAt); d < -time.Second || d > patience {
		t.Errorf("started at %v, %v ago", st.StartedAt, d)
	}
	if err := f.Manager.Start(t.Context(), s); err != nil {
		t.Errorf("second Start: %v", err)
	}
	if again := f.status(t, s); again.MainPID != st.MainPID {
		t.Errorf("a second Start made process %d of %d", again.MainPID, st.MainPID)
	}
	f.stop(t, s, patience, false)
	if Alive(st.MainPID) {
		t.Errorf("process %d is still there", st.MainPID)
	}
	f.stop(t, s, patience, false)
	if again := f.start(t, s, Serve); again.MainPID == st.MainPID || again.InvocationID == st.InvocationID {
		t.Errorf("the same process or invocation after another start: %+v", again)
	}
}

func testRestart(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	if err := f.Manager.Restart(t.Context(), s, patience); err != nil {
		t.Fatalf("Restart of a stopped service: %v", err)
	}
	before := f.status(t, s)
	if err := f.Manager.Restart(t.Context(), s, patience); err != nil {
		t.Fatalf("Restart: %v", err)
	}
	after := f.status(t, s)
	if !before.Active || !after.Active || before.MainPID == after.MainPID || after.Restarts != 0 {
		t.Errorf("%+v became %+v, expected another process and no counted restart", before, after)
	}
	stubborn := f.Define(t, Definition{Name: s.Name + "-stubborn", Command: []string{Program(t)}, Env: []string{ModeEnv(Stubborn)}})
	pid := f.start(t, stubborn, Stubborn).MainPID
	if err := f.Manager.Restart(t.Context(), stubborn, 200*time.Millisecond); err != nil {
		t.Fatalf("Restart of a service that ignores SIGTERM: %v", err)
	}
	if st := f.status(t, stubborn); !st.Active || st.MainPID == pid || Alive(pid) {
		t.Errorf("after Restart: %+v, expected another process than %d", st, pid)
	}
}

func testStopForced(t *testing.T, f *Fixture) {
	s := f.define(t, Stubborn)
	pid := f.start(t, s, Stubborn).MainPID
	began := time.Now()
	f.stop(t, s, 300*time.Millisecond, true)
	if took := time.Since(began); took < 300*time.Millisecond || took > patience {
		t.Errorf("a forced stop took %v", took)
	}
	if Alive(pid) {
		t.Errorf("process %d is still there", pid)
	}
}

func testStopFamily(t *testing.T, f *Fixture) {
	s := f.define(t, Family)
	f.start(t, s, Family)
	var children []int
	for _, l := range AwaitLog(t, f.Manager, s, "ready") {
		if pid, ok := strings.CutPrefix(l.Message, "child "); ok {
			n, err := strconv.Atoi(pid)
			if err != nil || !Alive(n) {
				t.Fatalf("child %q does not run", pid)
			}
			children = append(children, n)
		}
	}
	if len(children) != 2 {
		t.Fatalf("children %v, expected 2", children)
	}
	f.stop(t, s, 300*time.Millisecond, true)
	for _, pid := range children {
		if Alive(pid) {
			t.Errorf("child %d is still there", pid)
		}
	}
}

func testStopFailed(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	pid := f.start(t, s, Serve).MainPID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	Await(t, "failed state", func() bool { return f.status(t, s).Failed })
	if st := f.status(t, s); st.Active || st.MainPID != 0 {
		t.Errorf("after SIGKILL from elsewhere: %+v, expected inactive", st)
	}
	f.stop(t, s, patience, false)
	f.start(t, s, Serve)
}

func testExitsAtOnce(t *testing.T, f *Fixture) {
	s := f.define(t, Exit)
	for range 7 { // more often than systemd's default start limit
		err := f.Manager.Start(t.Context(), s)
		var start *service.StartError
		if !errors.As(err, &start) {
			t.Fatalf("Start: %v, expected a StartError", err)
		}
		if !strings.Contains(start.Result, "exit status 3") || !strings.Contains(start.Detail, "cannot open the configuration") || start.Hint == "" {
			t.Fatalf("Start: %+v, expected the exit status, the log and a hint", start)
		}
	}
	if st := f.status(t, s); st.Active || !st.Failed {
		t.Errorf("after a failed Start: %+v, expected failed", st)
	}
	f.stop(t, s, patience, false)
}

func testCannotExecute(t *testing.T, f *Fixture) {
	s := f.Define(t, Definition{Name: "svctest-cannot-execute", Command: []string{"/nonexistent/program"}})
	err := f.Manager.Start(t.Context(), s)
	var start *service.StartError
	if !errors.As(err, &start) {
		t.Fatalf("Start: %v, expected a StartError", err)
	}
	if !strings.Contains(err.Error(), "/nonexistent/program") {
		t.Errorf("Start: %v, expected the program's name", err)
	}
	if st := f.status(t, s); st.Active || st.MainPID != 0 {
		t.Errorf("after a failed Start: %+v, expected inactive", st)
	}
	f.stop(t, s, patience, false)
}

func testCrash(t *testing.T, f *Fixture) {
	s := f.define(t, Crash)
	f.start(t, s, Crash)
	if !f.Restarts {
		Await(t, "failed state", func() bool { return f.status(t, s).Failed })
		if st := f.status(t, s); st.Restarts != 0 {
			t.Errorf("%+v, expected no restart", st)
		}
		f.stop(t, s, patience, false)
		return
	}
	Await(t, "second restart", func() bool { return f.status(t, s).Restarts >= 2 })
	f.stop(t, s, patience, false)
	if st := f.status(t, s); !st.Exists || st.Active || st.Activating {
		t.Errorf("after Stop: %+v, expected that nothing restarts it", st)
	}
	if st := f.start(t, s, Crash); st.Restarts > 1 {
		t.Errorf("%d restarts right after a start, expected the counter to begin anew", st.Restarts)
	}
}

func testMissing(t *testing.T, f *Fixture) {
	if st := f.status(t, f.Missing); st.Exists || st.Active {
		t.Errorf("%+v, expected a missing service", st)
	}
	var missing *service.NotFoundError
	if err := f.Manager.Start(t.Context(), f.Missing); !errors.As(err, &missing) {
		t.Errorf("Start: %v, expected a NotFoundError", err)
	}
	if err := f.Manager.Restart(t.Context(), f.Missing, time.Second); !errors.As(err, &missing) {
		t.Errorf("Restart: %v, expected a NotFoundError", err)
	}
	if _, err := f.Manager.Stop(t.Context(), f.Missing, time.Second); err != nil {
		t.Errorf("Stop: %v, expected nothing to do", err)
	}
	var still *service.NotRunningError
	if err := f.Manager.Signal(t.Context(), f.Missing, syscall.SIGHUP); !errors.As(err, &still) {
		t.Errorf("Signal: %v, expected a NotRunningError", err)
	}
	if lines, err := f.Manager.Logs(t.Context(), f.Missing, time.Time{}, 10); err != nil || len(lines) > 0 {
		t.Errorf("Logs: %v, %v, expected none", lines, err)
	}
}

func testMasked(t *testing.T, f *Fixture) {
	if f.Mask == nil {
		t.Skipf("the %s manager has no masking", f.Manager.Kind())
	}
	s := f.define(t, Serve)
	f.start(t, s, Serve)
	f.Mask(t, s)
	if st := f.status(t, s); !st.Exists || !st.Masked || !st.Active {
		t.Errorf("%+v, expected masked and still active", st)
	}
	f.stop(t, s, patience, false)
	var masked *service.MaskedError
	if err := f.Manager.Start(t.Context(), s); !errors.As(err, &masked) {
		t.Errorf("Start: %v, expected a MaskedError", err)
	}
	if err := f.Manager.Restart(t.Context(), s, time.Second); !errors.As(err, &masked) {
		t.Errorf("Restart: %v, expected a MaskedError", err)
	}
}

func testSignal(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	pid := f.start(t, s, Serve).MainPID
	if err := f.Manager.Signal(t.Context(), s, syscall.SIGHUP); err != nil {
		t.Fatalf("Signal: %v", err)
	}
	AwaitLog(t, f.Manager, s, "reloaded")
	if st := f.status(t, s); st.MainPID != pid || !st.Active {
		t.Errorf("%+v, expected process %d to live on", st, pid)
	}
	if err := f.Manager.Reload(t.Context(), s); !errors.Is(err, service.ErrNoReload) {
		t.Errorf("Reload: %v, expected ErrNoReload", err)
	}
	if err := f.Manager.DaemonReload(t.Context()); err != nil {
		t.Errorf("DaemonReload: %v", err)
	}
	f.stop(t, s, patience, false)
	var still *service.NotRunningError
	if err := f.Manager.Signal(t.Context(), s, syscall.SIGHUP); !errors.As(err, &still) {
		t.Errorf("Signal to a stopped service: %v, expected a NotRunningError", err)
	}
}

func testLogs(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	f.start(t, s, Serve)
	f.stop(t, s, patience, false)
	AwaitLog(t, f.Manager, s, "stopping") // the last start's log stays readable
	f.start(t, s, Serve)
	lines, err := f.Manager.Logs(t.Context(), s, time.Time{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if count(lines, "ready serve") != 1 || count(lines, "stopping") != 0 {
		t.Errorf("%v, expected this start only", lines)
	}
	f.stop(t, s, patience, false)
	lines = AwaitLog(t, f.Manager, s, "stopping")
	if count(lines, "ready serve") != 1 || count(lines, "stopping") != 1 {
		t.Errorf("%v, expected the last start only", lines)
	}
}

func testLogLimit(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	f.start(t, s, Serve)
	if err := f.Manager.Signal(t.Context(), s, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	AwaitLog(t, f.Manager, s, "reloaded")
	// What the manager says of the signal may come after what the service says.
	Await(t, "the newest line of all alone", func() bool {
		all, err := f.Manager.Logs(t.Context(), s, time.Time{}, 100)
		lines, oneErr := f.Manager.Logs(t.Context(), s, time.Time{}, 1)
		if err = errors.Join(err, oneErr); err != nil || len(lines) != 1 || len(all) < 2 {
			t.Fatalf("%v of %v, %v, expected the newest line", lines, all, err)
		}
		return lines[0] == all[len(all)-1]
	})
}

func testConcurrent(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	f.start(t, s, Serve)
	ctx, cancel := context.WithCancel(t.Context())
	var readers, starters sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for ctx.Err() == nil {
				st, err := f.Manager.Status(ctx, s)
				if err != nil && ctx.Err() == nil {
					t.Errorf("Status: %v", err)
					return
				}
				if err == nil && (!st.Exists || st.Active && st.MainPID == 0) {
					t.Errorf("Status: %+v, expected a process with an active service", st)
					return
				}
			}
		})
	}
	for range 3 {
		f.stop(t, s, patience, false)
		for range 3 {
			starters.Go(func() {
				if err := f.Manager.Start(t.Context(), s); err != nil {
					t.Errorf("Start: %v", err)
				}
			})
		}
		starters.Wait()
	}
	cancel()
	readers.Wait()
	AwaitLog(t, f.Manager, s, "ready")
	lines, err := f.Manager.Logs(t.Context(), s, time.Time{}, 0)
	if err != nil || count(lines, "ready serve") != 1 {
		t.Errorf("%v, %v, expected one process of three starts at once", lines, err)
	}
}

func testCancelled(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, statusErr := f.Manager.Status(ctx, s)
	_, stopErr := f.Manager.Stop(ctx, s, time.Second)
	_, logsErr := f.Manager.Logs(ctx, s, time.Time{}, 1)
	for name, err := range map[string]error{
		"Status": statusErr, "Stop": stopErr, "Logs": logsErr,
		"Start": f.Manager.Start(ctx, s), "Restart": f.Manager.Restart(ctx, s, time.Second), "Signal": f.Manager.Signal(ctx, s, syscall.SIGHUP),
		"DaemonReload": f.Manager.DaemonReload(ctx),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, expected %v", name, err, context.Canceled)
		}
	}
	if st := f.status(t, s); st.Active {
		t.Errorf("%+v, expected that nothing was started", st)
	}
}

func testCancelledStop(t *testing.T, f *Fixture) {
	s := f.define(t, Stubborn)
	f.start(t, s, Stubborn)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := f.Manager.Stop(ctx, s, patience)
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > patience/2 {
		t.Fatalf("Stop: %v after %v, expected %v at once", err, time.Since(began), context.DeadlineExceeded)
	}
	// What was told to stop does not count as running, though it may answer yet.
	if st := f.status(t, s); st.Active || st.Failed {
		t.Errorf("after a stop that was cut off: %+v, expected it not active", st)
	}
	f.stop(t, s, 100*time.Millisecond, true)
}

func testUsage(t *testing.T, f *Fixture) {
	s := f.define(t, Serve)
	f.start(t, s, Serve)
	u, err := f.Manager.Usage(t.Context(), s)
	if err != nil {
		t.Fatalf("Usage: %v", err)
	}
	if u.At.IsZero() || u.MemoryLimit == 0 || u.Memory > u.MemoryLimit {
		t.Errorf("%+v, expected a moment, a limit, and memory below it", u)
	}
	f.stop(t, s, patience, false)
	var still *service.NotRunningError
	if u, err := f.Manager.Usage(t.Context(), s); !errors.As(err, &still) {
		t.Errorf("Usage of a stopped service: %+v, %v, expected a NotRunningError", u, err)
	}
}
