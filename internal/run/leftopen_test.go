package run_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// open asserts that a run is left open, for the next recovery.
func open(t *testing.T, w *runtest.World, what string) {
	t.Helper()
	if in, err := FindInterrupted(w.Root.JournalDir()); err != nil || in == nil {
		t.Fatalf("%s: no run is left open (%v)", what, err)
	}
}

// pairAt asserts where two instances and their file are, that both take traffic and
// that the books agree with the file.
func pairAt(t *testing.T, w *runtest.World, what, a, b, file string) {
	t.Helper()
	clean(t, w, what)
	if w.Instance("a") != a || w.Instance("b") != b || w.Version("prom").String() != file || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
		t.Fatalf("%s: a %q, b %q, file %s, balancer %v", what, w.Instance("a"), w.Instance("b"), w.Version("prom"), w.Balancer.Admitted)
	}
	if at := whole(t, w, what, map[string][]string{"prom": {"1.0.0", "2.0.0"}}); at["prom"] != file {
		t.Fatalf("%s: %v", what, at)
	}
}

// timeouts has the service manager not answer when a unit is to be started, from the
// n-th time on.
func timeouts(w *runtest.World, unit string, n int) {
	w.Refuse = func(op, u string) error {
		if op != "start" || u != unit {
			return nil
		}
		if n--; n > 0 {
			return nil
		}
		return fmt.Errorf("start %s: %w", u, context.DeadlineExceeded)
	}
}

// An instance that fails before it was touched leaves the new files in place: the
// history and the state file go on saying so, and a person is told what will start.
func TestRollingSecondUntouched(t *testing.T) {
	w := runtest.Pair(t)
	e := w.Engine(func(op, target string) error {
		if op == "drain" && target == "prom@b" {
			return errors.New("the balancer is away")
		}
		return nil
	})
	res, err := e.Execute(t.Context(), w.Rolling("prom 2.0.0"))
	if err == nil || res.Status != StatusFailed || res.Components[0].Status != Upgraded || res.Components[1].Status != Failed {
		t.Fatalf("%+v, %v", res, err)
	}
	pairAt(t, w, "b was not drained", "2.0.0", "1.0.0", "2.0.0")
	if !strings.Contains(strings.Join(res.Warnings, "\n"), "prom@b goes on running 1.0.0, and starts as 2.0.0") {
		t.Errorf("warnings %q", res.Warnings)
	}
	db, err := history.OpenReadOnly(t.Context(), w.Root.History())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.List(t.Context(), history.Filter{})
	if err != nil || len(rows) != 1 || rows[0].Status != history.Success {
		t.Errorf("%+v, %v", rows, err)
	}
}

// A journal that could not be written is no failure of an instance: recovery takes
// back the one that came before.
func TestRollingJournalFails(t *testing.T) {
	w := runtest.Pair(t)
	failed := false
	e := w.Engine(func(op, _ string) error {
		if !failed && op == "append" && recordedFirst(w) {
			failed = true
			return errors.New("input/output error")
		}
		return nil
	})
	_, err := e.Execute(t.Context(), w.Rolling("prom 2.0.0"))
	if err == nil || !strings.Contains(err.Error(), "prom@b: prepare: journal") {
		t.Fatal(err)
	}
	open(t, w, "the journal failed")
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	pairAt(t, w, "recovered", "1.0.0", "1.0.0", "1.0.0")
}

// recordedFirst reports whether the journal says that the outcome of an instance is
// recorded, so that what is journaled next is of the other.
func recordedFirst(w *runtest.World) bool {
	paths, err := journal.Pending(w.Root.JournalDir())
	if err != nil || len(paths) != 1 {
		return false
	}
	records, err := journal.Read(paths[0])
	return err == nil && len(records) > 0 && records[len(records)-1].Kind == "recorded"
}

// An instance that could not be brought back to health is out of the balancer, and the
// run stays open: recovery puts it back once it works.
func TestRollingSecondStaysDown(t *testing.T) {
	w := runtest.Pair(t)
	timeouts(w, "prom@b.service", 2)
	_, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0 b-"+runtest.WordNoStart))
	var failed *RollbackError
	if !errors.As(err, &failed) || !failed.Restored {
		t.Fatal(err)
	}
	open(t, w, "b is down")
	f, err := state.Load(w.Root.State())
	if c := f.Components["prom"]; err != nil || c.CurrentVersion != "1.0.0" || c.Instances["a"] != "2.0.0" || c.Instances["b"] != "" {
		t.Errorf("the state file says %+v (%v)", c, err)
	}
	w.Refuse = nil
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	pairAt(t, w, "recovered", "2.0.0", "1.0.0", "1.0.0")
}

