package upstream

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

// What was begun is on its way when all is asked for, and asked for once; later it is
// asked for anew.
func TestBegin(t *testing.T) {
	r := newRig(t, "github")
	comps := map[string]*component.Component{}
	for _, name := range []string{"early", "late", "gone"} {
		comps[name] = r.component(name)
		comps[name].Name = name
	}
	r.publish(t, "owner/early", releaseserver.Release{Tag: "v1.0.0"})
	r.publish(t, "owner/late", releaseserver.Release{Tag: "v2.0.0"})
	count := func(name string) (n int) {
		for _, q := range r.srv.Requests() {
			if strings.Contains(q.Path, "/owner/"+name+"/") {
				n++
			}
		}
		return n
	}
	c := r.client()
	stop := c.Begin(t.Context(), []*component.Component{comps["early"], comps["gone"]})
	defer stop()
	for deadline := time.Now().Add(20 * time.Second); count("early") != 1 || count("gone") != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was begun is not asked for")
		}
	}
	for range 2 {
		res := c.All(t.Context(), []*component.Component{comps["early"], comps["late"], comps["gone"]})
		if res["early"].Err != nil || len(res["early"].Releases) != 1 || res["late"].Err != nil || len(res["late"].Releases) != 1 || !errors.Is(res["gone"].Err, ErrNotFound) {
			t.Fatalf("%+v", res)
		}
	}
	for name, want := range map[string]int{"early": 2, "late": 2, "gone": 2} {
		if got := count(name); got != want {
			t.Errorf("%s: asked %d times, want %d", name, got, want)
		}
	}
}

// What was begun and is not needed is given up.
func TestBegunIsGivenUp(t *testing.T) {
	came, left := make(chan struct{}), make(chan struct{})
	ts := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
		close(left)
	}))
	t.Cleanup(ts.Close)
	c := New(Options{GitHubURL: ts.URL, HTTP: ts.Client()})
	comp := &component.Component{Name: "tool", Source: component.Source{Type: component.SourceGitHub, Repo: "owner/tool"}}
	stop := c.Begin(t.Context(), []*component.Component{comp})
	<-came
	stop()
	<-left
}

// forty are components of one host.
func forty() []*component.Component {
	var comps []*component.Component
	for i := range 40 {
		name := fmt.Sprintf("tool%d", i)
		comps = append(comps, &component.Component{Name: name, Source: component.Source{Type: component.SourceGitHub, Repo: "owner/" + name, Tag: "v{version}"}})
	}
	return comps
}

// secure is a server over TLS and HTTP/2 that counts connections. greet is called
// before each handshake, with the connection's number.
func secure(t *testing.T, greet func(n int64) error) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var made, greeted atomic.Int64
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "[]") }))
	ts.EnableHTTP2 = true
	ts.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			made.Add(1)
		}
	}
	ts.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, greet(greeted.Add(1)) }}
	ts.StartTLS()
	t.Cleanup(ts.Close)
	return ts, &made
}

// All questions go through one connection, however long it takes to make.
func TestOneConnection(t *testing.T) {
	ts, made := secure(t, func(int64) error { time.Sleep(50 * time.Millisecond); return nil })
	// Between the first being ready and its being known to be, others may begin theirs.
	for try := range 5 {
		made.Store(0)
		c := New(Options{GitHubURL: ts.URL, HTTP: ts.Client()})
		for name, r := range c.All(t.Context(), forty()) {
			if r.Err != nil {
				t.Fatalf("%s: %v", name, r.Err)
			}
		}
		ts.Client().CloseIdleConnections()
		if made.Load() == 1 {
			return
		}
		t.Logf("try %d: %d connections", try, made.Load())
	}
	t.Error("40 questions never went through one connection")
}

// A first connection that fails, or hangs, takes nobody else along.
func TestFirstConnectionFails(t *testing.T) {
	for _, name := range []string{"refused", "hangs"} {
		t.Run(name, func(t *testing.T) {
			hang := make(chan struct{})
			ts, _ := secure(t, func(n int64) error {
				switch {
				case n > 1:
				case name == "refused":
					return errors.New("not now")
				default:
					<-hang
				}
				return nil
			})
			t.Cleanup(func() { close(hang) })
			c := New(Options{GitHubURL: ts.URL, HTTP: ts.Client(), Timeout: 2 * time.Second})
			c.patience = 50 * time.Millisecond
			for name, r := range c.All(t.Context(), forty()) {
				if r.Err != nil {
					t.Errorf("%s: %v", name, r.Err)
				}
			}
		})
	}
}
