package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

func TestRolling(t *testing.T) {
	w := runtest.Pair(t)
	res, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0"))
	if err != nil || res.Status != StatusSuccess || len(res.Components) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	clean(t, w, "rolled")
	if got := strings.Join(w.Balancer.Did, ", "); got != "drain a, admit a, drain b, admit b" {
		t.Errorf("the balancer was told: %s", got)
	}
	f, err := state.Load(w.Root.State())
	if err != nil {
		t.Fatal(err)
	}
	c := f.Components["prom"]
	if w.Instance("a") != "2.0.0" || w.Instance("b") != "2.0.0" || c.CurrentVersion != "2.0.0" || c.Instances["a"] != "2.0.0" || c.Instances["b"] != "2.0.0" {
		t.Errorf("a %s, b %s, state %+v", w.Instance("a"), w.Instance("b"), c)
	}
}

// The second instance fails: it is back at the old version and in the balancer,
// the first is left as it is, and the file both share is the old one.
func TestRollingSecondFails(t *testing.T) {
	for _, word := range []string{runtest.WordNoStart, runtest.WordNotReady, runtest.WordDies} {
		w := runtest.Pair(t)
		res, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0 b-"+word))
		if err == nil || res.Status != StatusRolledBack || res.Components[0].Status != Upgraded || res.Components[1].Status != RolledBack {
			t.Fatalf("%s: %+v, %v", word, res, err)
		}
		clean(t, w, word)
		var ev Evidence
		data, err := os.ReadFile(res.Components[1].Evidence)
		if err != nil || json.Unmarshal(data, &ev) != nil || ev.Component != "prom" || ev.Instance != "b" || filepath.Base(res.Components[1].Evidence) != "prom@b.json" {
			t.Errorf("%s: evidence %s: %+v, %v", word, res.Components[1].Evidence, ev, err)
		}
		f, err := state.Load(w.Root.State())
		if err != nil {
			t.Fatal(err)
		}
		c := f.Components["prom"]
		if w.Instance("a") != "2.0.0" || w.Instance("b") != "1.0.0" || w.Version("prom").String() != "1.0.0" || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
			t.Errorf("%s: a %s, b %s, file %s, balancer %v", word, w.Instance("a"), w.Instance("b"), w.Version("prom"), w.Balancer.Admitted)
		}
		if c.CurrentVersion != "1.0.0" || c.Instances["a"] != "2.0.0" || c.Instances["b"] != "1.0.0" || len(c.FailedVersions) != 1 {
			t.Errorf("%s: state %+v", word, c)
		}
		if !strings.Contains(strings.Join(res.Warnings, "\n"), "prom@a goes on running 2.0.0") {
			t.Errorf("%s: warnings %q", word, res.Warnings)
		}
	}
}

// The first instance fails: the second is not touched.
func TestRollingFirstFails(t *testing.T) {
	w := runtest.Pair(t)
	req := w.Rolling("prom 2.0.0 a-" + runtest.WordNotReady)
	req.ContinueOnFailure = true
	res, err := w.Engine(nil).Execute(t.Context(), req)
	if err == nil || res.Components[0].Status != RolledBack || res.Components[1].Status != NotAttempted {
		t.Fatalf("%+v, %v", res, err)
	}
	clean(t, w, "first")
	if w.Instance("a") != "1.0.0" || w.Instance("b") != "1.0.0" || strings.Contains(strings.Join(w.Balancer.Did, " "), "b") {
		t.Errorf("a %s, b %s, told %v", w.Instance("a"), w.Instance("b"), w.Balancer.Did)
	}
}

