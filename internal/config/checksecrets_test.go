package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// TestCheckSecrets proves that secrets of a definition which cannot be read are
// found before they are needed.
func TestCheckSecrets(t *testing.T) {
	root := layout.Root(t.TempDir())
	if err := os.MkdirAll(root.SecretsDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"good": 0o600, "open": 0o644} {
		if err := os.WriteFile(filepath.Join(root.SecretsDir(), name), []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	n, err := yamlfile.Parse("a.yaml", []byte("client:\n  username: ${SOME_USER}\n  password: ${SECRET:good}\n"+
		"  bearer: ${SECRET:open}\nfunctional:\n  - {name: x, http: {headers: {A: \"b ${SECRET:gone}\", C: \"$${SECRET:gone}\"}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	errs := CheckSecrets(root, func(string) string { return "" }, n)
	got := strings.ReplaceAll(errs.Error(), root.SecretsDir(), "DIR")
	const want = "a.yaml:4:11: client.bearer: secret open has mode 0644, want 0600 or 0400; type: chmod 0600 DIR/open\n" +
		"a.yaml:6:35: functional[0].http.headers.A: secret gone does not exist: write it to DIR/gone, mode 0600"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
