package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
)

func number(f float64) *float64 { return &f }

// api answers as the programs do that are probed, from documented answers.
func api(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(path, kind string, status int, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		})
	}
	answer("/targets", "application/json", 200, `{"status":"success","data":{"activeTargets":[{"health":"up"},{"health":"down"},{"health":"up"}]}}`)
	answer("/none", "application/json", 200, `{"data":[]}`)
	answer("/list", "application/json", 200, `{"data":["good","good"]}`)
	answer("/mixed", "application/json", 200, `{"data":["good","bad"]}`)
	answer("/of/good", "text/plain", 200, "fine")
	answer("/of/bad", "text/plain", 500, "no")
	answer("/page", "text/html", 200, "<html>")
	answer("/busy", "text/plain", 429, "slow down")
	answer("/text", "text/plain", 200, "Version: 3.1\n")
	answer("/private", "text/plain", 401, "who are you?")
	answer("/teapot", "text/plain", 418, "short and stout")
	mux.HandleFunc("/api/v1/query", func(w http.ResponseWriter, r *http.Request) {
		body := map[string]string{
			"up":    `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]},{"metric":{},"value":[1,"3"]}]}}`,
			"none":  `{"status":"success","data":{"resultType":"vector","result":[]}}`,
			"one":   `{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}`,
			"range": `{"status":"success","data":{"resultType":"matrix","result":[]}}`,
			"wrong": `{"status":"error","error":"parse error"}`,
			"html":  `<html>`,
			"time":  fmt.Sprintf(`{"status":"success","data":{"resultType":"scalar","result":[1,%q]}}`, r.FormValue("time")),
		}[r.FormValue("query")]
		_, _ = w.Write([]byte(body))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestFunctional(t *testing.T) {
	s := api(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := ln.Addr().String()
	t.Cleanup(func() { ln.Close() })
	closed, bound, err := freeport.Shut()
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	web := func(h component.HTTPTest) component.Test {
		h.URL = s.URL + h.URL
		if h.ForEach != nil {
			h.ForEach.URL = s.URL + h.ForEach.URL
		}
		return component.Test{HTTP: &h}
	}
	ql := func(q component.PromQLTest) component.Test {
		q.URL = s.URL + "/"
		return component.Test{PromQL: &q}
	}
	depends := func(t component.Test) component.Test { t.Dependency = true; return t }
	mild := func(t component.Test) component.Test { t.Severity = "warn"; return t }
	up := `[.data.activeTargets[] | select(.health == "up")] | length`
	tests := map[string]struct {
		test   component.Test
		status Status
		value  string
		detail string
		unsure bool
	}{
		"count":              {test: web(component.HTTPTest{URL: "/targets", JSON: up, AtLeast: number(2)}), status: OK, value: "2"},
		"too few":            {test: web(component.HTTPTest{URL: "/targets", JSON: up, AtLeast: number(3)}), status: Fail, detail: "2, expected at least 3"},
		"too many":           {test: web(component.HTTPTest{URL: "/targets", JSON: up, AtMost: number(1)}), status: Fail, detail: "expected at most 1"},
		"no number":          {test: web(component.HTTPTest{URL: "/targets", JSON: ".status", AtLeast: number(1)}), status: Fail, detail: "no number"},
		"text":               {test: web(component.HTTPTest{URL: "/targets", JSON: ".status", Match: "^success$"}), status: OK, value: "success"},
		"no match":           {test: web(component.HTTPTest{URL: "/targets", JSON: ".status", Match: "^error$"}), status: Fail, detail: `expected a match of "^error$"`},
		"group":              {test: web(component.HTTPTest{URL: "/text", Match: `Version: (\S+)`}), status: OK, value: "3.1"},
		"no group":           {test: web(component.HTTPTest{URL: "/text", Match: `Version: \d`}), status: OK, value: "Version: 3"},
		"number in a text":   {test: web(component.HTTPTest{URL: "/text", Match: `[\d.]+`, AtLeast: number(3)}), status: OK, value: "3.1"},
		"several values":     {test: web(component.HTTPTest{URL: "/targets", JSON: ".data.activeTargets[]"}), status: Fail, detail: "gives 3 values"},
		"not JSON":           {test: web(component.HTTPTest{URL: "/page", JSON: "."}), status: Fail, detail: "is not JSON"},
		"wrong shape":        {test: web(component.HTTPTest{URL: "/targets", JSON: ".status.deep"}), status: Fail, detail: "does not fit"},
		"status":             {test: web(component.HTTPTest{URL: "/teapot", Status: []int{418}}), status: OK, value: "short and stout"},
		"other status":       {test: web(component.HTTPTest{URL: "/text", Status: []int{204}}), status: Fail, detail: "answered 200"},
		"each":               {test: web(component.HTTPTest{URL: "/of/{value}", ForEach: &component.HTTPList{URL: "/list", JSON: ".data[]"}}), status: OK, value: "good,good"},
		"one of them":        {test: web(component.HTTPTest{URL: "/of/{value}", ForEach: &component.HTTPList{URL: "/mixed", JSON: ".data[]"}}), status: Fail, detail: "bad: "},
		"none of them":       {test: web(component.HTTPTest{URL: "/of/{value}", ForEach: &component.HTTPList{URL: "/none", JSON: ".data[]", What: "sources"}}), status: Fail, detail: "lists no sources"},
		"asked too often":    {test: web(component.HTTPTest{URL: "/busy"}), status: Warn, unsure: true, detail: "429"},
		"no credentials":     {test: web(component.HTTPTest{URL: "/private"}), status: Skipped, detail: "client.username"},
		"promql":             {test: ql(component.PromQLTest{Query: "up", AtLeast: number(5)}), status: OK, value: "5"},
		"promql below":       {test: ql(component.PromQLTest{Query: "up", AtLeast: number(6)}), status: Fail, detail: "5, expected at least 6"},
		"promql scalar":      {test: ql(component.PromQLTest{Query: "one"}), status: OK, value: "1"},
		"promql empty":       {test: ql(component.PromQLTest{Query: "none"}), status: Fail, detail: "no samples"},
		"promql empty skip":  {test: ql(component.PromQLTest{Query: "none", Empty: "skip"}), status: Skipped, detail: "no samples"},
		"promql empty zero":  {test: ql(component.PromQLTest{Query: "none", Empty: "zero", AtMost: number(0)}), status: OK, value: "0"},
		"promql matrix":      {test: ql(component.PromQLTest{Query: "range"}), status: Fail, detail: `result type "matrix"`},
		"promql error":       {test: ql(component.PromQLTest{Query: "wrong"}), status: Fail, detail: "parse error"},
		"promql html":        {test: ql(component.PromQLTest{Query: "html"}), status: Fail, detail: "not that of a query API"},
		"promql moment":      {test: ql(component.PromQLTest{Query: "time", Ago: component.Duration(time.Minute)}), status: OK, value: "940"},
		"tcp":                {test: component.Test{TCP: &component.TCPTest{Address: open}}, status: OK},
		"tcp shut":           {test: component.Test{TCP: &component.TCPTest{Address: closed}}, status: Fail, detail: "nothing listens there"},
		"dependency away":    {test: depends(component.Test{TCP: &component.TCPTest{Address: closed}}), status: Warn, unsure: true, detail: "what it depends on"},
		"only a warning":     {test: mild(component.Test{TCP: &component.TCPTest{Address: closed}}), status: Warn},
		"exec":               {test: component.Test{Exec: &component.ExecTest{Command: []string{"say", "total 7"}, Match: `total (\d+)`}}, status: OK, value: "7"},
		"exec no group":      {test: component.Test{Exec: &component.ExecTest{Command: []string{"say", "total 7"}, Match: `\d+`}}, status: OK, value: "7"},
		"exec no match":      {test: component.Test{Exec: &component.ExecTest{Command: []string{"say", "nothing"}, Match: `total`}}, status: Fail, detail: `printed "nothing"`},
		"exec fails":         {test: component.Test{Exec: &component.ExecTest{Command: []string{"fail", "it broke"}}}, status: Fail, detail: "it broke"},
		"exec with a secret": {test: component.Test{Exec: &component.ExecTest{Command: []string{"say", "${SECRET:word}"}}}, status: OK, value: "hush"},
		"nothing":            {status: Fail, detail: "neither"},
	}
	p := &Prober{
		Expand: func(s string) (string, error) { return strings.ReplaceAll(s, "${SECRET:word}", "hush"), nil },
		Exec: func(_ context.Context, args []string, _ time.Duration) (string, error) {
			if args[0] == "fail" {
				return args[1], errors.New("exit status 1")
			}
			return args[1], nil
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := p.Test(t.Context(), component.Client{}, tt.test, time.Unix(1000, 0))
			if o.Status != tt.status || o.Unsure != tt.unsure || !strings.Contains(o.Detail, tt.detail) {
				t.Errorf("got %+v, want %s, unsure %v, %q", o, tt.status, tt.unsure, tt.detail)
			}
			if tt.status == OK && o.Value != tt.value {
				t.Errorf("value %q, want %q", o.Value, tt.value)
			}
		})
	}
}

// TestForEachElsewhere proves that credentials stay where they belong when an
// answer names another host.
func TestForEachElsewhere(t *testing.T) {
	var asked string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked = r.Header.Get("Authorization") }))
	t.Cleanup(other.Close)
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `[%q]`, other.URL) }))
	t.Cleanup(own.Close)
	o := (&Prober{}).Test(t.Context(), component.Client{Bearer: "secret"}, component.Test{HTTP: &component.HTTPTest{
		URL: "{value}/x", ForEach: &component.HTTPList{URL: own.URL, JSON: ".[]"},
	}}, time.Time{})
	if o.Status != OK || asked != "" {
		t.Errorf("%+v; the other host was shown %q", o, asked)
	}
}