// What somebody else took out is neither drained nor put back; the last server is
// never drained; without an answer of the balancer nothing is touched.
func TestRollingLeavesOthersDrains(t *testing.T) {
	w := runtest.Pair(t)
	w.Balancer.Admitted["a"] = false
	res, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0"))
	// b is the last that takes traffic.
	if err == nil || !strings.Contains(err.Error(), "another server that takes traffic") || res.Components[0].Status != Upgraded || res.Components[1].Status != Failed {
		t.Fatalf("%+v, %v", res, err)
	}
	clean(t, w, "a drained by hand")
	if len(w.Balancer.Did) > 0 || w.Balancer.Admitted["a"] || w.Instance("b") != "1.0.0" {
		t.Errorf("told %v", w.Balancer.Did)
	}
	w = runtest.Pair(t)
	w.Balancer.Broken = true
	if res, err = w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0")); err == nil || w.Instance("a") != "1.0.0" || w.Instance("b") != "1.0.0" {
		t.Fatalf("%+v, %v", res, err)
	}
	clean(t, w, "no answer")
}

// What a person takes out while it is upgraded stays out; the upgrade is none the
// worse for it.
func TestRollingTakenOutMeanwhile(t *testing.T) {
	w := runtest.Pair(t)
	w.Balancer.Admitted["c"] = true
	e := w.Engine(nil)
	e.Report = func(ev Event) {
		if ev.Instance == "a" && ev.Step == StepStart {
			w.Balancer.By = map[string]bool{"a": true}
		}
	}
	res, err := e.Execute(t.Context(), w.Rolling("prom 2.0.0"))
	if err != nil || res.Status != StatusSuccess || w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] || w.Instance("a") != "2.0.0" {
		t.Fatalf("%+v, %v, balancer %v", res, err, w.Balancer.Admitted)
	}
	if !strings.Contains(strings.Join(res.Warnings, "\n"), "prom@a: a is out of the balancer (by hand)") {
		t.Errorf("warnings %q", res.Warnings)
	}
}

// A balancer that gives no answer for a moment ends no roll-out, neither while an
// instance is drained nor when it is put back.
func TestRollingOutlastsBalancer(t *testing.T) {
	// What fails at first: a question, or one that comes right after another.
	for _, at := range []string{"drain a, state a", "admit a", "admit a, state a"} {
		w := runtest.Pair(t)
		last, failed := "", 0
		w.Balancer.Answer = func(to string, _ *balancer.State) error {
			if failed < 3 && (to == at || last+", "+to == at) {
				failed++
				return errors.New("no answer")
			}
			last = to
			return nil
		}
		res, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0"))
		if err != nil || res.Status != StatusSuccess || failed != 3 {
			t.Fatalf("%s failed %d times: %+v, %v", at, failed, res, err)
		}
		clean(t, w, at)
	}
}

// A balancer that goes on giving no answer ends the roll-out. That is not the fault of
// the version, which was proved before: it is undone, and not held.
func TestRollingBlamesBalancer(t *testing.T) {
	for _, to := range []string{"admit a", "state a"} {
		w := runtest.Pair(t)
		putBack, undoing := false, false
		w.Balancer.Answer = func(asked string, _ *balancer.State) error {
			if putBack && !undoing && asked == to {
				return errors.New("no answer")
			}
			return nil
		}
		e := w.Engine(nil)
		e.Timeouts.Admit = 200 * time.Millisecond
		e.Report = func(ev Event) {
			putBack = putBack || ev.Step == StepAdmit
			undoing = undoing || ev.Step == StepUndo
		}
		res, err := e.Execute(t.Context(), w.Rolling("prom 2.0.0"))
		if err == nil || !strings.Contains(err.Error(), "no answer (tried for ") || res.Components[0].Status != RolledBack || res.Components[0].Started {
			t.Fatalf("%s: %+v, %v", to, res, err)
		}
		clean(t, w, to)
		f, err := state.Load(w.Root.State())
		if err != nil || len(f.Components["prom"].FailedVersions) > 0 {
			t.Fatalf("%s: the version was blamed: %+v, %v", to, f.Components["prom"], err)
		}
		if w.Instance("a") != "1.0.0" || !w.Balancer.Admitted["a"] || w.Instance("b") != "1.0.0" {
			t.Errorf("%s: a %s, b %s, balancer %v", to, w.Instance("a"), w.Instance("b"), w.Balancer.Admitted)
		}
	}
}

