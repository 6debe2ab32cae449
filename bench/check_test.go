package bench

import (
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

// distance is the round-trip time to the far server. A server that is farther away
// tells how many round trips a command waits for, whatever else it does meanwhile: the
// time it takes longer, by what a round trip does.
const (
	distance = 50 * time.Millisecond
	farther  = 200 * time.Millisecond
)

// trips is how many round trips a command waits for.
func trips(far, there samples) float64 {
	return (far.time() - there.time()).Seconds() / (farther - distance).Seconds()
}

// far carries TCP connections to a server as if it were a round trip away: what
// is sent arrives half of one later, and the first byte another whole one later,
// which the handshake of TCP would take. There is no netem on every machine.
func far(b testing.TB, server string, distance time.Duration) (addr string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var all sync.WaitGroup
	b.Cleanup(func() { _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer client.Close()
				up, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer up.Close()
				var both sync.WaitGroup
				both.Go(func() { late(up, client, distance/2, distance) })
				both.Go(func() { late(client, up, distance/2, 0) })
				both.Wait()
			})
		}
	})
	return l.Addr().String()
}

// late copies with a delay, the first piece with another.
func late(to, from net.Conn, delay, first time.Duration) {
	type piece struct {
		data []byte
		due  time.Time
	}
	pieces := make(chan piece, 4096)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(pieces)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				pieces <- piece{buf[:n], time.Now().Add(delay + first)}
				first = 0
			}
			if err != nil {
				return
			}
		}
	})
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	_ = to.(*net.TCPConn).CloseWrite()
	for range pieces { // the reader must not be left waiting
	}
	reader.Wait()
}

// forge is a release server over HTTP/2 and TLS, as the public ones are, a round
// trip away, with the environment of a client that is to trust it, and of one that is
// to ask one that is farther instead.
func forge(b *testing.B, names []string) (url string, trust, yonder []string) {
	b.Helper()
	server := releaseserver.New(releaseserver.Options{})
	for _, name := range names {
		for minor := range 30 { // a page of releases, as most projects have
			server.AddRelease(releaseserver.GitHub, "example/"+name, releaseserver.Release{
				Tag: fmt.Sprintf("v1.%d.0", minor), Assets: []releaseserver.Asset{releaseserver.Bytes(name+".tar.gz", []byte("x"))},
			})
		}
	}
	ts := httptest.NewUnstartedServer(ready(server))
	ts.EnableHTTP2 = true
	ts.StartTLS()
	b.Cleanup(ts.Close)
	authority := filepath.Join(b.TempDir(), "ca.pem")
	put(b, authority, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw})), 0o644)
	at := func(distance time.Duration) string { return "https://" + far(b, ts.Listener.Addr().String(), distance) }
	trust = []string{"SSL_CERT_FILE=" + authority}
	return at(distance), trust, append([]string{"OBSERVABILITY_UPGRADE_GITHUB_API_URL=" + at(farther)}, trust...)
}

// ready gives each answer as it was the first time: what a server far away does to
// make one takes none of this machine's time.
func ready(server http.Handler) http.Handler {
	type answer struct {
		header http.Header
		body   []byte
	}
	var mu sync.Mutex
	known := map[string]answer{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tag := r.Header.Get("If-None-Match")
		r.Header.Del("If-None-Match")
		mu.Lock()
		a, ok := known[r.URL.String()]
		if !ok {
			made := httptest.NewRecorder()
			server.ServeHTTP(made, r)
			a = answer{made.Header(), made.Body.Bytes()}
			known[r.URL.String()] = a
		}
		mu.Unlock()
		maps.Copy(w.Header(), a.header)
		if tag != "" && tag == a.header.Get("ETag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(a.body)
	})
}

// teller is a program that tells a version, and nothing else.
var teller = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "obsup-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte("package main\n\nfunc main() { print(\"version 1.29.0\\n\") }\n"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "teller"), file) //nolint:noctx // as long as it takes
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "teller"))
})

// install puts components on a root: programs that tell their version.
func install(b *testing.B, r layout.Root, n int) {
	b.Helper()
	program, err := teller()
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		name := fmt.Sprintf("tool%02d", i)
		put(b, r.Path("usr/local/bin", name), string(program), 0o755)
		put(b, filepath.Join(r.ComponentsDir(), name+".yaml"), strings.ReplaceAll(`role: exporter
source: {type: github, repo: example/NAME, tag: "v{version}"}
asset: "NAME.tar.gz"
binaries: [{name: NAME, path: "NAME/NAME", install: /usr/local/bin/NAME}]
version: {args: ["--version"], regexp: 'version (\S+)'}
process: {command: ["{root}/usr/local/bin/NAME"]}
health: {url: "http://127.0.0.1:1/"}
`, "NAME", name), 0o644)
	}
}