// TestClientFiles proves that --root relocates the files of a client, and that a
// secret may hold the PEM text itself.
func TestClientFiles(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	ca := writeCA(t, s.Certificate().Raw)
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	root, name := filepath.Split(ca)
	p := &Prober{Expand: func(text2 string) (string, error) {
		return strings.NewReplacer("${SECRET:pem}", string(text), "${DIR}", strings.TrimSuffix(root, "/")).Replace(text2), nil
	}}
	for _, given := range []string{"/" + name, "{root}/" + name, "${DIR}/" + name, "${SECRET:pem}"} {
		c := &component.Component{Name: "x", Client: component.Client{CA: given}}
		spec := NewSpec(c, component.Vars{Root: strings.TrimSuffix(root, "/")})
		if o := p.Test(t.Context(), spec.Client, component.Test{HTTP: &component.HTTPTest{URL: s.URL}}, time.Time{}); o.Status != OK {
			t.Errorf("ca: %s: %s", given, o.Detail)
		}
	}
}

// TestClient proves that credentials come from secrets and certificates are
// checked.
func TestClient(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		fmt.Fprintf(w, "%s %s %s", user, password, r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	ca := writeCA(t, s.Certificate().Raw)
	p := &Prober{Expand: func(text string) (string, error) {
		if text == "${SECRET:gone}" {
			return "", errors.New("secret gone does not exist")
		}
		return strings.ReplaceAll(text, "${SECRET:pw}", "s3cret"), nil
	}}
	test := component.Test{HTTP: &component.HTTPTest{URL: s.URL}}
	for name, tt := range map[string]struct {
		client component.Client
		status Status
		want   string
	}{
		"unknown authority": {status: Fail, want: "certificate signed by unknown authority"},
		"its authority":     {client: component.Client{CA: ca}, status: OK, want: ""},
		"basic":             {client: component.Client{CA: ca, Username: "admin", Password: "${SECRET:pw}"}, status: OK, want: "admin s3cret"},
		"bearer":            {client: component.Client{CA: ca, Bearer: "${SECRET:pw}"}, status: OK, want: "Bearer s3cret"},
		"other name":        {client: component.Client{CA: ca, ServerName: "prometheus.invalid"}, status: Fail, want: "not prometheus.invalid"},
		"no such authority": {client: component.Client{CA: "/nonexistent/ca.pem"}, status: Fail, want: "client.ca"},
		"no such secret":    {client: component.Client{CA: ca, Username: "a", Password: "${SECRET:gone}"}, status: Fail, want: "secret gone does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			o := p.Test(t.Context(), tt.client, test, time.Time{})
			if o.Status != tt.status || !strings.Contains(o.Value+o.Detail, tt.want) {
				t.Errorf("got %+v, want %s with %q", o, tt.status, tt.want)
			}
			if o.Status == Fail && strings.Contains(o.Detail, "s3cret") {
				t.Error("the secret is shown")
			}
		})
	}
}