// That a balancer calls an instance up as it is put back may be from before. What fails
// the balancer's own check afterwards, though it passes ours, is undone like any other.
func TestRollingFailsBalancersCheck(t *testing.T) {
	w := runtest.Pair(t)
	ill := false
	w.Balancer.Answer = func(to string, st *balancer.State) error {
		if to == "state a" && ill {
			st.Up, st.Detail = false, "DOWN"
		}
		return nil
	}
	e := w.Engine(nil)
	e.Timeouts.Admit = 200 * time.Millisecond
	e.Report = func(ev Event) {
		if ev.Step == StepStabilize && !ev.Done {
			ill = true // it was checked
		}
		ill = ill && ev.Step != StepUndo
	}
	res, err := e.Execute(t.Context(), w.Rolling("prom 2.0.0"))
	if err == nil || !strings.Contains(err.Error(), "does not give it traffic after 200ms: DOWN") || res.Components[0].Status != RolledBack || res.Components[1].Status != NotAttempted {
		t.Fatalf("%+v, %v", res, err)
	}
	clean(t, w, "DOWN")
	f, err := state.Load(w.Root.State())
	if err != nil || len(f.Components["prom"].FailedVersions) != 1 {
		t.Errorf("the version is not held: %+v, %v", f.Components["prom"], err)
	}
	if w.Instance("a") != "1.0.0" || !w.Balancer.Admitted["a"] {
		t.Errorf("a %s, balancer %v", w.Instance("a"), w.Balancer.Admitted)
	}
}

// What a person takes out while it is watched stays out, and fails nothing.
func TestRollingTakenOutWhileWatched(t *testing.T) {
	w := runtest.Pair(t)
	req := w.Rolling("prom 2.0.0")
	req.Changes = req.Changes[:1]
	e := w.Engine(nil)
	e.Report = func(ev Event) {
		if ev.Instance == "a" && ev.Step == StepStabilize && !ev.Done {
			w.Balancer.SetAdmitted("a", false)
		}
	}
	res, err := e.Execute(t.Context(), req)
	if err != nil || res.Status != StatusSuccess || w.Balancer.Admitted["a"] || w.Instance("a") != "2.0.0" {
		t.Fatalf("%+v, %v, balancer %v", res, err, w.Balancer.Admitted)
	}
	clean(t, w, "watched")
	if !strings.Contains(strings.Join(res.Warnings, "\n"), "prom@a: a is out of the balancer (by hand)") {
		t.Errorf("warnings %q", res.Warnings)
	}
}

// Killed at any effect, recovery leaves both instances running and in the
// balancer. Both are at one version, unless one of them failed for itself.
func TestRollingKilledAtEveryOperation(t *testing.T) {
	for name, content := range map[string]string{"upgrade": "prom 2.0.0", "second fails": "prom 2.0.0 b-" + runtest.WordNoStart} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for n := 1; ; n++ {
				w := runtest.Pair(t)
				c := &runtest.CrashAt{N: n}
				_, err := w.Engine(c.Guard).Execute(t.Context(), w.Rolling(content))
				if !c.Crashed() {
					break
				}
				if !errors.Is(err, hostfs.ErrCrashed) {
					t.Fatalf("crash at %d (%s): the run went on: %v", n, c.Op, err)
				}
				tried++
				what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
				if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				clean(t, w, what)
				a, b, file := w.Instance("a"), w.Instance("b"), w.Version("prom").String()
				if !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] || a == "" || b == "" {
					t.Fatalf("%s: a %q, b %q, balancer %v", what, a, b, w.Balancer.Admitted)
				}
				// a goes on with the new version when it was b that failed.
				if b != file || a != file && (name == "upgrade" || a != "2.0.0") {
					t.Fatalf("%s: a %s, b %s, file %s", what, a, b, file)
				}
				f, err := state.Load(w.Root.State())
				if err == nil && f.Components["prom"].CurrentVersion != "" && f.Components["prom"].CurrentVersion != file {
					t.Fatalf("%s: file %s, state %+v", what, file, f.Components["prom"])
				}
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			if tried < 40 {
				t.Fatalf("only %d effects were tried", tried)
			}
			t.Logf("%d kill points", tried)
		})
	}
}

