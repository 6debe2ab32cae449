package run_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// The journal of a newer program is neither acted on nor touched, also where that
// one gives a field another type; one without a number is of this program's first
// releases and is recovered.
func TestJournalOfNewerProgram(t *testing.T) {
	cut := func() (*runtest.World, []journal.Record, string) {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		crashed := false
		guard := func(op, _ string) error {
			if crashed = crashed || op == "service.start"; crashed {
				return hostfs.ErrCrashed
			}
			return nil
		}
		if _, err := w.Engine(guard).Execute(t.Context(), w.Steps("prom 2.0.0")); !errors.Is(err, hostfs.ErrCrashed) {
			t.Fatal(err)
		}
		paths, err := journal.Pending(w.Root.JournalDir())
		if err != nil || len(paths) != 1 {
			t.Fatalf("%v, %v", paths, err)
		}
		records, err := journal.Read(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		return w, records, paths[0]
	}
	rewrite := func(w *runtest.World, records []journal.Record, path string, begin map[string]any) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Create(&hostfs.Host{}, filepath.Dir(path), journal.ID(path), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			var data any = rec.Data
			if Step(rec.Kind) == StepBegin {
				var head map[string]any
				if err := rec.Decode(&head); err != nil {
					t.Fatal(err)
				}
				for k, v := range begin {
					if head[k] = v; v == nil {
						delete(head, k)
					}
				}
				data = head
			}
			if err := j.Append(rec.Kind, data); err != nil {
				t.Fatal(err)
			}
		}
	}

	w, records, path := cut()
	rewrite(w, records, path, map[string]any{"format": 99, "program": "9.1.0", "components": "another form"})
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var newer *NewerError
	if _, err := FindInterrupted(w.Root.JournalDir()); !errors.As(err, &newer) || newer.Have != 99 || newer.Path != path || !strings.Contains(err.Error(), "9.1.0") {
		t.Errorf("found: %v", err)
	}
	newer = nil
	if _, err := w.Engine(func(op, target string) error {
		t.Errorf("%s %s", op, target)
		return nil
	}).Recover(t.Context()); !errors.As(err, &newer) {
		t.Errorf("recovered: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the journal was changed (%v)", err)
	}

	w, records, path = cut()
	rewrite(w, records, path, map[string]any{"format": nil})
	if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole(t, w, "recovered", map[string][]string{"prom": {"1.0.0"}})
}
