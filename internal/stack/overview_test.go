package stack

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// logged makes a run of the log, with the outcome of its components.
func logged(t *testing.T, s *Stack, id string, op run.Operation, status string, outcomes ...run.Outcome) {
	t.Helper()
	w := runlog.NewWriter(s.Root, s.Logger)
	defer w.Close()
	w.Event(run.Event{Run: id, Step: run.StepBegin, Begin: &run.Header{ID: id, Operation: op}})
	if status != "" {
		w.Event(run.Event{Run: id, Step: run.StepEnd, Done: true, End: &run.Result{ID: id, Operation: op, Status: status, Components: outcomes}})
	}
}

// journaled opens the journal of a run and leaves it open.
func journaled(t *testing.T, s *Stack, id string) {
	t.Helper()
	w, err := journal.Create(s.host, s.Root.JournalDir(), id, time.Now)
	if err == nil {
		err = w.Append(string(run.StepBegin), run.Header{ID: id})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *Stack) look(t *testing.T) *overview.Overview {
	t.Helper()
	o, err := s.Overview(t.Context())
	if err != nil || len(o.Problems) > 0 {
		t.Fatalf("%v %q", err, o.Problems)
	}
	return o
}

func TestOverviewRuns(t *testing.T) {
	s, _ := opened(t, "", nil)
	if o := s.look(t); o.Running != nil || o.Interrupted != nil || o.Preparing != nil {
		t.Errorf("nothing happened: %+v", o)
	}
	logged(t, s, "20261125_120000", run.Apply, "")
	if o := s.look(t); o.Running != nil || o.Interrupted != nil {
		t.Errorf("its journal is closed: %+v", o)
	}
	journaled(t, s, "20261125_120000")
	if o := s.look(t); o.Interrupted == nil || o.Interrupted.ID != "20261125_120000" || o.Interrupted.Header.Operation != run.Apply {
		t.Errorf("interrupted: %+v", o.Interrupted)
	}
	l, err := lock.Acquire(s.Root.Lock(), "apply")
	if err != nil {
		t.Fatal(err)
	}
	if o := s.look(t); o.Running == nil || o.Interrupted != nil || o.Preparing != nil {
		t.Errorf("at work: %+v", o)
	}
	// A command tells of itself as it leaves things.
	s.holdsLock = true
	if o, err := (own{s}).Overview(t.Context()); err != nil || o.Running != nil || o.Preparing != nil || o.Interrupted == nil {
		t.Errorf("its own: %v %+v", err, o)
	}
	s.holdsLock = false
	// Ended, with its journal still open: it could not undo.
	logged(t, s, "20261125_120000", run.Apply, run.StatusRollbackFail)
	if o := s.look(t); o.Running != nil || o.Preparing == nil {
		t.Errorf("ended, and its process tidies up: %+v", o)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if o := s.look(t); o.Interrupted == nil || !o.Interrupted.Ended() {
		t.Errorf("could not undo: %+v", o)
	}
}

// A run that was cut off before its log was begun is told of as well.
func TestOverviewOfUnloggedRun(t *testing.T) {
	s, _ := opened(t, "", nil)
	journaled(t, s, "20261125_120000")
	if o := s.look(t); o.Interrupted == nil || o.Interrupted.ID != "20261125_120000" {
		t.Errorf("%+v", o.Interrupted)
	}
}

func TestOverviewBroken(t *testing.T) {
	s, _ := opened(t, "", nil)
	runs := func(list ...state.RunSummary) {
		t.Helper()
		f := state.New()
		f.UpgradeHistory = list
		if err := s.host.MkdirAll(s.Root.Lib(), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := state.Save(s.host, s.Root.State(), f); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...string) {
		t.Helper()
		if got := s.look(t).Broken; !slices.Equal(got, want) {
			t.Errorf("broken: %v, want %v", got, want)
		}
	}
	out := func(name string, st run.ComponentStatus) run.Outcome { return run.Outcome{Name: name, Status: st} }
	failed := state.RunSummary{ID: "20261125_120000", Timestamp: time.Now(), Status: run.StatusRollbackFail, ComponentsUpgraded: []string{}}
	logged(t, s, failed.ID, run.Apply, run.StatusRollbackFail, out("loki", run.RollbackFailed), out("mimir", run.RolledBack), out("tempo", run.RollbackFailed), out("zipkin", run.NotAttempted))
	journaled(t, s, failed.ID) // it is still open, and the state file knows nothing of the run
	expect("loki", "tempo")
	if err := os.RemoveAll(s.Root.JournalDir()); err != nil {
		t.Fatal(err)
	}
	expect()
	runs(failed)
	expect("loki", "tempo")
	// Another component, and a restart that fails, change nothing.
	logged(t, s, "20261125_130000", run.Apply, run.StatusSuccess, out("grafana", run.Upgraded))
	logged(t, s, "20261125_130001", run.Restart, run.StatusFailed, out("loki", run.Failed))
	runs(failed, state.RunSummary{ID: "20261125_130000", Status: run.StatusSuccess, ComponentsUpgraded: []string{}})
	expect("loki", "tempo")
	// A restart that finds it healthy does, and so does a later upgrade.
	logged(t, s, "20261125_140000", run.Restart, run.StatusSuccess, out("loki", run.Upgraded))
	expect("tempo")
	logged(t, s, "20261125_150000", run.Apply, run.StatusRolledBack, out("tempo", run.RolledBack))
	expect()
}

// Of a component whose binary was gone or broken when the last check looked, what the
// state file remembers says nothing better, unless a run has changed it since.
func TestOverviewOfABrokenBinary(t *testing.T) {
	checked := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		upgraded time.Time
		reason   string
	}{
		"upgraded before":     {checked.Add(-time.Hour), "binary missing"},
		"brought back by now": {checked.Add(time.Hour), overview.Unchecked},
	} {
		s, _ := opened(t, "", nil)
		f := state.New()
		f.Components["loki"] = state.Component{CurrentVersion: "3.1.0", UpgradedAt: tt.upgraded}
		if err := state.Save(s.host, s.Root.State(), f); err != nil {
			t.Fatal(err)
		}
		report := plan.CheckReport{CheckedAt: checked, Errors: []plan.ComponentError{}, Components: []plan.Candidate{{
			Name: "loki", Latest: component.MustParseVersion("3.2.0"), Action: plan.ActionBlocked, Reason: "binary missing",
		}}}
		if err := overview.WriteCheck(s.host, s.Root, report, true); err != nil {
			t.Fatal(err)
		}
		if c := s.look(t).Components[0]; c.Candidate.Reason != tt.reason {
			t.Errorf("%s: %q, want %q", name, c.Candidate.Reason, tt.reason)
		}
	}
}
