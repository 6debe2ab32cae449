package run_test

import (
	"errors"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// A component that is brought back was down from the moment it was stopped until it
// was ready again, whatever came before, and also where the run was cut off between:
// not since its change began, nor since its recovery did.
func TestDowntimeOfAnUndo(t *testing.T) {
	const preparing, away, late = 10 * time.Minute, time.Hour, 30 * time.Minute
	for name, tt := range map[string]struct {
		content  string
		strategy Strategy
		crash    string // the effect at which the power is cut; "" for none
		boot     bool   // the host's manager starts the service after that
		want     time.Duration
		took     time.Duration
	}{
		"does not start":          {content: "prom 2.0.0 " + runtest.WordNoStart, took: preparing},
		"does not start, fast":    {content: "prom 2.0.0 " + runtest.WordNoStart, strategy: Fast, took: preparing},
		"not ready":               {content: "prom 2.0.0 " + runtest.WordNotReady, took: preparing},
		"cut off at the start":    {content: "prom 2.0.0", crash: "service.start", want: away + late, took: preparing + away + late},
		"cut off, fast":           {content: "prom 2.0.0", strategy: Fast, crash: "service.restart", want: away + late, took: preparing + away + late},
		"cut off, the new boots":  {content: "prom 2.0.0", crash: "service.start", boot: true, want: away + late, took: preparing + away + late},
		"cut off, the old boots":  {content: "prom 2.0.0", crash: "exchange", boot: true, want: away, took: preparing + away + late},
		"cut off before the stop": {content: "prom 2.0.0", crash: "service.stop", want: away + late, took: preparing + away + late},
	} {
		t.Run(name, func(t *testing.T) {
			w := runtest.New(t)
			ahead := time.Duration(0)
			w.Now = func() time.Time { return time.Now().Add(ahead) }
			w.Install("prom", "1.0.0")
			units := w.Snapshot().Units()
			cut := false
			e := w.Engine(func(op, _ string) error {
				if cut = cut || op == tt.crash; cut {
					return hostfs.ErrCrashed
				}
				return nil
			})
			e.Report = func(ev Event) {
				if ev.Step == StepPlace && ev.Done { // the copies, and a balancer, take their time
					ahead += preparing
				}
			}
			req := w.Steps(tt.content)
			req.Changes[0].Strategy = tt.strategy
			res, err := e.Execute(t.Context(), req)
			if tt.crash != "" {
				if !errors.Is(err, hostfs.ErrCrashed) {
					t.Fatal(err)
				}
				w.PowerOff()
				ahead += away
				if tt.boot {
					w.Boot(t.Context(), units)
				}
				ahead += late
				all, err := w.Engine(nil).Recover(t.Context())
				if err != nil || len(all) != 1 {
					t.Fatalf("%+v, %v", all, err)
				}
				res = all[0]
			}
			out := res.Components[0]
			near := func(what string, got float64, want time.Duration) {
				if got < want.Seconds() || got > (want+time.Minute).Seconds() {
					t.Errorf("%s %.1f s, want %.1f and a little", what, got, want.Seconds())
				}
			}
			near("down", out.Downtime, tt.want)
			near("took", out.Duration, tt.took)
			if out.Status != RolledBack || out.Downtime == 0 {
				t.Errorf("%+v", out)
			}
			whole(t, w, name, map[string][]string{"prom": {"1.0.0"}})
		})
	}
}
