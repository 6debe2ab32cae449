package preflight

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
)

func TestNetwork(t *testing.T) {
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	for name, tt := range map[string]struct {
		serve  http.HandlerFunc
		status component.CheckStatus
		words  []string
	}{
		"well": {answer(200), component.CheckOK, nil},
		"redirects": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, component.CheckOK, nil},
		"no HEAD":      {answer(405), component.CheckOK, nil},
		"nor HEAD":     {answer(501), component.CheckOK, nil},
		"rate limit":   {answer(403), component.CheckWarn, []string{"403"}},
		"token":        {answer(401), component.CheckWarn, []string{"token"}},
		"broken":       {answer(502), component.CheckFail, []string{"502", "curl -I"}},
		"proxy":        {answer(407), component.CheckFail, []string{"proxy"}},
		"twice broken": {failing(2), component.CheckOK, nil},
		"garbage":      {garbage, component.CheckFail, []string{"malformed"}},
		"cut off":      {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, component.CheckFail, []string{"EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tt.serve)
			defer srv.Close()
			in := host(t, "prometheus")
			in.Downloads = []Download{{Component: "prometheus", URL: srv.URL + "/a.tar.gz"}}
			expect(t, Run(t.Context(), in), Network, tt.status, append(tt.words, srv.URL)...)
		})
	}
}

// failing answers 503 to the first requests.
func failing(n int64) http.HandlerFunc {
	var seen atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		if seen.Add(1) <= n {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
}

func garbage(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.6\r\n")
	_ = conn.Close()
}

func TestNetworkNothingListens(t *testing.T) {
	port, claim, err := freeport.Claim()
	must(t, err)
	defer claim.Close()
	in := host(t, "prometheus")
	in.Downloads = []Download{{Component: "prometheus", URL: fmt.Sprintf("http://127.0.0.1:%d/a", port)}}
	var dialled atomic.Int64
	in.HTTP = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	expect(t, Run(t.Context(), in), Network, component.CheckFail, "nothing listens there")
	if n := dialled.Load(); n != 1 {
		t.Errorf("a refused connection was tried %d times", n)
	}
}

// A server that never answers costs the deadline, and the clock is looked at
// all the same on the next run: here both are told to be unknown.
func TestNetworkSlow(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer srv.Close()
	in := host(t, "prometheus")
	in.Deadline = 300 * time.Millisecond
	in.Downloads = []Download{{Component: "prometheus", URL: srv.URL}}
	start := time.Now()
	expect(t, Run(t.Context(), in), Network, component.CheckFail, "no answer within 300ms")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

// One request per host, with credentials, and none for what is at hand.
func TestNetworkAsksWhatIsNeeded(t *testing.T) {
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodHead || r.Header.Get("Authorization") != "Bearer t" {
			t.Errorf("%s, authorization %q", r.Method, r.Header.Get("Authorization"))
		}
	}))
	defer srv.Close()
	in := host(t, "prometheus", "loki")
	auth := func(r *http.Request) { r.Header.Set("Authorization", "Bearer t") }
	in.Downloads = []Download{{Component: "prometheus", URL: srv.URL + "/a", Authorize: auth}, {Component: "loki", URL: srv.URL + "/b", Authorize: auth}}
	expect(t, Run(t.Context(), in), Network, component.CheckOK)
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	in.Downloads = []Download{{Component: "prometheus", URL: srv.URL, Cached: true}, {Component: "loki", URL: "file:///srv/loki.tar.gz"}}
	expect(t, Run(t.Context(), in), Network, component.CheckSkipped, "nothing has to be downloaded")
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestClock(t *testing.T) {
	for name, tt := range map[string]struct {
		now    time.Time
		date   string
		age    string
		status component.CheckStatus
		words  []string
	}{
		"agrees":           {now, "Tue, 24 Nov 2026 02:00:10 GMT", "", component.CheckOK, []string{"agrees"}},
		"no date":          {now, "", "", component.CheckOK, []string{"nobody"}},
		"nonsense":         {now, "yesterday", "", component.CheckOK, nil},
		"behind":           {now, "Tue, 24 Nov 2026 02:06:00 GMT", "", component.CheckWarn, []string{"6m0s behind", "timedatectl"}},
		"ahead":            {now, "Tue, 24 Nov 2026 01:00:00 GMT", "", component.CheckWarn, []string{"1h0m0s ahead of"}},
		"a cache's answer": {now, "Tue, 24 Nov 2026 01:00:00 GMT", "3600", component.CheckOK, nil},
		"no battery":       {time.Unix(0, 0), "Tue, 24 Nov 2026 02:00:00 GMT", "", component.CheckFail, []string{"found 1970", "timedatectl"}},
		"far future":       {now.AddDate(200, 0, 0), "", "", component.CheckFail, []string{"found 2226"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = nil
				if tt.date != "" {
					w.Header()["Date"] = []string{tt.date}
				}
				if tt.age != "" {
					w.Header().Set("Age", tt.age)
				}
			}))
			defer srv.Close()
			in := host(t, "prometheus")
			in.Now = func() time.Time { return tt.now }
			in.Downloads = []Download{{Component: "prometheus", URL: srv.URL}}
			expect(t, Run(t.Context(), in), Clock, tt.status, tt.words...)
		})
	}
}
