package balancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// backend is a server behind the balancer.
type backend struct {
	*httptest.Server
	hits    atomic.Int64
	slow    atomic.Int64
	release chan struct{} // closes: slow requests end
}

func newBackend(t *testing.T) *backend {
	b := &backend{release: make(chan struct{})}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.hits.Add(1)
		if r.URL.Path == "/slow" {
			b.slow.Add(1)
			<-b.release
		}
		fmt.Fprint(w, "fine")
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) addr() string { return b.Listener.Addr().String() }

func freePort(t *testing.T) int {
	t.Helper()
	port, claim, err := freeport.Claim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { claim.Close() })
	return port
}

// program finds a real program, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if p := filepath.Join(dir, name); p != "" {
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	t.Skipf("%s is not installed; `make deps` as root installs it", name)
	return ""
}

// start runs a program until the test ends.
func start(t *testing.T, path string, args ...string) {
	t.Helper()
	cmd := exec.Command(path, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(path), out.String())
		}
	})
}

func tool(_ context.Context, args []string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	return string(out), err
}

// rig is a balancer in front of two servers.
type rig struct {
	spec     component.Balancer
	names    [2]string // of the servers at the balancer
	front    string    // address that clients use; "" when no traffic goes through it
	back     [2]*backend
	foreign  func(t *testing.T) // takes server 0 out as a person would
	critical func(consulCheck)  // adds a check that fails, where Consul is played
}

func (r *rig) open(t *testing.T, n int) Balancer {
	t.Helper()
	b, err := New(r.spec, r.names[n], Options{Host: &hostfs.Host{}, Root: "/", Exec: tool})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 20 * time.Second}

func get(url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != 200 {
		return fmt.Errorf("answered %d", resp.StatusCode)
	}
	return nil
}

func setupHAProxy(tcp bool) func(t *testing.T) *rig {
	return func(t *testing.T) *rig {
		path := program(t, "haproxy")
		dir, err := os.MkdirTemp("", "hap") //nolint:usetesting // a socket's path must be short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		r := &rig{back: [2]*backend{newBackend(t), newBackend(t)}, names: [2]string{"a", "b"}}
		port, api := freePort(t), freePort(t)
		r.front = fmt.Sprintf("http://127.0.0.1:%d", port)
		sock := filepath.Join(dir, "s")
		conf := fmt.Sprintf(`global
  stats socket %s mode 600 level admin
  stats socket ipv4@127.0.0.1:%d level admin
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen prom
  bind 127.0.0.1:%d
  balance roundrobin
  server a %s check inter 200ms
  server b %s check inter 200ms
`, sock, api, port, r.back[0].addr(), r.back[1].addr())
		file := filepath.Join(dir, "haproxy.cfg")
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, path, "-f", file, "-db")
		r.spec = component.Balancer{Type: "haproxy", Socket: sock, Backend: "prom"}
		if tcp {
			r.spec.Socket, r.spec.Address = "", fmt.Sprintf("127.0.0.1:%d", api)
		}
		r.foreign = func(t *testing.T) {
			h := r.open(t, 0).(*haproxy)
			if err := h.set(t.Context(), "maint"); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "haproxy listens", func() bool { return get(r.front) == nil })
		return r
	}
}

