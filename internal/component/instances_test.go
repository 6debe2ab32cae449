package component

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOf(t *testing.T) {
	c := &Component{
		Name: "prometheus", Service: "prometheus@{instance}",
		Health: Health{
			URL: "http://localhost:9090/-/ready", MetricsURL: "http://localhost:9090/metrics", ExpectedMetric: "up",
			Settle: Duration(5 * time.Second), Startup: Startup{URL: "http://localhost:9090/api/v1/status/walreplay"},
		},
		Reload: Reload{HTTP: "http://localhost:9090/-/reload"},
		Data:   Data{Path: "/var/lib/prometheus", Flag: "storage.tsdb.path"},
		Instances: Instances{List: []Instance{
			{Name: "a"},
			{Name: "b", Service: "prom-b.service", Health: &Health{URL: "http://127.0.0.1:9091/-/ready"}, Data: &Data{Path: "/srv/b"}},
			{Name: "c", Health: &Health{MetricsURL: "http://h:1/m", Settle: Duration(time.Second)}},
		}},
	}
	a, b, three := c.Of(c.Instances.List[0]), c.Of(c.Instances.List[1]), c.Of(c.Instances.List[2])
	if a.Unit() != "prometheus@a.service" || a.Health != c.Health || a.Reload != c.Reload || !a.Instances.IsZero() {
		t.Errorf("got %+v", a)
	}
	want := Health{
		URL: "http://127.0.0.1:9091/-/ready", MetricsURL: "http://127.0.0.1:9091/metrics", ExpectedMetric: "up",
		Settle: Duration(5 * time.Second), Startup: Startup{URL: "http://127.0.0.1:9091/api/v1/status/walreplay"},
	}
	if d := cmp.Diff(want, b.Health); d != "" || b.Service != "prom-b.service" || b.Reload.HTTP != "http://127.0.0.1:9091/-/reload" {
		t.Errorf("got %+v %s", b, d)
	}
	if b.Data.Path != "/srv/b" || b.Data.Flag != "storage.tsdb.path" {
		t.Errorf("got %+v", b.Data)
	}
	if three.Health.URL != "http://h:1/-/ready" || three.Health.MetricsURL != "http://h:1/m" || three.Health.Settle != Duration(time.Second) {
		t.Errorf("got %+v", three.Health)
	}
	if c.Service != "prometheus@{instance}" || c.Health.URL != "http://localhost:9090/-/ready" {
		t.Errorf("the definition was changed: %+v", c)
	}
}

// What an instance leaves out of its process is the component's own, field by field.
func TestOfProcess(t *testing.T) {
	c := &Component{Name: "prometheus", Process: Process{Command: []string{"/bin/prometheus"}, Dir: "/srv", Env: []string{"LISTEN=:9090", "GOGC=50"}}}
	for _, tt := range []struct{ own, want Process }{
		{Process{}, c.Process},
		{Process{Env: []string{"LISTEN=:9091"}}, Process{Command: []string{"/bin/prometheus"}, Dir: "/srv", Env: []string{"LISTEN=:9091"}}},
		{Process{Command: []string{"/bin/other", "-b"}}, Process{Command: []string{"/bin/other", "-b"}, Dir: "/srv", Env: []string{"LISTEN=:9090", "GOGC=50"}}},
		{Process{Dir: "/srv/b"}, Process{Command: []string{"/bin/prometheus"}, Dir: "/srv/b", Env: []string{"LISTEN=:9090", "GOGC=50"}}},
	} {
		if d := cmp.Diff(tt.want, c.Of(Instance{Name: "a", Process: &tt.own}).Process); d != "" {
			t.Errorf("%+v: %s", tt.own, d)
		}
	}
}
