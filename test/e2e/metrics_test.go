package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

const textfile = "/var/lib/node_exporter/textfile/observability_upgrade.prom"

// one reports whether a query gives one series, of value 1.
func (h *host) one(expr string) func() bool {
	return func() bool { return h.query(expr, time.Now()) == "1" }
}

// A failed upgrade raises the alert: this program writes the metrics, node_exporter
// reads the file, Prometheus scrapes it, has the rules that `monitoring install`
// put there, and fires. All of them are the real ones; only the waiting times of
// the rules are shortened.
func TestFailedUpgradeRaisesTheAlert(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"prometheus": "2.42", "node_exporter": "1.5"}, nil)
	const policy = "/etc/observability/upgrade-policy.yaml"
	h.file(policy, h.MustRun(h.ctx, "cat", policy)+"metrics: {textfile: "+textfile+"}\n")
	h.MustRun(h.ctx, "install", "-d", "/var/lib/node_exporter/textfile")
	h.file("/etc/systemd/system/node_exporter.service.d/textfile.conf", "[Service]\nExecStart=\n"+
		"ExecStart=/usr/local/bin/node_exporter --web.listen-address=127.0.0.1:9100 --collector.textfile.directory=/var/lib/node_exporter/textfile\n")
	h.MustRun(h.ctx, "systemctl", "daemon-reload")
	h.MustRun(h.ctx, "systemctl", "restart", "node_exporter.service")
	h.upgrade(0, "adopt", "--yes")

	out := h.upgrade(0, "monitoring", "install")
	for _, want := range []string{"/etc/prometheus/rules/upgrade-alerts.yml: created", "/usr/local/bin/promtool finds no fault"} {
		if !strings.Contains(out.Stdout, want) {
			t.Errorf("monitoring install does not say %q: %s", want, out)
		}
	}
	if strings.Contains(out.Stdout, "rule_files") {
		t.Errorf("Prometheus has a rule_files that names it: %s", out)
	}
	h.MustRun(h.ctx, "sed", "-i", "-e", "s/interval: 1m/interval: 1s/", "-e", "s/for: 5m/for: 2s/", "/etc/prometheus/rules/upgrade-alerts.yml")
	h.upgrade(0, "restart", "--component=prometheus", "--strategy=reload")
	h.until("Prometheus has the metrics", time.Minute, h.one(`count(observability_component_version_info{component="prometheus",version=~"2.42.*"})`))
	h.until("Prometheus has evaluated the rules", time.Minute, h.one(`count(ALERTS{alertname="UpgradeNeverChecked",alertstate="pending"})`))
	if got := h.query(`count(ALERTS{alertstate="firing"})`, time.Now()); got != "" {
		t.Fatalf("%s alerts fire before anything happened", got)
	}

	h.wrapped(`echo "prometheus: error: unknown long flag" >&2; exit 1`)
	h.upgrade(5, "apply", "--yes")
	h.agrees("prometheus")
	h.until("the alert fires", 2*time.Minute, h.one(`count(ALERTS{alertname="UpgradeFailed",alertstate="firing",component="prometheus",severity="warning",status="rolled_back"})`))
	for _, expr := range []string{
		`observability_upgrade_status{component="prometheus",status="rolled_back"}`,
		`observability_last_run_status{status="rolled_back"}`,
		`observability_versions_behind{component="prometheus"}`,
		`observability_backup_points{state="complete"}`,
		`1 - node_textfile_scrape_error`,
	} {
		h.until(expr+" is 1", 30*time.Second, h.one(expr)) // one scrape of them may be late
	}
	h.evaluates(h.MustRun(h.ctx, program, "monitoring", "show", "dashboard"))

	// Somebody has looked at it and says so: the alert ends.
	h.upgrade(0, "hold", "prometheus", "--reason=wait for a release that starts")
	h.until("the alert ends", time.Minute, func() bool { return h.query(`count(ALERTS{alertname="UpgradeFailed"})`, time.Now()) == "" })

	// What sed did to the rules is somebody's change.
	if out := h.upgrade(4, "monitoring", "install"); !strings.Contains(out.Stderr, "left alone") {
		t.Errorf("%s", out)
	}
	h.upgrade(0, "monitoring", "install", "--force")
}

// evaluates asks Prometheus every query of a dashboard.
func (h *host) evaluates(dashboard string) {
	h.t.Helper()
	var doc struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	h.check(json.Unmarshal([]byte(dashboard), &doc))
	empty := map[string]bool{}
	n := 0
	for _, p := range doc.Panels {
		for _, target := range p.Targets {
			n++
			expr := strings.NewReplacer("$instance", ".*", "$component", ".*", "$__range", "1h").Replace(target.Expr)
			_, body, err := h.Get(h.ctx, "http://127.0.0.1:9090/api/v1/query?query="+url.QueryEscape(expr))
			h.check(err)
			var answer struct {
				Status, Error string
				Data          struct{ Result []any }
			}
			h.check(json.Unmarshal(body, &answer))
			if answer.Status != "success" {
				h.t.Errorf("%s: %s: %s", p.Title, expr, answer.Error)
			}
			if len(answer.Data.Result) == 0 {
				empty[fmt.Sprintf("%s: %s", p.Title, target.Expr)] = true
			}
		}
	}
	// Nothing is vulnerable, held, unreachable or at a new version here, and a file has
	// nothing of what is only so at the moment.
	for what := range empty {
		known := false
		for _, absent := range []string{"component_vulnerable", "hold", "check_errors", "last_upgrade_timestamp", "run_in_progress", "lock_held", "maintenance_window"} {
			known = known || strings.Contains(what, "observability_"+absent)
		}
		if !known {
			h.t.Errorf("no data: %s", what)
		}
	}
	if n < 20 {
		h.t.Errorf("only %d queries", n)
	}
}
