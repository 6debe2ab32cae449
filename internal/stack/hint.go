package stack

import (
	"errors"
	"fmt"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// Next is what to type after a command did not do all that it was to do: what the
// command line prints, and what people are told who were not there. Of a run that
// began the result says more than the error.
func Next(res run.Result, err error) string {
	var (
		usage   *UsageError
		refused *RefusedError
		unknown *UpstreamUnknownError
		stopped *run.NotStartedError
		failed  *run.RollbackError
	)
	switch {
	case errors.As(err, &usage):
		return usage.Hint
	case errors.Is(err, ErrConfig):
		return "correct the file and run the same command again; nothing was touched"
	case errors.As(err, &stopped):
		return stopped.Next()
	case errors.As(err, &failed):
		again := "observability-upgrade recover"
		if !failed.Open {
			name, _, _ := strings.Cut(failed.Component, "@")
			again = "observability-upgrade restart --component=" + name
		}
		return fmt.Sprintf("observability-upgrade status; mend %s, then: %s", failed.Component, again)
	case res.Status != "":
		return afterRun(res, err)
	case errors.As(err, &refused):
		return refused.Next
	case errors.As(err, &unknown):
		return "check the network, the token and upstream.*.api_url in the policy, then: observability-upgrade check --refresh"
	}
	return "observability-upgrade status"
}

func afterRun(res run.Result, err error) string {
	hint := "observability-upgrade status"
	for _, o := range res.Components {
		if o.Evidence != "" {
			hint = "observability-upgrade history show " + res.ID
		}
	}
	switch res.Status {
	case run.StatusRollbackFail:
		if undone(res) {
			return "what failed is healthy where it was before the rollback; mend what the error says of the version gone back to, or choose another point: observability-upgrade rollback --list"
		}
		return "observability-upgrade status; mend what it shows, then: observability-upgrade recover"
	case run.StatusInterrupted, run.StatusCancelled:
		return "observability-upgrade status; run the same command again to go on"
	}
	var refused *RefusedError
	switch {
	case res.Status == run.StatusRolledBack, PartlyDone(res):
		return hint
	case errors.As(err, &refused):
		return refused.Next
	case res.Status != run.StatusFailed:
		return hint
	case res.Operation == run.Rollback:
		return "mend what the error says, or choose another point: observability-upgrade rollback --list"
	}
	return "observability-upgrade plan"
}

// PartlyDone reports whether some component of a run is where it was to go.
func PartlyDone(res run.Result) bool {
	for _, o := range res.Components {
		if o.Status == run.Upgraded || o.Status == run.RolledBack && res.Operation == run.Rollback {
			return true
		}
	}
	return false
}

// undone reports whether whatever failed of a rollback is healthy at the version
// it was at before.
func undone(res run.Result) bool {
	for _, o := range res.Components {
		if o.Status == run.RollbackFailed && (res.Operation != run.Rollback || !o.Healthy) {
			return false
		}
	}
	return true
}

// FirstMend puts before a hint what to type first where a file system is the cause.
// With rollback a rollback failed for it.
func FirstMend(err error, hint string, rollback bool) string {
	remedy := hostfs.Remedy(err)
	switch {
	case remedy == "" || strings.HasPrefix(hint, remedy) || strings.HasPrefix(hint, "mount ") || strings.HasPrefix(hint, "df "):
		return hint
	case rollback:
		return remedy + "; mend what it shows, then: observability-upgrade recover"
	}
	return remedy + "; mend what it shows, and run the same command again"
}
