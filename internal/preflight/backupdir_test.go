package preflight

import (
	"os"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func TestBackupDir(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, dir string)
		status  component.CheckStatus
		words   []string
	}{
		"missing":              {func(*testing.T, string) {}, component.CheckOK, []string{"can be made"}},
		"there":                {func(t *testing.T, dir string) { must(t, os.MkdirAll(dir, 0o700)) }, component.CheckOK, nil},
		"a link":               {func(t *testing.T, dir string) { must(t, os.Symlink(t.TempDir(), dir)) }, component.CheckFail, []string{"found a link", "rm "}},
		"a file":               {func(t *testing.T, dir string) { must(t, os.WriteFile(dir, nil, 0o600)) }, component.CheckFail, []string{"found a file", "rm "}},
		"others can write":     {func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o700)); must(t, os.Chmod(dir, 0o777)) }, component.CheckFail, []string{"mode 0777", "chmod go-w"}},
		"belongs to another":   {func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o700)); give(t, dir) }, component.CheckFail, []string{"uid 65534", "chown -R 0 "}},
		"cannot be written to": {func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o500)); plainUser(t) }, component.CheckFail, []string{"permission denied", "ls -ld"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := host(t, "prometheus")
			dir := in.Root.Backups()
			must(t, os.MkdirAll(in.Root.Path("var/backups"), 0o755))
			tt.prepare(t, dir)
			expect(t, Run(t.Context(), in), BackupReadiness, tt.status, tt.words...)
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func give(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	must(t, os.Chown(path, 65534, 65534))
}

func plainUser(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("root can write everywhere")
	}
}
