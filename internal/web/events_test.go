package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// stream is a listener over HTTP.
type stream struct {
	t      *testing.T
	res    *http.Response
	lines  chan string
	cancel context.CancelFunc
}

// event is what a stream brought.
type event struct {
	name, id string
	state    stateMessage
	step     stepView
}

func listen(t *testing.T, address, last string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{t: t, res: res, lines: make(chan string, 1000), cancel: cancel}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(s.lines)
		for sc := bufio.NewScanner(res.Body); sc.Scan(); {
			s.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		res.Body.Close()
		<-ended
	})
	return s
}

// line is the next line; false when the stream ended.
func (s *stream) line() (string, bool) {
	s.t.Helper()
	select {
	case l, ok := <-s.lines:
		return l, ok
	case <-time.After(10 * time.Second):
		s.t.Fatal("nothing came within 10 s")
		return "", false
	}
}

// next is the next event.
func (s *stream) next() event {
	s.t.Helper()
	var e event
	for {
		l, ok := s.line()
		if !ok {
			s.t.Fatal("the stream ended")
		}
		key, value, _ := strings.Cut(l, ": ")
		switch key {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			into := any(&e.step)
			if e.name == "state" {
				into = &e.state
			}
			if err := json.Unmarshal([]byte(value), into); err != nil {
				s.t.Fatalf("%s: %v", l, err)
			}
		case "":
			if e.name != "" {
				return e
			}
		}
	}
}

// state is the next state. The lock is taken a moment before the journal begins, and
// freed a moment after it.
func (s *stream) state(phase overview.Phase, run string) {
	s.t.Helper()
	e := s.next()
	for e.state.Phase == overview.Preparing {
		e = s.next()
	}
	if e.name != "state" || e.state.Phase != phase || e.state.Run != run {
		s.t.Fatalf("%+v, want state %s of %q", e, phase, run)
	}
}

func (s *stream) step(index int, label, state string) event {
	s.t.Helper()
	e := s.next()
	if e.name != "step" || e.step.Index != index || e.step.Label != label || e.step.State != state {
		s.t.Fatalf("%+v, want step %d, %s: %s", e, index, label, state)
	}
	return e
}

