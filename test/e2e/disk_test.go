package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// A disk breaks in the middle of a run, at each record of its journal. Where it is
// not that of the programs themselves, what was begun is finished or rolled back
// without it, and the service runs; once it is mended, the boot unit leaves
// everything whole.
func TestDiskBreaksDuringRun(t *testing.T) {
	t.Parallel()
	of := versions{"node_exporter": {"1.5", "1.9"}}
	for name, at := range map[string]string{"binaries": "/usr/local", "records": "/var/lib", "backups": "/var/backups"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kit, _ := shared(t)
			if reason := rig.DiskAvailable(); reason != "" {
				t.Skip(reason)
			}
			disk := kit.StartDisk(t.Context(), t, at)
			h := newHostWith(t, rig.Options{NspawnArgs: disk.Args()}, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
			h.check(disk.Hide())
			h.settle("node_exporter", "100ms")
			h.units("observability-upgrade-recover.service")
			h.MustRun(h.ctx, "systemctl", "enable", "--quiet", "observability-upgrade-recover.service")
			h.upgrade(0, "adopt", "--yes")
			h.MustRun(h.ctx, "sync")
			first, step := 1, 1
			if !campaign() {
				first, step = 2+len(at)%3, 3
			}
			tried := 0
			for record := first; ; record += step {
				run, stopped := h.pause(record, "apply", "--yes")
				if !stopped {
					if code, said := run.end(); code != 0 {
						t.Fatalf("%d\n%s", code, said)
					}
					break
				}
				tried++
				h.check(disk.Break())
				code, said := run.resume()
				what := fmt.Sprintf("%s broke after record %d: exit code %d", at, record, code)
				// A program whose own file is on the disk may not be able to go on at all.
				own := at == "/usr/local" && (code == -1 || strings.Contains(said, "SIGBUS"))
				if code != 0 && !own && (!strings.Contains(said, "next:") || !strings.Contains(said, at)) {
					t.Errorf("%s: it does not say where, or what to type:\n%s", what, said)
				}
				if at != "/usr/local" {
					if code == 6 {
						t.Errorf("%s\n%s", what, said)
					}
					if disk, live := h.installed("node_exporter"), h.running("node_exporter"); disk != live {
						t.Errorf("%s, the binary is %s, %s runs\n%s", what, disk, live, said)
					}
				}
				h.check(h.PowerOff(h.ctx))
				h.check(disk.Repair(h.ctx))
				h.check(h.Boot(h.ctx))
				h.check(disk.Hide())
				h.recovered()
				t.Logf("%s; mended: %s\n%s", what, h.whole(of), said)
				h.resetTo(of)
			}
			t.Logf("%d points", tried)
		})
	}
}

// recovered waits until the boot unit has finished what was cut off, and all are
// healthy.
func (h *host) recovered() {
	h.t.Helper()
	h.healthy()
	// A journal that says nothing is cleared away by the next command.
	h.upgrade(0, "recover")
}