func setupNginx(t *testing.T) *rig {
	path := program(t, "nginx")
	dir := t.TempDir()
	r := &rig{back: [2]*backend{newBackend(t), newBackend(t)}}
	r.names = [2]string{r.back[0].addr(), r.back[1].addr()}
	port := freePort(t)
	r.front = fmt.Sprintf("http://127.0.0.1:%d", port)
	file := filepath.Join(dir, "upstream.conf")
	conf := filepath.Join(dir, "nginx.conf")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(file, fmt.Sprintf("# ours\nupstream prom {\n  server %s max_fails=1; server %s; # two\n}\n", r.names[0], r.names[1]))
	write(conf, fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log stderr; worker_processes 2; events {}
http {
  access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  include %[2]s;
  server { listen 127.0.0.1:%[3]d; location / { proxy_pass http://prom; } }
}
`, dir, file, port))
	start(t, path, "-c", conf, "-p", dir)
	r.spec = component.Balancer{
		Type: "nginx", File: file, Backend: "prom",
		Check: []string{path, "-t", "-q", "-c", conf, "-p", dir}, Reload: []string{path, "-s", "reload", "-c", conf, "-p", dir},
	}
	r.foreign = func(*testing.T) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(file, strings.Replace(string(data), "max_fails=1", "max_fails=1 down", 1))
	}
	await(t, "nginx listens", func() bool { return get(r.front) == nil })
	return r
}

// setupConsul is a server that speaks the part of the agent's API that is used.
func setupConsul(t *testing.T) *rig {
	var mu sync.Mutex
	reasons, more := map[string]string{}, map[string]consulCheck{}
	services := []string{"prom-a", "prom-b"}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		known := id == services[0] || id == services[1]
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/agent/service/maintenance/") && r.Method == http.MethodPut && known:
			delete(reasons, id)
			if r.FormValue("enable") == "true" {
				reasons[id] = r.FormValue("reason")
			}
		case r.URL.Path == "/v1/agent/service/"+id && known:
			fmt.Fprintf(w, `{"ID":%q,"Service":"prom"}`, id)
		case r.URL.Path == "/v1/agent/checks":
			checks := map[string]consulCheck{}
			for id, why := range reasons {
				key := "_service_maintenance:" + id
				checks[key] = consulCheck{CheckID: key, Status: "critical", Notes: why, ServiceID: id}
			}
			for id, check := range more {
				checks[id] = check
			}
			_ = json.NewEncoder(w).Encode(checks)
		case r.URL.Path == "/v1/health/service/prom":
			var out []string
			for _, id := range services {
				if _, away := reasons[id]; !away {
					out = append(out, fmt.Sprintf(`{"Service":{"ID":%q}}`, id))
				}
			}
			fmt.Fprintf(w, "[%s]", strings.Join(out, ","))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return &rig{
		spec: component.Balancer{Type: "consul", Address: s.URL}, names: [2]string{"prom-a", "prom-b"},
		foreign: func(*testing.T) {
			mu.Lock()
			defer mu.Unlock()
			reasons["prom-a"] = "new disks"
		},
		critical: func(c consulCheck) {
			mu.Lock()
			defer mu.Unlock()
			c.Status = "critical"
			more[c.CheckID] = c
		},
	}
}

// setupExec is a balancer of files: a file per server that is drained.
func setupExec(t *testing.T) *rig {
	dir := t.TempDir()
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script, "sh", dir, "{server}"} }
	return &rig{names: [2]string{"a", "b"}, spec: component.Balancer{
		Type:   "exec",
		Status: sh(`case $2 in a|b) ;; *) echo "no server $2"; exit 1;; esac; n=2; for f in "$1"/*; do [ -e "$f" ] && n=$((n-1)); done; if [ -e "$1/$2" ]; then echo drained 0 $n; else echo admitted 0 $((n-1)); fi`),
		Drain:  sh(`: > "$1/$2"`), Admit: sh(`rm -f "$1/$2"`),
	}}
}

// TestContract holds every balancer to the same promises.
func TestContract(t *testing.T) {
	for name, setup := range map[string]func(*testing.T) *rig{
		"haproxy": setupHAProxy(false), "haproxy over TCP": setupHAProxy(true), "nginx": setupNginx, "consul": setupConsul, "exec": setupExec,
	} {
		t.Run(name, func(t *testing.T) {
			r := setup(t)
			b := r.open(t, 0)
			expect := func(what string, admitted bool, others int) {
				t.Helper()
				await(t, what, func() bool {
					st, err := b.State(t.Context())
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					return st.Admitted == admitted && st.Others == others
				})
			}
			expect("at first", true, 1)
			stop := r.load(t)
			slow := r.slow(t)
			for range 2 { // the second changes nothing
				if err := b.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			expect("drained", false, 1)
			if slow != nil {
				if st, idle, err := Wait(t.Context(), b, 200*time.Millisecond); err != nil || idle {
					t.Errorf("a request is going on, and Wait says %+v, %v, %v", st, idle, err)
				}
				close(r.back[0].release)
				for range r.back[0].slow.Load() + r.back[1].slow.Load() {
					if err := <-slow; err != nil {
						t.Errorf("a request that was going on: %v", err)
					}
				}
			}
			if st, idle, err := Wait(t.Context(), b, 10*time.Second); err != nil || !idle && st.Sessions >= 0 {
				t.Errorf("Wait: %+v, %v, %v", st, idle, err)
			}
			r.expectTraffic(t, 0, false)
			other := r.open(t, 1)
			if st, err := other.State(t.Context()); err != nil || !st.Admitted || st.Others != 0 {
				t.Errorf("the other server: %+v, %v", st, err)
			}
			for range 2 {
				if err := b.Admit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if st, err := AwaitUp(t.Context(), b, 10*time.Second); err != nil {
				t.Errorf("%+v, %v", st, err)
			}
			expect("admitted", true, 1)
			r.expectTraffic(t, 0, true)
			stop()
			if r.foreign != nil {
				r.foreign(t)
				expect("taken out by a person", false, 1)
				if err := b.Drain(t.Context()); err != nil {
					t.Errorf("draining what a person took out: %v", err)
				}
				expect("still out", false, 1)
				if err := b.Admit(t.Context()); !errors.As(err, new(*NotOursError)) {
					t.Errorf("admitting what a person took out: %v", err)
				}
				expect("out all the same", false, 1)
			}
			r.names[0] = "nobody"
			if _, err := r.open(t, 0).State(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody") {
				t.Errorf("an unknown server: %v", err)
			}
		})
	}
}

// A server that a person takes out after this program did stays out.
func TestTakenOutAfterTheDrain(t *testing.T) {
	for name, setup := range map[string]func(*testing.T) *rig{"haproxy": setupHAProxy(false), "nginx": setupNginx, "consul": setupConsul} {
		t.Run(name, func(t *testing.T) {
			r := setup(t)
			b := r.open(t, 0)
			if err := b.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.foreign(t)
			for range 2 {
				if err := b.Admit(t.Context()); !errors.As(err, new(*NotOursError)) {
					t.Fatalf("it was put back: %v", err)
				}
			}
			if st, err := b.State(t.Context()); err != nil || st.Admitted {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
}

// Consul's own check of a service stays critical until its next run, also when the
// service is back: it must not hide whose maintenance it is in.
func TestConsulCriticalInMaintenance(t *testing.T) {
	r := setupConsul(t)
	r.critical(consulCheck{CheckID: "prom-a:alive", ServiceID: "prom-a"})
	b := r.open(t, 0)
	for range 50 { // the checks come as a map
		if err := b.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || st.Up || st.Detail != "maintenance: "+Reason {
			t.Fatalf("drained: %+v, %v", st, err)
		}
		if err := b.Admit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st, err := b.State(t.Context()); err != nil || !st.Admitted || st.Up || st.Detail != "prom-a:alive is critical" {
			t.Fatalf("put back: %+v, %v", st, err)
		}
	}
	// A node that a person took out is another matter than the service on it.
	if err := b.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.critical(consulCheck{CheckID: "_node_maintenance", Notes: "new disks"})
	for range 50 {
		if theirs := new(NotOursError); !errors.As(b.Admit(t.Context()), &theirs) || theirs.State != "node maintenance: new disks" {
			t.Fatalf("this program's own maintenance was left: %+v", theirs)
		}
	}
	r.foreign(t)
	for range 50 {
		if theirs := new(NotOursError); !errors.As(b.Admit(t.Context()), &theirs) || theirs.State != "maintenance: new disks" {
			t.Fatalf("put back what a person took out: %+v", theirs)
		}
	}
}

// load asks through the balancer all the time; the returned function ends that
// and fails the test for every request that failed.
func (r *rig) load(t *testing.T) (stop func()) {
	if r.front == "" {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	var asked, failed atomic.Int64
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
				}
				asked.Add(1)
				if err := get(r.front); err != nil {
					failed.Add(1)
					t.Logf("request: %v", err)
				}
			}
		}()
	}
	return func() {
		close(done)
		wg.Wait()
		if failed.Load() > 0 || asked.Load() < 100 {
			t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
		}
	}
}

// slow begins requests that wait, until server 0 has one.
func (r *rig) slow(t *testing.T) chan error {
	if r.front == "" {
		return nil
	}
	close(r.back[1].release) // only those of server 0 wait
	done := make(chan error, 64)
	await(t, "a slow request at server 0", func() bool {
		if r.back[0].slow.Load() == 0 {
			go func() { done <- get(r.front + "/slow") }()
		}
		return r.back[0].slow.Load() > 0
	})
	return done
}

// expectTraffic asks whether new requests reach a server.
func (r *rig) expectTraffic(t *testing.T, n int, want bool) {
	t.Helper()
	if r.front == "" {
		return
	}
	if want {
		was := r.back[n].hits.Load()
		await(t, "traffic", func() bool { return r.back[n].hits.Load() > was })
		return
	}
	was, others := r.back[n].hits.Load(), r.back[1-n].hits.Load()
	await(t, "traffic to the other", func() bool { return r.back[1-n].hits.Load() > others+50 })
	if got := r.back[n].hits.Load() - was; got != 0 {
		t.Errorf("%d requests reached the drained server", got)
	}
}

func TestForeignAdmit(t *testing.T) {
	for name, setup := range map[string]func(*testing.T) *rig{"nginx": setupNginx, "consul": setupConsul} {
		r := setup(t)
		r.foreign(t)
		if err := r.open(t, 0).Admit(t.Context()); err == nil || !strings.Contains(err.Error(), "to end") {
			t.Errorf("%s: put back what a person took out: %v", name, err)
		}
	}
}

func TestAway(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string]component.Balancer{
		"haproxy": {Type: "haproxy", Socket: "/nowhere", Backend: "x"},
		"nginx":   {Type: "nginx", File: "/nowhere", Backend: "x"},
		"consul":  {Type: "consul", Address: fmt.Sprintf("http://127.0.0.1:%d", freePort(t))},
		"exec":    {Type: "exec", Status: []string{"/bin/false"}, Drain: []string{"/bin/false"}, Admit: []string{"/bin/false"}},
	} {
		bal, err := New(b, "a", Options{Root: layout.Root(dir), Exec: tool})
		if err != nil {
			t.Fatal(err)
		}
		for what, f := range map[string]func(context.Context) error{
			"State": func(ctx context.Context) error { _, err := bal.State(ctx); return err }, "Drain": bal.Drain, "Admit": bal.Admit,
		} {
			if err := f(t.Context()); err == nil || len(err.Error()) < 20 {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
	if _, err := New(component.Balancer{Type: "exec"}, "", Options{}); err == nil {
		t.Error("a server without a name")
	}
	if _, err := New(component.Balancer{Type: "f5"}, "a", Options{}); err == nil {
		t.Error("an unknown type")
	}
}

// TestNginxRefuses proves that a configuration that does not hold is taken back.
func TestNginxRefuses(t *testing.T) {
	dir := t.TempDir()
	text := "upstream x { server 127.0.0.1:1; server 127.0.0.1:2; }\n"
	if err := os.WriteFile(filepath.Join(dir, "u"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := New(component.Balancer{Type: "nginx", File: "/u", Backend: "x", Check: []string{"/bin/false"}}, "127.0.0.1:1", Options{Root: layout.Root(dir), Exec: tool})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Drain(t.Context()); !errors.As(err, new(*refusedError)) || !strings.Contains(err.Error(), "nginx refuses") {
		t.Errorf("Drain: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "u")); err != nil || string(got) != text {
		t.Errorf("the file is %q, %v", got, err)
	}
}

func TestParseUpstream(t *testing.T) {
	text := `
# upstream x { server commented:1; }
upstream other { server o:1; }
upstream "x" {
  least_conn; server "a:1" weight=2 ; server b:2 down; # server c:9;
  server c:3 backup; server d:4 slow_start=${time};
}
map $a $b { default 1; }
`
	got, err := parseUpstream([]byte(text), "x")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, fmt.Sprintf("%s %v %v %c", s.address, s.down, s.backup, text[s.end]))
	}
	want := "a:1 false false ;|b:2 true false ;|c:3 false true ;|d:4 false false ;"
	if strings.Join(lines, "|") != want {
		t.Errorf("got %s, want %s", strings.Join(lines, "|"), want)
	}
	for text, want := range map[string]string{
		"upstream y { }": "no upstream x", "upstream x {": "as many }", "}": "too many", `upstream "x`: "quoted",
		"upstream x { } upstream x { }": "twice",
	} {
		if _, err := parseUpstream([]byte(text), "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestCountEstablished(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue
   0: 0100007F:2382 00000000:0000 0A 00000000:00000000
   1: 0100007F:C350 0100007F:2382 01 00000000:00000000
   2: 0100007F:C351 0100007F:2382 06 00000000:00000000
   3: 0100007F:C352 0100007F:2383 01 00000000:00000000
   4: 0000000000000000FFFF00000100007F:C353 0000000000000000FFFF00000100007F:2382 01 0
   5: rubbish
`
	if n := countEstablished([]byte(table), map[netip.Addr]bool{netip.MustParseAddr("127.0.0.1"): true}, 0x2382); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// FuzzUpstream: whatever the file holds, draining and putting back gives the
// file of before, byte for byte.
func FuzzUpstream(f *testing.F) {
	f.Add([]byte("upstream x { server a:1; }"))
	f.Add([]byte("upstream 'x' {\n server a:1 down; server \"a:1\" # {\n ;}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		servers, err := parseUpstream(data, "x")
		if err != nil {
			return
		}
		for i, s := range servers {
			if s.down {
				continue
			}
			out, err := drainServer(data, s)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseUpstream(out, "x")
			if err != nil || len(again) != len(servers) || !again[i].down || again[i].address != s.address {
				t.Fatalf("%q: after the drain %q: %+v, %v", data, out, again, err)
			}
			back, err := admitServer(out, again[i])
			if err != nil || string(back) != string(data) {
				t.Fatalf("%q became %q: %v", data, back, err)
			}
		}
	})
}
