package overview

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

func TestPhaseOf(t *testing.T) {
	const id = "20261125_120000"
	root := layout.Root(t.TempDir())
	if err := os.MkdirAll(root.JournalDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(root.JournalDir(), id+".journal")
	at, over := &runlog.Record{ID: id}, &runlog.Record{ID: id, Result: &run.Result{}}
	for _, c := range []struct {
		newest     *runlog.Record
		open, held bool
		want       Phase
	}{
		{nil, false, false, Idle},
		{nil, false, true, Preparing},
		{at, true, true, Running},
		{at, true, false, Interrupted},
		{at, false, true, Preparing}, // the log does not say that it ended
		{at, false, false, Idle},
		{over, false, true, Preparing},
		{over, true, false, Idle},
		{over, false, false, Idle},
	} {
		if err := os.RemoveAll(journal); err != nil {
			t.Fatal(err)
		}
		if c.open {
			if err := os.WriteFile(journal, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := PhaseOf(root, c.newest, c.held); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
