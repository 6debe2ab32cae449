package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pairUnit is the unit of two Prometheis on one host.
const pairUnit = `[Unit]
Description=Prometheus %i

[Service]
User=prometheus
EnvironmentFile=/etc/default/prometheus-%i
ExecStart=/usr/local/bin/prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/var/lib/prometheus/%i --web.listen-address=127.0.0.1:${PORT} --web.enable-lifecycle
Restart=on-failure
TimeoutStopSec=60

[Install]
WantedBy=multi-user.target
`

const haproxyConf = `global
  stats socket /run/haproxy/admin.sock mode 660 level admin
  stats socket ipv4@127.0.0.1:9999 level admin
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  timeout check 5s
frontend queries
  bind 127.0.0.1:8080
  default_backend prometheus
backend prometheus
  balance roundrobin
  option httpchk GET /-/ready
  default-server check inter 200ms
  server a 127.0.0.1:9091
  server b 127.0.0.1:9092
`

const nginxConf = `upstream prometheus {
    server 127.0.0.1:9091 max_fails=0;
    server 127.0.0.1:9092 max_fails=0;
}
server {
    listen 127.0.0.1:8080;
    location / { proxy_pass http://prometheus; proxy_next_upstream off; }
}
`

var pair = map[string]string{"a": "9091", "b": "9092"}

// fronted are the load balancers that a rolling upgrade is tried with.
var fronted = map[string]struct{ unit, file, conf, definition, server string }{
	"haproxy": {
		"haproxy.service", "/etc/haproxy/haproxy.cfg", haproxyConf,
		`{type: haproxy, socket: /run/haproxy/admin.sock, backend: prometheus, server: "{instance}", drain_timeout: 10s, stabilize: 1s}`, "",
	},
	"nginx": {
		"nginx.service", "/etc/nginx/conf.d/prometheus.conf", nginxConf,
		`{type: nginx, file: /etc/nginx/conf.d/prometheus.conf, backend: prometheus, drain_timeout: 2s, stabilize: 1s}`, `, server: "127.0.0.1:%s"`,
	},
}

// newPair is a host with two Prometheis behind a load balancer.
func newPair(t *testing.T, kind string, offer map[string][]string) *host {
	t.Helper()
	h := newHost(t, nil, offer)
	h.MustRun(h.ctx, "useradd", "--system", "--home-dir=/var/lib/prometheus", "prometheus")
	if _, err := h.InstallBinaries("prometheus", "2.42"); err != nil {
		t.Fatal(err)
	}
	h.file("/etc/prometheus/prometheus.yml", "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: self, static_configs: [{targets: [\"127.0.0.1:9091\", \"127.0.0.1:9092\"]}]}]\n")
	h.file("/etc/systemd/system/prometheus@.service", pairUnit)
	front := fronted[kind]
	definition := "health: {settle: 1s}\nbalancer: " + front.definition + "\ninstances:\n"
	for _, name := range []string{"a", "b"} {
		port, server := pair[name], front.server
		if server != "" {
			server = fmt.Sprintf(server, port)
		}
		h.file("/etc/default/prometheus-"+name, "PORT="+port+"\n")
		h.MustRun(h.ctx, "install", "-d", "-o", "prometheus", "-g", "prometheus", "/var/lib/prometheus", "/var/lib/prometheus/"+name)
		definition += fmt.Sprintf("  - {name: %s, service: prometheus@%s.service, health: {url: \"http://127.0.0.1:%s/-/ready\"}%s}\n", name, name, port, server)
	}
	h.file("/etc/observability/components.d/prometheus.yaml", definition)
	h.MustRun(h.ctx, "systemctl", "daemon-reload")
	h.MustRun(h.ctx, "systemctl", "enable", "--now", "prometheus@a.service", "prometheus@b.service")
	for name, port := range pair {
		h.waitReady("http://127.0.0.1:"+port+"/-/ready", "prometheus@"+name+".service")
	}
	h.file(front.file, front.conf)
	h.check(h.StartUnit(h.ctx, front.unit))
	h.waitReady("http://127.0.0.1:8080/-/ready", front.unit)
	return h
}

