package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// oldRuns makes what is kept of runs of long ago.
func oldRuns(w *runtest.World, ids ...string) {
	w.T.Helper()
	for _, id := range ids {
		w.Write(filepath.Join(w.Root.RunsDir(), id, "evidence", "prom.json"), "{}\n", 0o644)
		w.Write(filepath.Join(w.Root.RunsDir(), id, "result.json"), "{}\n", 0o644)
	}
}

// runs lists what is kept but for the newest run, which is now's.
func runs(w *runtest.World, newest string) string {
	w.T.Helper()
	ids, err := IDs(w.Root)
	if err != nil {
		w.T.Fatal(err)
	}
	if len(ids) == 0 || ids[0] != newest {
		w.T.Fatalf("the run %s is not kept: %v", newest, ids)
	}
	return strings.Join(ids[1:], " ")
}

var longAgo = []string{"20240101_000000", "20240101_000000_2", "20240101_000000_10", "20240102_000000", "20240103_000000"}

func retaining(w *runtest.World, n int, guard hostfs.Guard) *Engine {
	e := w.Engine(guard)
	e.Recorder.(*Books).RetainRuns = n
	return e
}

func TestRunsAreRemoved(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	oldRuns(w, longAgo...)
	w.Write(filepath.Join(w.Root.RunsDir(), "notes.txt"), "mine", 0o644)
	w.Write(filepath.Join(w.Root.RunsDir(), "mine", "notes.txt"), "mine", 0o644)
	elsewhere := w.Root.Path("elsewhere")
	w.Write(filepath.Join(elsewhere, "result.json"), "{}", 0o644)
	if err := os.Symlink(elsewhere, filepath.Join(w.Root.RunsDir(), "20230101_000000")); err != nil {
		t.Fatal(err)
	}
	res, err := retaining(w, 3, nil).Execute(t.Context(), w.Steps("prom 2.0.0"))
	if err != nil || len(res.Warnings) > 0 {
		t.Fatal(err, res.Warnings)
	}
	if got := runs(w, res.ID); got != "20240103_000000 20240102_000000" {
		t.Errorf("kept: %s", got)
	}
	for _, path := range []string{filepath.Join(elsewhere, "result.json"), filepath.Join(w.Root.RunsDir(), "mine/notes.txt"), filepath.Join(w.Root.RunsDir(), "notes.txt")} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("what is no run was removed: %v", err)
		}
	}
	// A restart leaves a directory as well.
	req := w.Steps("prom 2.0.0")
	req.Operation, req.Subjects, req.Changes[0].Swaps = Restart, nil, nil
	res, err = retaining(w, 1, nil).Execute(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := runs(w, res.ID); got != "" {
		t.Errorf("kept after a restart: %s", got)
	}
}

// The evidence of why a version is held is kept as long as it is held.
func TestRunOfHeldVersionIsKept(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	oldRuns(w, longAgo...)
	f := state.New()
	f.Components["prom"] = state.Component{CurrentVersion: "1.0.0", FailedVersions: []state.FailedVersion{
		{Version: "2.0.0", RunID: longAgo[1]}, {Version: "1.5.0", RunID: longAgo[0]},
	}}
	if err := state.Save(&hostfs.Host{}, w.Root.State(), f); err != nil {
		t.Fatal(err)
	}
	res, err := retaining(w, 1, nil).Execute(t.Context(), w.Steps("prom 2.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if got := runs(w, res.ID); got != longAgo[0] {
		t.Errorf("2.0.0 is installed and only 1.5.0 held; kept: %s", got)
	}
}

// Nothing is removed of a run whose journal is open.
func TestOpenRunIsKept(t *testing.T) {
	w := runtest.New(t)
	oldRuns(w, longAgo...)
	w.Write(filepath.Join(w.Root.JournalDir(), longAgo[0]+".journal"), "", 0o600)
	b := retaining(w, 1, nil).Recorder.(*Books)
	if err := PruneRuns(b, t.Context(), Header{ID: longAgo[2]}); err != nil {
		t.Fatal(err)
	}
	if got, want := runs(w, longAgo[4]), longAgo[2]+" "+longAgo[0]; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
}

// Killed while it removes runs, the run is whole and recovery goes on removing.
func TestKillWhileRunsAreRemoved(t *testing.T) {
	world := func(guard hostfs.Guard) (*runtest.World, Result, error) {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		oldRuns(w, longAgo...)
		res, err := retaining(w, 2, guard).Execute(t.Context(), w.Steps("prom 2.0.0"))
		return w, res, err
	}
	var removals []int
	count := 0
	if _, _, err := world(func(op, target string) error {
		count++
		if op == "remove" && filepath.Base(filepath.Dir(target)) == "runs" {
			removals = append(removals, count)
		}
		return nil
	}); err != nil || len(removals) != len(longAgo)-1 {
		t.Fatalf("%d removals, %v", len(removals), err)
	}
	for _, n := range append(removals, removals[len(removals)-1]+1) {
		c := &runtest.CrashAt{N: n}
		w, res, err := world(c.Guard)
		if !errors.Is(err, hostfs.ErrCrashed) {
			t.Fatalf("killed at %d: %v", n, err)
		}
		if _, err := retaining(w, 2, nil).Recover(t.Context()); err != nil {
			t.Fatalf("killed at %d (%s): %v", n, c.Op, err)
		}
		whole(t, w, c.Op, map[string][]string{"prom": {"1.0.0", "2.0.0"}})
		if got := runs(w, res.ID); got != longAgo[4] {
			t.Errorf("killed at %d (%s): kept %s", n, c.Op, got)
		}
	}
}

// A directory that cannot be removed is told, and fails nothing.
func TestRemovalFails(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	oldRuns(w, longAgo...)
	res, err := retaining(w, 1, func(op, target string) error {
		if op == "remove" && filepath.Base(target) == longAgo[0] {
			return errors.New("the disk is read-only")
		}
		return nil
	}).Execute(t.Context(), w.Steps("prom 2.0.0"))
	if err != nil || res.Status != StatusSuccess {
		t.Fatal(res.Status, err)
	}
	want := "after the run: remove old runs: " + longAgo[0] + ": the disk is read-only"
	if len(res.Warnings) != 1 || res.Warnings[0] != want {
		t.Errorf("warnings %q, want %q", res.Warnings, want)
	}
}

// A restart and an upgrade of one second are two runs.
func TestRunsOfOneSecond(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	e := w.Engine(nil)
	at := e.Now()
	e.Now = func() time.Time { return at }
	restart := w.Steps("prom 1.0.0")
	restart.Operation, restart.Subjects, restart.Changes[0].Swaps = Restart, nil, nil
	first, err := e.Execute(t.Context(), restart)
	if err != nil {
		t.Fatal(err)
	}
	second, err := e.Execute(t.Context(), w.Steps("prom 2.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if second.ID != first.ID+"_2" {
		t.Errorf("runs %s and %s", first.ID, second.ID)
	}
}
