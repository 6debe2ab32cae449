package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

func TestUpgrade(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Install("am", "0.1.0")
	req := w.Upgrade(map[string]string{"prom": "prom 2.0.0", "am": "am 0.2.0"}, "prom", "am")
	res, err := w.Engine(nil).Execute(t.Context(), req)
	if err != nil || res.Status != StatusSuccess {
		t.Fatalf("status %s, %v", res.Status, err)
	}
	at := whole(t, w, "upgrade", map[string][]string{"prom": {"1.0.0", "2.0.0"}, "am": {"0.1.0", "0.2.0"}})
	if at["prom"] != "2.0.0" || at["am"] != "0.2.0" {
		t.Fatalf("versions %v", at)
	}
	f, err := state.Load(w.Root.State())
	if err != nil {
		t.Fatal(err)
	}
	c := f.Components["prom"]
	sum, _ := hostfs.Digest(w.Bin("prom"))
	if c.PreviousVersion != "1.0.0" || c.Checksum != sum || len(c.Backups) != 1 || c.Backups[0].Version != "1.0.0" {
		t.Fatalf("state of prom: %+v", c)
	}
	if len(f.UpgradeHistory) != 1 || f.UpgradeHistory[0].Status != StatusSuccess || len(f.UpgradeHistory[0].ComponentsUpgraded) != 2 {
		t.Fatalf("upgrade_history: %+v", f.UpgradeHistory)
	}
}

// Each way a new version can fail must end with the old one running, exit
// status rolled_back, evidence kept and the failed version remembered.
func TestFailureRollsBack(t *testing.T) {
	for _, word := range []string{runtest.WordNoStart, runtest.WordNotReady, runtest.WordDies} {
		t.Run(word, func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			w.Install("am", "0.1.0")
			req := w.Upgrade(map[string]string{"prom": "prom 2.0.0 " + word, "am": "am 0.2.0"}, "prom", "am")
			res, err := w.Engine(nil).Execute(t.Context(), req)
			if err == nil || res.Status != StatusRolledBack {
				t.Fatalf("status %s, %v", res.Status, err)
			}
			if res.Components[0].Status != RolledBack || res.Components[1].Status != NotAttempted {
				t.Fatalf("components: %+v", res.Components)
			}
			at := whole(t, w, word, map[string][]string{"prom": {"1.0.0"}, "am": {"0.1.0"}})
			if at["prom"] != "1.0.0" {
				t.Fatal("not rolled back")
			}
			var ev Evidence
			data, err := os.ReadFile(res.Components[0].Evidence)
			if err != nil || json.Unmarshal(data, &ev) != nil {
				t.Fatalf("evidence: %v", err)
			}
			if ev.To != "2.0.0" || ev.Reason == "" || len(ev.Logs) == 0 || ev.Digests[w.Bin("prom")] != req.Changes[0].Swaps[0].New {
				t.Fatalf("evidence: %+v", ev)
			}
			f, err := state.Load(w.Root.State())
			if err != nil {
				t.Fatal(err)
			}
			bad := f.Components["prom"].FailedVersions
			if len(bad) != 1 || bad[0].Version != "2.0.0" || bad[0].Reason == "" {
				t.Fatalf("failed versions: %+v", bad)
			}
			db, err := history.OpenReadOnly(t.Context(), w.Root.History())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			rows, err := db.List(t.Context(), history.Filter{})
			if err != nil || len(rows) != 1 || rows[0].Status != history.RolledBack || rows[0].RollbackTimestamp == nil {
				t.Fatalf("history: %+v %v", rows, err)
			}
		})
	}
}

