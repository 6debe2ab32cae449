package preflight

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestText is the checks as `plan` prints them: docs/specification.md, section 10.
func TestText(t *testing.T) {
	well := host(t, "prometheus", "loki")
	well.Window = func(context.Context) component.Check { return ok("", "", "02:00-06:00 UTC") }
	for name, checks := range map[string][]component.Check{
		"well": Run(t.Context(), well).Checks,
		"troubled": {
			fail(DiskSpace, "", "df -h /var", "the file system of /var: expected at least 1.2 GB free, found 300 MB: 900 MB are missing"),
			ok(DiskSpace, "", "/tmp: needs 400 MB, has 2.0 GB"),
			ok(ServiceHealth, "prometheus", "healthy"),
			fail(ServiceHealth, "loki", "observability-upgrade restart --component=loki", "expected it healthy before the upgrade, found service: loki.service is failed (exit-code), expected running"),
			warn(ServiceHealth, "grafana", "journalctl -eu grafana-server.service", "healthy, but it crashed or ended lately: its manager restarted it 2 times"),
			warn(Compatibility, "", "", "loki 3.0.0 needs promtail 3.x, and it is 2.9.3; this was so before the upgrade"),
			skipped(ConfigSyntax, "grafana", "its definition names no check"),
			skipped(ConfigSyntax, "node_exporter", "its definition names no check"),
			ok(BackupReadiness, "", "/var/backups/observability can be written"),
			skipped(Network, "", "nothing has to be downloaded"),
			ok(Lock, "", "no other run is in progress"),
			warn(MaintenanceWindow, "", "", "closed until 02:00 UTC; a run by hand goes all the same"),
			ok(UnitFile, "prometheus", "well"),
			skipped(UnitFile, "promtool", "it has no unit"),
			fail(AlertGate, "", "", "`up == 0`: expected nothing, found up{job=\"api\"}"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := plan.WritePlan(&b, &plan.Plan{Checks: checks}, plan.Style{}); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".golden")
			if *update {
				write(t, file, b.String(), 0o644)
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}
