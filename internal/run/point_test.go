package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
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
