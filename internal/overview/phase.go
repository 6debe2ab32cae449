package overview

import (
	"os"
	"path/filepath"

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
	Interrupted Phase = "interrupted" // a run was cut off and is not recovered yet
)

// PhaseOf judges by the newest run, nil where there is none, and by whether some
// process holds the lock. A run whose journal is closed has ended, also where its
// log does not say so.
func PhaseOf(root layout.Root, newest *runlog.Record, held bool) Phase {
	open := false
	if newest != nil && !newest.Ended() {
		_, err := os.Lstat(filepath.Join(root.JournalDir(), newest.ID+".journal"))
		open = err == nil
	}
	switch {
	case open && held:
		return Running
	case open:
		return Interrupted
	case held:
		return Preparing
	}
	return Idle
}
