package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

type verification struct {
	Components []struct {
		Name    string
		Healthy bool
		Verdict string
	} `json:"components"`
	Integration []struct{ Name, Status, Detail string } `json:"integration"`
}

// failing lists the integration tests that fail.
func (h *host) failing(code int) (verification, []string) {
	h.t.Helper()
	// A link is judged by its last scrape, and one of them may be late.
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if res, err := h.Run(h.ctx, program, "verify", "--integration"); err != nil || res.ExitCode == code {
			break
		}
	}
	var v verification
	h.document(&v, code, "verify", "--integration")
	var out []string
	for _, c := range v.Integration {
		if c.Status == "fail" {
			out = append(out, c.Name)
		}
	}
	return v, out
}

// Each link between real components is tested, and each one that is cut is named
// by exactly one failing test.
func TestLinks(t *testing.T) {
	t.Parallel()
	h := newHost(t, old, nil)
	h.waitSamples()
	v, failed := h.failing(0)
	if len(failed) > 0 || len(v.Integration) < 2 || len(v.Components) != 3 {
		t.Fatalf("%+v", v)
	}
	for _, c := range v.Components {
		if !c.Healthy || c.Verdict != "healthy" {
			t.Errorf("%+v", c)
		}
	}
	const am, node = "prometheus-alertmanager", "prometheus-node_exporter"
	for unit, want := range map[string]string{"alertmanager.service": am, "node_exporter.service": node} {
		name := strings.TrimSuffix(unit, ".service")
		h.MustRun(h.ctx, "systemctl", "stop", unit)
		h.waitAnswer(`max(up{instance="` + strings.TrimPrefix(strings.TrimSuffix(build[name], "/metrics"), "http://") + `"}) == 0`)
		if v, failed := h.failing(1); len(failed) != 1 || failed[0] != want {
			t.Errorf("%s is stopped: %q fail: %+v", unit, failed, v.Integration)
		}
		h.MustRun(h.ctx, "systemctl", "start", unit)
		h.waitAnswer(`min(up) == 1`)
		if v, failed := h.failing(0); len(failed) > 0 {
			t.Errorf("%s is back: %q fail: %+v", unit, failed, v.Integration)
		}
	}
	// Both run and are healthy, and one does not know of the other.
	conf, err := h.ReadFile("/etc/prometheus/prometheus.yml")
	h.check(err)
	h.file("/etc/prometheus/prometheus.yml", strings.Replace(string(conf), "127.0.0.1:9093]\nrule_files", "]\nrule_files", 1))
	h.upgrade(0, "restart", "--component=prometheus", "--strategy=reload")
	if v, failed := h.failing(1); len(failed) != 1 || failed[0] != am {
		t.Errorf("no Alertmanager is configured: %q fail: %+v", failed, v.Integration)
	}
	h.file("/etc/prometheus/prometheus.yml", string(conf))
	h.upgrade(0, "restart", "--component=prometheus", "--strategy=reload")
	h.waitAnswer(`min(up) == 1`)
	if out := h.upgrade(0, "restart", "--all", "--pause=1s"); !strings.Contains(out.Stdout, am) || !strings.Contains(out.Stdout, "3 restarted") {
		t.Errorf("%s", out)
	}
}

