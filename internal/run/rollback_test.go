package run_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// upgraded is a world in which both components were upgraded and their
// configuration changed afterwards.
func upgraded(t *testing.T) *runtest.World {
	t.Helper()
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Install("am", "0.1.0")
	res, err := w.Engine(nil).Execute(t.Context(), w.Upgrade(map[string]string{"prom": "prom 2.0.0", "am": "am 0.2.0"}, "prom", "am"))
	if err != nil || res.Status != StatusSuccess {
		t.Fatalf("%s %v", res.Status, err)
	}
	w.Write(w.Root.Path("etc/prom/config.yml"), "config of 2.0.0\n", 0o644)
	return w
}

func TestRollback(t *testing.T) {
	w := upgraded(t)
	res, err := w.Engine(nil).Execute(t.Context(), w.Back())
	if err != nil || res.Status != StatusSuccess || res.Components[0].Status != RolledBack {
		t.Fatalf("%+v %v", res, err)
	}
	at := whole(t, w, "rollback", allowed)
	if at["prom"] != "1.0.0" || at["am"] != "0.1.0" {
		t.Fatalf("at %v", at)
	}
	if points, err := backup.List(w.Root.Backups()); err != nil || len(points) != 2 || points[0].Manifest.Operation != "rollback" {
		t.Fatalf("the rollback took no backup point of its own: %v", err)
	}
}

// Killed at any effect of a rollback, recovery leaves each component wholly at
// one version, its configuration with it.
func TestKillAtEveryOperationOfARollback(t *testing.T) {
	tried := 0
	for n := 1; ; n++ {
		w := upgraded(t)
		c := &runtest.CrashAt{N: n}
		_, err := w.Engine(c.Guard).Execute(t.Context(), w.Back())
		if !c.Crashed() {
			break
		}
		if !errors.Is(err, hostfs.ErrCrashed) {
			t.Fatalf("kill %d (%s): %v", n, c.Op, err)
		}
		tried++
		what := fmt.Sprintf("rollback killed at effect %d (%s)", n, c.Op)
		results, err := w.Engine(nil).Recover(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, res := range results { // nobody is needed
			if res.Status != StatusInterrupted && res.Status != StatusSuccess {
				t.Fatalf("%s: recovered as %+v", what, res)
			}
		}
		at := whole(t, w, what, allowed)
		conf, err := hostfs.Digest(w.Root.Path("etc/prom/config.yml"))
		if err != nil {
			t.Fatal(err)
		}
		w.Write(w.Root.Path("expected"), "config of "+at["prom"]+"\n", 0o644)
		if want, _ := hostfs.Digest(w.Root.Path("expected")); conf != want {
			t.Fatalf("%s: prom is at %s, its configuration is of the other version", what, at["prom"])
		}
	}
	if tried < 40 {
		t.Fatalf("only %d effects were tried", tried)
	}
	t.Logf("%d kill points", tried)
}

// A rollback that a signal interrupts is undone: each component is whole and
// healthy where it was before the rollback, and nobody is needed.
func TestCancelOfARollback(t *testing.T) {
	for _, at := range []Step{StepStop, StepSwap, StepStart, StepHealth} {
		t.Run(string(at), func(t *testing.T) {
			w := upgraded(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := w.Engine(nil)
			e.Report = func(ev Event) {
				if ev.Step == at && !ev.Done {
					cancel()
				}
			}
			res, err := e.Execute(ctx, w.Back())
			var needed *RollbackError
			if err == nil || errors.As(err, &needed) || res.Status != StatusInterrupted {
				t.Fatalf("status %s, %v", res.Status, err)
			}
			if c := res.Components[0]; c.Status != Failed || !c.Healthy || c.Error != "interrupted by a signal; it was undone: prom is back at 2.0.0 and healthy" {
				t.Fatalf("%+v", c)
			}
			if at := whole(t, w, string(at), allowed); at["prom"] != "2.0.0" || at["am"] != "0.2.0" {
				t.Fatalf("at %v", at)
			}
		})
	}
}

// A rollback to a version that does not get healthy is undone too, but a person
// must know: the way back is blocked.
func TestRollbackToAnUnhealthyVersion(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0 "+runtest.WordNotReady)
	w.Install("am", "0.1.0")
	if res, err := w.Engine(nil).Execute(t.Context(), w.Upgrade(map[string]string{"prom": "prom 2.0.0", "am": "am 0.2.0"}, "prom", "am")); err != nil {
		t.Fatalf("%+v %v", res, err)
	}
	res, err := w.Engine(nil).Execute(t.Context(), w.Back())
	if err == nil || res.Status != StatusRollbackFail {
		t.Fatalf("%+v %v", res, err)
	}
	c := res.Components[0]
	if c.Status != RollbackFailed || !c.Healthy || !strings.Contains(c.Error, "503") || !strings.HasSuffix(c.Error, "it was undone: prom is back at 2.0.0 and healthy") {
		t.Fatalf("%+v", c)
	}
	// It stands in no other's way.
	if at := whole(t, w, "unhealthy", allowed); at["prom"] != "2.0.0" || at["am"] != "0.1.0" || res.Components[1].Status != RolledBack {
		t.Fatalf("at %v: %+v", at, res)
	}
}

// A rollback that leaves a component down ends there: a person must look first.
func TestRollbackThatLeavesAComponentDown(t *testing.T) {
	w := upgraded(t)
	w.Refuse = func(op, unit string) error {
		if op == "start" && unit == "prom.service" {
			return errors.New("no such program")
		}
		return nil
	}
	res, err := w.Engine(nil).Execute(t.Context(), w.Back())
	var down *RollbackError
	if !errors.As(err, &down) || res.Status != StatusRollbackFail || res.Components[0].Status != RollbackFailed || res.Components[0].Healthy {
		t.Fatalf("%+v %v", res, err)
	}
	if c := res.Components[1]; c.Name != "am" || c.Status != NotAttempted || w.Running("am") != "0.2.0" {
		t.Fatalf("%+v, am runs %q", c, w.Running("am"))
	}
}

// Going back to the point that a rollback took undoes the rollback: what it took
// back is in force again, and is what `--previous` would take back.
func TestUndoOfARollbackInHistory(t *testing.T) {
	w := upgraded(t)
	successes := func() []history.Upgrade {
		t.Helper()
		db, err := history.OpenReadOnly(t.Context(), w.Root.History())
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		rows, err := db.List(t.Context(), history.Filter{Status: history.Success})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	before := successes()
	res, err := w.Engine(nil).Execute(t.Context(), w.Back())
	if err != nil || len(before) != 2 || len(successes()) != 0 {
		t.Fatalf("%+v %v: %+v", res, err, successes())
	}
	req := w.Upgrade(map[string]string{"prom": "prom 2.0.0", "am": "am 0.2.0"}, "prom", "am")
	req.Operation, req.StagingDirs = Rollback, nil
	for i := range req.Changes {
		for _, r := range before {
			if r.Component == req.Changes[i].Component {
				req.Changes[i].Redoes = append(req.Changes[i].Redoes, history.Mark{ID: r.ID, By: res.ID, At: res.StartedAt})
			}
		}
	}
	if res, err := w.Engine(nil).Execute(t.Context(), req); err != nil || len(res.Components) != 2 {
		t.Fatalf("%+v %v", res, err)
	}
	if after := successes(); len(after) != 2 || after[0].RollbackTimestamp != nil {
		t.Fatalf("%+v", after)
	}
}