// Killed again in the recovery, a third attempt still ends with one version.
func TestRollingKilledDuringRecovery(t *testing.T) {
	t.Parallel()
	crashed := func(n int) (*runtest.World, *runtest.CrashAt) {
		w, c := runtest.Pair(t), &runtest.CrashAt{N: n}
		if _, err := w.Engine(c.Guard).Execute(t.Context(), w.Rolling("prom 2.0.0")); c.Crashed() && !errors.Is(err, hostfs.ErrCrashed) {
			t.Fatalf("crash at %d (%s): the run went on: %v", n, c.Op, err)
		}
		return w, c
	}
	tried := 0
	for n := 30; ; n += 5 { // the first instance is at work before
		probe, c := crashed(n)
		if !c.Crashed() {
			break
		}
		count := &runtest.CrashAt{}
		if _, err := probe.Engine(count.Guard).Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		for m := 1; m <= count.Count; m++ {
			w, _ := crashed(n)
			second := &runtest.CrashAt{N: m}
			_, err := w.Engine(second.Guard).Recover(t.Context())
			if errors.Is(err, hostfs.ErrCrashed) != second.Crashed() {
				t.Fatalf("kill %d then %d: %v", n, m, err)
			}
			what := fmt.Sprintf("killed at effect %d (%s), then in recovery at %d (%s)", n, c.Op, m, second.Op)
			if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			clean(t, w, what)
			a, b, file := w.Instance("a"), w.Instance("b"), w.Version("prom").String()
			if a != file || b != file || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
				t.Fatalf("%s: a %s, b %s, file %s, balancer %v", what, a, b, file, w.Balancer.Admitted)
			}
			if f, err := state.Load(w.Root.State()); err == nil && f.Components["prom"].CurrentVersion != "" && f.Components["prom"].CurrentVersion != file {
				t.Fatalf("%s: file %s, state %+v", what, file, f.Components["prom"])
			}
			tried++
		}
	}
	if tried < 100 {
		t.Fatalf("only %d pairs of kill points", tried)
	}
	t.Logf("%d pairs of kill points", tried)
}

// A rollback of both instances, killed at any effect, leaves both at one version,
// and the history says which.
func TestRollingRollbackKilledAtEveryOperation(t *testing.T) {
	t.Parallel()
	tried := 0
	for n := 1; ; n++ {
		w := runtest.Pair(t)
		res, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0"))
		if err != nil {
			t.Fatalf("%+v, %v", res, err)
		}
		req := w.RollingBack()
		for i := range req.Changes {
			req.Changes[i].Undoes = []int64{1}
		}
		c := &runtest.CrashAt{N: n}
		if _, err = w.Engine(c.Guard).Execute(t.Context(), req); !c.Crashed() {
			break
		}
		tried++
		what := fmt.Sprintf("killed at effect %d (%s): %v", n, c.Op, err)
		results, err := w.Engine(nil).Recover(t.Context())
		if err != nil {
			t.Fatalf("%s: recover: %v", what, err)
		}
		for _, res := range results {
			if res.Status != StatusInterrupted && res.Status != StatusSuccess {
				t.Fatalf("%s: recovered as %+v", what, res)
			}
		}
		clean(t, w, what)
		a, b, file := w.Instance("a"), w.Instance("b"), w.Version("prom").String()
		f, err := state.Load(w.Root.State())
		if err != nil {
			t.Fatal(err)
		}
		if a != file || b != file || f.Components["prom"].CurrentVersion != file || f.Components["prom"].Instances["a"] != file || f.Components["prom"].Instances["b"] != file {
			t.Fatalf("%s: a %s, b %s, file %s, state %+v", what, a, b, file, f.Components["prom"])
		}
		db, err := history.OpenReadOnly(t.Context(), w.Root.History())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := db.List(t.Context(), history.Filter{})
		if err != nil || len(rows) != 1 || (rows[0].Status == history.Success) != (file == "2.0.0") {
			t.Fatalf("%s: file %s, history %+v, %v", what, file, rows, err)
		}
		_ = db.Close()
	}
	if tried < 40 {
		t.Fatalf("only %d effects were tried", tried)
	}
	t.Logf("%d kill points", tried)
}

