package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// selfSigned makes a certificate for this host and its key, as PEM.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// A socket that others reach, as docs/status-page.md says: refused without TLS and
// passwords, served with both, from files that only root may read.
func TestServeForOthers(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, nil)
	h.upgrade(0, "adopt", "--yes")
	h.units("observability-upgrade-serve.service", "observability-upgrade-serve.socket")
	h.file("/etc/systemd/system/observability-upgrade-serve.socket.d/others.conf", "[Socket]\nListenStream=\nListenStream=9099\n")
	h.MustRun(h.ctx, "systemctl", "daemon-reload")
	h.MustRun(h.ctx, "systemctl", "start", "observability-upgrade-serve.socket")
	if res, err := h.Run(h.ctx, "systemctl", "start", "observability-upgrade-serve.service"); err != nil || res.ExitCode == 0 {
		t.Fatalf("it serves others: %v %s", err, res)
	}
	if got := h.property("ExecMainStatus"); got != "2" {
		t.Errorf("it ended with %s", got)
	}
	if log := h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade-serve", "--no-pager"); !strings.Contains(log, "can be reached from other hosts, which takes TLS and authentication") {
		t.Errorf("it does not say why:\n%s", log)
	}

	cert, key := selfSigned(t)
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	h.check(err)
	config := "tls_server_config: {cert_file: web.crt, key_file: web.key}\nbasic_auth_users: {ops: \"" + string(hash) + "\"}\n"
	for name, data := range map[string][]byte{"web.yml": []byte(config), "web.crt": cert, "web.key": key} {
		h.check(h.WriteFile("/etc/observability/"+name, data, 0o600))
	}
	h.file("/etc/systemd/system/observability-upgrade-serve.service.d/others.conf", `[Service]
ExecStart=
ExecStart=`+program+` serve --web-config=%d/web.yml
LoadCredential=web.yml:/etc/observability/web.yml
LoadCredential=web.crt:/etc/observability/web.crt
LoadCredential=web.key:/etc/observability/web.key
`)
	h.MustRun(h.ctx, "systemctl", "daemon-reload")
	h.MustRun(h.ctx, "systemctl", "reset-failed")
	h.MustRun(h.ctx, "systemctl", "restart", "observability-upgrade-serve.socket")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	client := h.HTTP()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	ask := func(password string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(h.ctx, http.MethodGet, "https://127.0.0.1:9099/", nil)
		h.check(err)
		if password != "" {
			req.SetBasicAuth("ops", password)
		}
		res, err := client.Do(req)
		h.check(err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		h.check(err)
		if res.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("an answer of %d has no policy", res.StatusCode)
		}
		return res.StatusCode, string(body)
	}
	if code, body := ask("open sesame"); code != http.StatusOK || !strings.Contains(body, "node_exporter") {
		t.Errorf("%d\n%s\n%s", code, body, h.MustRun(h.ctx, "journalctl", "-u", "observability-upgrade-serve", "--no-pager"))
	}
	for _, wrong := range []string{"", "open barley"} {
		if code, body := ask(wrong); code != http.StatusUnauthorized || strings.Contains(body, "node_exporter") {
			t.Errorf("%q: %d\n%s", wrong, code, body)
		}
	}
	if status, body, err := h.Get(h.ctx, "http://127.0.0.1:9099/"); err == nil && (status == http.StatusOK || bytes.Contains(body, []byte("node_exporter"))) {
		t.Errorf("without TLS: %d\n%s", status, body)
	}
}
