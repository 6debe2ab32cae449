package preflight

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

const critical = `ALERTS{alertstate="firing",severity="critical"}`

// vector is Prometheus's answer with a series for each alert.
func vector(alerts ...string) string {
	var list []string
	for _, a := range alerts {
		list = append(list, fmt.Sprintf(`{"metric":{"__name__":"ALERTS","alertname":%q,"alertstate":"firing","severity":"critical"},"value":[1732413600.1,"1"]}`, a))
	}
	return `{"status":"success","data":{"resultType":"vector","result":[` + strings.Join(list, ",") + `]}}`
}

func TestAlertGate(t *testing.T) {
	for name, tt := range map[string]struct {
		code    int
		body    string
		onError component.CheckStatus
		status  component.CheckStatus
		words   []string
	}{
		"quiet":             {200, vector(), "", component.CheckOK, nil},
		"firing":            {200, vector("DiskFull"), "", component.CheckFail, []string{`DiskFull{severity="critical"}`, "expected nothing", "curl -G"}},
		"firing, on warn":   {200, vector("DiskFull"), component.CheckWarn, component.CheckFail, []string{"DiskFull"}},
		"many":              {200, vector("G", "F", "E", "D", "C", "B", "A"), "", component.CheckFail, []string{`A{severity="critical"}, B`, `E{severity="critical"} and 2 more`}},
		"broken":            {503, "Service Unavailable", "", component.CheckFail, []string{"answered 503"}},
		"broken, on warn":   {503, "Service Unavailable", component.CheckWarn, component.CheckWarn, []string{"answered 503"}},
		"bad query":         {400, `{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}`, "", component.CheckFail, []string{"400: parse error"}},
		"garbage":           {200, "<html>Sign in</html>", "", component.CheckFail, []string{"no answer of Prometheus"}},
		"other JSON":        {200, `{"ok":true}`, "", component.CheckFail, []string{"no answer of Prometheus"}},
		"a number":          {200, `{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}`, "", component.CheckFail, []string{`"scalar"`, "want a vector"}},
		"a vector of text":  {200, `{"status":"success","data":{"resultType":"vector","result":"x"}}`, "", component.CheckFail, []string{"no answer of Prometheus"}},
		"without any names": {200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}`, "", component.CheckFail, []string{"{}"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/api/v1/query" || r.URL.Query().Get("query") != critical {
					t.Errorf("asked for %s", r.URL)
				}
				w.WriteHeader(tt.code)
				fmt.Fprint(w, tt.body)
			}))
			defer srv.Close()
			in := host(t, "prometheus")
			in.Gate = &Gate{URL: srv.URL, Queries: []string{critical}, OnError: tt.onError}
			expect(t, Run(t.Context(), in), AlertGate, tt.status, tt.words...)
		})
	}
}

// Every query is asked and every result told.
func TestAlertGateTellsEveryQuery(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("query") == "quiet" {
			fmt.Fprint(w, vector())
			return
		}
		fmt.Fprint(w, vector("Alert"+r.URL.Query().Get("query")))
	}))
	defer srv.Close()
	in := host(t, "prometheus")
	in.Gate = &Gate{URL: srv.URL, Queries: []string{"one", "quiet", "two"}}
	got := of(Run(t.Context(), in), AlertGate)
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	expectCheck(t, got[0], component.CheckFail, "Alertone")
	expectCheck(t, got[1], component.CheckFail, "Alerttwo")
}

func TestAlertGateSlow(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer srv.Close()
	for onError, want := range map[component.CheckStatus]component.CheckStatus{"": component.CheckFail, component.CheckWarn: component.CheckWarn} {
		in := host(t, "prometheus")
		in.Deadline = 200 * time.Millisecond
		in.Gate = &Gate{URL: srv.URL, Queries: []string{critical}, OnError: onError}
		expect(t, Run(t.Context(), in), AlertGate, want, "no answer within 200ms")
	}
}

// The gate does not stand in the way of repairing what answers it, and of
// nothing else.
func TestAlertGateAndRepair(t *testing.T) {
	firing := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, vector("PrometheusDown")) }
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	sick := prober{"prometheus": {Checks: []component.Check{{Name: "ready", Status: health.Fail}}}}
	for name, tt := range map[string]struct {
		serve  http.HandlerFunc
		plan   []string
		prober prober
		other  bool // the component answers elsewhere
		status component.CheckStatus
	}{
		"sick":             {serve: firing, plan: []string{"prometheus"}, prober: sick, status: component.CheckWarn},
		"sick and silent":  {serve: silent, plan: []string{"prometheus"}, prober: sick, status: component.CheckWarn},
		"well":             {serve: firing, plan: []string{"prometheus"}, prober: prober{}, status: component.CheckFail},
		"with another":     {serve: firing, plan: []string{"prometheus", "loki"}, prober: sick, status: component.CheckFail},
		"another's":        {serve: firing, plan: []string{"prometheus"}, prober: sick, other: true, status: component.CheckFail},
		"another's silent": {serve: silent, plan: []string{"prometheus"}, prober: sick, other: true, status: component.CheckFail},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tt.serve)
			defer srv.Close()
			in := host(t, tt.plan...)
			in.Deadline, in.SkipHealth, in.Prober = 400*time.Millisecond, true, tt.prober
			in.Gate = &Gate{URL: srv.URL, Queries: []string{critical}}
			in.Target = func(i *inventory.Installed) (health.Target, error) {
				// The same server under another of its names.
				target := health.Target{Component: i.Component.Name}
				target.Spec.Health.URL = strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) + "/-/ready"
				if tt.other || i.Component.Name != "prometheus" {
					target.Spec.Health.URL = "http://localhost:1/-/ready"
				}
				return target, nil
			}
			expect(t, Run(t.Context(), in), AlertGate, tt.status)
		})
	}
}

func TestSameServer(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"http://localhost:9090", "http://127.0.0.1:9090/-/ready", true},
		{"http://[::1]:9090/x", "http://LOCALHOST:9090", true},
		{"http://prom.example.com", "http://prom.example.com:80/", true},
		{"https://prom.example.com", "http://prom.example.com/", false},
		{"http://localhost:9090", "http://localhost:9091", false},
		{"", "", false},
	} {
		if got := sameServer(tt.a, tt.b); got != tt.want {
			t.Errorf("%q, %q: %v", tt.a, tt.b, got)
		}
	}
}

// Whatever answers in Prometheus's place is understood or told as no answer: a
// gate is never open because of it.
func FuzzGateAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"status":"success","data":{"resultType":"vector","result":[]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"alertname":"Down","severity":"page"},"value":[1,"1"]}]}}`,
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up"},"values":[[1,"1"]]}]}}`,
		`{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}`,
		`{"status":"error","errorType":"bad_data","error":"parse error"}`,
		`{"status":"success"}`, `{"status":"success","data":{"resultType":"vector"}}`, `<html>`, ``,
		`{"status":"success","data":{"resultType":"vector","result":null}}`,
	} {
		f.Add(200, []byte(seed))
		f.Add(503, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		list, err := decodeGate(code, body)
		if err != nil && list != nil {
			t.Fatalf("series beside an error: %v", err)
		}
		if err != nil {
			return
		}
		if code != http.StatusOK || list == nil {
			t.Fatalf("%d %q was taken for an answer", code, body)
		}
		if len(list) > 0 && nameSeries(list) == "" {
			t.Fatal("what fires is not named")
		}
	})
}
