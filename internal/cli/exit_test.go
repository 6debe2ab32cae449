package cli

import (
	"errors"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

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
