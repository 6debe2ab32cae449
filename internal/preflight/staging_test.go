package preflight

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func TestStaging(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, dir string)
		status  component.CheckStatus
		words   []string
	}{
		"missing":           {func(*testing.T, string) {}, component.CheckOK, []string{"can be made"}},
		"there":             {func(t *testing.T, dir string) { must(t, os.MkdirAll(filepath.Join(dir, "prometheus"), 0o700)) }, component.CheckOK, nil},
		"a link":            {func(t *testing.T, dir string) { must(t, os.Symlink(t.TempDir(), dir)) }, component.CheckFail, []string{"is a link", "next: rm /"}},
		"a link to nothing": {func(t *testing.T, dir string) { must(t, os.Symlink("/nowhere", dir)) }, component.CheckFail, []string{"is a link", "next: rm /"}},
		"a file":            {func(t *testing.T, dir string) { must(t, os.WriteFile(dir, nil, 0o600)) }, component.CheckFail, []string{"is not a directory", "next: rm /"}},
		"belongs to another": {
			func(t *testing.T, dir string) { must(t, os.Mkdir(dir, 0o700)); give(t, dir) },
			component.CheckFail,
			[]string{"belongs to uid 65534", "next: rm -r /"},
		},
		"one inside is a link": {
			func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir, 0o700))
				must(t, os.Symlink(t.TempDir(), filepath.Join(dir, "prometheus")))
			},
			component.CheckFail,
			[]string{"observability-upgrade/prometheus: ", "is a link", "next: rm /"},
		},
		"one inside belongs to another": {
			func(t *testing.T, dir string) {
				inside := filepath.Join(dir, "prometheus")
				must(t, os.MkdirAll(inside, 0o700))
				give(t, inside)
			},
			component.CheckFail,
			[]string{"belongs to uid 65534", "observability-upgrade/prometheus"},
		},
		"one nobody uses is a link": {
			func(t *testing.T, dir string) {
				must(t, os.Mkdir(dir, 0o700))
				must(t, os.Symlink(t.TempDir(), filepath.Join(dir, "other")))
			},
			component.CheckOK, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := host(t, "prometheus")
			in.StagingDirs = []string{"prometheus"}
			must(t, os.MkdirAll(filepath.Dir(in.Staging), 0o755))
			tt.prepare(t, in.Staging)
			expect(t, Run(t.Context(), in), Staging, tt.status, tt.words...)
		})
	}
}