// A secret that cannot be had fails a check, but in recovery it leaves it
// undecided: the component is not to blame, and its data is not lost.
func TestSpareSecrets(t *testing.T) {
	s := api(t)
	test := component.Test{Name: "t", HTTP: &component.HTTPTest{URL: s.URL + "/text"}}
	command := component.Test{Name: "c", Exec: &component.ExecTest{Command: []string{"tool", "${SECRET:gone}"}}}
	client := component.Client{Bearer: "${SECRET:gone}"}
	target := Target{Spec: Spec{
		Health: component.Health{URL: s.URL + "/text", MetricsURL: s.URL + "/text", ExpectedMetric: "x"}, Client: client, Functional: []component.Test{test, command},
	}}
	p := &Prober{
		Expand: func(string) (string, error) { return "", errors.New("secret gone: there is none") },
		Exec:   func(context.Context, []string, time.Duration) (string, error) { t.Error("it ran"); return "", nil },
	}
	was := Fingerprint{At: time.Now(), Values: []Value{{Name: "t", Value: "1"}}}
	if r := p.Once(t.Context(), target); r.Healthy {
		t.Errorf("without its secret: %+v", r)
	}
	if diff, err := p.Compare(t.Context(), client, []component.Test{test}, was, 0); err != nil || len(diff) != 1 {
		t.Errorf("differences %v, %v", diff, err)
	}
	p.SpareSecrets = true
	r := p.Once(t.Context(), target)
	if r.Verdict != Inconclusive || len(r.Checks) != 5 || r.Checks[0].Status != Skipped {
		t.Errorf("spared: %+v", r)
	}
	for _, c := range r.Checks[1:] {
		if c.Status != Warn || !strings.Contains(c.Detail, "could not be asked: ") || !strings.Contains(c.Detail, "secret gone") {
			t.Errorf("%+v", c)
		}
	}
	if diff, err := p.Compare(t.Context(), client, []component.Test{test}, was, 0); err != nil || len(diff) != 0 {
		t.Errorf("differences %v, %v", diff, err)
	}
}
