package httpd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

// TestMain plays a service that systemd hands sockets to.
func TestMain(m *testing.M) {
	if os.Getenv("HTTPD_TEST_ACTIVATED") != "" {
		os.Exit(activatedService())
	}
	goleak.VerifyTestMain(m)
}

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	if err := os.Chmod(a.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a.key = a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// issue makes NAME.pem and NAME.key, good for this host, or of a client.
func (a *authority) issue(name string, use x509.ExtKeyUsage) tls.Certificate {
	a.t.Helper()
	key := a.newKey()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{use}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", der)
	a.write(name+".key", "EC PRIVATE KEY", keyDER)
	pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// config writes a file of TLS and authentication.
func (a *authority) config(text string) string {
	a.t.Helper()
	path := filepath.Join(a.dir, "web.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func passwords(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("basic_auth_users: {ali: %q}\n", hash)
}

const serverTLS = "tls_server_config: {cert_file: server.pem, key_file: server.key}\n"

func TestResolve(t *testing.T) {
	for listen, want := range map[string]struct {
		address string
		local   bool
	}{
		"127.0.0.1:9099":        {"127.0.0.1:9099", true},
		"127.9.8.7:0":           {"127.9.8.7:0", true},
		"[::1]:9099":            {"[::1]:9099", true},
		"[::ffff:127.0.0.1]:80": {"[::ffff:127.0.0.1]:80", true},
		"localhost:9099":        {"127.0.0.1:9099", true},
		":9099":                 {":9099", false},
		"0.0.0.0:9099":          {"0.0.0.0:9099", false},
		"[::]:9099":             {"[::]:9099", false},
		"10.1.2.3:9099":         {"10.1.2.3:9099", false},
		"[::ffff:10.1.2.3]:80":  {"[::ffff:10.1.2.3]:80", false},
		"[fe80::1%eth0]:9099":   {"[fe80::1%eth0]:9099", false},
		"128.0.0.1:9099":        {"128.0.0.1:9099", false},
	} {
		address, local, err := resolve(t.Context(), listen)
		if err != nil || address != want.address || local != want.local {
			t.Errorf("%s: %s %v %v", listen, address, local, err)
		}
	}
	for listen, want := range map[string]string{
		"9099": "want HOST:PORT", "": "want HOST:PORT", "127.0.0.1": "want HOST:PORT", "127.0.0.1:x": `"x" is no port`, "127.0.0.1:70000": `"70000" is no port`, "127.0.0.1:": `"" is no port`, "::1:9099": "want HOST:PORT",
		"name.invalid:1": "name.invalid",
	} {
		_, _, err := resolve(t.Context(), listen)
		var refused *RefusedError
		if !errors.As(err, &refused) || !strings.Contains(refused.Message, want) || refused.Hint == "" {
			t.Errorf("%q: %v, want %s", listen, err, want)
		}
	}
}

// Whoever others can reach must ask them who they are, and hide what is said.
func TestOthersAreNotLetIn(t *testing.T) {
	a := newAuthority(t)
	a.issue("server", x509.ExtKeyUsageServerAuth)
	ca := "client_ca_file: ca.pem, client_auth_type: "
	for name, c := range map[string]struct{ config, want string }{
		"no file":                   {"", "no file of TLS and authentication"},
		"empty":                     {"{}\n", "has no TLS"},
		"no TLS":                    {passwords(t), "has no TLS"},
		"no authentication":         {serverTLS, "has no authentication"},
		"no users":                  {serverTLS + "basic_auth_users: {}\n", "has no authentication"},
		"certificates only asked":   {"tls_server_config: {cert_file: server.pem, key_file: server.key, " + ca + "RequestClientCert}\n", "has no authentication"},
		"any certificate":           {"tls_server_config: {cert_file: server.pem, key_file: server.key, " + ca + "RequireAnyClientCert}\n", "has no authentication"},
		"certificates if given":     {"tls_server_config: {cert_file: server.pem, key_file: server.key, " + ca + "VerifyClientCertIfGiven}\n", "has no authentication"},
		"certificates of anybody":   {"tls_server_config: {cert_file: server.pem, key_file: server.key, client_auth_type: RequireAndVerifyClientCert}\n", "has no authentication"},
		"a key that is missing":     {"tls_server_config: {cert_file: server.pem, key_file: none.key}\n" + passwords(t), "none.key"},
		"a password in plain":       {serverTLS + "basic_auth_users: {ali: sesame}\n", "hashedSecret"},
		"a key that does not exist": {serverTLS + passwords(t) + "basic_auth_user: {}\n", "basic_auth_user"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Listen: "0.0.0.0:0"}
			if c.config != "" {
				o.WebConfig = a.config(c.config)
			}
			s, err := Open(t.Context(), o)
			var refused *RefusedError
			if s != nil || !errors.As(err, &refused) || !strings.Contains(refused.Message, c.want) || refused.Hint == "" {
				t.Fatalf("%v, want %s", err, c.want)
			}
		})
	}
	t.Run("a file that others can write", func(t *testing.T) {
		path := a.config(serverTLS + passwords(t))
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), Options{Listen: "127.0.0.1:0", WebConfig: path})
		if err == nil || !strings.Contains(err.Error(), "can be written by everybody") {
			t.Fatal(err)
		}
	})
	t.Run("a file that is not there", func(t *testing.T) {
		_, err := Open(t.Context(), Options{Listen: "127.0.0.1:0", WebConfig: filepath.Join(a.dir, "none.yml")})
		if err == nil || !strings.Contains(err.Error(), "none.yml") {
			t.Fatal(err)
		}
	})
	t.Run("an address that is taken", func(t *testing.T) {
		s, err := Open(t.Context(), Options{Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		taken := s.listeners[0].Addr().String()
		_, err = Open(t.Context(), Options{Listen: taken})
		if err == nil || !strings.Contains(err.Error(), "something else does already") || !strings.Contains(err.Error(), "ss -ltnp") {
			t.Fatal(err)
		}
	})
}

// served is a server at work.
type served struct {
	address string
	log     *bytes.Buffer
	stop    func() error // ends it and waits
}

// hello answers, and knows a request that is answered until the end.
func hello(ended chan struct{}) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "begun")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-ended:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, ", ended")
	})
	return mux
}