// A write-ahead log that takes longer to replay than timeouts.health is waited for.
func TestSlowReplayIsWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"prometheus": "2.42"}, map[string][]string{"prometheus": {"2.53"}})
	const series = 300_000
	l, err := h.Listen(h.ctx, "tcp", "127.0.0.1:9999")
	h.check(err)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b := bufio.NewWriter(w)
		for i := range series {
			fmt.Fprintf(b, "rig_many{number=\"%d\"} %d\n", i, i)
		}
		_ = b.Flush()
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	const self = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n  - {job_name: self, static_configs: [{targets: [\"127.0.0.1:9090\"]}]}\n"
	h.file("/etc/prometheus/prometheus.yml", self+"  - {job_name: many, scrape_interval: 20s, scrape_timeout: 20s, static_configs: [{targets: [\"127.0.0.1:9999\"]}]}\n")
	h.MustRun(h.ctx, "systemctl", "restart", "prometheus.service")
	h.waitAnswer(fmt.Sprintf("prometheus_tsdb_head_series > %d", series))
	scraped := time.Now()
	h.file("/etc/prometheus/prometheus.yml", self)
	h.MustRun(h.ctx, "systemctl", "reload", "prometheus.service")
	h.file("/etc/observability/upgrade-policy.yaml", "upstream: {github: {api_url: \"http://127.0.0.1:8081\"}, cache_ttl: 0s}\ntimeouts: {stop: 60s, start: 30s, health: 1s}\n")
	out := h.upgrade(0, "apply", "--yes", "--output=json")
	var res result
	h.check(json.Unmarshal([]byte(out.Stdout), &res))
	t.Logf("down %.1f s\n%s", res.Components[0].Downtime, out.Stderr)
	if res.Components[0].Downtime <= 1 {
		t.Errorf("the replay did not outlast timeouts.health: %.1f s down", res.Components[0].Downtime)
	}
	if !strings.Contains(out.Stderr, "segments of the write-ahead log replayed") {
		t.Errorf("no word of the replay:\n%s", out)
	}
	if v := h.running("prometheus"); line(v) != "2.53" {
		t.Errorf("it runs %s", v)
	}
	if n := h.query("count(count_over_time(rig_many[1m]))", scraped); n != fmt.Sprint(series) {
		t.Errorf("%s series of %d are left", n, series)
	}
}

// pageServer answers every path with a friendly page, as some exporters do.
const pageServer = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println("node_exporter, version 1.99.0 (branch: HEAD, revision: 0)")
		return
	}
	err := http.ListenAndServe("127.0.0.1:9100", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html><head><title>Node Exporter</title></head><body><h1>Node Exporter</h1><a href=/metrics>Metrics</a></body></html>")
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
`

// A release that answers 200 with a page on any path is no healthy exporter.
func TestPageOnAnyPath(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, nil)
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "main.go"), filepath.Join(dir, "node_exporter")
	h.check(os.WriteFile(src, []byte(pageServer), 0o644))
	cmd := exec.CommandContext(h.ctx, "go", "build", "-o", bin, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	body, err := os.ReadFile(bin)
	h.check(err)
	data, err := releaseserver.Archive("tar.gz", "node_exporter-1.99.0.linux-amd64", map[string]releaseserver.File{"node_exporter": {Body: body, Mode: 0o755}})
	h.check(err)
	releases := filepath.Join(h.releases, "github/prometheus/node_exporter/v1.99.0")
	h.check(os.MkdirAll(releases, 0o755))
	h.check(os.WriteFile(filepath.Join(releases, "node_exporter-1.99.0.linux-amd64.tar.gz"), data, 0o644))
	var res result
	h.document(&res, 5, "apply", "--yes")
	if res.Status != "rolled_back" || !strings.Contains(res.Components[0].Error, "has no node_exporter_build_info") {
		t.Fatalf("%+v", res)
	}
	t.Log(res.Components[0].Error)
	if got := h.agrees("node_exporter"); line(got) != "1.5" {
		t.Fatalf("node_exporter is at %s", got)
	}
}

// A configuration that was changed on disk, and not read yet, is read after a run:
// over HTTP or, where Prometheus does not allow that, by a signal.
func TestChangedTargetsAreRead(t *testing.T) {
	t.Parallel()
	for name, flag := range map[string]string{"http": "--web.enable-lifecycle", "signal": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, map[string]string{"prometheus": "2.42", "node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
			unit, err := h.ReadFile("/etc/systemd/system/prometheus.service")
			h.check(err)
			h.file("/etc/systemd/system/prometheus.service", strings.Replace(string(unit), "--web.enable-lifecycle", flag, 1))
			h.MustRun(h.ctx, "systemctl", "daemon-reload")
			h.MustRun(h.ctx, "systemctl", "restart", "prometheus.service")
			h.waitSamples()
			pid, err := h.MainPID(h.ctx, "prometheus.service")
			h.check(err)
			h.file("/etc/prometheus/prometheus.yml", "global: {scrape_interval: 1s}\nscrape_configs:\n  - {job_name: renamed, static_configs: [{targets: [\"127.0.0.1:9090\", \"127.0.0.1:9100\"]}]}\n")
			out := h.upgrade(0, "apply", "--yes")
			if !strings.Contains(out.Stderr, "prometheus: its configuration on disk is newer") {
				t.Errorf("%s", out)
			}
			_, body, err := h.Get(h.ctx, "http://127.0.0.1:9090/api/v1/status/config")
			h.check(err)
			if !strings.Contains(string(body), "renamed") {
				t.Errorf("the new configuration is not in force: %s", body)
			}
			if now, err := h.MainPID(h.ctx, "prometheus.service"); err != nil || now != pid {
				t.Errorf("Prometheus was restarted: pid %d, now %d, %v", pid, now, err)
			}
			if out := h.upgrade(0, "apply", "--yes"); strings.Contains(out.Stderr, "newer") {
				t.Errorf("read again without need: %s", out)
			}
		})
	}
}
