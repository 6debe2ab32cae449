package run_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// killedAt runs an upgrade of prom that dies at its first effect of a kind.
func killedAt(t *testing.T, w *runtest.World, op, content string) {
	t.Helper()
	dead := false
	e := w.Engine(func(have, _ string) error {
		if dead = dead || have == op; dead {
			return hostfs.ErrCrashed
		}
		return nil
	})
	if _, err := e.Execute(t.Context(), w.Steps(content)); !errors.Is(err, hostfs.ErrCrashed) {
		t.Fatalf("killed at %s: %v", op, err)
	}
}

// tooDeep makes directories in dir whose path is too long to be looked into, by
// whoever it is.
func tooDeep(t *testing.T, dir string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	for range 20 {
		name := strings.Repeat("d", 250)
		if err == nil {
			err = root.Mkdir(name, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		above := root
		root, err = above.OpenRoot(name)
		above.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	root.Close()
}

// An older backup point that cannot be read whole, such as data on a bad disk, is
// not what a recovery goes by.
func TestRecoveryBesideUnreadablePoint(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	at := filepath.Join(w.Root.Backups(), "20200101_000000", "data")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	tooDeep(t, at)
	killedAt(t, w, "health", "prom 2.0.0")
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean(t, w, "recovered")
	if w.Running("prom") != "1.0.0" {
		t.Errorf("prom runs %q", w.Running("prom"))
	}
}

// A backup point that was completed and cannot be read is not taken for one that never
// was: it stays, the undo goes by what lies beside, and a warning names it.
func TestRecoveryWithDamagedPoint(t *testing.T) {
	for name, data := range map[string]bool{"files": false, "files and data": true} {
		t.Run(name, func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			dead := false
			req := w.Steps("prom 2.0.0")
			if data {
				w.Keeps("abc")
				req = w.WithData(req, true)
			}
			_, err := w.Engine(func(op, _ string) error {
				if dead = dead || op == "health"; dead {
					return hostfs.ErrCrashed
				}
				return nil
			}).Execute(t.Context(), req)
			if !errors.Is(err, hostfs.ErrCrashed) {
				t.Fatal(err)
			}
			points, err := backup.List(w.Root.Backups())
			if err != nil || len(points) != 1 {
				t.Fatalf("%v, %v", points, err)
			}
			w.Write(filepath.Join(points[0].Path, "manifest.json"), "{", 0o600)
			results, err := w.Engine(nil).Recover(t.Context())
			if err != nil || len(results) != 1 || !results[0].Components[0].Healthy || results[0].BackupPath != points[0].Path {
				t.Fatalf("%+v, %v", results, err)
			}
			clean(t, w, "recovered")
			if w.Running("prom") != "1.0.0" {
				t.Errorf("prom runs %q", w.Running("prom"))
			}
			if _, err := os.Stat(filepath.Join(points[0].Path, "bin", "prom")); err != nil {
				t.Errorf("the damaged point was removed: %v", err)
			}
			text := strings.Join(results[0].Warnings, "\n")
			for _, want := range []string{
				"prom: whether its configuration changed during the run is not known, and nothing of it is put back: backup " + points[0].Timestamp + " is damaged: manifest.json",
				"it is kept: look at what is in it, then: rm -r " + points[0].Path,
			} {
				if !strings.Contains(text, want) {
					t.Errorf("no warning says %q: %s", want, text)
				}
			}
		})
	}
}

// Where the old version needs the configuration that a damaged point cannot give, the
// run stays open until a person has put it there.
func TestRecoveryThatNeedsADamagedPoint(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	killedAt(t, w, "health", "prom 2.0.0")
	points, err := backup.List(w.Root.Backups())
	if err != nil || len(points) != 1 {
		t.Fatalf("%v, %v", points, err)
	}
	w.Write(filepath.Join(points[0].Path, "manifest.json"), "{", 0o600)
	timeouts(w, "prom.service", 1) // as with configuration that it does not know
	results, err := w.Engine(nil).Recover(t.Context())
	var failed *RollbackError
	if !errors.As(err, &failed) || failed.Restored || len(results) != 1 {
		t.Fatalf("%+v, %v", results, err)
	}
	open(t, w, "not healthy")
	w.Refuse = nil
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean(t, w, "recovered")
	if w.Running("prom") != "1.0.0" {
		t.Errorf("prom runs %q", w.Running("prom"))
	}
}

// A later run removes no point that is damaged, and tells of it.
func TestDamagedPointIsKept(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	first, err := w.Engine(nil).Execute(t.Context(), w.Steps("prom 2.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	w.Write(filepath.Join(first.BackupPath, "manifest.json"), "{", 0o600)
	second, err := w.Engine(nil).Execute(t.Context(), w.Steps("prom 3.0.0"))
	if err != nil || second.Status != StatusSuccess {
		t.Fatal(second.Status, err)
	}
	if _, err := os.Stat(filepath.Join(first.BackupPath, "bin", "prom")); err != nil {
		t.Errorf("the old binary is gone: %v", err)
	}
	if text := strings.Join(second.Warnings, "\n"); !strings.Contains(text, "backup "+first.ID+" is damaged") || !strings.Contains(text, "rm -r "+first.BackupPath) {
		t.Errorf("warnings %q", second.Warnings)
	}
}

// With one backup point to keep, an upgrade that fails leaves the way back of the one
// in force.
func TestFailedUpgradeLeavesTheWayBack(t *testing.T) {
	w := runtest.New(t)
	w.Retain = 1
	w.Install("prom", "1.0.0")
	first, err := w.Engine(nil).Execute(t.Context(), w.Steps("prom 2.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	failed, err := w.Engine(nil).Execute(t.Context(), w.Steps("prom 3.0.0 "+runtest.WordNoStart))
	if err == nil || failed.Status != StatusRolledBack {
		t.Fatalf("%s, %v", failed.Status, err)
	}
	points, err := backup.List(w.Root.Backups())
	if err != nil || len(points) != 2 || points[0].Path != failed.BackupPath || points[1].Path != first.BackupPath {
		t.Fatalf("kept %v, %v", points, err)
	}
	last, err := w.Engine(nil).Execute(t.Context(), w.Steps("prom 3.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if points, err = backup.List(w.Root.Backups()); err != nil || len(points) != 1 || points[0].Path != last.BackupPath {
		t.Errorf("after an upgrade kept %v, %v", points, err)
	}
}

// Where old backup points cannot be removed, the run is in the state file all the same,
// which names those points that are left.
func TestRunIsKeptWherePruningFails(t *testing.T) {
	w := runtest.New(t)
	w.Retain = 3
	w.Install("prom", "1.0.0")
	for n := 2; n <= 4; n++ {
		if res, err := w.Engine(nil).Execute(t.Context(), w.Steps(fmt.Sprintf("prom %d.0.0", n))); err != nil || len(res.Warnings) > 0 {
			t.Fatal(err, res.Warnings)
		}
	}
	points, err := backup.List(w.Root.Backups())
	if err != nil || len(points) != 3 {
		t.Fatalf("%v, %v", points, err)
	}
	w.Retain = 1
	res, err := w.Engine(func(op, target string) error {
		if op == "rename" && filepath.Base(target) == "."+points[2].Timestamp+".leaving" {
			return errors.New("the disk is read-only")
		}
		return nil
	}).Execute(t.Context(), w.Steps("prom 5.0.0"))
	if err != nil || res.Status != StatusSuccess {
		t.Fatal(res.Status, err)
	}
	want := "after the run: remove old backups: the disk is read-only"
	if len(res.Warnings) != 1 || res.Warnings[0] != want {
		t.Errorf("warnings %q, want %q", res.Warnings, want)
	}
	f, err := state.Load(w.Root.State())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(f.UpgradeHistory); n != 4 || f.UpgradeHistory[3].ID != res.ID {
		t.Errorf("the state file has the runs %+v", f.UpgradeHistory)
	}
	var left []string
	for _, b := range f.Components["prom"].Backups {
		left = append(left, b.Timestamp)
	}
	if got, want := strings.Join(left, " "), points[2].Timestamp+" "+res.ID; got != want {
		t.Errorf("the state file has the backups %s, want %s", got, want)
	}
}
