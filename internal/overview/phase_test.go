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
	at, over := &runlog.Record{}, &runlog.Record{Result: &run.Result{}}
	for _, c := range []struct {
		open *runlog.Record
		held bool
		want Phase
	}{
		{nil, false, Idle},
		{nil, true, Preparing},
		{at, true, Running},
		{at, false, Interrupted},
		{over, true, Preparing}, // it ends, or another command looks at what it left
		{over, false, Interrupted},
	} {
		if got := PhaseOf(c.open, c.held); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestOpenRun(t *testing.T) {
	root := layout.Root(t.TempDir())
	open := func(want string) {
		t.Helper()
		if id, err := OpenRun(root); err != nil || id != want {
			t.Errorf("%q, %v; want %q", id, err, want)
		}
	}
	open("")
	if err := os.MkdirAll(root.JournalDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	open("")
	if err := os.WriteFile(filepath.Join(root.JournalDir(), "20261125_120000.journal"), nil, 0); err != nil {
		t.Fatal(err)
	}
	open("20261125_120000")
}
