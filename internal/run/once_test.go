package run_test

import (
	"os"
	"strings"
	"testing"

	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// A request that would exchange a file twice is refused before anything is touched:
// the second exchange brings back what the first took away.
func TestFilesThatAreSwappedTwice(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(w *runtest.World) Request
		want string // "" for one that is carried out
	}{
		"in one change": {func(w *runtest.World) Request {
			req := w.Upgrade(map[string]string{"prom": "prom 2.0.0"}, "prom")
			req.Changes[0].Swaps = append(req.Changes[0].Swaps, req.Changes[0].Swaps[0])
			return req
		}, "prom: expected each file once, found "},
		"by two components": {func(w *runtest.World) Request {
			req := w.Upgrade(map[string]string{"prom": "prom 2.0.0", "am": "am 0.2.0"}, "prom", "am")
			req.Changes[1].Swaps = req.Changes[0].Swaps
			return req
		}, "am: expected files of its own, found that prom has "},
		"in two steps": {func(w *runtest.World) Request { return w.Steps("prom 2.0.0", "prom 3.0.0") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			w.Install("am", "0.1.0")
			res, err := w.Engine(nil).Execute(t.Context(), tt.make(w))
			if tt.want == "" {
				if err != nil || res.Status != StatusSuccess {
					t.Fatalf("%+v %v", res, err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || res.Status != StatusFailed {
				t.Fatalf("%+v %v", res, err)
			}
			for _, c := range res.Components {
				if c.Status != NotAttempted {
					t.Errorf("%+v", c)
				}
			}
			if _, err := os.Stat(w.Root.Backups()); err == nil {
				t.Error("a backup point was begun")
			}
			clean(t, w, name)
			if got := w.Running("prom"); got != "1.0.0" {
				t.Errorf("prom runs %q", got)
			}
		})
	}
}
