package discovery

import (
	"net"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Without Options.Local the interfaces decide.
func TestWhereabouts(t *testing.T) {
	h, err := Options{}.whereabouts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !h.local(n.IP.String()) {
			t.Errorf("%s is not this host's", n.IP)
		}
	}
	for _, addr := range []string{"127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", h.hostname} {
		if !h.local(addr) {
			t.Errorf("%s is not this host's", addr)
		}
	}
	for _, addr := range []string{"192.0.2.1", "2001:db8::1", "198.51.100.7"} {
		if h.local(addr) {
			t.Errorf("%s is this host's", addr)
		}
	}
}

func TestNamed(t *testing.T) {
	h := here{hostname: "prom-a.example.org"}
	for name, want := range map[string]bool{
		"prom-a.example.org": true, "PROM-A.example.org.": true, "prom-a": true, "prom-a.example.net": false, "prom": false, "": false,
	} {
		if got := h.named(name); got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
	if (&here{hostname: "localhost"}).named("localhost") {
		t.Error("localhost names no host")
	}
}

func TestHealthAt(t *testing.T) {
	h := component.Health{URL: "http://localhost:9090/{x}?a=%20", MetricsURL: "http://localhost:9090/metrics"}
	h.Startup.URL = "http://localhost:9099/api"
	got := h.At("2001:db8::1", 9091)
	if got.URL != "http://[2001:db8::1]:9091/{x}?a=%20" || got.MetricsURL != "http://[2001:db8::1]:9091/metrics" || got.Startup.URL != "http://[2001:db8::1]:9099/api" {
		t.Errorf("got %+v", got)
	}
	for raw, want := range map[string]string{
		"http://localhost/ready":           "http://h:1/ready",
		"https://user:pw@localhost:3000":   "https://user:pw@h:1",
		"http://[::1]:9090/":               "http://h:1/",
		"http://localhost:9090?x=http://y": "http://h:1?x=http://y",
	} {
		if got := (component.Health{URL: raw}).At("h", 1).URL; got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
	if got := (component.Health{MetricsURL: "http://localhost:9100/metrics"}).At("h", 0); got.MetricsURL != "http://h:9100/metrics" || got.URL != "" {
		t.Errorf("got %+v", got)
	}
	if got := (component.Health{}).At("h", 1); got != nil {
		t.Errorf("got %+v", got)
	}
}
