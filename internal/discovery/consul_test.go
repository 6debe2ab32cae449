package discovery

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func consulAt(url string) component.Instances {
	return component.Instances{Type: "consul", Address: url, Service: "prometheus", Exec: remoteExec}
}

// Whatever answers instead of Consul, the error names the address and what was
// expected of it.
func TestConsulBadAnswers(t *testing.T) {
	const address = `{"Node": {"Node": "n", "Address": "127.0.0.1"}, "Service": {"ID": "a", %s}}`
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"HTML":         {200, "<!DOCTYPE html><html>Consul by\nHashiCorp</html>", "<!DOCTYPE html><html>Consul by HashiCorp"},
		"Empty":        {200, "", "empty answer"},
		"Null":         {200, "null", "is null"},
		"Object":       {200, `{"Node": {}}`, "cannot unmarshal object"},
		"Type":         {200, `[` + fmt.Sprintf(address, `"Port": "9090"`) + `]`, "Port"},
		"NoService":    {200, `[{"Node": {}}]`, "element 0 has no Node or no Service"},
		"NoID":         {200, `[{"Node": {"Node": "n1"}, "Service": {}}]`, `(node "n1") has no Service.ID`},
		"Port":         {200, `[` + fmt.Sprintf(address, `"Port": 70000`) + `]`, "port 70000"},
		"Cut":          {200, `[{"Node": {`, "unexpected end"},
		"Forbidden":    {403, "Permission denied", "instances.token must be that of a policy"},
		"Error":        {500, "No cluster leader", `answered 500 Internal Server Error ("No cluster leader"), expected 200 OK`},
		"Redirect":     {302, "", "answered 302 Found"},
		"Twice":        {200, `[` + fmt.Sprintf(address, `"Port": 1`) + `,` + fmt.Sprintf(address, `"Port": 2`) + `]`, `two instances have the ID "a"`},
		"HealthURL":    {200, `[` + fmt.Sprintf(address, `"Meta": {"health_url": "ready"}`) + `]`, "meta key health_url"},
		"Unit":         {200, `[` + fmt.Sprintf(address, `"Meta": {"unit": "--now x"}`) + `]`, "meta key unit"},
		"Option":       {200, `[` + fmt.Sprintf(address, `"Address": "-oProxyCommand=x"`) + `]`, "neither an IP address nor a host name"},
		"Meta":         {200, `[` + fmt.Sprintf(address, `"Meta": {"unit": 1}`) + `]`, "Meta"},
		"DashedName":   {200, `[{"Node": {"Address": "127.0.0.1"}, "Service": {"ID": "-x"}}]`, `"-x" is not an instance's name`},
		"NoAddress":    {200, `[{"Node": {}, "Service": {"ID": "x"}}]`, `its address "" is neither`},
		"LoneRemoteID": {200, `[{"Node": {"Address": "192.0.2.1; reboot"}, "Service": {"ID": "x"}}]`, `neither`},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if c.status == http.StatusFound {
					w.Header().Set("Location", "http://192.0.2.1/")
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer srv.Close()
			refused(t, consulAt(srv.URL), srv.URL+"/v1/health/service/prometheus", c.want)
		})
	}
	refused(t, consulAt("127.0.0.1:8500"), "instances.address", "http://127.0.0.1:8500")
}

// An answer that access control cut short is no answer.
func TestConsulFiltered(t *testing.T) {
	f := newFakeConsul(t)
	f.put(t, entry{name: "a", address: "127.0.0.1", port: 1})
	refused(t, consulAt(f.URL), f.URL, "instances.token may not see all")
}

func TestConsulHangs(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Instances(ctx, prometheus(consulAt(srv.URL)), options())
	if err == nil || !strings.Contains(err.Error(), srv.URL) || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("got %v", err)
	}
}

func TestConsulWhere(t *testing.T) {
	const here, there = "this host", "another host"
	for _, c := range []struct{ node, nodeAddr, addr, want string }{
		{"n", "127.0.0.1", "", here},
		{"this-host", "192.0.2.1", "", here},
		{"this-host.example.org", "192.0.2.1", "", here},
		{"This-Host", "192.0.2.1", "192.0.2.1", here},
		{"n", "192.0.2.1", "127.1.2.3", there}, // loopback of the node, whichever that is
		{"this-host", "192.0.2.1", "localhost", here},
		{"n", "192.0.2.1", "0.0.0.0", there},
		{"this-host", "127.0.0.1", "192.0.2.9", there}, // registered here for a host without an agent
		{"n", "192.0.2.1", "this-host", here},
		{"n", "192.0.2.1", "2001:db8::1", there},
	} {
		f := finder{c: prometheus(component.Instances{}), in: component.Instances{Exec: []string{"ssh", "{address}"}}, o: options()}
		var err error
		if f.here, err = f.o.whereabouts(t.Context()); err != nil {
			t.Fatal(err)
		}
		i, err := f.consulInstance(consulEntry{Node: &consulNode{c.node, c.nodeAddr}, Service: &consulService{ID: "a", Address: c.addr}})
		if err != nil {
			t.Fatal(err)
		}
		got := here
		if len(i.Exec) > 0 {
			got = there
			if unspecific(i.Exec[1]) {
				t.Errorf("%+v: would be reached at %s", c, i.Exec[1])
			}
		} else if i.Service != "prometheus@a.service" {
			t.Errorf("%+v: unit %q", c, i.Service)
		}
		if got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

// The caller's client is used, redirects excepted, and the direct one leaves
// nothing behind.
func TestConsulClient(t *testing.T) {
	f := newFakeConsul(t)
	in := consulAt(f.URL)
	in.Token = "${SECRET:right}"
	ask(t, in)
	before := goleak.IgnoreCurrent()
	ask(t, in)
	goleak.VerifyNone(t, before)

	used := 0
	o := options()
	o.HTTP = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		used++
		return http.DefaultTransport.RoundTrip(r)
	})}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if _, err := Instances(t.Context(), prometheus(in), o); err != nil || used != 1 || o.HTTP.CheckRedirect != nil {
		t.Errorf("%v, used %d times", err, used)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestConsulTLS(t *testing.T) {
	f, cert := newFakeConsul(t), newCertificate(t)
	pair, err := tls.LoadX509KeyPair(cert.cert, cert.key)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	defer srv.Close()
	in := consulAt(srv.URL)
	in.Token = "${SECRET:right}"
	refused(t, in, srv.URL, "certificate signed by unknown authority", "instances.ca must be")
	in.CA = cert.cert
	ask(t, in)
	o := options()
	o.HTTP = &http.Client{Timeout: 5 * time.Second}
	if _, err := Instances(t.Context(), prometheus(in), o); err != nil {
		t.Error(err)
	}
}
