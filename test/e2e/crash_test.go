package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/journal"
)

// fault runs an apply that kills itself or hangs at a point of its journal. It
// reports whether it came that far.
func (h *host) fault(point string) bool {
	h.t.Helper()
	res, err := h.Run(h.ctx, "env", "OBSUP_FAULT="+point, program, "apply", "--yes", "--component=prometheus")
	h.check(err)
	switch {
	case res.Signal != 0 || res.ExitCode == 137:
		return true
	case res.ExitCode == 0:
		return false
	}
	h.t.Fatalf("%s: %s", point, res)
	return false
}

// reset brings Prometheus back to the old version by the program's own rollback.
func (h *host) reset() {
	h.t.Helper()
	if !strings.HasPrefix(h.installed("prometheus"), "2.42") {
		h.upgrade(0, "rollback", "--previous", "--yes")
	}
}

// SIGKILL before and after every record of the journal, on a real Prometheus
// with samples; recovery leaves it at one version, healthy, with all its
// samples.
func TestKillAtEveryJournalStep(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"kill-before", "kill-after"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, map[string]string{"prometheus": "2.42"}, map[string][]string{"prometheus": {"2.53"}})
			h.settle("prometheus", "100ms")
			h.upgrade(0, "adopt", "--yes")
			h.waitSamples()
			at := time.Now().Add(-2 * time.Second)
			const past = "sum(count_over_time(up[5m]))"
			samples := h.query(past, at)
			killed := 0
			for n := 1; ; n++ {
				point := fmt.Sprintf("%s:%d", when, n)
				if !h.fault(point) {
					break
				}
				killed++
				var st status
				h.document(&st, 0, "status")
				if open, err := filepath.Glob(h.Path("/var/lib/observability/journal/*.journal")); err != nil || (len(open) > 0) != (st.Interrupted != nil) {
					t.Fatalf("%s: journals %v, status says %+v (%v)", point, open, st.Interrupted, err)
				}
				h.upgrade(0, "recover")
				v := h.agrees("prometheus")
				if got := h.query(past, at); got != samples {
					t.Fatalf("%s: samples %s, were %s", point, got, samples)
				}
				t.Logf("%s: at %s", point, v)
				h.reset()
			}
			if killed < 10 {
				t.Fatalf("only %d points", killed)
			}
		})
	}
}

// The container loses power at five steps; the recovery unit finishes at boot.
func TestPowerOff(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"prometheus": "2.42"}, map[string][]string{"prometheus": {"2.53"}})
	h.settle("prometheus", "100ms")
	h.upgrade(0, "adopt", "--yes")
	h.check(h.CopyIn("../../packaging/systemd/observability-upgrade-recover.service", "/etc/systemd/system/observability-upgrade-recover.service", 0o644))
	h.MustRun(h.ctx, "systemctl", "enable", "--quiet", "observability-upgrade-recover.service")
	for _, n := range []int{3, 5, 6, 7, 8} { // change, stop, swap, start, health
		cmd := h.Command(h.ctx, "env", fmt.Sprintf("OBSUP_FAULT=hang-after:%d", n), program, "apply", "--yes", "--component=prometheus")
		h.check(cmd.Start())
		h.check(poll(t, time.Minute, func() bool {
			paths, err := journal.Pending(h.Path("/var/lib/observability/journal"))
			if err != nil || len(paths) == 0 {
				return false
			}
			records, err := journal.Read(paths[0])
			return err == nil && len(records) >= n
		}))
		h.check(h.PowerOff(h.ctx))
		_ = cmd.Wait() // it died with the container
		h.check(h.Boot(h.ctx))
		h.check(poll(t, 60*time.Second, func() bool {
			res, err := h.Run(h.ctx, program, "status", "--output=json")
			return err == nil && res.ExitCode == 0 && strings.Contains(res.Stdout, `"interrupted_run": null`) && strings.Contains(res.Stdout, `"healthy": true`)
		}))
		t.Logf("power lost after record %d: booted at %s", n, h.agrees("prometheus"))
		h.reset()
	}
}

// poll asks until the answer is yes.
func poll(t testing.TB, limit time.Duration, yes func() bool) error {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-deadline.C:
			return fmt.Errorf("not so within %s", limit)
		case <-tick.C:
		}
	}
	return nil
}