// waitReady waits for an answer of 200, and shows the unit's journal when it does
// not come.
func (h *host) waitReady(url, unit string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, 30*time.Second)
	defer cancel()
	if err := h.WaitHTTP(ctx, url, isOK); err != nil {
		h.t.Fatalf("%s: %v\n%s", url, err, h.MustRun(h.ctx, "journalctl", "--no-pager", "-n", "30", "-u", unit))
	}
}

func isOK(status int, _ []byte) bool { return status == http.StatusOK }

// load asks Prometheus through the balancer all the time, by eight at once, each with
// a pause between its questions.
type load struct {
	asked, failed atomic.Int64
	first         atomic.Pointer[string] // failure
	stop          context.CancelFunc
	wg            sync.WaitGroup
}

func (h *host) load(pause time.Duration) *load {
	ctx, cancel := context.WithCancel(h.ctx)
	l := &load{stop: cancel}
	h.t.Cleanup(l.end)
	for range 8 {
		l.wg.Add(1)
		go func() {
			defer l.wg.Done()
			client := h.HTTP()
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				if why := askOnce(ctx, client); ctx.Err() == nil {
					l.asked.Add(1)
					if why != "" {
						l.failed.Add(1)
						l.first.CompareAndSwap(nil, &why)
					}
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		}()
	}
	return l
}

func askOnce(ctx context.Context, client *http.Client) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8080/api/v1/query?query=vector(1)", nil)
	if err != nil {
		return err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"success"`) {
		return fmt.Sprintf("%d %.200q %v", resp.StatusCode, body, err)
	}
	return ""
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// served ends the load after enough requests and insists that none failed.
func (l *load) served(t *testing.T, enough int64) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for l.asked.Load() < enough && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	l.end()
	asked := l.asked.Load()
	if why := l.first.Load(); why != nil {
		t.Fatalf("%d of %d requests failed, the first with %s", l.failed.Load(), asked, *why)
	}
	if asked < enough {
		t.Fatalf("expected %d requests, only %d were made in time; none failed", enough, asked)
	}
	t.Logf("%d requests, none failed", asked)
}

// live is the version that an instance's process reports.
func (h *host) live(instance string) string {
	h.t.Helper()
	_, body, err := h.Get(h.ctx, "http://127.0.0.1:"+pair[instance]+"/metrics")
	h.check(err)
	_, rest, ok := strings.Cut(string(body), "prometheus_build_info{")
	_, rest, found := strings.Cut(rest, `,version="`)
	v, _, _ := strings.Cut(rest, `"`)
	if !ok || !found {
		h.t.Fatalf("instance %s reports no version", instance)
	}
	return v
}

// admitted asserts that both instances are in the balancer again.
func (h *host) admitted(kind string) {
	h.t.Helper()
	switch kind {
	case "haproxy":
		conn, err := h.Dial(h.ctx, "tcp", "127.0.0.1:9999")
		h.check(err)
		defer conn.Close()
		_, err = io.WriteString(conn, "show stat\n")
		h.check(err)
		out, err := io.ReadAll(conn)
		h.check(err)
		for name := range pair {
			if !strings.Contains(string(out), "\nprometheus,"+name+",") {
				h.t.Fatalf("HAProxy knows no server %s:\n%s", name, out)
			}
		}
		if strings.Count(string(out), ",UP,") != 3 { // both servers and their backend
			h.t.Fatalf("not all servers are up in HAProxy:\n%s", out)
		}
	case "nginx":
		conf, err := h.ReadFile("/etc/nginx/conf.d/prometheus.conf")
		if err != nil || string(conf) != nginxConf {
			h.t.Fatalf("nginx's file is not as it was: %v\n%s", err, conf)
		}
	}
}

// Two real Prometheis behind a real load balancer under constant load: a rolling
// upgrade, a rolling restart and a rolling rollback do not fail one request.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	for kind := range fronted {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newPair(t, kind, map[string][]string{"prometheus": {"2.53"}})
			l := h.load(2 * time.Millisecond)
			var res result
			h.document(&res, 0, "apply", "--yes")
			if res.Status != "success" || len(res.Components) != 2 || res.Components[0].Instance != "a" || res.Components[1].Instance != "b" {
				t.Fatalf("%+v", res)
			}
			for name := range pair {
				if v := h.live(name); line(v) != "2.53" {
					t.Errorf("%s runs %s", name, v)
				}
			}
			h.upgrade(0, "restart", "--component=prometheus")
			var st status
			h.document(&st, 0, "status")
			if c := st.Components[0]; c.Name != "prometheus" || !c.Healthy || len(c.Instances) != 2 || line(c.Instances[1].Current) != "2.53" {
				t.Errorf("%+v", st)
			}
			h.document(&res, 0, "rollback", "--previous", "--yes")
			if res.Status != "success" || len(res.Components) != 2 {
				t.Fatalf("%+v", res)
			}
			for name := range pair {
				if v := h.live(name); line(v) != "2.42" {
					t.Errorf("%s runs %s after the rollback", name, v)
				}
			}
			l.served(t, 1_000)
			h.admitted(kind)
		})
	}
}

