package run_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// A store that answered before, and afterwards is too slow to, has not lost its data:
// the upgrade stands, its undo does too, and no data is put back.
func TestSilentDataIsNotLost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		content string
		crash   bool // the question brings it down
		version string
	}{
		"upgrade":    {"prom 2.0.0", false, "2.0.0"},
		"undo":       {"prom 2.0.0 " + runtest.WordNotReady, false, "1.0.0"},
		"broke down": {"prom 2.0.0", true, "1.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			w.Keeps("twelve bytes")
			var asked atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) == 1 {
					fmt.Fprintln(rw, "samples 12")
					return
				}
				if tt.crash && w.Running("prom") == "2.0.0" {
					_, _ = w.Stop(t.Context(), service.Service{Unit: runtest.DataUnit}, 0)
				}
				rw.WriteHeader(http.StatusServiceUnavailable)
			}))
			t.Cleanup(s.Close)
			req := w.WithData(w.Steps(tt.content), false)
			req.Changes[0].Data.Fingerprint[0].HTTP.URL = s.URL
			e := w.Engine(nil)
			e.Report = func(ev Event) {
				if ev.Step == StepStart && ev.Done { // what a copy that is put back would lose
					w.Write(filepath.Join(w.Data(runtest.DataUnit), "samples"), "twelve bytes and more", 0o640)
				}
			}
			res, err := e.Execute(t.Context(), req)
			if undone := tt.version == "1.0.0"; undone != (err != nil) || undone && res.Status != StatusRolledBack {
				t.Fatalf("%+v, %v", res, err)
			}
			var lost *RollbackError
			if errors.As(err, &lost) || w.Running("prom") != tt.version {
				t.Fatalf("runs %q, %v", w.Running("prom"), err)
			}
			if !strings.Contains(strings.Join(res.Warnings, "\n"), "prom does not tell whether it answers as before: samples: ") {
				t.Errorf("warnings %q", res.Warnings)
			}
			holds(t, w, name, "twelve bytes and more", tt.version)
		})
	}
}
