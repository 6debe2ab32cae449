package e2e

import (
	"context"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// Tests of packages that need what `make unit` does not have as it runs in CI:
// systemd as the first process, or a user who is not root.
var inContainer = []struct{ pkg, user, group, run string }{
	{"internal/service/systemd", "root", "root", "."},
	{"internal/history", "nobody", "nogroup", "^TestReadWithoutRights$"},
	{"internal/lock", "nobody", "nogroup", "^TestWithoutRights$"},
	{"internal/preflight", "nobody", "nogroup", "^(TestUnwritableDirectory|TestBackupDir)$/^(cannot be written to)?$"},
	{"internal/runlog", "nobody", "nogroup", "^TestShowWithoutRights$"},
	{"internal/state", "nobody", "nogroup", "^TestForbiddenIsNotCorrupt$"},
}

func TestPackagesInContainer(t *testing.T) {
	t.Parallel()
	kit, _ := shared(t)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	dir := t.TempDir()
	build := []string{"test", "-c", "-o", dir}
	for _, e := range inContainer {
		build = append(build, "../../"+e.pkg)
	}
	cmd := exec.CommandContext(ctx, "go", build...)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, e := range inContainer {
		t.Run(e.pkg, func(t *testing.T) {
			t.Parallel() // each in a container of its own: some disturb systemd
			h := kit.Start(ctx, t, rig.Options{})
			name := path.Base(e.pkg) + ".test"
			if err := h.CopyIn(filepath.Join(dir, name), "/usr/local/lib/"+name, 0o755); err != nil {
				t.Fatal(err)
			}
			// Not by systemd-run, which does not outlast a systemd that executes itself anew.
			res, err := h.Run(ctx, "env", "-C", "/", "setpriv", "--reuid="+e.user, "--regid="+e.group, "--clear-groups", "/usr/local/lib/"+name, "-test.v", "-test.run="+e.run)
			if err != nil {
				t.Fatal(err)
			}
			if res.ExitCode != 0 || !regexp.MustCompile(`(?m)^--- PASS: `).MatchString(res.Stdout) {
				t.Errorf("%v", res)
			}
			for line := range strings.Lines(res.Stdout) {
				if strings.Contains(line, "--- SKIP") {
					t.Errorf("skipped: %s", strings.TrimSpace(line))
				}
			}
		})
	}
}
