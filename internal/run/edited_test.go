package run_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

const edit = "edited by a person\n"

// kept is what a run kept of a file that it replaced.
func kept(t *testing.T, w *runtest.World, id, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.Root.RunsDir(), id, "changed", path))
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

// What a person edits while a run is at work, to mend a version that does not get
// healthy, is not lost when the file is put back.
func TestEditDuringAnUpgradeIsKept(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	path := w.Root.Path("etc/prom/config.yml")
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e := w.Engine(nil)
	e.Report = func(ev Event) {
		if ev.Step == StepHealth && !ev.Done {
			w.Write(path, edit, 0o644)
		}
	}
	res, err := e.Execute(t.Context(), w.Steps("prom 2.0.0 "+runtest.WordNotReady))
	if err == nil || res.Status != StatusRolledBack {
		t.Errorf("%s %v", res.Status, err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != string(was) {
		t.Errorf("the configuration is %q, %v", got, err)
	}
	if got := kept(t, w, res.ID, path); got != edit {
		t.Errorf("kept is %q", got)
	}
}

// Nor is one that a recovery finds, or that a rollback replaces which succeeds.
func TestEditBeforeARecoveryIsKept(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	path := w.Root.Path("etc/prom/config.yml")
	dead := false
	e := w.Engine(func(op, _ string) error {
		if dead = dead || op == "health"; dead {
			return hostfs.ErrCrashed
		}
		return nil
	})
	res, err := e.Execute(t.Context(), w.Steps("prom 2.0.0"))
	if err == nil {
		t.Fatal(res.Status)
	}
	w.Write(path, edit, 0o644)
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Error(err)
	}
	if got := kept(t, w, res.ID, path); got != edit {
		t.Errorf("kept is %q", got)
	}
}

func TestEditDuringARollbackIsKept(t *testing.T) {
	w := upgraded(t)
	path := w.Root.Path("etc/prom/config.yml")
	e := w.Engine(nil)
	e.Report = func(ev Event) {
		if ev.Component == "prom" && ev.Step == StepStop && !ev.Done {
			w.Write(path, edit, 0o644)
		}
	}
	res, err := e.Execute(t.Context(), w.Back())
	if err != nil || res.Status != StatusSuccess {
		t.Errorf("%s %v", res.Status, err)
	}
	if got := kept(t, w, res.ID, path); got != edit {
		t.Errorf("kept is %q", got)
	}
}