// What was missing before the upgrade is not held against the new version, nor
// against the old one that an undo puts back.
func TestBaseline(t *testing.T) {
	for _, tt := range []struct {
		word    string
		excused []string
		status  string
	}{
		{"", nil, StatusRollbackFail},
		{"", []string{"metric"}, StatusSuccess},
		{runtest.WordNotReady, []string{"metric"}, StatusRolledBack},
	} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		req := w.Upgrade(map[string]string{"prom": "prom 2.0.0 " + tt.word}, "prom")
		req.Changes[0].Health.Spec.Health.ExpectedMetric, req.Changes[0].Health.Excused = "never_there", tt.excused
		res, err := w.Engine(nil).Execute(t.Context(), req)
		if res.Status != tt.status || (err == nil) != (tt.status == StatusSuccess) {
			t.Fatalf("%q, excused %v: status %s, %v", tt.word, tt.excused, res.Status, err)
		}
		if tt.status == StatusSuccess && !strings.Contains(strings.Join(res.Warnings, "\n"), "as before the upgrade") {
			t.Errorf("warnings: %q", res.Warnings)
		}
	}
}

func TestContinueOnFailure(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Install("am", "0.1.0")
	req := w.Upgrade(map[string]string{"prom": "prom 2.0.0 " + runtest.WordNoStart, "am": "am 0.2.0"}, "prom", "am")
	req.ContinueOnFailure = true
	res, err := w.Engine(nil).Execute(t.Context(), req)
	if err == nil || res.Status != StatusRolledBack || res.Components[1].Status != Upgraded {
		t.Fatalf("%+v, %v", res, err)
	}
	whole(t, w, "continue", map[string][]string{"prom": {"1.0.0"}, "am": {"0.1.0", "0.2.0"}})
}

// A run that goes on without what was refused before it is no success, also when it
// is recovered; what is recorded is what it returns.
func TestLeftOut(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Install("am", "0.1.0")
		req := w.Steps("prom 2.0.0")
		left := Outcome{Name: "am", From: component.MustParseVersion("0.1.0"), To: component.MustParseVersion("0.2.0"), Status: Failed, Error: "its version is not what it should be"}
		req.LeftOut = []Outcome{left}
		crashed := false
		res, err := w.Engine(func(op, _ string) error {
			if crashed = crashed || crash && op == "history"; crashed {
				return hostfs.ErrCrashed
			}
			return nil
		}).Execute(t.Context(), req)
		if crash {
			if !errors.Is(err, hostfs.ErrCrashed) {
				t.Fatal(err)
			}
			all, recErr := w.Engine(nil).Recover(t.Context())
			if recErr != nil || len(all) != 1 {
				t.Fatalf("%+v, %v", all, recErr)
			}
			res, err = all[0], nil
		}
		if err != nil || res.Status != StatusFailed || len(res.Components) != 2 || res.Components[0].Status != Upgraded || res.Components[1].Name != left.Name || res.Components[1].Status != Failed || res.Components[1].Error != left.Error {
			t.Errorf("crash %v: %+v, %v", crash, res, err)
		}
		kept, err := ReadResult(w.Root, res.ID)
		if err != nil || kept.Status != StatusFailed || len(kept.Components) != 2 || kept.Components[1].Error != left.Error {
			t.Errorf("crash %v: result.json: %+v, %v", crash, kept, err)
		}
		f, err := state.Load(w.Root.State())
		if err != nil || state.Newest(f.UpgradeHistory).Status != StatusFailed || len(state.Newest(f.UpgradeHistory).ComponentsUpgraded) != 1 {
			t.Errorf("crash %v: recorded as %+v, %v", crash, f.UpgradeHistory, err)
		}
		whole(t, w, "left out", map[string][]string{"prom": {"2.0.0"}, "am": {"0.1.0"}})
	}
}

// A step whose stone failed is not attempted, nor one that no longer fits.
func TestContinueAfterStone(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Install("am", "0.1.0")
	w.Install("node", "1.0.0")
	req := w.Steps("prom 2.0.0 "+runtest.WordNoStart, "prom 3.0.0", "am 0.2.0", "node 2.0.0")
	req.ContinueOnFailure = true
	req.Allow = func(ch Change, at map[string]component.Version) error {
		if at["prom"].String() != "1.0.0" {
			t.Errorf("prom is said to be at %s", at["prom"])
		}
		if ch.Component == "am" {
			return errors.New("am 0.2.0 needs prom 3.x")
		}
		return nil
	}
	res, err := w.Engine(nil).Execute(t.Context(), req)
	if err == nil || !strings.Contains(err.Error(), "prom 2.0.0 → 3.0.0 was not attempted: its step to 2.0.0 failed") || !strings.Contains(err.Error(), "am 0.2.0 needs prom 3.x") {
		t.Errorf("%v", err)
	}
	var got []string
	for _, o := range res.Components {
		got = append(got, o.Name+" "+o.To.String()+" "+string(o.Status))
	}
	want := "prom 2.0.0 rolled_back; prom 3.0.0 not_attempted; am 0.2.0 not_attempted; node 2.0.0 upgraded"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got %s\nwant %s", s, want)
	}
	whole(t, w, "continued", map[string][]string{"prom": {"1.0.0"}, "am": {"0.1.0"}, "node": {"1.0.0", "2.0.0"}})
}

