package run_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// forced is an upgrade through a door without a way back, of whose data no copy is
// kept: a person forced it.
func forced(w *runtest.World, content string) Request {
	req := w.WithData(w.Steps(content), true)
	for i := range req.Changes {
		req.Changes[i].Data.Copy = false
	}
	return req
}

// Without a copy of the data the old version is put back and left stopped: it must
// not see what the new one wrote.
func TestNoWayBackWithoutACopy(t *testing.T) {
	for _, word := range []string{runtest.WordNotReady, runtest.WordDies, runtest.WordForgets} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Keeps("twelve bytes")
		res, err := w.Engine(nil).Execute(t.Context(), forced(w, "prom 2.0.0 "+word))
		var stopped *NotStartedError
		var rb *RollbackError
		if !errors.As(err, &stopped) || !errors.As(err, &rb) || !rb.Restored || res.Status != StatusRollbackFail {
			t.Fatalf("%s: %s, %v", word, res.Status, err)
		}
		if w.Version("prom").String() != "1.0.0" || w.Running("prom") != "" || len(w.Wrong) > 0 {
			t.Errorf("%s: %s, runs %q, %q", word, w.Version("prom"), w.Running("prom"), w.Wrong)
		}
		if p, err := FindInterrupted(w.Root.JournalDir()); err != nil || p != nil {
			t.Errorf("%s: the journal is open: %v %v", word, p, err)
		}
	}
}

func TestNoWayBackKilledAtEveryOperation(t *testing.T) {
	t.Parallel()
	tried, left := 0, 0
	for n := 1; ; n++ {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Keeps("twelve bytes")
		c := &runtest.CrashAt{N: n}
		_, _ = w.Engine(c.Guard).Execute(t.Context(), forced(w, "prom 2.0.0 "+runtest.WordNotReady))
		if !c.Crashed() {
			break
		}
		tried++
		what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
		results, err := w.Engine(nil).Recover(t.Context())
		if err != nil && !errors.As(err, new(*NotStartedError)) {
			t.Fatalf("%s: recover: %v", what, err)
		}
		stopped := len(results) > 0 && results[0].Status == StatusRollbackFail
		if stopped {
			left++
		}
		// Between the intent of a start and the start nobody can tell: it is left stopped.
		running := w.Running("prom")
		if len(w.Wrong) > 0 || w.Version("prom").String() != "1.0.0" || (running == "") != stopped && len(results) > 0 {
			t.Fatalf("%s: file %s, runs %q, %q, %v", what, w.Version("prom"), running, w.Wrong, err)
		}
	}
	if tried < 30 || left < 3 {
		t.Fatalf("only %d effects were tried, %d left it stopped", tried, left)
	}
}

// twoDoors is a run of two steps, each of which needs a copy of the data.
func twoDoors(w *runtest.World, last string) Request {
	return w.WithData(w.Steps("prom 2.0.0", last), true)
}

// collects has 2.0.0 collect something once it is accepted.
func collects(w *runtest.World, e *Engine) {
	e.Report = func(ev Event) {
		if ev.Step == StepHealth && ev.Done && ev.Err == nil && w.Running("prom") == "2.0.0" {
			w.Write(filepath.Join(w.Data(runtest.DataUnit), "samples"), "twelve bytes and more", 0o640)
		}
	}
}

// Each step keeps a copy of its own: an undo of the second puts back what the first
// left, and a rollback of the run what was before it.
func TestOneCopyPerStep(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Keeps("twelve bytes")
	req := twoDoors(w, "prom 3.0.0 "+runtest.WordNotReady)
	req.Changes[0].Data.Fingerprint, req.Changes[1].Data.Fingerprint = nil, nil // it collects meanwhile
	e := w.Engine(nil)
	collects(w, e)
	res, err := e.Execute(t.Context(), req)
	if err == nil || res.Status != StatusRolledBack || res.Components[0].Status != Upgraded {
		t.Fatalf("%+v, %v", res, err)
	}
	holds(t, w, "the second step undone", "twelve bytes and more", "2.0.0")
	if w.Running("prom") != "2.0.0" || len(w.Wrong) > 0 {
		t.Errorf("runs %s, %q", w.Running("prom"), w.Wrong)
	}
	for name, want := range map[string]string{"prom": "twelve bytes", "prom+2.0.0": "twelve bytes and more"} {
		if got, err := os.ReadFile(filepath.Join(res.BackupPath, "data", name, "samples")); err != nil || string(got) != want {
			t.Errorf("the copy %s holds %q (%v)", name, got, err)
		}
	}
}

