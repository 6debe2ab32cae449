package stack

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// recording answers as a component's documentation says that it does: of none of
// them but Prometheus is there a package that could run where these tests do.
type recording struct {
	Source  string
	Auth    string
	Answers map[string]*struct {
		Status int
		Body   json.RawMessage
	}

	mu     sync.Mutex
	server *httptest.Server
}

func recordings(t *testing.T) map[string]*recording {
	t.Helper()
	data, err := os.ReadFile("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*recording{}
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for name, r := range all {
		if !strings.HasPrefix(r.Source, "https://") {
			t.Fatalf("%s: the recording does not say where it is from", name)
		}
		r.server = httptest.NewServer(r)
		t.Cleanup(r.server.Close)
	}
	return all
}

func (r *recording) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	user, password, _ := req.BasicAuth()
	if r.Auth != "" && req.URL.Path != "/api/health" && user+":"+password != r.Auth {
		http.Error(w, `{"message":"Unauthorized"}`, http.StatusUnauthorized)
		return
	}
	a := r.Answers[req.URL.Path]
	if a == nil {
		http.NotFound(w, req)
		return
	}
	if a.Status != 0 {
		w.WriteHeader(a.Status)
	}
	var text string
	if json.Unmarshal(a.Body, &text) == nil {
		_, _ = w.Write([]byte(text))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(a.Body)
}

// say replaces an answer.
func (r *recording) say(path string, status int, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Answers[path].Status, r.Answers[path].Body = status, json.RawMessage(body)
}

// recorded is a stack of components that answer from recordings.
func recorded(t *testing.T) (*Stack, map[string]*recording, []*inventory.Installed) {
	t.Helper()
	all := recordings(t)
	c, err := catalogue.Load(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &Stack{Options: Options{Root: layout.Root("/")}, Catalogue: c, now: time.Now, prober: &health.Prober{
		Expand: func(text string) (string, error) { return strings.ReplaceAll(text, "${SECRET:grafana}", "secret"), nil },
	}}
	var found []*inventory.Installed
	for _, name := range []string{"grafana", "loki", "prometheus", "promtail", "pushgateway", "victoriametrics"} {
		definition, ok := c.Get(name)
		if !ok {
			t.Fatalf("no %s", name)
		}
		own := definition.Of(component.Instance{Health: &component.Health{URL: strings.Replace(definition.Health.URL, "http://localhost:"+component.PortOf(definition.Health.URL), all[name].server.URL, 1)}})
		if all[name].Auth != "" {
			own.Client = component.Client{Username: "admin", Password: "${SECRET:grafana}"}
		}
		found = append(found, &inventory.Installed{Component: own, Version: component.MustParseVersion("3.1.0")})
	}
	return s, all, found
}

func failures(checks []health.Check) (failed, ok []string) {
	for _, c := range checks {
		switch c.Status {
		case health.Fail:
			failed = append(failed, c.Name)
		case health.OK:
			ok = append(ok, c.Name)
		}
	}
	return failed, ok
}

// The links of Grafana and Promtail hold, and each that is cut is named by exactly
// one failing test.
func TestRecordedLinks(t *testing.T) {
	const gp, gl, pl = "grafana-prometheus", "grafana-loki", "promtail-loki"
	for name, tt := range map[string]struct {
		cut  func(all map[string]*recording)
		want string
	}{
		"none": {func(map[string]*recording) {}, ""},
		"Grafana's way to Prometheus": {func(all map[string]*recording) {
			all["grafana"].say("/api/datasources/uid/H8joYFVGz/health", 400, `{"message":"dial tcp 127.0.0.1:9090: connect: connection refused","status":"ERROR"}`)
		}, gp},
		"Grafana's way to Loki": {func(all map[string]*recording) {
			all["grafana"].say("/api/datasources/uid/P8E80F9AE/health", 200, `{"message":"no labels","status":"ERROR"}`)
		}, gl},
		"no data source for Loki": {func(all map[string]*recording) {
			all["grafana"].say("/api/datasources", 200, `[{"id":1,"uid":"H8joYFVGz","name":"Prometheus","type":"prometheus"}]`)
		}, gl},
		"Promtail's way to Loki": {func(all map[string]*recording) {
			all["loki"].say("/loki/api/v1/query", 200, `{"status":"success","data":{"resultType":"vector","result":[],"stats":{}}}`)
		}, pl},
	} {
		t.Run(name, func(t *testing.T) {
			s, all, found := recorded(t)
			tt.cut(all)
			checks := s.testLinks(t.Context(), found, found)
			failed, ok := failures(checks)
			if strings.Join(failed, ",") != tt.want {
				t.Errorf("%q fail, want %q: %+v", failed, tt.want, checks)
			}
			if want := []string{gl, gp, pl}; tt.want == "" && strings.Join(ok, ",") != strings.Join(want, ",") {
				t.Errorf("%q hold, want %q: %+v", ok, want, checks)
			}
		})
	}
}

// Without the right credentials Grafana's links fail, and do not show the secret.
func TestRecordedCredentials(t *testing.T) {
	s, all, found := recorded(t)
	all["grafana"].Auth = "admin:another"
	failed, _ := failures(s.testLinks(t.Context(), found, found))
	if strings.Join(failed, ",") != "grafana-loki,grafana-prometheus" {
		t.Errorf("%q fail", failed)
	}
}

// Prometheus' credentials are for Prometheus: an Alertmanager it lists gets its
// own, a stranger none.
func TestLinkCredentials(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	serve := func(name string, answer func() string) *httptest.Server {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			mu.Lock()
			defer mu.Unlock()
			got[name] = user + ":" + password
			_, _ = w.Write([]byte(answer()))
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	ok := func() string { return "OK" }
	am, stranger := serve("alertmanager", ok), serve("stranger", ok)
	prom := serve("prometheus", func() string {
		return fmt.Sprintf(`{"data":{"activeAlertmanagers":[{"url":"%s/api/v2/alerts"},{"url":"%s/api/v2/alerts"}]}}`,
			strings.Replace(am.URL, "127.0.0.1", "localhost", 1), stranger.URL)
	})
	s, _, _ := recorded(t)
	var found []*inventory.Installed
	for name, url := range map[string]string{"prometheus": prom.URL, "alertmanager": am.URL} {
		c, _ := s.Catalogue.Get(name)
		own := c.Of(component.Instance{Health: &component.Health{URL: url + "/-/ready"}})
		own.Client = component.Client{Username: name, Password: "of-" + name}
		found = append(found, &inventory.Installed{Component: own, Version: component.MustParseVersion("3.1.0")})
	}
	for _, c := range s.testLinks(t.Context(), found, found) {
		if c.Name == "prometheus-alertmanager" && c.Status != health.OK {
			t.Errorf("%+v", c)
		}
	}
	want := map[string]string{"prometheus": "prometheus:of-prometheus", "alertmanager": "alertmanager:of-alertmanager", "stranger": ":"}
	for name, pair := range want {
		if got[name] != pair {
			t.Errorf("%s was shown %q, want %q", name, got[name], pair)
		}
	}
}

// The built-in fingerprints are known, and tell what is missing.
func TestRecordedFingerprints(t *testing.T) {
	s, all, found := recorded(t)
	for _, tt := range []struct {
		name   string
		known  int
		lose   func()
		differ string
	}{
		{"grafana", 3, func() { all["grafana"].say("/api/search", 200, `[{"id":1,"uid":"cIBgcSjkk","type":"dash-db"}]`) }, "dashboards was 2, is 1"},
		{"loki", 2, func() {
			all["loki"].say("/loki/api/v1/query", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1588889221,"12"]}]}}`)
		}, "lines was 1267, is 12"},
		{"prometheus", 4, func() {
			all["prometheus"].say("/api/v1/query", 200, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
		}, "six-hours-ago was 240, is not known: query \"sum(count_over_time(up[1h]))\" has no samples"},
		{"pushgateway", 1, func() { all["pushgateway"].say("/api/v1/metrics", 200, `{"status":"success","data":[]}`) }, "groups was 2, is 0"},
		{"victoriametrics", 3, func() {
			all["victoriametrics"].say("/api/v1/series/count", 200, `{"status":"success","data":[1]}`)
		}, "series was 7123, is 1"},
	} {
		for _, in := range found {
			if in.Component.Name != tt.name {
				continue
			}
			tests := health.ExpandTests(in.Component.Data.Fingerprint, s.vars(in).WithURL(in.Component.Health))
			before := s.prober.Fingerprint(t.Context(), in.Component.Client, tests, time.Unix(1588889221, 0))
			if before.Known() != tt.known {
				t.Errorf("%s: %d answers, want %d: %s", tt.name, before.Known(), tt.known, before.Missing())
			}
			if diff := health.Differences(tests, before, s.prober.Fingerprint(t.Context(), in.Component.Client, tests, before.At)); len(diff) > 0 {
				t.Errorf("%s: %+v", tt.name, diff)
			}
			tt.lose()
			diff := health.Differences(tests, before, s.prober.Fingerprint(t.Context(), in.Component.Client, tests, before.At))
			if err := (&health.LostDataError{Component: tt.name, Differences: diff}); !strings.HasSuffix(err.Error(), tt.differ) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}

// What grows while a run is at work is not lost data, after it as after its undo,
// whatever there was before.
func TestRecordedGrowth(t *testing.T) {
	const query = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1588889221,%q]}]}}`
	s, all, found := recorded(t)
	grown := map[string]func(n int){
		"grafana": func(n int) {
			all["grafana"].say("/api/search", 200, list(n))
			all["grafana"].say("/api/datasources", 200, list(n))
			all["grafana"].say("/api/org/users", 200, list(n))
		},
		"loki": func(n int) {
			all["loki"].say("/loki/api/v1/labels", 200, `{"status":"success","data":`+list(n)+`}`)
			if all["loki"].say("/loki/api/v1/query", 200, fmt.Sprintf(query, strconv.Itoa(n))); n == 0 {
				all["loki"].say("/loki/api/v1/query", 200, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
			}
		},
		"prometheus":  func(n int) { all["prometheus"].say("/api/v1/query", 200, fmt.Sprintf(query, strconv.Itoa(n))) },
		"pushgateway": func(n int) { all["pushgateway"].say("/api/v1/metrics", 200, `{"status":"success","data":`+list(n)+`}`) },
		"victoriametrics": func(n int) {
			all["victoriametrics"].say("/api/v1/series/count", 200, fmt.Sprintf(`{"status":"success","data":[%d]}`, n))
			all["victoriametrics"].say("/api/v1/query", 200, fmt.Sprintf(query, strconv.Itoa(n)))
		},
	}
	for _, in := range found {
		grow := grown[in.Component.Name]
		if grow == nil {
			continue
		}
		tests := health.ExpandTests(in.Component.Data.Fingerprint, s.vars(in).WithURL(in.Component.Health))
		for _, from := range []int{0, 2} {
			grow(from)
			before := s.prober.Fingerprint(t.Context(), in.Component.Client, tests, time.Unix(1588889221, 0))
			if before.Known() != len(tests) {
				t.Errorf("%s: %d of %d answers: %s", in.Component.Name, before.Known(), len(tests), before.Missing())
			}
			grow(7)
			after := s.prober.Fingerprint(t.Context(), in.Component.Client, tests, before.At)
			if diff := health.Differences(tests, before, after); len(diff) > 0 {
				t.Errorf("%s grew from %d: %+v", in.Component.Name, from, diff)
			}
		}
		delete(grown, in.Component.Name)
	}
	if len(grown) > 0 {
		t.Errorf("not tried: %v", grown)
	}
	for _, c := range s.Catalogue.All() {
		for _, test := range c.Data.Fingerprint {
			if test.Compare != "at_least" && test.Compare != "some" {
				t.Errorf("%s: the fingerprint %s may not grow", c.Name, test.Name)
			}
		}
	}
}

// list is a JSON list of n empty objects.
func list(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("{},", n), ",") + "]" }

// What Grafana and Loki must do besides being ready holds, by their definitions.
func TestRecordedFunctional(t *testing.T) {
	s, _, found := recorded(t)
	n := 0
	for _, in := range found {
		if in.Component.Name != "grafana" && in.Component.Name != "loki" {
			continue
		}
		for _, test := range health.ExpandTests(in.Component.Functional, s.vars(in).WithURL(in.Component.Health)) {
			n++
			if o := s.prober.Test(t.Context(), in.Component.Client, test, time.Time{}); o.Status != health.OK {
				t.Errorf("%s: %s: %s", in.Component.Name, test.Name, o.Detail)
			}
		}
	}
	if n == 0 {
		t.Error("no test was made")
	}
}
