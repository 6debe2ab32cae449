package script

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/demo"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

// A download may take until the window is about to close: then nothing is
// stopped any more.
func TestWindowClosesDuringDownload(t *testing.T) {
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	box, err := demo.New(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f, err := os.OpenFile(box.Root.Policy(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("maintenance_windows: [\"02:00-04:00\"]\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	var late atomic.Bool
	base := time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)
	began := time.Now()
	var touched []run.Event
	s, err := stack.Open(ctx, stack.Options{
		Root: box.Root, Env: func(string) string { return "" },
		Events: func(ev run.Event) { touched = append(touched, ev) },
		Now: func() time.Time {
			now := base.Add(time.Since(began))
			if late.Load() {
				now = now.Add(59*time.Minute + 30*time.Second)
			}
			return now
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	prop, err := s.Propose(ctx, stack.LookOptions{Auto: true, Begin: true, Policy: "any", Target: plan.Latest}, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(prop.Plan.Steps()) != 2 {
		t.Fatalf("%+v", prop.Plan)
	}
	late.Store(true)
	res, err := s.Apply(ctx, prop, stack.ApplyOptions{Trigger: "auto"})
	var window *stack.WindowError
	if !errors.As(err, &window) || res.Status != run.StatusCancelled || len(touched) > 0 {
		t.Fatalf("%v %+v %v", err, res, touched)
	}
	if _, err := os.Stat(box.Root.Backups()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a backup was taken: %v", err)
	}
	if kept, _ := filepath.Glob(filepath.Join(box.Root.Cache(), "artifacts", "sha256", "*")); len(kept) == 0 {
		t.Error("what was downloaded is not kept for the next window")
	}
}