func TestRestart(t *testing.T) {
	for _, strategy := range []Strategy{Graceful, Fast, Reload} {
		w := runtest.Pair(t)
		before := w.PID("prom@a")
		e := w.Engine(nil)
		asked := 0
		e.ReloadConfig = func(context.Context, Change) (bool, error) { asked++; return true, nil }
		res, err := e.Execute(t.Context(), w.Restarting(strategy))
		if err != nil || res.Status != StatusSuccess {
			t.Fatalf("%s: %+v, %v", strategy, res, err)
		}
		clean(t, w, string(strategy))
		if same := w.PID("prom@a") == before; same != (strategy == Reload) || (asked == 2) != (strategy == Reload) {
			t.Errorf("%s: same process %v, asked %d times", strategy, same, asked)
		}
		if _, err := os.Stat(w.Root.Backups()); err == nil {
			t.Errorf("%s: a backup point was taken", strategy)
		}
		if _, err := os.Stat(w.Root.History()); err == nil {
			t.Errorf("%s: the history was written", strategy)
		}
	}
}

// A service that crashed once, long ago, is reloaded all the same: that is no crash
// of now. One that crashes in the reload is.
func TestReloadAfterCrash(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := runtest.Pair(t)
		w.Settle = 50 * time.Millisecond // in which the crash is seen
		w.CrashOnce("prom@a")
		e := w.Engine(nil)
		e.ReloadConfig = func(_ context.Context, ch Change) (bool, error) {
			if crash && ch.Instance == "a" {
				w.CrashOnce("prom@a")
			}
			return true, nil
		}
		res, err := e.Execute(t.Context(), w.Restarting(Reload))
		if crash && (err == nil || !strings.Contains(err.Error(), "crashed and was restarted")) || !crash && (err != nil || res.Status != StatusSuccess) {
			t.Errorf("crash %v: %+v, %v", crash, res, err)
		}
	}
}

func TestRestartKilledAtEveryOperation(t *testing.T) {
	for name, dead := range map[string][]string{"all at work": nil, "first dead": {"a"}, "all dead": {"a", "b"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for n := 1; ; n++ {
				w := runtest.Pair(t)
				w.Kill(dead...)
				c := &runtest.CrashAt{N: n}
				_, err := w.Engine(c.Guard).Execute(t.Context(), w.Restarting(Graceful))
				if !c.Crashed() {
					break
				}
				tried++
				what := fmt.Sprintf("killed at effect %d (%s): %v", n, c.Op, err)
				if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				clean(t, w, what)
				// Recovery brings back what the run took out or stopped; what it had not come
				// to is as it was.
				for _, i := range []string{"a", "b"} {
					if w.Instance(i) != "1.0.0" && !slices.Contains(dead, i) || !w.Balancer.Admitted[i] {
						t.Fatalf("%s: %s %q, balancer %v", what, i, w.Instance(i), w.Balancer.Admitted)
					}
				}
			}
			if tried < 15 {
				t.Fatalf("only %d effects were tried", tried)
			}
			t.Logf("%d kill points", tried)
		})
	}
}

