package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// leap lets Prometheus go from any version to any: the packages hold no 2.55.
const leap = `
paths:
  prometheus: [{to: ">=3.0.0", from: ">=2.0.0", reason: "these packages hold no 2.55"}]
`

// past are questions about a moment that is over; their answers must not change.
type past struct {
	at      time.Time
	answers map[string]string
}

// past asks once there are samples older than what a fingerprint asks for.
func (h *host) past() past {
	h.t.Helper()
	h.waitSamples()
	h.waitAnswer("min(count_over_time(up[20s])) >= 17")
	p := past{at: time.Now().Add(-3 * time.Second), answers: map[string]string{}}
	for _, q := range []string{"count({__name__=~\".+\"})", "sum(count_over_time(up[10m]))", "sum(sum_over_time(scrape_samples_scraped[10m]))"} {
		p.answers[q] = h.query(q, p.at)
		if p.answers[q] == "" {
			h.t.Fatalf("no answer to %s", q)
		}
	}
	return p
}

// waitAnswer waits until a question about now has an answer.
func (h *host) waitAnswer(expr string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, 90*time.Second)
	defer cancel()
	h.check(h.WaitHTTP(ctx, "http://127.0.0.1:9090/api/v1/query?query="+url.QueryEscape(expr), func(status int, body []byte) bool {
		return status == http.StatusOK && strings.Contains(string(body), `"value"`)
	}))
}

func (h *host) remembers(p past) {
	h.t.Helper()
	for q, want := range p.answers {
		if got := h.query(q, p.at); got != want {
			h.t.Errorf("%s: it was %s, and is %q now", q, want, got)
		}
	}
}

// Prometheus goes to 3.5 and comes back to 2.53 with its data as it was: copied by
// its snapshot API where that is on, else from the stopped directory.
func TestDataRestored(t *testing.T) {
	t.Parallel()
	for method, flag := range map[string]string{"prometheus": " --web.enable-admin-api", "copy": ""} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, map[string]string{"prometheus": "2.53"}, map[string][]string{"prometheus": {"3.5"}})
			h.file("/etc/observability/compatibility-matrix.yaml", leap)
			h.flags(flag)
			before := h.past()
			var res result
			h.document(&res, 0, "apply", "--yes", "--backup-data")
			if line(h.agrees("prometheus")) != "3.5" {
				t.Fatalf("%+v", res)
			}
			h.remembers(before)
			var set struct{ Method string }
			data, err := h.ReadFile(res.BackupPath + "/data/prometheus.json")
			h.check(err)
			h.check(json.Unmarshal(data, &set))
			if set.Method != method {
				t.Fatalf("the data was copied by %q: %s", set.Method, data)
			}
			h.waitAnswer("min(count_over_time(prometheus_build_info{version=~\"3.*\"}[10s])) >= 4")
			after := time.Now() // written by 3.5: not in the backup
			if got := h.query("count(count_over_time(up[3s]))", after); got == "" {
				t.Fatal("3.5 has no samples of its own")
			}
			h.document(&res, 0, "rollback", "--previous", "--yes", "--restore-data")
			if line(h.agrees("prometheus")) != "2.53" {
				t.Fatalf("%+v", res)
			}
			h.remembers(before)
			if got := h.query("count(count_over_time(up[3s]))", after); got != "" {
				t.Errorf("samples of after the upgrade are there too: %s", got)
			}
		})
	}
}

// flags adds flags to Prometheus's command line, and starts it with them.
func (h *host) flags(more string) {
	h.t.Helper()
	unit, err := h.ReadFile("/etc/systemd/system/prometheus.service")
	h.check(err)
	text := strings.Replace(string(unit), "--web.enable-lifecycle", "--web.enable-lifecycle"+more, 1)
	h.file("/etc/systemd/system/prometheus.service", text)
	h.MustRun(h.ctx, "systemctl", "daemon-reload")
	h.MustRun(h.ctx, "systemctl", "restart", "prometheus.service")
	h.waitReady("http://127.0.0.1:9090/-/ready", "prometheus.service")
}

// forgetful is Prometheus 2.42 under a unit whose flag for the write-ahead log's
// compression it does not know: what 3.5 writes with it, it cannot read, and does
// not say so.
const forgetful = `#!/bin/sh
[ "$1" = --version ] && exec /opt/real/prometheus --version
for word; do shift; case "$word" in --storage.tsdb.wal-compression-type=*) ;; *) set -- "$@" "$word";; esac; done
/opt/real/prometheus "$@" & p=$!; trap 'kill -TERM $p' TERM
while kill -0 $p 2>/dev/null; do wait $p; done
`

// An older version that is ready, and has lost everything without a word, is found
// out by what it answers; the newer one comes back with all its data.
func TestLostDataIsCaught(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"prometheus": "2.42"}, map[string][]string{"prometheus": {"3.5"}})
	h.file("/etc/observability/compatibility-matrix.yaml", leap)
	r := h.release("prometheus", "2.42")
	h.check(h.MkdirAll("/opt/real"))
	h.check(h.CopyIn(r.Dir+"/prometheus", "/opt/real/prometheus", 0o755))
	h.MustRun(h.ctx, "systemctl", "stop", "prometheus.service")
	h.check(h.WriteFile("/usr/local/bin/prometheus", []byte(forgetful), 0o755))
	h.flags(" --storage.tsdb.wal-compression-type=zstd")
	h.past()
	var res result
	h.document(&res, 0, "apply", "--yes")
	if line(h.agrees("prometheus")) != "3.5" {
		t.Fatalf("%+v", res)
	}
	written := h.past()
	// Where a rule says that the way back needs the data, it is not gone without.
	h.file("/etc/observability/compatibility-matrix.yaml", leap+"one_way:\n  prometheus: [{from: \"<3.0.0\", to: \">=3.0.0\", reversible: with-backup, reason: \"its log is compressed\"}]\n")
	out := h.upgrade(4, "rollback", "--previous", "--yes")
	if !strings.Contains(out.Stderr, "cannot be trusted with the data") || line(h.agrees("prometheus")) != "3.5" {
		t.Fatalf("%s", out)
	}
	h.document(&res, 6, "rollback", "--previous", "--yes", "--force")
	if len(res.Components) != 1 || !strings.Contains(res.Components[0].Error, "samples") {
		t.Fatalf("%+v", res)
	}
	t.Log(res.Components[0].Error)
	if line(h.agrees("prometheus")) != "3.5" {
		t.Fatal("3.5 is not back")
	}
	h.remembers(written)
}

// Silences are kept on the way up and on the way back.
func TestSilencesSurvive(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"alertmanager": "0.25"}, map[string][]string{"alertmanager": {"0.28"}})
	amtool := func(args ...string) string {
		return strings.TrimSpace(h.MustRun(h.ctx, append([]string{"/usr/local/bin/amtool", "--alertmanager.url=http://127.0.0.1:9093"}, args...)...))
	}
	id := amtool("silence", "add", "alertname=Rig", "--comment=kept", "--author=rig", "--duration=2h")
	var res result
	h.document(&res, 0, "apply", "--yes")
	if got := amtool("silence", "query", "-q"); got != id || line(h.agrees("alertmanager")) != "0.28" {
		t.Fatalf("silence %s is now %q: %+v", id, got, res)
	}
	h.document(&res, 0, "rollback", "--previous", "--yes")
	if got := amtool("silence", "query", "-q"); got != id || line(h.agrees("alertmanager")) != "0.25" {
		t.Fatalf("silence %s is now %q: %+v", id, got, res)
	}
}