// BenchmarkCheck is `check` of 40 components whose releases are 50 ms away, the very
// first, which also runs 40 programs for their versions; with no answer cached; and
// with all, against curl one after the other and against one round trip. A
// new HTTPS connection takes three: TCP, TLS 1.3, the question.
func BenchmarkCheck(b *testing.B) {
	const components = 40
	var names []string
	for i := range components {
		names = append(names, fmt.Sprintf("tool%02d", i))
	}
	url, trust, yonder := forge(b, names)
	r := newRoot(b, "upstream: {github: {api_url: \""+url+"\"}, cache_ttl: 0s}\nservice_manager: process\n")
	install(b, r, components)
	upgrade(b, r, nil, "adopt", "--yes", "--quiet")
	time.Sleep(time.Second) // what was just written is not remembered
	var first, ours, again, oursFar, againFar, near, curl samples
	for b.Loop() {
		for range 5 {
			forget := func(what string) {
				if err := os.RemoveAll(what); err != nil {
					b.Fatal(err)
				}
			}
			forget(r.Cache())
			first = append(first, upgrade(b, r, trust, "check"))
			forget(filepath.Join(r.Cache(), "upstream"))
			ours = append(ours, upgrade(b, r, trust, "check"))
			again = append(again, upgrade(b, r, trust, "check")) // all answers are still true
			oursFar = append(oursFar, upgrade(b, r, yonder, "check"))
			againFar = append(againFar, upgrade(b, r, yonder, "check"))
			near = append(near, upgrade(b, r, nil, "version")) // what starting the program takes
			script := "for n in " + strings.Join(names, " ") + "; do curl -sf --cacert $SSL_CERT_FILE " + url + "/repos/example/$n/releases?per_page=100; done"
			curl = append(curl, timed(b, trust, "sh", "-c", script))
		}
	}
	b.ReportMetric(first.time().Seconds()*1000, "check-first-ms")
	b.ReportMetric(ours.time().Seconds()*1000, "check-ms")
	b.ReportMetric(again.time().Seconds()*1000, "check-cached-ms")
	b.ReportMetric((first.time()-near.time()).Seconds()/distance.Seconds(), "check-first/round-trip")
	b.ReportMetric((ours.time()-near.time()).Seconds()/distance.Seconds(), "check/round-trip")
	b.ReportMetric((again.time()-near.time()).Seconds()/distance.Seconds(), "check-cached/round-trip")
	b.ReportMetric(trips(oursFar, ours), "check/trips")
	b.ReportMetric(trips(againFar, again), "check-cached/trips")
	b.ReportMetric(ratio(ours, curl), "check/curl")
}

// BenchmarkNothingToDo is an `apply` that finds nothing to do, 50 ms away from
// the releases, whose answers it has but must ask about.
func BenchmarkNothingToDo(b *testing.B) {
	url, trust, yonder := forge(b, []string{"tool00", "tool01", "tool02"})
	r := newRoot(b, "upstream: {github: {api_url: \""+url+"\"}, cache_ttl: 0s}\nservice_manager: process\n")
	install(b, r, 3)
	upgrade(b, r, nil, "adopt", "--yes", "--quiet")
	time.Sleep(time.Second) // what was just written is not remembered
	upgrade(b, r, trust, "check")
	upgrade(b, r, yonder, "check")
	var asks, asksFar, not samples
	for b.Loop() {
		for range 9 {
			asks = append(asks, upgrade(b, r, trust, "apply", "--yes"))
			asksFar = append(asksFar, upgrade(b, r, yonder, "apply", "--yes"))
		}
		put(b, r.Policy(), "upstream: {github: {api_url: \""+url+"\"}, cache_ttl: 1h}\nservice_manager: process\n", 0o644)
		for range 9 {
			not = append(not, upgrade(b, r, trust, "apply", "--yes"))
		}
		put(b, r.Policy(), "upstream: {github: {api_url: \""+url+"\"}, cache_ttl: 0s}\nservice_manager: process\n", 0o644)
	}
	b.ReportMetric(asks.time().Seconds()*1000, "apply-ms")
	b.ReportMetric(not.time().Seconds()*1000, "apply-not-asking-ms")
	b.ReportMetric((asks.time()-not.time()).Seconds()/distance.Seconds(), "asking/round-trip")
	b.ReportMetric(trips(asksFar, asks), "asking/trips")
}

// TestFar proves the distance: a question on a new connection takes two round
// trips without TLS, three with it, and one on a connection that is there.
func TestFar(t *testing.T) {
	for _, secure := range []bool{false, true} {
		ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }))
		scheme := "http://"
		if ts.EnableHTTP2 = true; secure {
			ts.StartTLS()
			scheme = "https://"
		} else {
			ts.Start()
		}
		t.Cleanup(ts.Close)
		addr := far(t, ts.Listener.Addr().String(), distance)
		trips := []time.Duration{2, 1}
		if secure {
			trips[0]++
		}
		// What else the machine does only adds time: the fastest of a few tells.
		fastest := []time.Duration{time.Hour, time.Hour}
		for try := 0; try < 5 && (fastest[0] > (trips[0]+1)*distance || fastest[1] > (trips[1]+1)*distance); try++ {
			transport := ts.Client().Transport.(*http.Transport).Clone() // with no connection yet
			client := &http.Client{Transport: transport}
			for i, want := range trips {
				begin := time.Now()
				resp, err := client.Get(scheme + addr) //nolint:noctx // ends with the server
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				took := time.Since(begin)
				if took < want*distance {
					t.Errorf("secure %v, question %d took %s, want %d times %s", secure, i, took, want, distance)
				}
				fastest[i] = min(fastest[i], took)
			}
			transport.CloseIdleConnections()
		}
		for i, want := range trips {
			if fastest[i] > (want+1)*distance {
				t.Errorf("secure %v, question %d took %s at best, want %d times %s", secure, i, fastest[i], want, distance)
			}
		}
	}
}
