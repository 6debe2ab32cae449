package run_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// These tests ask that the old bytes can be had wherever an undo needs them.

// wholePair asks that the run is over, both instances serve, and nothing lies beside.
func wholePair(t *testing.T, w *runtest.World) {
	t.Helper()
	open, err := journal.Pending(w.Root.JournalDir())
	if err != nil || len(open) > 0 {
		t.Errorf("journals %v, %v", open, err)
	}
	if w.Instance("a") == "" || w.Instance("b") == "" || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
		t.Errorf("a runs %q, b runs %q, balancer %v", w.Instance("a"), w.Instance("b"), w.Balancer.Admitted)
	}
	beside, err := filepath.Glob(filepath.Join(filepath.Dir(w.Bin("prom")), ".*"))
	if err != nil || len(beside) > 0 {
		t.Errorf("beside lies %v, %v", beside, err)
	}
}

// Over a stepping stone the backup point has neither version of the second step, so
// what the first instance left beside is what the second goes back to.
func TestInstancesGoBackToTheStone(t *testing.T) {
	w := runtest.Pair(t)
	res, err := w.Engine(nil).Execute(t.Context(), w.Rolling("prom 2.0.0", "prom 3.0.0 b-"+runtest.WordNotReady))
	if err == nil || res.Status != StatusRolledBack {
		t.Errorf("%s %v", res.Status, err)
	}
	if got := w.Instance("b"); got != "2.0.0" {
		t.Errorf("b is at %q", got)
	}
	wholePair(t, w)
}

func TestInstancesInterruptedAfterTheStone(t *testing.T) {
	for _, how := range []string{"signal", "kill", "kill between"} {
		t.Run(how, func(t *testing.T) {
			w := runtest.Pair(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			dead := false
			e := w.Engine(func(string, string) error {
				if dead {
					return hostfs.ErrCrashed
				}
				return nil
			})
			e.Report = func(ev Event) {
				second := ev.Instance == "b" && ev.To == "3.0.0" && !ev.Done
				switch {
				case second && how == "signal" && ev.Step == StepHealth:
					cancel()
				case second && how == "kill" && ev.Step == StepHealth, second && how == "kill between" && ev.Step == StepPlace:
					dead = true
				}
			}
			if res, err := e.Execute(ctx, w.Rolling("prom 2.0.0", "prom 3.0.0")); err == nil {
				t.Fatalf("it was not disturbed: %s", res.Status)
			}
			if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
				t.Error(err)
			}
			wholePair(t, w)
		})
	}
}

// A file system that cannot exchange two files keeps the old one all the same: of
// the second step no backup has it.
func TestStoneFailsWithoutExchange(t *testing.T) {
	for _, last := range []string{"prom 3.0.0 " + runtest.WordNotReady, "prom 3.0.0"} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		e := w.Engine(func(op, _ string) error {
			if op == "exchange" {
				return unix.EINVAL
			}
			return nil
		})
		res, err := e.Execute(t.Context(), w.Steps("prom 2.0.0", last))
		want := "3.0.0"
		if last != "prom 3.0.0" {
			want = "2.0.0"
		}
		if got := w.Running("prom"); got != want || (err == nil) != (want == "3.0.0") {
			t.Errorf("%s: prom runs %q; %s %v", last, got, res.Status, err)
		}
	}
}

// It is killed between the renames that stand for an exchange.
func TestKilledInTheMidstOfAnExchange(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	dead := false
	e := w.Engine(func(op, target string) error {
		if dead {
			return hostfs.ErrCrashed
		}
		if op == "exchange" && target == w.Bin("prom") {
			if data, err := os.ReadFile(target); err == nil && strings.HasPrefix(string(data), "prom 2.0.0") {
				dead = true
				return hostfs.ErrCrashed
			}
		}
		return nil
	})
	req := w.Steps("prom 2.0.0", "prom 3.0.0")
	swap := req.Changes[1].Swaps[0]
	if _, err := e.Execute(t.Context(), req); !errors.Is(err, hostfs.ErrCrashed) {
		t.Fatal(err)
	}
	for _, rename := range [][2]string{{swap.Path, hostfs.Aside(swap.Beside)}, {swap.Beside, swap.Path}} {
		if err := os.Rename(rename[0], rename[1]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Error(err)
	}
	if got := w.Running("prom"); got != "2.0.0" {
		t.Errorf("prom runs %q", got)
	}
	if _, err := os.Lstat(hostfs.Aside(swap.Beside)); err == nil {
		t.Error("what was aside is left")
	}
}

// What was changed between the plan and the run, as while a person is asked, is
// found before anything is stopped.
func TestChangedSinceItWasPlanned(t *testing.T) {
	w := upgraded(t)
	req := w.Back()
	const edited = "config of 2.0.0\nedited by a person\n"
	path := w.Root.Path("etc/prom/config.yml")
	w.Write(path, edited, 0o644)
	stops := 0
	w.Refuse = func(op, unit string) error {
		if op == "stop" && unit == "prom.service" {
			stops++
		}
		return nil
	}
	_, err := w.Engine(nil).Execute(t.Context(), req)
	var changed *ChangedError
	if !errors.As(err, &changed) || changed.Path != path {
		t.Errorf("%v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != edited || stops > 0 || w.Running("prom") != "2.0.0" {
		t.Errorf("prom runs %q after %d stops, its configuration is %q, %v", w.Running("prom"), stops, got, err)
	}
	open, err := journal.Pending(w.Root.JournalDir())
	if err != nil || len(open) > 0 {
		t.Errorf("journals %v, %v", open, err)
	}
}

// A tree that is written to after it was planned is left alone, too.
func TestTreeChangedSinceItWasPlanned(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	req := w.Steps("prom 2.0.0")
	tree, source := w.Root.Path("usr/share/prom"), filepath.Join(req.StagingDirs[0], "tree")
	w.Write(filepath.Join(tree, "index.html"), "old", 0o644)
	w.Write(filepath.Join(source, "index.html"), "new", 0o644)
	was, errWas := hostfs.Digest(tree)
	is, errIs := hostfs.Digest(source)
	if err := errors.Join(errWas, errIs); err != nil {
		t.Fatal(err)
	}
	req.Changes[0].Swaps = append(req.Changes[0].Swaps, Swap{
		Kind: backup.Binary, Name: "tree", Path: tree, Source: source, Beside: hostfs.Beside(tree, "new"), Old: was, New: is, Tree: true,
	})
	w.Write(filepath.Join(tree, "cache"), "written meanwhile", 0o644)
	_, err := w.Engine(nil).Execute(t.Context(), req)
	if !errors.As(err, new(*ChangedError)) || w.Running("prom") != "1.0.0" {
		t.Errorf("prom runs %q: %v", w.Running("prom"), err)
	}
}

// A signal before anything is touched ends the run: nothing is left to recover.
func TestSignalBeforeTheStop(t *testing.T) {
	for _, at := range []Step{StepPlace, StepFingerprint} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Keeps("twelve bytes")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		e := w.Engine(nil)
		e.Report = func(ev Event) {
			if ev.Step == at {
				cancel()
			}
		}
		req := w.WithData(w.Steps("prom 2.0.0"), true)
		res, err := e.Execute(ctx, req)
		open, jerr := journal.Pending(w.Root.JournalDir())
		if err == nil || jerr != nil || len(open) > 0 || w.Running("prom") != "1.0.0" {
			t.Errorf("%s: %s %v; journals %v %v; prom runs %q", at, res.Status, err, open, jerr, w.Running("prom"))
		}
		for _, dir := range req.StagingDirs {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("%s: %s is left", at, dir)
			}
		}
	}
}