// A restart starts what does not run, also where it cannot be taken out of the
// balancer: because nobody else serves, or because the balancer is away as well. One
// that works is not taken out for that.
func TestRestartStartsIdle(t *testing.T) {
	for name, c := range map[string]struct {
		dead   string
		broken bool
		order  string // of the changes, as those that do not run come first
		told   string
		failed bool // that the one at work could not be restarted
	}{
		"one":                    {dead: "b", order: "ba", told: "drain a, admit a"},
		"all":                    {dead: "ab", order: "ab"},
		"one, balancer away too": {dead: "b", broken: true, order: "ba", failed: true},
		"all, balancer away too": {dead: "ab", broken: true, order: "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			w := runtest.Pair(t)
			before := w.PID("prom@a")
			w.Balancer.Broken = c.broken
			w.Kill(strings.Split(c.dead, "")...)
			req := w.Restarting(Graceful)
			if c.order == "ba" {
				slices.Reverse(req.Changes)
			}
			res, err := w.Engine(nil).Execute(t.Context(), req)
			if (err != nil) != c.failed {
				t.Fatalf("%+v, %v", res, err)
			}
			clean(t, w, name)
			if w.Instance("a") != "1.0.0" || w.Instance("b") != "1.0.0" {
				t.Errorf("a %q, b %q", w.Instance("a"), w.Instance("b"))
			}
			if c.failed && w.PID("prom@a") != before {
				t.Error("a was restarted although the balancer did not answer")
			}
			if got := strings.Join(w.Balancer.Did, ", "); got != c.told || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
				t.Errorf("told %q, expected %q; balancer %v", got, c.told, w.Balancer.Admitted)
			}
			if warned := strings.Contains(strings.Join(res.Warnings, "\n"), "whether it takes traffic again is not known"); warned != c.broken {
				t.Errorf("warnings %q", res.Warnings)
			}
		})
	}
}

// One of two dead instances cannot be started: the other is all the same, and ends
// the outage. One that works is left alone.
func TestRestartGoesOnWithIdle(t *testing.T) {
	for _, dead := range []string{"a", "ab"} {
		w := runtest.Pair(t)
		before := w.PID("prom@b")
		w.Kill(strings.Split(dead, "")...)
		w.Write(w.Bin("prom"), "prom 1.0.0 a-"+runtest.WordNoStart, 0o755)
		res, err := w.Engine(nil).Execute(t.Context(), w.Restarting(Graceful))
		if err == nil || !strings.Contains(err.Error(), "prom@a") || w.Instance("b") != "1.0.0" {
			t.Fatalf("%s: b %q, %+v, %v", dead, w.Instance("b"), res, err)
		}
		clean(t, w, dead)
		if dead == "a" && w.PID("prom@b") != before || len(w.Balancer.Did) > 0 {
			t.Errorf("%s: b was touched, told %v", dead, w.Balancer.Did)
		}
	}
}

// A rollback is how a version that does not run is mended, of all instances too.
func TestRollingBackIdle(t *testing.T) {
	for _, dead := range []string{"a", "ab"} {
		w := runtest.Pair(t)
		if res, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0")); err != nil {
			t.Fatalf("%+v, %v", res, err)
		}
		w.Balancer.Did = nil
		w.Kill(strings.Split(dead, "")...)
		res, err := w.Engine(nil).Execute(t.Context(), w.RollingBack())
		if err != nil || res.Status != StatusSuccess {
			t.Fatalf("%s: %+v, %v", dead, res, err)
		}
		clean(t, w, dead)
		if w.Instance("a") != "1.0.0" || w.Instance("b") != "1.0.0" || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
			t.Errorf("%s: a %q, b %q, balancer %v", dead, w.Instance("a"), w.Instance("b"), w.Balancer.Admitted)
		}
		// Where another serves, what is put in place proves itself out of the balancer.
		want := map[string]string{"a": "drain a, admit a, drain b, admit b", "ab": "drain b, admit b"}[dead]
		if got := strings.Join(w.Balancer.Did, ", "); got != want {
			t.Errorf("%s: told %q, expected %q", dead, got, want)
		}
	}
}