// A cancelled context undoes the component at work and starts nothing more.
func TestCancelUndoes(t *testing.T) {
	for _, at := range []Step{StepStop, StepSwap, StepStart, StepHealth} {
		t.Run(string(at), func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			w.Install("am", "0.1.0")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := w.Engine(nil)
			e.Report = func(ev Event) {
				if ev.Step == at && !ev.Done {
					cancel()
				}
			}
			req := w.Upgrade(map[string]string{"prom": "prom 2.0.0", "am": "am 0.2.0"}, "prom", "am")
			res, err := e.Execute(ctx, req)
			if err == nil || res.Status != StatusInterrupted {
				t.Fatalf("status %s, %v", res.Status, err)
			}
			whole(t, w, string(at), map[string][]string{"prom": {"1.0.0"}, "am": {"0.1.0"}})
			f, err := state.Load(w.Root.State())
			if err != nil {
				t.Fatal(err)
			}
			if bad := f.Components["prom"].FailedVersions; len(bad) > 0 {
				t.Fatalf("a signal was blamed on the version: %+v", bad)
			}
		})
	}
}

// A version is not to blame for a disk that breaks under it.
func TestFileLostUnderTheStart(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	lost := false
	w.Refuse = func(op, _ string) error {
		if op != "start" || lost {
			return nil
		}
		lost = true
		if err := os.Remove(w.Bin("prom")); err != nil {
			return err
		}
		return errors.New("exec: input/output error")
	}
	res, err := w.Engine(nil).Execute(t.Context(), w.Upgrade(map[string]string{"prom": "prom 2.0.0"}, "prom"))
	if err == nil || !lost || res.Components[0].Status != RolledBack || res.Components[0].Started {
		t.Fatalf("%+v, %v", res.Components, err)
	}
	whole(t, w, "lost", map[string][]string{"prom": {"1.0.0"}})
	f, err := state.Load(w.Root.State())
	if err != nil || len(f.Components["prom"].FailedVersions) > 0 {
		t.Fatalf("the version was blamed: %+v, %v", f.Components["prom"], err)
	}
}

// A signal after the last component arrived interrupts nothing.
func TestCancelAfterTheLast(t *testing.T) {
	for last, want := range map[string]string{"am": StatusSuccess, "prom": StatusInterrupted} {
		t.Run(last, func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			w.Install("am", "0.1.0")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := w.Engine(func(op, target string) error {
				if op == "history" && target == last {
					cancel()
				}
				return nil
			})
			res, err := e.Execute(ctx, w.Steps("prom 2.0.0", "am 0.2.0"))
			if err != nil || res.Status != want {
				t.Fatalf("status %s, want %s; %v", res.Status, want, err)
			}
			f, err := state.Load(w.Root.State())
			if err != nil || state.Newest(f.UpgradeHistory).Status != want {
				t.Errorf("recorded as %+v, %v", f.UpgradeHistory, err)
			}
		})
	}
}

func TestCancelBeforeAnything(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	res, err := w.Engine(nil).Execute(ctx, w.Upgrade(map[string]string{"prom": "prom 2.0.0"}, "prom"))
	if err == nil || res.Status != StatusCancelled || w.Stops != 0 {
		t.Fatalf("status %s, %v, %d stops", res.Status, err, w.Stops)
	}
	whole(t, w, "cancelled", map[string][]string{"prom": {"1.0.0"}})
}

// scenario is one run for the crash tests.
type scenario struct {
	name  string
	steps []string
}