// The same of a restart.
func TestRestartStaysDown(t *testing.T) {
	w := runtest.Pair(t)
	timeouts(w, "prom@b.service", 1)
	if _, err := w.Engine(nil).Execute(t.Context(), w.Restarting(Graceful)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	open(t, w, "b is down")
	w.Refuse = nil
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	pairAt(t, w, "recovered", "1.0.0", "1.0.0", "1.0.0")
}

// While one instance cannot be brought back, recovery takes no other out of service.
func TestRecoveryLeavesTheLastInstance(t *testing.T) {
	w := runtest.Pair(t)
	e := w.Engine(func(op, target string) error {
		if op == "exchange" && w.Instance("a") == "2.0.0" && w.Instance("b") == "" { // b is stopped
			return hostfs.ErrCrashed
		}
		return nil
	})
	// The first instance has put the files there, so only the start is left.
	w.Refuse = func(op, unit string) error {
		if op == "start" && unit == "prom@b.service" {
			return hostfs.ErrCrashed
		}
		return nil
	}
	if _, err := e.Execute(t.Context(), w.Rolling("prom 2.0.0")); !errors.Is(err, hostfs.ErrCrashed) {
		t.Fatal(err)
	}
	timeouts(w, "prom@b.service", 1)
	before := len(w.Balancer.Did)
	results, err := w.Engine(nil).Recover(t.Context())
	if !errors.As(err, new(*RollbackError)) || len(results) != 1 || results[0].Status != StatusRollbackFail {
		t.Fatalf("%+v, %v", results, err)
	}
	open(t, w, "b is down")
	if w.Instance("a") != "2.0.0" || !w.Balancer.Admitted["a"] || strings.Contains(strings.Join(w.Balancer.Did[before:], " "), "drain a") {
		t.Fatalf("a %q, %v", w.Instance("a"), w.Balancer.Did[before:])
	}
	if text := strings.Join(results[0].Warnings, "\n"); !strings.Contains(text, "prom@a is left at 2.0.0 until prom@b works") {
		t.Errorf("warnings %q", text)
	}
	w.Refuse = nil
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	pairAt(t, w, "recovered", "1.0.0", "1.0.0", "1.0.0")
}

// A recovery that records what an earlier one could not, of two steps of a component,
// may be killed at any effect: it is not taken for the later step's.
func TestStepsRecordedInKilledRecovery(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		e := w.Engine(nil)
		e.Recorder = &forgetful{Recorder: e.Recorder}
		if _, err := e.Execute(t.Context(), w.Steps("prom 2.0.0", "prom 3.0.0")); err != nil {
			t.Fatal(err)
		}
		c := &runtest.CrashAt{N: n}
		_, err := w.Engine(c.Guard).Recover(t.Context())
		if errors.Is(err, hostfs.ErrCrashed) != c.Crashed() {
			t.Fatalf("kill at %d (%s): %v", n, c.Op, err)
		}
		if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
		if at := whole(t, w, what, map[string][]string{"prom": {"1.0.0", "2.0.0", "3.0.0"}}); at["prom"] != "3.0.0" {
			t.Fatalf("%s: at %v", what, at)
		}
		if !c.Crashed() {
			if n < 12 {
				t.Errorf("only %d effects", n)
			}
			return
		}
	}
}

// A first step could not be recorded, and the run is killed in the second: what lies
// beside the files then is of the second, whose undo needs it.
func TestStepUnrecordedThenKilled(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		c := &runtest.CrashAt{N: n}
		e := w.Engine(c.Guard)
		e.Recorder = &forgetful{Recorder: e.Recorder}
		if _, err := e.Execute(t.Context(), w.Steps("prom 2.0.0", "prom 3.0.0")); errors.Is(err, hostfs.ErrCrashed) != c.Crashed() {
			t.Fatalf("kill at %d (%s): %v", n, c.Op, err)
		}
		what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
		if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		whole(t, w, what, map[string][]string{"prom": {"1.0.0", "2.0.0", "3.0.0"}})
		clean(t, w, what)
		if !c.Crashed() {
			if n < 40 {
				t.Errorf("only %d effects", n)
			}
			return
		}
	}
}
