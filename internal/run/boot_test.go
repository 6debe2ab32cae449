package run_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// booted is a host on which a run lost power at its n-th effect, and whose services
// started with what was in place before anything was recovered. crashed is false
// where the run has no such effect.
func booted(t *testing.T, w *runtest.World, req Request, n int) (what string, crashed bool) {
	t.Helper()
	units := w.Snapshot().Units()
	c := &runtest.CrashAt{N: n}
	_, _ = w.Engine(c.Guard).Execute(t.Context(), req)
	if !c.Crashed() {
		return "", false
	}
	w.PowerOff()
	w.Boot(t.Context(), units)
	return fmt.Sprintf("power cut at effect %d (%s)", n, c.Op), true
}

// Whatever starts at boot can read the data that it finds, and recovery goes on with
// what it had begun to put back.
func TestDataBootAtEveryOperation(t *testing.T) {
	for _, content := range []string{"prom 2.0.0", "prom 2.0.0 " + runtest.WordNotReady} {
		for _, takeBack := range []bool{true, false} {
			t.Run(fmt.Sprint(content, takeBack), func(t *testing.T) {
				t.Parallel()
				tried := 0
				for n := 1; ; n++ {
					w := runtest.New(t)
					w.Install("prom", "1.0.0")
					w.Keeps("twelve bytes")
					what, crashed := booted(t, w, w.WithData(w.Steps(content), takeBack), n)
					if !crashed {
						break
					}
					tried++
					if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
						t.Fatalf("%s: recover: %v", what, err)
					}
					at := whole(t, w, what, map[string][]string{"prom": {"1.0.0", "2.0.0"}})
					if !takeBack {
						w.Wrong = nil // both read what the other wrote
						continue
					}
					clean(t, w, what)
					holds(t, w, what, "twelve bytes", at["prom"])
				}
				if tried < 30 {
					t.Fatalf("only %d effects were tried", tried)
				}
			})
		}
	}
}

// A rollback whose data is put back, and undone again, never has a version in place
// that cannot read the data either.
func TestDataRollbackBootAtEveryOperation(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Keeps("twelve bytes")
		res, err := w.Engine(nil).Execute(t.Context(), w.WithData(w.Steps("prom 2.0.0"), true))
		if err != nil {
			t.Fatal(err)
		}
		what, crashed := booted(t, w, w.WayBack(res.ID), n)
		if !crashed {
			return
		}
		if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
			t.Fatalf("%s: recover: %v", what, err)
		}
		clean(t, w, what)
		holds(t, w, what, "twelve bytes", w.Version("prom").String())
	}
}

// The instances that a run had not come to start at boot from the files that they
// share with the one that it was changing: recovery brings them back with it.
func TestRollingBootAtEveryOperation(t *testing.T) {
	for name, back := range map[string]bool{"upgrade": false, "rollback": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for n := 1; ; n++ {
				w := runtest.Pair(t)
				req := w.Rolling("prom 2.0.0")
				if back {
					if _, err := w.Engine(nil).Execute(t.Context(), req); err != nil {
						t.Fatal(err)
					}
					req = w.RollingBack()
				}
				what, crashed := booted(t, w, req, n)
				if !crashed {
					break
				}
				tried++
				if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				clean(t, w, what)
				a, b, file := w.Instance("a"), w.Instance("b"), w.Version("prom").String()
				if a != file || b != file || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
					t.Fatalf("%s: a %s, b %s, file %s, balancer %v", what, a, b, file, w.Balancer.Admitted)
				}
			}
			if tried < 40 {
				t.Fatalf("only %d effects were tried", tried)
			}
		})
	}
}

// Killed in the recovery after that, the next one still ends with both instances at
// one version and in the balancer.
func TestRollingBootKilledDuringRecovery(t *testing.T) {
	t.Parallel()
	tried := 0
	for n := 36; ; n += 9 { // the first instance is at work before
		for m := 1; ; m += 11 {
			w := runtest.Pair(t)
			what, crashed := booted(t, w, w.Rolling("prom 2.0.0"), n)
			if !crashed {
				if tried < 10 {
					t.Fatalf("only %d pairs of kill points", tried)
				}
				return
			}
			second := &runtest.CrashAt{N: m}
			_, _ = w.Engine(second.Guard).Recover(t.Context())
			if !second.Crashed() {
				break
			}
			tried++
			what += fmt.Sprintf(", then killed in recovery at %d (%s)", m, second.Op)
			units := []string{"prom@a.service", "prom@b.service"}
			w.PowerOff()
			w.Boot(t.Context(), units)
			if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
				t.Fatalf("%s: recover: %v", what, err)
			}
			clean(t, w, what)
			a, b, file := w.Instance("a"), w.Instance("b"), w.Version("prom").String()
			if a != file || b != file || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
				t.Fatalf("%s: a %s, b %s, file %s, balancer %v", what, a, b, file, w.Balancer.Admitted)
			}
		}
	}
}

// forgetful is a recorder that cannot record the first outcome.
type forgetful struct {
	Recorder
	asked int
}

func (f *forgetful) Record(ctx context.Context, run Header, ch Change, out Outcome) error {
	if f.asked++; f.asked == 1 {
		return errors.New("permission denied")
	}
	return f.Recorder.Record(ctx, run, ch, out)
}

// What is recorded last is what a component is at: a step that could not be recorded
// is not recorded after a later one.
func TestStepsAreRecordedInOrder(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	e := w.Engine(nil)
	e.Recorder = &forgetful{Recorder: e.Recorder}
	res, err := e.Execute(t.Context(), w.Steps("prom 2.0.0", "prom 3.0.0"))
	if err != nil || len(res.Warnings) != 3 { // that it failed, that the next waits for it, and that the run is not closed
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if at := whole(t, w, "recorded", map[string][]string{"prom": {"1.0.0", "2.0.0", "3.0.0"}}); at["prom"] != "3.0.0" {
		t.Fatalf("at %v", at)
	}
}
