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