func serve(t *testing.T, o Options) *served {
	t.Helper()
	log := &bytes.Buffer{}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ending := make(chan struct{})
	go func() {
		done <- s.Serve(ctx, hello(ending), func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Around", "yes")
				next.ServeHTTP(w, r)
			})
		}, func() { close(ending) })
	}()
	_, port, err := net.SplitHostPort(s.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	out := &served{address: net.JoinHostPort("127.0.0.1", port), log: log}
	stopped := false
	out.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(2 * grace):
			return errors.New("the server does not end")
		}
	}
	t.Cleanup(func() {
		if err := out.stop(); err != nil {
			t.Error(err)
		}
	})
	return out
}

// ask asks as a client of its own does.
func ask(t *testing.T, c *tls.Config, edit func(*http.Request), url string) (code int, body string, head http.Header, err error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: c, DisableKeepAlives: true, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return res.StatusCode, string(data), res.Header, err
}

func TestPasswords(t *testing.T) {
	a := newAuthority(t)
	a.issue("server", x509.ExtKeyUsageServerAuth)
	path := a.config(serverTLS + passwords(t))
	s := serve(t, Options{Listen: "0.0.0.0:0", WebConfig: path})
	c := &tls.Config{RootCAs: a.pool}
	for name, x := range map[string]struct {
		user, password string
		code           int
	}{"nobody": {"", "", 401}, "a wrong password": {"ali", "open barley", 401}, "a wrong name": {"baba", "open sesame", 401}, "the right ones": {"ali", "open sesame", 200}} {
		code, body, head, err := ask(t, c, func(r *http.Request) {
			if x.user != "" {
				r.SetBasicAuth(x.user, x.password)
			}
		}, "https://"+s.address+"/")
		if err != nil || code != x.code || (code == 200) != (body == "hello") || head.Get("X-Around") != "yes" {
			t.Errorf("%s: %d %q %v %v", name, code, body, head, err)
		}
	}
	// Without TLS nobody is heard, whatever the password.
	code, body, _, err := ask(t, nil, func(r *http.Request) { r.SetBasicAuth("ali", "open sesame") }, "http://"+s.address+"/")
	if err == nil && (code == 200 || strings.Contains(body, "hello")) {
		t.Errorf("in plain: %d %q", code, body)
	}
	// Other names are no matter where everybody must say who he is.
	if code, _, _, err := ask(t, c, func(r *http.Request) { r.Host = "mon.example.org"; r.SetBasicAuth("ali", "open sesame") }, "https://"+s.address+"/"); err != nil || code != 200 {
		t.Errorf("by another name: %d %v", code, err)
	}

	// The file is read anew. Where it does not ask any more who others are, nothing
	// is shown to them.
	for name, text := range map[string]string{"without users": serverTLS, "without TLS": passwords(t), "empty": "{}\n", "torn": "tls_server_config: [\n"} {
		a.config(text)
		code, body, _, err := ask(t, c, func(r *http.Request) { r.SetBasicAuth("ali", "open sesame") }, "https://"+s.address+"/")
		if err == nil && (code == 200 || strings.Contains(body, "hello")) {
			t.Errorf("%s: %d %q", name, code, body)
		}
	}
	if !strings.Contains(s.log.String(), "TLS and authentication are no longer demanded") {
		t.Errorf("the log does not tell:\n%s", s.log)
	}
	a.config(serverTLS + passwords(t))
	if code, body, _, err := ask(t, c, func(r *http.Request) { r.SetBasicAuth("ali", "open sesame") }, "https://"+s.address+"/"); err != nil || code != 200 {
		t.Errorf("the file is whole again: %d %q %v", code, body, err)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(s.log.String(), "sesame") {
		t.Error("the log holds the password")
	}
}

func TestClientCertificates(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	a.issue("server", x509.ExtKeyUsageServerAuth)
	mine, theirs := a.issue("client", x509.ExtKeyUsageClientAuth), other.issue("client", x509.ExtKeyUsageClientAuth)
	path := a.config("tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert}\n")
	s := serve(t, Options{Listen: "0.0.0.0:0", WebConfig: path})
	for name, c := range map[string]struct {
		certs []tls.Certificate
		ok    bool
	}{"none": {nil, false}, "of another authority": {[]tls.Certificate{theirs}, false}, "a good one": {[]tls.Certificate{mine}, true}} {
		code, body, _, err := ask(t, &tls.Config{RootCAs: a.pool, Certificates: c.certs}, nil, "https://"+s.address+"/")
		if got := err == nil && code == 200 && body == "hello"; got != c.ok {
			t.Errorf("%s: %d %q %v", name, code, body, err)
		}
	}
}

// On this host, TLS or passwords alone are a person's choice, and both are kept.
func TestLocalWithPasswords(t *testing.T) {
	a := newAuthority(t)
	s := serve(t, Options{Listen: "127.0.0.1:0", WebConfig: a.config(passwords(t))})
	if code, _, head, err := ask(t, nil, nil, "http://"+s.address+"/"); err != nil || code != 401 || head.Get("X-Around") != "yes" {
		t.Errorf("%d %v %v", code, head, err)
	}
	if code, _, _, err := ask(t, nil, func(r *http.Request) { r.SetBasicAuth("ali", "open sesame") }, "http://"+s.address+"/"); err != nil || code != 200 {
		t.Errorf("%d %v", code, err)
	}
}

func TestOtherNames(t *testing.T) {
	s := serve(t, Options{Listen: "127.0.0.1:0"})
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:9099": 200, "127.0.0.1": 200, "127.0.0.1:1": 200, "[::1]": 200, "[::1]:8080": 200, "localhost.:80": 200, "[0:0:0:0:0:0:0:1]:80": 200,
		"evil.example.org": 421, "evil.example.org:9099": 421, "localhost.evil.example.org": 421, "127.0.0.1.evil.example.org": 421, "10.0.0.1": 421, "127.0.0.2": 421, "[::2]:80": 421, "0.0.0.0": 421,
	} {
		code, body, head, err := ask(t, nil, func(r *http.Request) { r.Host = host }, "http://"+s.address+"/")
		if err != nil || code != want || (want == 200) != (body == "hello") || head.Get("X-Around") != "yes" {
			t.Errorf("%s: %d %q %v", host, code, body, err)
		}
	}
	named := serve(t, Options{Listen: "127.0.0.5:0"})
	_, port, _ := net.SplitHostPort(named.address)
	for host, want := range map[string]int{"127.0.0.5:" + port: 200, "localhost": 200, "127.0.0.6": 421} {
		if code, _, _, err := ask(t, nil, func(r *http.Request) { r.Host = host }, "http://127.0.0.5:"+port+"/"); err != nil || code != want {
			t.Errorf("%s: %d %v", host, code, err)
		}
	}
}