func TestEvents(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("live", func(t *testing.T) {
		h := newHost(t)
		_, url := h.serve(h.options())
		s := listen(t, url, "")
		if s.res.Header.Get("Content-Type") != "text/event-stream" || s.res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v", s.res.Header)
		}
		protectedBy(t, "/events", s.res.Header)
		s.state(overview.Idle, pastID)
		r := h.begin()
		s.state(overview.Running, r.id)
		r.event(run.Event{Step: run.StepBackup, Detail: "/var/backups"})
		e := s.step(0, "backup", "At work")
		if !e.step.Busy || e.step.Set != "" || e.step.Of != 3 || e.step.Say != "the run: backup, At work" || e.id != r.id+":2" {
			t.Errorf("%+v", e)
		}
		r.event(run.Event{Step: run.StepBackup, Done: true, Detail: "/var/backups"})
		s.step(0, "backup", "Done")
		r.event(run.Event{Component: "prometheus", Step: run.StepHealth})
		e = s.step(1, "health", "At work")
		if e.step.Progress != "1 of 3: prometheus" || e.step.At != 1 {
			t.Errorf("%+v", e)
		}
		r.event(run.Event{Component: "prometheus", Step: run.StepHealth, Detail: "replaying 1 of 2"})
		if e = s.step(1, "health", "At work"); e.step.Detail != "replaying 1 of 2" {
			t.Errorf("%+v", e)
		}
		r.event(run.Event{Component: "prometheus", Step: run.StepHealth, Done: true, Err: errors.New("not ready\nat all")})
		if e = s.step(1, "health", "Failed"); e.step.Detail != "replaying 1 of 2: not ready\nat all" || e.step.Kind != "bad" {
			t.Errorf("%+v", e)
		}
		r.end()
		s.state(overview.Idle, r.id)
	})
	t.Run("a run that is killed", func(t *testing.T) {
		h := newHost(t)
		_, url := h.serve(h.options())
		r := h.begin()
		r.event(run.Event{Component: "grafana", Step: run.StepStop})
		s := listen(t, url, "")
		s.state(overview.Running, r.id)
		s.step(0, "stop", "At work")
		r.kill()
		s.state(overview.Interrupted, r.id)
		late := listen(t, url, "")
		late.state(overview.Interrupted, r.id)
	})
	t.Run("goes on where it was", func(t *testing.T) {
		h := newHost(t)
		_, url := h.serve(h.options())
		r := h.begin()
		r.step("grafana", run.StepPlace, "")
		r.event(run.Event{Component: "grafana", Step: run.StepStop})
		first := listen(t, url, "")
		first.state(overview.Running, r.id)
		first.step(0, "place", "Done")
		last := first.step(1, "stop", "At work").id
		first.cancel()
		r.event(run.Event{Component: "grafana", Step: run.StepStop, Done: true, Detail: "ended by itself"})
		r.event(run.Event{Component: "grafana", Step: run.StepSwap})
		again := listen(t, url, last)
		again.state(overview.Running, r.id)
		again.step(1, "stop", "Done")
		again.step(2, "swap", "At work")
		for _, unknown := range []string{"20200101_000000:7", "nonsense", r.id + ":-1", r.id + ":99999999999999999999"} {
			s := listen(t, url, unknown)
			s.state(overview.Running, r.id)
			s.step(0, "place", "Done")
		}
	})
	t.Run("signs of life", func(t *testing.T) {
		h := newHost(t)
		handler, url := h.serve(h.options())
		handler.beat = 10 * time.Millisecond
		s := listen(t, url, "")
		s.state(overview.Idle, pastID)
		for range 3 {
			for l, ok := s.line(); l != ": still here"; l, ok = s.line() {
				if !ok {
					t.Fatal("the stream ended")
				}
			}
		}
	})
	t.Run("outlives the limits of a request", func(t *testing.T) {
		for _, http2 := range []bool{false, true} {
			h := newHost(t)
			handler := New(h.options())
			handler.beat, handler.within = 1500*time.Millisecond, time.Second
			srv := httptest.NewUnstartedServer(handler)
			srv.Config.ReadTimeout, srv.Config.WriteTimeout = time.Second, 1200*time.Millisecond
			srv.EnableHTTP2 = http2
			srv.StartTLS()
			defer srv.Close()
			defer handler.Close()
			res, err := srv.Client().Get(srv.URL + "/events")
			h.check(err)
			defer res.Body.Close()
			if want := map[bool]int{false: 1, true: 2}[http2]; res.ProtoMajor != want {
				t.Fatalf("it speaks %s", res.Proto)
			}
			alive := false // for longer than any limit
			for sc := bufio.NewScanner(res.Body); !alive && sc.Scan(); {
				alive = sc.Text() == ": still here"
			}
			if !alive {
				t.Errorf("%s: the stream ended without a sign of life", res.Proto)
			}
		}
	})
	t.Run("bounded", func(t *testing.T) {
		h := newHost(t)
		handler, url := h.serve(h.options())
		var all []*stream
		for range maxListeners {
			all = append(all, listen(t, url, ""))
		}
		d := get(t, url+"/events")
		if d.code != http.StatusServiceUnavailable || d.head.Get("Retry-After") == "" {
			t.Errorf("one too many: %d %v", d.code, d.head)
		}
		protectedBy(t, "/events", d.head)
		all[0].cancel()
		deadline := time.Now().Add(10 * time.Second)
		for {
			handler.hub.mu.Lock()
			n := len(handler.hub.listeners)
			handler.hub.mu.Unlock()
			if n < maxListeners {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a listener that is gone keeps its place")
			}
			time.Sleep(5 * time.Millisecond)
		}
		listen(t, url, "").state(overview.Idle, pastID)
	})
	t.Run("ends with the service", func(t *testing.T) {
		h := newHost(t)
		handler, url := h.serve(h.options())
		s := listen(t, url, "")
		s.state(overview.Idle, pastID)
		handler.Close()
		for _, ok := s.line(); ok; _, ok = s.line() {
		}
		if d := get(t, url+"/events"); d.code != http.StatusServiceUnavailable {
			t.Errorf("after the end: %d", d.code)
		}
		handler.Close() // a second time does nothing
	})
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// While nobody listens nothing is watched and nothing kept.
func TestNobodyListens(t *testing.T) {
	h := newHost(t)
	handler := New(h.options())
	defer handler.Close()
	a, err := handler.hub.join("")
	h.check(err)
	b, err := handler.hub.join("")
	h.check(err)
	handler.hub.leave(a)
	if handler.hub.stop == nil {
		t.Error("nobody watches for the one who still listens")
	}
	handler.hub.leave(b)
	if handler.hub.stop != nil || handler.hub.follower != nil {
		t.Error("it is watched on for nobody")
	}
	handler.hub.watchers.Wait()
}

// A hub that cannot read goes on, and says so once.
func TestHubTrouble(t *testing.T) {
	h := newHost(t)
	var log strings.Builder
	o := h.options()
	o.Logger = textLogger(&log)
	handler := New(o)
	defer handler.Close()
	r := h.begin()
	l, err := handler.hub.join("")
	h.check(err)
	handler.hub.leave(l)
	handler.hub.mu.Lock()
	defer handler.hub.mu.Unlock()
	handler.hub.look()
	r.log.Close()
	h.check(truncate(h.root, r.id))
	for range 3 {
		handler.hub.look()
	}
	if n := strings.Count(log.String(), "cannot be followed"); n != 1 {
		t.Errorf("%d times:\n%s", n, log.String())
	}
}

func FuzzParseLast(f *testing.F) {
	for _, s := range []string{"20261125_120000:7", "20261125_120000_2:0", "x:1", "", ":", "20261125_120000:-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, line := parseLast(s)
		if line < 0 || id == "" && line != 0 || id != "" && !stampName.MatchString(id) {
			t.Errorf("%q: %q %d", s, id, line)
		}
	})
}

// A message is never cut in two by what it says.
func TestMessageText(t *testing.T) {
	v := stepView{Detail: "a\n\nevent: state\ndata: {}\n\n\u2028<script>"}
	got := message{"step", "20261125_120000:1", encode(v)}.text()
	if strings.Count(got, "\n") != 4 || !strings.HasSuffix(got, "\n\n") || strings.Contains(got, "<script>") {
		t.Errorf("%q", got)
	}
}