var scenarios = []scenario{
	{"upgrade", []string{"prom 2.0.0", "am 0.2.0"}},
	{"rollback", []string{"prom 2.0.0", "am 0.2.0 " + runtest.WordNoStart}},
	{"stepping stone", []string{"prom 2.0.0", "am 0.2.0", "prom 3.0.0"}},
	{"stepping stone, then failure", []string{"prom 2.0.0", "prom 3.0.0 " + runtest.WordNoStart}},
}

var allowed = map[string][]string{"prom": {"1.0.0", "2.0.0", "3.0.0"}, "am": {"0.1.0", "0.2.0"}}

func crashedWorld(t *testing.T, sc scenario, n int) (*runtest.World, *runtest.CrashAt) {
	t.Helper()
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Install("am", "0.1.0")
	c := &runtest.CrashAt{N: n}
	_, err := w.Engine(c.Guard).Execute(t.Context(), w.Steps(sc.steps...))
	if c.Crashed() && !errors.Is(err, hostfs.ErrCrashed) {
		t.Fatalf("crash at %d (%s): the run went on: %v", n, c.Op, err)
	}
	return w, c
}

// Killed at any effect of a run, recovery leaves each component wholly at one
// version, running, with state file, history and binaries agreeing.
func TestKillAtEveryOperation(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			tried := 0
			for n := 1; ; n++ {
				w, c := crashedWorld(t, sc, n)
				if !c.Crashed() {
					break
				}
				tried++
				what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
				if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				whole(t, w, what, allowed)
				again, err := w.Engine(nil).Recover(t.Context())
				if err != nil || len(again) != 0 {
					t.Fatalf("%s: a second recovery found something: %v %v", what, again, err)
				}
			}
			if tried < 40 {
				t.Fatalf("only %d effects were tried: the guard is not where it should be", tried)
			}
			t.Logf("%d kill points", tried)
		})
	}
}

// Killed again at any effect of the recovery itself.
func TestKillDuringRecovery(t *testing.T) {
	stride := 7
	if testing.Short() {
		stride = 19
	}
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			tried := 0
			for n := 1; ; n += stride {
				probe, c := crashedWorld(t, sc, n)
				if !c.Crashed() {
					break
				}
				count := &runtest.CrashAt{}
				if _, err := probe.Engine(count.Guard).Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				for m := 1; m <= count.Count; m++ {
					w, _ := crashedWorld(t, sc, n)
					second := &runtest.CrashAt{N: m}
					_, err := w.Engine(second.Guard).Recover(t.Context())
					// The intents are written while the service stops, so the first kill may
					// come upon them in another order, and leave less to recover.
					if errors.Is(err, hostfs.ErrCrashed) != second.Crashed() {
						t.Fatalf("kill %d then %d: %v", n, m, err)
					}
					what := fmt.Sprintf("killed at effect %d (%s), then in recovery at %d (%s)", n, c.Op, m, second.Op)
					if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					whole(t, w, what, allowed)
					tried++
				}
			}
			t.Logf("%d pairs of kill points", tried)
		})
	}
}

// Any single effect that fails with an error, rather than a kill, is undone by
// the run itself or by the next recovery.
func TestErrorAtEveryOperation(t *testing.T) {
	boom := errors.New("input/output error")
	for n := 1; ; n++ {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Install("am", "0.1.0")
		var mu sync.Mutex
		count, op := 0, ""
		guard := func(o, target string) error {
			mu.Lock()
			defer mu.Unlock()
			count++
			if count == n {
				op = o + " " + target
				return boom
			}
			return nil
		}
		res, err := w.Engine(guard).Execute(t.Context(), w.Steps(scenarios[0].steps...))
		if op == "" {
			break
		}
		what := fmt.Sprintf("error at effect %d (%s), run %s", n, strings.TrimPrefix(op, string(w.Root)), res.Status)
		if err == nil && len(res.Warnings) == 0 && res.Status != StatusSuccess {
			t.Fatalf("%s: the error was swallowed", what)
		}
		if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
			t.Fatalf("%s: recover: %v", what, err)
		}
		whole(t, w, what, allowed)
	}
}

