package run_test

import (
	"maps"
	"testing"

	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// The state file forgets the instances that are listed no more, and no others: not
// those that a run had nothing to do on, and none where the list is not known.
func TestInstancesThatAreGone(t *testing.T) {
	for name, tt := range map[string]struct {
		listed []string
		want   map[string]string
	}{
		"one is gone":           {[]string{"a", "b"}, map[string]string{"a": "2.0.0", "b": "2.0.0"}},
		"one was as wanted":     {[]string{"a", "b", "elsewhere"}, map[string]string{"a": "2.0.0", "b": "2.0.0", "elsewhere": "1.0.0"}},
		"the list is not known": {nil, map[string]string{"a": "2.0.0", "b": "2.0.0", "elsewhere": "1.0.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := runtest.Pair(t)
			f, err := state.Load(w.Root.State())
			if err != nil {
				f = state.New()
			}
			c := f.Components["prom"]
			c.CurrentVersion, c.Instances = "1.0.0", map[string]string{"a": "1.0.0", "b": "1.0.0", "elsewhere": "1.0.0"}
			f.Components["prom"] = c
			if err := state.Save(w.Engine(nil).Host, w.Root.State(), f); err != nil {
				t.Fatal(err)
			}
			req := w.Rolling("prom 2.0.0")
			for i := range req.Changes {
				req.Changes[i].Listed = tt.listed
			}
			if res, err := w.Engine(nil).Execute(t.Context(), req); err != nil || res.Status != StatusSuccess {
				t.Fatalf("%+v %v", res, err)
			}
			if f, err = state.Load(w.Root.State()); err != nil || !maps.Equal(f.Components["prom"].Instances, tt.want) {
				t.Errorf("%v %v, want %v", f.Components["prom"].Instances, err, tt.want)
			}
		})
	}
}