// An upgrade that does not start an instance does not take it out either: nothing
// would put it back.
func TestRollingLeavesIdleIn(t *testing.T) {
	w := runtest.Pair(t)
	w.Kill("a")
	req := w.Rolling("prom 2.0.0")
	req.Changes = req.Changes[:1]
	req.Changes[0].WasActive = false
	res, err := w.Engine(nil).Execute(t.Context(), req)
	if err != nil || res.Status != StatusSuccess || !w.Balancer.Admitted["a"] || w.Instance("a") != "" {
		t.Fatalf("%+v, %v, balancer %v", res, err, w.Balancer.Admitted)
	}
	clean(t, w, "not started")
}

// That an instance goes on with the old version from memory is said of one that does:
// not in a restart, and not of one that does not run.
func TestRollingWarnsOfMemory(t *testing.T) {
	const memory = "prom@b goes on running 1.0.0, and starts as "
	for name, c := range map[string]struct {
		restart, dead bool
		warned        string
	}{
		"upgrade":      {warned: memory + "2.0.0"},
		"upgrade dead": {dead: true},
		"restart":      {restart: true},
	} {
		w := runtest.Pair(t)
		req := w.Rolling("prom 2.0.0")
		if c.restart {
			req = w.Restarting(Graceful)
		}
		e := w.Engine(nil)
		e.Report = func(ev Event) {
			if ev.Instance == "a" && ev.Step == StepStabilize && ev.Done {
				w.Balancer.Broken = true // b cannot be taken out
				if c.dead {
					w.Kill("b")
				}
			}
		}
		res, err := e.Execute(t.Context(), req)
		if err == nil || !strings.Contains(err.Error(), "prom@b: prepare: no answer") {
			t.Fatalf("%s: %+v, %v", name, res, err)
		}
		if got := strings.Join(res.Warnings, "\n"); c.warned == "" && strings.Contains(got, "goes on running") || !strings.Contains(got, c.warned) {
			t.Errorf("%s: warnings %q", name, got)
		}
	}
}

// A restart whose service does not start is told of once, and by one name.
func TestRestartToldOnce(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	refusal := &service.StartError{Unit: "prom", Result: "its process ended at once"}
	w.Refuse = func(op, _ string) error {
		if op == "start" {
			return refusal
		}
		return nil
	}
	req := w.Steps("prom 1.0.0")
	req.Operation, req.Changes[0].Swaps = Restart, nil
	_, err := w.Engine(nil).Execute(t.Context(), req)
	if !errors.Is(err, refusal) || err.Error() != "prom did not start: its process ended at once" {
		t.Errorf("told %q", err)
	}
	clean(t, w, "told")
}

// A restart tells of what it does: it swaps nothing, and stops nothing that does not run.
func TestRestartTellsWhatItDoes(t *testing.T) {
	for _, tt := range []struct {
		dead     bool
		strategy Strategy
		want     string
	}{
		{false, Graceful, "stop stopped in 0s, start , health healthy at 1.0.0"},
		{true, Graceful, "stop it did not run, start , health healthy at 1.0.0"},
		{false, Fast, "start restarted, health healthy at 1.0.0"},
	} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		if tt.dead {
			if _, err := w.Stop(t.Context(), service.Service{Unit: "prom.service"}, 0); err != nil {
				t.Fatal(err)
			}
		}
		req := w.Steps("prom 1.0.0")
		req.Operation, req.Changes[0].Swaps, req.Changes[0].Strategy = Restart, nil, tt.strategy
		var did []string
		e := w.Engine(nil)
		e.Report = func(ev Event) {
			if ev.Done && ev.Component != "" {
				did = append(did, string(ev.Step)+" "+ev.Detail)
			}
		}
		if res, err := e.Execute(t.Context(), req); err != nil || strings.Join(did, ", ") != tt.want {
			t.Errorf("dead %v, %s: told %q, expected %q; %+v, %v", tt.dead, tt.strategy, did, tt.want, res, err)
		}
	}
}