func FuzzIsFor(f *testing.F) {
	for _, s := range []string{"localhost:1", "[::1]", "[::1", "a:b:c", "", ":", "127.0.0.1.", "[fe80::1%25eth0]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if isFor([]string{"localhost"}, host) && !strings.HasPrefix(strings.ToLower(strings.TrimPrefix(host, "[")), "localhost") {
			t.Errorf("%q passes for localhost", host)
		}
	})
}

// The end ends answers that go on, and waits for those that end by themselves.
func TestEnd(t *testing.T) {
	s := serve(t, Options{Listen: "127.0.0.1:0"})
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.address+"/long", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > grace {
		t.Errorf("it took %s", took)
	}
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "begun, ended" {
		t.Errorf("%q %v", body, err)
	}
	if _, err := net.DialTimeout("tcp", s.address, time.Second); err == nil {
		t.Error("it still listens")
	}
}

func TestAddresses(t *testing.T) {
	a := newAuthority(t)
	a.issue("server", x509.ExtKeyUsageServerAuth)
	for config, want := range map[string]string{"": "http://127.0.0.1:", serverTLS: "https://127.0.0.1:"} {
		o := Options{Listen: "127.0.0.1:0"}
		if config != "" {
			o.WebConfig = a.config(config)
		}
		s, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := s.Addresses(); len(got) != 1 || !strings.HasPrefix(got[0], want) || !strings.HasSuffix(got[0], "/") {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

// activatedService is the process that gets sockets.
func activatedService() int {
	s, err := Open(context.Background(), Options{Listen: "203.0.113.1:1", WebConfig: os.Getenv("HTTPD_TEST_CONFIG")})
	if err != nil {
		fmt.Println("refused:", err)
		return 2
	}
	fmt.Println("ready", strings.Join(s.Addresses(), " "))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() { // its standard input ends when the test is done
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	if err := s.Serve(ctx, hello(nil), nil, nil); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// activate starts the process with listeners as systemd hands them over.
func activate(t *testing.T, config string, files ...*os.File) (ready string, wait func() int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, self)
	cmd.Env = append(os.Environ(), "HTTPD_TEST_ACTIVATED=1", "HTTPD_TEST_CONFIG="+config, fmt.Sprintf("LISTEN_FDS=%d", len(files)))
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), func() int {
		in.Close()
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
}

func socket(t *testing.T, address string) (*os.File, net.Addr) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, l.Addr()
}

func TestSockets(t *testing.T) {
	t.Run("of this host", func(t *testing.T) {
		tcp, address := socket(t, "127.0.0.1:0")
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		unix, err := l.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close()
		ready, wait := activate(t, "", tcp, unix)
		if want := fmt.Sprintf("ready http://%s/ unix:%s\n", address, path); ready != want {
			t.Fatalf("%q, want %q", ready, want)
		}
		if code, body, _, err := ask(t, nil, nil, "http://"+address.String()+"/"); err != nil || code != 200 || body != "hello" {
			t.Errorf("%d %q %v", code, body, err)
		}
		if code, _, _, err := ask(t, nil, func(r *http.Request) { r.Host = "evil.example.org" }, "http://"+address.String()+"/"); err != nil || code != 421 {
			t.Errorf("by another name: %d %v", code, err)
		}
		tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://any.example.org/", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("by the file: %d", res.StatusCode)
		}
		if code := wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("that others reach", func(t *testing.T) {
		f, _ := socket(t, "0.0.0.0:0")
		said, wait := activate(t, "", f)
		if code := wait(); code != 2 || !strings.Contains(said, "can be reached from other hosts") {
			t.Errorf("%d %q", code, said)
		}
	})
	t.Run("that others reach, with both", func(t *testing.T) {
		a := newAuthority(t)
		a.issue("server", x509.ExtKeyUsageServerAuth)
		f, address := socket(t, "0.0.0.0:0")
		ready, wait := activate(t, a.config(serverTLS+passwords(t)), f)
		_, port, _ := net.SplitHostPort(address.String())
		code, _, _, err := ask(t, &tls.Config{RootCAs: a.pool}, func(r *http.Request) { r.SetBasicAuth("ali", "open sesame") }, "https://127.0.0.1:"+port+"/")
		if err != nil || code != 200 || !strings.HasPrefix(ready, "ready https://") {
			t.Errorf("%d %v %q", code, err, ready)
		}
		if code, _, _, err := ask(t, &tls.Config{RootCAs: a.pool}, nil, "https://127.0.0.1:"+port+"/"); err != nil || code != 401 {
			t.Errorf("%d %v", code, err)
		}
		if code := wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("that is none to serve on", func(t *testing.T) {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f, err := c.(*net.UDPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		said, wait := activate(t, "", f)
		if code := wait(); code != 2 || !strings.Contains(said, "no stream socket") {
			t.Errorf("%d %q", code, said)
		}
	})
}