// An undo that cannot write leaves the journal open and says that a person is
// needed; once the cause is gone, recover mends it.
func TestUndoThatCannotRestore(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	var mu sync.Mutex
	clock := time.Now()
	w.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		clock = clock.Add(10 * time.Millisecond)
		return clock
	}
	full := false
	guard := func(op, target string) error {
		mu.Lock()
		defer mu.Unlock()
		if full && op == "exchange" {
			return errors.New("read-only file system")
		}
		if op == "service.start" {
			full = true
		}
		return nil
	}
	res, err := w.Engine(guard).Execute(t.Context(), w.Upgrade(map[string]string{"prom": "prom 2.0.0 " + runtest.WordNoStart}, "prom"))
	var rb *RollbackError
	if !errors.As(err, &rb) || rb.Restored || res.Status != StatusRollbackFail {
		t.Fatalf("status %s, %v", res.Status, err)
	}
	if c := res.Components[0]; c.Healthy || c.Downtime <= 0 || c.Downtime > c.Duration {
		t.Errorf("it is down still, and was for %v of %v", c.Downtime, c.Duration)
	}
	in, err := FindInterrupted(w.Root.JournalDir())
	if err != nil || in == nil || in.Component != "prom" {
		t.Fatalf("interrupted = %+v, %v", in, err)
	}
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole(t, w, "after the cause is gone", map[string][]string{"prom": {"1.0.0"}})
}

// A signal while a service stops is told once, though it ends what is written
// meanwhile as well.
func TestCutOffToldOnce(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		req := w.Upgrade(map[string]string{"prom": "prom 2.0.0"}, "prom")
		first := true
		w.Refuse = func(op, _ string) error {
			if op != "stop" || !first {
				return nil // the undo
			}
			first = false
			return ctx.Err()
		}
		res, err := w.Engine(func(op, _ string) error {
			if op == "service.stop" {
				cancel()
			}
			return nil
		}).Execute(ctx, req)
		if res.Status != StatusInterrupted || err == nil || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%s: %v", res.Status, err)
		}
	}
	whole(t, w, "cut off", map[string][]string{"prom": {"1.0.0"}})
}

// A run is called what its plan was called when it was shown, unless that is taken
// or too old by now; then the plan is told, before it is stored.
func TestNameOfARun(t *testing.T) {
	stamp := func(ago time.Duration) string { return time.Now().UTC().Add(-ago).Format(backup.StampLayout) }
	for name, tt := range map[string]struct {
		wish  string
		taken string // directory in which the wish is taken
		kept  bool
	}{
		"fresh":             {wish: stamp(20 * time.Second), kept: true},
		"with a number":     {wish: stamp(20*time.Second) + "_3", kept: true},
		"a point has it":    {wish: stamp(20 * time.Second), taken: "var/backups/observability"},
		"a run has it":      {wish: stamp(20 * time.Second), taken: "var/lib/observability/runs"},
		"older than that":   {wish: stamp(2 * time.Minute)},
		"of the future":     {wish: stamp(-time.Hour)},
		"no name":           {wish: "../../etc"},
		"nothing was shown": {},
	} {
		t.Run(name, func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			if tt.taken != "" {
				if err := os.MkdirAll(w.Root.Path(tt.taken, tt.wish), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			req := w.Steps("prom 2.0.0")
			plan := map[string]string{"id": tt.wish}
			req.ID, req.Plan = tt.wish, plan
			req.Named = func(id, path string) { plan["id"], plan["backup_path"] = id, path }
			res, err := w.Engine(nil).Execute(t.Context(), req)
			if err != nil || (res.ID == tt.wish) != tt.kept || filepath.Base(res.BackupPath) != res.ID {
				t.Fatalf("%s, %s, wish %s, %v", res.ID, res.BackupPath, tt.wish, err)
			}
			stored, err := os.ReadFile(filepath.Join(res.BackupPath, "upgrade-plan.json"))
			if err != nil || !strings.Contains(string(stored), `"id": "`+res.ID+`"`) || !strings.Contains(string(stored), `"backup_path": "`+res.BackupPath+`"`) {
				t.Fatalf("%s, %v", stored, err)
			}
		})
	}
}
