package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var newer = map[string][]string{"prometheus": {"2.53"}, "alertmanager": {"0.28"}, "node_exporter": {"1.9"}}

// The main job: three components upgraded in one run, samples kept, a second
// run without anything to do, then a rollback of all of it.
func TestUpgradeStack(t *testing.T) {
	t.Parallel()
	h := newHost(t, old, newer)
	h.upgrade(0, "adopt", "--yes")
	h.waitSamples()
	at := time.Now().Add(-2 * time.Second)
	const past = "sum(count_over_time(up[5m]))"
	before := h.query(past, at)
	if before == "" {
		t.Fatal("no samples before the upgrade")
	}
	var res result
	h.document(&res, 0, "apply", "--yes")
	if res.Status != "success" || len(res.Components) != 3 {
		t.Fatalf("%+v", res)
	}
	for _, c := range res.Components {
		if c.Status != "upgraded" || c.Downtime <= 0 {
			t.Errorf("%+v", c)
		}
		if got := h.agrees(c.Name); got != strings.Split(c.To, "+")[0] {
			t.Errorf("%s is at %s, the result says %s", c.Name, got, c.To)
		}
		t.Logf("%s %s → %s, down %.2f s", c.Name, c.From, c.To, c.Downtime)
	}
	if h.running("prometheus") != h.release("prometheus", "2.53").Version {
		t.Fatal("Prometheus is not at 2.53")
	}
	if after := h.query(past, at); after != before {
		t.Fatalf("samples of before: %s then, %s now", before, after)
	}

	was := h.unchanging()
	h.document(&res, 0, "apply", "--yes")
	if res.Status != "nothing_to_do" {
		t.Fatalf("second apply: %+v", res)
	}
	if d := cmp.Diff(was, h.unchanging()); d != "" {
		t.Fatalf("the second apply changed files:\n%s", d)
	}

	h.document(&res, 0, "rollback", "--previous", "--yes")
	if res.Status != "success" || len(res.Components) != 3 {
		t.Fatalf("rollback: %+v", res)
	}
	for name, line := range old {
		if got := h.agrees(name); !strings.HasPrefix(got, line) {
			t.Errorf("%s is at %s after the rollback, want %s", name, got, line)
		}
	}
	if after := h.query(past, at); after != before {
		t.Fatalf("samples after the rollback: %s then, %s now", before, after)
	}
	var hist historyDoc
	h.document(&hist, 0, "history")
	if len(hist.Upgrades) != 3 {
		t.Fatalf("history: %+v", hist)
	}
	for _, u := range hist.Upgrades {
		if u.Status != "rolled_back" {
			t.Errorf("history of %s: %s", u.Component, u.Status)
		}
	}
	if out := h.upgrade(2, "rollback", "--previous", "--yes"); !strings.Contains(out.Stderr, "no successful upgrade left") {
		t.Fatalf("a second --previous: %s", out)
	}
}

// unchanging lists, with contents and times, what a run that has nothing to do
// leaves as it is: everything but what the system itself writes, the lock, and the
// audit log, which has a line for every command.
func (h *host) unchanging() []string {
	h.t.Helper()
	list, err := h.TreeListing(h.ctx, "/etc", "/usr", "/opt", "/root", "/srv", "/tmp/observability-upgrade", "/var/backups", "/var/cache", "/var/lib/observability")
	h.check(err)
	return slices.DeleteFunc(list, func(line string) bool { return strings.HasPrefix(line, "/var/lib/observability/audit.log ") })
}

