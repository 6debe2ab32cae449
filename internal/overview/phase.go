package overview

import (
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

// Phase is what goes on, as far as it can be seen from files.
type Phase string

// The phases.
const (
	Idle        Phase = "idle"
	Preparing   Phase = "preparing"   // a mutating command is at work that has not begun a run
	Running     Phase = "running"     // a run is at work
	Interrupted Phase = "interrupted" // a run was cut off, or could not undo what failed, and was not recovered yet
)

// OpenRun is the run whose journal is open: it is at work, or was cut off. "" where
// there is none. Only the journal's name is read.
func OpenRun(root layout.Root) (id string, err error) {
	open, err := journal.Pending(root.JournalDir())
	if err != nil || len(open) == 0 {
		return "", err
	}
	return journal.ID(open[0]), nil
}

// PhaseOf judges by the run whose journal is open, nil where there is none, and by
// whether some process holds the lock.
func PhaseOf(open *runlog.Record, held bool) Phase {
	switch {
	case open != nil && !held:
		return Interrupted
	case open != nil && !open.Ended():
		return Running
	case held:
		return Preparing
	}
	return Idle
}
