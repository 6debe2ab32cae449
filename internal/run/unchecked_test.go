package run_test

import (
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Of what was not asked whether it is healthy nobody is told that it is, and that the
// version failed here before is not forgotten.
func TestHealthNotChecked(t *testing.T) {
	for name, tt := range map[string]struct {
		skip    bool
		detail  string
		warned  bool
		failed  int
		checked *bool
	}{
		"checked": {false, "healthy at 2.0.0", false, 0, new(true)},
		"skipped": {true, "running at 2.0.0; health was not checked", true, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			if _, err := w.Engine(nil).Execute(t.Context(), w.Steps("prom 2.0.0 "+runtest.WordNotReady)); err == nil {
				t.Fatal("it did not fail")
			}
			e := w.Engine(nil)
			var detail string
			e.Report = func(ev Event) {
				if ev.Step == StepHealth && ev.Done {
					detail = ev.Detail
				}
			}
			req := w.Steps("prom 2.0.0")
			req.Changes[0].Health.Skip = tt.skip
			res, err := e.Execute(t.Context(), req)
			if err != nil || res.Status != StatusSuccess || res.Components[0].Healthy == tt.skip {
				t.Fatalf("%+v, %v", res, err)
			}
			if detail != tt.detail {
				t.Errorf("told %q, want %q", detail, tt.detail)
			}
			if warned := strings.Contains(strings.Join(res.Warnings, "\n"), "prom runs at 2.0.0, but its health was not checked"); warned != tt.warned {
				t.Errorf("warnings %q", res.Warnings)
			}
			f, err := state.Load(w.Root.State())
			if err != nil || len(f.Components["prom"].FailedVersions) != tt.failed {
				t.Errorf("failed before: %+v, %v", f.Components["prom"].FailedVersions, err)
			}
			db, err := history.OpenReadOnly(t.Context(), w.Root.History())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			rows, err := db.List(t.Context(), history.Filter{RunID: res.ID})
			if err != nil || len(rows) != 1 || (rows[0].HealthCheckPassed == nil) != (tt.checked == nil) {
				t.Errorf("history: %+v, %v", rows, err)
			}
		})
	}
}