// A rollback of one component to a named backup point; a backup with one
// flipped byte is refused before anything stops.
func TestRollbackTo(t *testing.T) {
	t.Parallel()
	h := newHost(t, old, newer)
	var res result
	h.document(&res, 0, "apply", "--yes")
	stamp := res.ID
	var list struct {
		Backups []struct {
			Timestamp  string
			Complete   bool
			Components []struct{ Name, Version string }
		}
	}
	h.document(&list, 0, "rollback", "--list")
	if len(list.Backups) != 1 || list.Backups[0].Timestamp != stamp || !list.Backups[0].Complete || len(list.Backups[0].Components) != 3 {
		t.Fatalf("%+v", list)
	}
	h.MustRun(h.ctx, "sh", "-c", "cd "+res.BackupPath+" && sha256sum --quiet -c SHA256SUMS")
	h.MustRun(h.ctx, "test", "-f", res.BackupPath+"/config/prometheus/prometheus.yml")
	h.MustRun(h.ctx, "test", "-f", res.BackupPath+"/systemd/prometheus.service")

	h.file("/etc/alertmanager/alertmanager.yml", "route: {receiver: changed}\nreceivers: [{name: changed}]\n")
	h.document(&res, 0, "rollback", "--to="+stamp, "--component=alertmanager", "--yes")
	if len(res.Components) != 1 || res.Components[0].Status != "rolled_back" {
		t.Fatalf("%+v", res)
	}
	if got := h.agrees("alertmanager"); !strings.HasPrefix(got, "0.25") {
		t.Fatalf("alertmanager is at %s", got)
	}
	if conf, err := h.ReadFile("/etc/alertmanager/alertmanager.yml"); err != nil || strings.Contains(string(conf), "changed") {
		t.Fatalf("the configuration was not restored: %s %v", conf, err)
	}
	if got := h.agrees("prometheus"); !strings.HasPrefix(got, "2.53") {
		t.Fatalf("prometheus was touched: %s", got)
	}

	pid, err := h.MainPID(h.ctx, "prometheus.service")
	h.check(err)
	h.MustRun(h.ctx, "sh", "-c", fmt.Sprintf("printf x | dd of=/var/backups/observability/%s/bin/prometheus bs=1 seek=4000 conv=notrunc 2>/dev/null", stamp))
	out := h.upgrade(4, "rollback", "--to="+stamp, "--component=prometheus", "--yes")
	if !strings.Contains(out.Stderr, "bin/prometheus: content changed") {
		t.Fatalf("%s", out)
	}
	if now, err := h.MainPID(h.ctx, "prometheus.service"); err != nil || now != pid {
		t.Fatalf("Prometheus was touched: pid %d, now %d, %v", pid, now, err)
	}
}

// wrapped is a release of Prometheus 2.53 whose program misbehaves around the
// real one, which lies in /opt.
func (h *host) wrapped(run string) {
	h.t.Helper()
	r := h.release("prometheus", "2.53")
	h.check(h.MkdirAll("/opt/real"))
	h.check(h.CopyIn(r.Dir+"/prometheus", "/opt/real/prometheus", 0o755))
	promtool, err := os.ReadFile(r.Dir + "/promtool")
	h.check(err)
	h.publish("prometheus", "prometheus/prometheus", r.Version, map[string]string{
		"prometheus": "#!/bin/sh\n[ \"$1\" = --version ] && { echo prometheus, version " + r.Version + "; exit; }\n" + run + "\n",
		"promtool":   string(promtool),
	})
}

