package cli

import (
	"errors"
	"fmt"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// What is typed after a rollback that failed: `recover` only where a run is open.
func TestHintAfterFailedRollback(t *testing.T) {
	for _, tt := range []struct {
		err  run.RollbackError
		want string
	}{
		{run.RollbackError{Component: "pulse", Restored: true}, "observability-upgrade status; mend pulse, then: observability-upgrade restart --component=pulse"},
		{run.RollbackError{Component: "pulse@b", Restored: true, Open: true}, "observability-upgrade status; mend pulse@b, then: observability-upgrade recover"},
		{run.RollbackError{Component: "pulse@b", Restored: true}, "observability-upgrade status; mend pulse@b, then: observability-upgrade restart --component=pulse"},
	} {
		tt.err.Err = errors.New("it did not start")
		code, hint := classify(t.Context(), fmt.Errorf("apply: %w", &tt.err))
		if code != exitRollback || hint != tt.want {
			t.Errorf("%d %q, want %q", code, hint, tt.want)
		}
	}
}

// "Refused before anything was touched" is said of runs that touched nothing.
func TestExitCodeOfAFailedRun(t *testing.T) {
	for name, tt := range map[string]struct {
		operation  run.Operation
		components []run.ComponentStatus
		want       int
	}{
		"nothing was touched":                {run.Apply, []run.ComponentStatus{run.Failed, run.NotAttempted}, exitRefused},
		"one was upgraded":                   {run.Apply, []run.ComponentStatus{run.Upgraded, run.Failed}, exitRolledBack},
		"a rollback that touched nothing":    {run.Rollback, []run.ComponentStatus{run.Failed, run.NotAttempted}, exitRefused},
		"a rollback of one, and one failed":  {run.Rollback, []run.ComponentStatus{run.RolledBack, run.Failed}, exitRolledBack},
		"a rollback whose second comes back": {run.Rollback, []run.ComponentStatus{run.Failed, run.RolledBack}, exitRolledBack},
	} {
		res := run.Result{ID: "20260101_000000", Operation: tt.operation, Status: run.StatusFailed}
		for _, st := range tt.components {
			res.Components = append(res.Components, run.Outcome{Name: "tool", Status: st})
		}
		if got, hint := classify(t.Context(), &resultError{result: res, err: errors.New("tool: prepare: disk full")}); got != tt.want || hint == "" {
			t.Errorf("%s: exit code %d (%q), want %d", name, got, hint, tt.want)
		}
	}
}
