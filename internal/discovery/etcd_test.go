package discovery

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

const prefix = "/observability/prometheus/"

// etcdServer is a real etcd inside the test, with users: root, and reader, who
// may read below the prefix and no more. Both have secretText as password.
type etcdServer struct {
	url   string
	admin *clientv3.Client
	stop  func()
}

func startEtcd(t *testing.T, tls ...keyPair) *etcdServer {
	t.Helper()
	loopback := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{loopback}, []url.URL{loopback}
	if len(tls) > 0 {
		loopback.Scheme = "https"
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = tls[0].cert, tls[0].key
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{loopback}, []url.URL{loopback}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.UnsafeNoFsync, cfg.BcryptCost = true, 4
	cfg.TickMs, cfg.ElectionMs = 10, 100
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &etcdServer{url: loopback.Scheme + "://" + server.Clients[0].Addr().String()}
	s.stop = sync.OnceFunc(server.Close)
	t.Cleanup(s.stop)
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("etcd is not ready within 20s")
	}
	config := clientv3.Config{Endpoints: []string{s.url}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second}
	if len(tls) > 0 {
		config.TLS = tls[0].client(t)
	}
	s.enableUsers(t, config)
	config.Username, config.Password = "root", secretText
	if s.admin, err = clientv3.New(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.admin.Close() })
	return s
}

func (s *etcdServer) enableUsers(t *testing.T, config clientv3.Config) {
	t.Helper()
	c, err := clientv3.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.RoleAdd(ctx, "root"))
	must(c.UserAdd(ctx, "root", secretText))
	must(c.UserGrantRole(ctx, "root", "root"))
	must(c.RoleAdd(ctx, "reader"))
	must(c.RoleGrantPermission(ctx, "reader", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermRead)))
	must(c.UserAdd(ctx, "reader", secretText))
	must(c.UserGrantRole(ctx, "reader", "reader"))
	must(c.AuthEnable(ctx))
}

func (s *etcdServer) set(t *testing.T, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.admin.Put(ctx, key, value); err != nil {
		t.Fatal(err)
	}
}

func (s *etcdServer) put(t *testing.T, e entry) {
	t.Helper()
	v := map[string]any{"health": map[string]string{"url": e.healthURL()}}
	if e.unit != "" {
		v["service"] = e.unit
	}
	if e.server != "" {
		v["server"] = e.server
	}
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	s.set(t, prefix+e.name, string(data))
}

func (s *etcdServer) remove(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := s.admin.Delete(ctx, prefix+name); err != nil {
		t.Fatal(err)
	}
}

func (s *etcdServer) definition() component.Instances {
	return component.Instances{
		Type: "etcd", Endpoints: []string{s.url}, Prefix: prefix, Username: "reader", Password: "${SECRET:right}", Exec: remoteExec,
	}
}

func TestEtcdContract(t *testing.T) {
	contract(t, func(t *testing.T) *store {
		s := startEtcd(t)
		wrong := s.definition()
		wrong.Password = "${SECRET:wrong}"
		return &store{
			definition: s.definition, put: s.put, remove: s.remove, wrong: wrong, stop: s.stop,
			malformed: func(t *testing.T) string {
				s.set(t, prefix+"c", `{"helth": {"url": "http://localhost:9090/-/ready"}}`)
				return "key " + prefix + `c: helth: unknown key "helth"; did you mean "health"?`
			},
		}
	})
}

func TestEtcdRefusals(t *testing.T) {
	s := startEtcd(t)
	in := s.definition()
	t.Run("NoUser", func(t *testing.T) {
		in := in
		in.Username, in.Password = "", ""
		refused(t, in, s.url, "instances.username and password")
	})
	t.Run("UserWithoutPassword", func(t *testing.T) {
		in := in
		in.Password = ""
		refused(t, in, "wants username and password")
	})
	t.Run("OtherPrefix", func(t *testing.T) {
		in := in
		in.Prefix = "/other/"
		refused(t, in, s.url, "user reader may not read /other/", "etcdctl role grant-permission")
	})
	t.Run("MixedSchemes", func(t *testing.T) {
		in := in
		in.Endpoints = []string{"https://127.0.0.1:1", s.url}
		refused(t, in, "both http and https")
	})
	t.Run("CAWithoutTLS", func(t *testing.T) {
		in := in
		in.CA = "/nowhere"
		refused(t, in, "write https://")
	})
	t.Run("NoEndpoint", func(t *testing.T) {
		in := in
		in.Endpoints = nil
		refused(t, in, "instances.endpoints is empty")
	})
	t.Run("TLSWanted", func(t *testing.T) {
		in := in
		in.Endpoints = []string{strings.Replace(s.url, "http:", "https:", 1)}
		refused(t, in, in.Endpoints[0], "does it speak http only?")
	})
	t.Run("OneMemberAway", func(t *testing.T) {
		s.put(t, entry{name: "a", address: "127.0.0.1", port: 1})
		in := in
		in.Endpoints = []string{"http://127.0.0.1:1", s.url}
		if list := ask(t, in); len(list) != 1 {
			t.Errorf("got %+v", list)
		}
	})
	t.Run("SameName", func(t *testing.T) {
		s.set(t, prefix+"b", `{"name": "a"}`)
		refused(t, in, prefix+"a and "+prefix+`b both have the name "a"`)
		s.remove(t, "b")
	})
	t.Run("Folder", func(t *testing.T) {
		s.set(t, prefix, `{}`)
		refused(t, in, "key "+prefix+" ends with a slash")
		s.remove(t, "")
	})
	t.Run("Leak", func(t *testing.T) {
		before := goleak.IgnoreCurrent()
		ask(t, in)
		goleak.VerifyNone(t, before)
	})
}

