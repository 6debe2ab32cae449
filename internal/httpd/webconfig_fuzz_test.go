package httpd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Whatever a web configuration holds: who is let in from elsewhere has to have TLS
// and say who they are.
func FuzzWebConfig(f *testing.F) {
	f.Add("tls_server_config: {cert_file: a, key_file: b}\nbasic_auth_users: {x: $2y$10$abcdefghijklmnopqrstuv}\n")
	f.Add("tls_server_config:\n  cert: x\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca: y\n")
	f.Add("tls_server_config: [cert_file]\nbasic_auth_users: []\n")
	f.Add("basic_auth_users: {x: y}\n")
	f.Add("http_server_config: {headers: {X-Frame-Options: deny}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "web.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if protected(path) == nil && !encrypted(path) {
			t.Fatal("protected without encryption")
		}
		if err := validate(path); err != nil && !errors.As(err, new(*RefusedError)) {
			t.Fatalf("%v", err)
		}
	})
}