// The second instance fails with the new version: it is rolled back and put back,
// the first goes on serving, and not one request fails.
func TestRollingFailure(t *testing.T) {
	t.Parallel()
	for kind := range fronted {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newPair(t, kind, nil)
			h.wrapped(`case "$*" in *:9092*) echo "b has had enough" >&2; exit 1;; esac
/opt/real/prometheus "$@" & p=$!; trap 'kill -TERM $p' TERM
while kill -0 $p 2>/dev/null; do wait $p; done`)
			l := h.load(2 * time.Millisecond)
			var res result
			h.document(&res, 5, "apply", "--yes")
			if res.Status != "rolled_back" || len(res.Components) != 2 || res.Components[0].Status != "upgraded" || res.Components[1].Status != "rolled_back" {
				t.Fatalf("%+v", res)
			}
			if a, b := h.live("a"), h.live("b"); line(a) != "2.53" || line(b) != "2.42" {
				t.Fatalf("a runs %s, b runs %s", a, b)
			}
			if !strings.Contains(strings.Join(res.Warnings, "\n"), "prometheus@a goes on running") {
				t.Errorf("nobody is told that a runs what is not on disk: %q", res.Warnings)
			}
			s := h.state().Components["prometheus"]
			if line(s.Current) != "2.42" || line(s.Instances["a"]) != "2.53" || line(s.Instances["b"]) != "2.42" || len(s.Failed) != 1 {
				t.Errorf("%+v", s)
			}
			h.upgrade(0, "restart", "--component=prometheus") // a comes back to what is on disk
			if a := h.live("a"); line(a) != "2.42" {
				t.Errorf("a runs %s after the restart", a)
			}
			l.served(t, 1_000)
			h.admitted(kind)
		})
	}
}

// Killed in the middle of a rolling upgrade, recovery leaves both instances at one
// version and in the balancer; the load does not notice.
func TestRollingKilled(t *testing.T) {
	t.Parallel()
	for kind := range fronted {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newPair(t, kind, map[string][]string{"prometheus": {"2.53"}})
			l := h.load(40 * time.Millisecond)
			killed := 0
			for n := 10; h.fault(fmt.Sprintf("kill-after:%d", n)); n += 6 {
				killed++
				h.upgrade(0, "recover")
				h.admitted(kind)
				a, b, disk := h.live("a"), h.live("b"), h.installed("prometheus")
				if line(a) != line(disk) || line(b) != line(disk) {
					t.Fatalf("killed after record %d: a runs %s, b runs %s, the file is %s", n, a, b, disk)
				}
				t.Logf("killed after record %d: both at %s", n, disk)
				h.reset()
			}
			if killed < 3 {
				t.Errorf("only %d points", killed)
			}
			l.served(t, 1_000)
		})
	}
}