func TestEtcdTLS(t *testing.T) {
	cert := newCertificate(t)
	s := startEtcd(t, cert)
	s.put(t, entry{name: "a", address: "127.0.0.1", port: 1})
	in := s.definition()
	in.CA = cert.cert
	if list := ask(t, in); len(list) != 1 {
		t.Errorf("got %+v", list)
	}
	in.CA, in.Endpoints = "", []string{strings.Replace(s.url, "https:", "http:", 1), "http://127.0.0.1:1"}
	refused(t, in, in.Endpoints[0], "write https://", "http://127.0.0.1:1: ")
	in.Endpoints = []string{s.url}
	refused(t, in, s.url, "x509: certificate signed by unknown authority")
	in.CA = newCertificate(t).cert
	refused(t, in, s.url, "x509: certificate signed by unknown authority")
	in.CA = cert.key
	refused(t, in, "holds no certificate")
}

// What answers but is no etcd is told at once, and what does not answer soon.
func TestEtcdIsSomethingElse(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	for url, want := range map[string]string{
		newFakeConsul(t).URL:                                      "which is not HTTP/2; expected etcd's client port",
		strings.Replace(secure.URL, "https:", "http:", 1):         "write https://",
		"http://" + silent.Addr().String():                        "no connection within 3s",
		strings.Replace(newFakeConsul(t).URL, "http", "https", 1): "",
	} {
		begun := time.Now()
		refused(t, component.Instances{Type: "etcd", Endpoints: []string{url}, Prefix: prefix}, url, want)
		if took := time.Since(begun); took > probeTimeout+20*time.Second {
			t.Errorf("took %s", took)
		}
	}
}

func TestEtcdValues(t *testing.T) {
	for value, want := range map[string]string{
		``:                                     "is empty",
		`"a"`:                                  "is not an object",
		`[]`:                                   "is not an object",
		`null`:                                 "is not an object",
		`{"name": "a"`:                         "ends in the middle",
		`{"name": "a"} {}`:                     "goes on after",
		`name: a`:                              "is not JSON",
		`{"name": "a", "name": "b"}`:           "name: given twice",
		`{"name": "../a"}`:                     "is not an instance's name",
		`{"name": {}}`:                         "want text",
		`{"service": "a b"}`:                   "is not the name of a systemd unit",
		`{"service": "-H=evil"}`:               "is not the name of a systemd unit",
		`{"health": {"url": "x"}}`:             "health.url: \"x\" is not an http or https URL",
		`{"health": {"settle": "soon"}}`:       "health.settle",
		`{"exec": [""]}`:                       "exec: the command is empty",
		`{"exec": "ssh"}`:                      "exec: want a list",
		"{\"name\": \"\xff\"}":                 "is not UTF-8",
		strings.Repeat(`{"health":`, 40) + `1`: "nested deeper",
	} {
		_, err := decodeEtcd("/x/a", []byte(value))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "key /x/a") {
			t.Errorf("%s: got %v, want %q", value, err, want)
		}
	}
	i, err := decodeEtcd("/x/é-not-used", []byte(`{"name": "\u0061", "health": {"url": "http:\/\/h\/", "settle": "5s"}, "process": {"command": ["p"]}}`))
	if err != nil || i.Name != "a" || i.Health.URL != "http://h/" || i.Health.Settle.Std() != 5*time.Second || i.Process.Command[0] != "p" {
		t.Errorf("got %+v, %v", i, err)
	}
}
