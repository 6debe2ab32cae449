package balancer

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// An agent behind TLS is believed when the authority is that of balancer.ca, which
// --root relocates.
func TestConsulAuthority(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for ca, want := range map[string]string{"": "unknown authority", "/ca.pem": "has no service with the ID a", "{root}/ca.pem": "has no service with the ID a", "/none.pem": "balancer.ca"} {
		b, err := New(component.Balancer{Type: "consul", Address: s.URL, CA: ca}, "a", Options{Root: layout.Root(root)})
		if err == nil {
			_, err = b.State(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ca %q: %v, want %q", ca, err, want)
		}
	}
}