func TestFailingReleases(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ run, want, evidence string }{
		"start fails on a flag": {
			`echo "prometheus: error: unknown long flag '--storage.tsdb.path'" >&2; exit 1`, "did not start|crashed", // by when systemd notices
			"unknown long flag",
		},
		"ready, then dies within settle": {
			`/opt/real/prometheus "$@" & p=$!; trap 'kill $p' TERM
until curl -sf http://127.0.0.1:9090/-/ready >/dev/null; do sleep 0.05; done
sleep 1; kill -9 $p; exit 3`, "crashed|became 0", "status=3/", // though systemd has started it again
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, map[string]string{"prometheus": "2.42"}, nil)
			h.settle("prometheus", "6s")
			h.wrapped(c.run)
			var res result
			h.document(&res, 5, "apply", "--yes")
			if res.Status != "rolled_back" || res.Components[0].Status != "rolled_back" || !regexp.MustCompile(c.want).MatchString(res.Components[0].Error) {
				t.Fatalf("%+v", res)
			}
			if got := h.agrees("prometheus"); !strings.HasPrefix(got, "2.42") {
				t.Fatalf("prometheus is at %s", got)
			}
			var hist historyDoc
			h.document(&hist, 0, "history")
			if len(hist.Upgrades) != 1 || hist.Upgrades[0].Status != "rolled_back" || hist.Upgrades[0].ErrorMessage == "" {
				t.Fatalf("history: %+v", hist)
			}
			if f := h.state().Components["prometheus"].Failed; len(f) != 1 || !strings.HasPrefix(f[0].Version, "2.53") {
				t.Fatalf("failed versions: %+v", f)
			}
			ev, err := h.ReadFile(res.Components[0].Evidence)
			if err != nil || !strings.Contains(string(ev), c.evidence) {
				t.Fatalf("evidence: %s %v", ev, err)
			}
			var again result
			h.document(&again, 0, "apply", "--yes")
			if again.Status != "nothing_to_do" {
				t.Fatalf("the failed version was tried again: %+v", again)
			}
			out := h.upgrade(0, "check")
			if !strings.Contains(out.Stdout, "failed here") {
				t.Fatalf("check does not say why it is held: %s", out)
			}
		})
	}
}

// A configuration that the tools in place refuse stops the run among the
// pre-flight checks; one that only the new tools refuse, before anything is
// touched: Prometheus 3 does not speak Alertmanager's first API any more.
func TestConfigCheckRefuses(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"prometheus": "2.42"}, map[string][]string{"prometheus": {"2.53", "3.5"}})
	h.file("/etc/observability/compatibility-matrix.yaml", stones+"\n")
	pid, err := h.MainPID(h.ctx, "prometheus.service")
	h.check(err)
	h.file("/etc/prometheus/prometheus.yml", "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: x, no_such_key: 1}]\n")
	var res result
	h.document(&res, 4, "apply", "--yes")
	if res.Components[0].Status != "not_attempted" || !strings.Contains(res.Error.Message, "no_such_key") {
		t.Fatalf("%+v", res)
	}
	h.file("/etc/prometheus/prometheus.yml", "global: {scrape_interval: 1s}\nalerting: {alertmanagers: [{api_version: v1, static_configs: [{targets: [\"localhost:9093\"]}]}]}\n")
	h.document(&res, 4, "apply", "--yes")
	failed := res.Components[0]
	if len(res.Components) != 2 || failed.Status != "failed" || line(failed.To) != "3.5" || !strings.Contains(failed.Error, "api_version") && !strings.Contains(failed.Error, "v1") {
		t.Fatalf("%+v", res)
	}
	if now, err := h.MainPID(h.ctx, "prometheus.service"); err != nil || now != pid {
		t.Fatalf("Prometheus was touched: pid %d, now %d, %v", pid, now, err)
	}
	if out := h.MustRun(h.ctx, "sh", "-c", "ls /var/backups/observability 2>/dev/null | wc -l"); strings.TrimSpace(out) != "0" {
		t.Fatalf("a backup was taken: %s", out)
	}
}

// A Debian package's binary is never replaced.
func TestPackageOwnedIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
	h.MustRun(h.ctx, "sh", "-c", "echo /usr/local/bin/node_exporter > /var/lib/dpkg/info/prometheus-node-exporter.list")
	h.MustRun(h.ctx, "sh", "-c", "printf 'Package: prometheus-node-exporter\\nStatus: install ok installed\\nVersion: 1.5.0-1\\nArchitecture: amd64\\nMaintainer: x <x@example.org>\\nDescription: x\\n\\n' >> /var/lib/dpkg/status")
	out := h.upgrade(0, "adopt", "--yes")
	if !strings.Contains(out.Stdout, "belongs to the package prometheus-node-exporter") {
		t.Fatalf("%s", out)
	}
	var res result
	h.document(&res, 0, "apply", "--yes")
	if res.Status != "nothing_to_do" || !strings.HasPrefix(h.installed("node_exporter"), "1.5") {
		t.Fatalf("%+v", res)
	}
}