// Killed at any effect of a run of two doors, the component is at a version with
// that version's data.
func TestTwoDoorsKilledAtEveryOperation(t *testing.T) {
	for _, last := range []string{"prom 3.0.0", "prom 3.0.0 " + runtest.WordNoStart} {
		t.Run(last, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for n := 1; ; n++ {
				w := runtest.New(t)
				w.Install("prom", "1.0.0")
				w.Keeps("twelve bytes")
				c := &runtest.CrashAt{N: n}
				_, _ = w.Engine(c.Guard).Execute(t.Context(), twoDoors(w, last))
				if !c.Crashed() {
					break
				}
				tried++
				what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
				if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				at := whole(t, w, what, map[string][]string{"prom": {"1.0.0", "2.0.0", "3.0.0"}})
				if len(w.Wrong) > 0 {
					t.Fatalf("%s: %q", what, w.Wrong)
				}
				holds(t, w, what, "twelve bytes", at["prom"])
			}
			if tried < 60 {
				t.Fatalf("only %d effects were tried", tried)
			}
		})
	}
}

// A copy that cannot be made while the service runs stops nothing; one that fails
// while it is stopped brings the old version back. Neither is the new version's
// doing: it never ran.
func TestFailedCopyIsNotTheVersionsFault(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		status ComponentStatus
		stops  int
	}{
		"online": {method: "sqlite", status: Failed},
		"cold":   {method: "copy", status: RolledBack, stops: 2},
	} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Keeps("twelve bytes")
		req := w.WithData(w.Steps("prom 2.0.0"), true)
		d := req.Changes[0].Data
		d.Method, d.File = tt.method, "grafana.db"
		if tt.method == "copy" {
			// Planned without it.
			if err := os.Symlink(t.TempDir(), filepath.Join(d.Path, "elsewhere")); err != nil {
				t.Fatal(err)
			}
		}
		res, err := w.Engine(nil).Execute(t.Context(), req)
		if err == nil || res.Components[0].Status != tt.status || res.Components[0].Started || w.Stops != tt.stops {
			t.Fatalf("%s: %+v, %d stops, %v", name, res, w.Stops, err)
		}
		f, stateErr := state.Load(w.Root.State())
		if stateErr != nil || len(f.Components["prom"].FailedVersions) > 0 {
			t.Errorf("%s: %+v, %v", name, f, stateErr)
		}
		whole(t, w, name, map[string][]string{"prom": {"1.0.0"}})
	}
}

// What a person took out between two steps of one run is not put back after the
// second.
func TestDrainsAreOfOneChange(t *testing.T) {
	w := runtest.Pair(t)
	w.Balancer.Admitted["c"] = true
	first, second := w.Rolling("prom 2.0.0"), w.Steps("prom 2.0.0", "prom 3.0.0")
	ch := first.Changes[0]
	again := ch
	again.From, again.To, again.Swaps = component.MustParseVersion("2.0.0"), component.MustParseVersion("3.0.0"), second.Changes[1].Swaps
	first.Changes = []Change{ch, again}
	e := w.Engine(nil)
	e.Report = func(ev Event) {
		if ev.Step == StepStabilize && ev.Done {
			w.Balancer.SetAdmitted("a", false) // by hand
		}
	}
	res, err := e.Execute(t.Context(), first)
	if err != nil || res.Status != StatusSuccess {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := strings.Join(w.Balancer.Did, ", "); got != "drain a, admit a" {
		t.Errorf("the balancer was told: %s", got)
	}
}
