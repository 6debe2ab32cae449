package stack

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

// Two programs that are one file by their links cannot be swapped one by one.
func TestProgramsThatAreOneFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "prometheus")
	if err := os.WriteFile(path, []byte("old"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &prepared{
		in:     &inventory.Installed{Binaries: map[string]string{"prometheus": path, "promtool": path}},
		staged: &artifact.Staged{Files: []artifact.File{{Name: "prometheus", Path: path}, {Name: "promtool", Path: path}}},
	}
	_, err := new(Stack).swaps(p, map[string]string{})
	if err == nil || !strings.Contains(err.Error(), "prometheus and promtool are links to one file, "+path) {
		t.Errorf("%v", err)
	}
	p.in.Binaries["promtool"] = filepath.Join(dir, "promtool")
	if swaps, err := new(Stack).swaps(p, map[string]string{}); err != nil || len(swaps) != 2 {
		t.Errorf("%v, %v", swaps, err)
	}
}
