package inventory

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// TestStartsPath proves that what a unit starts is told from what runs now.
func TestStartsPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, link := filepath.Join(dir, "alpha"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		status service.Status
		path   string
		want   bool
	}{
		"as it was started":   {service.Status{ExecPath: file, ExecStart: []string{file}}, file, true},
		"through a wrapper":   {service.Status{ExecPath: file, ExecStart: []string{"/usr/bin/env", "alpha"}}, file, true},
		"moved away since":    {service.Status{ExecPath: file + ".old", ExecStart: []string{file, "-x"}}, file, true},
		"and a link is named": {service.Status{ExecPath: file + ".old", ExecStart: []string{link}}, file, true},
		"another program":     {service.Status{ExecPath: "/opt/alpha", ExecStart: []string{"/opt/alpha"}}, file, false},
		"no program":          {service.Status{}, "", false},
	} {
		if got := startsPath(tt.status, tt.path); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
