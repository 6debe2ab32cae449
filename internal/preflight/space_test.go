package preflight

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// volumes plays file systems: the longest path below which a directory lies
// tells which; relative to the root.
type volumes struct {
	root string
	at   map[string]FS
}

func (v volumes) Stat(dir string) (FS, error) {
	best, out := -1, FS{}
	for p, fs := range v.at {
		full := filepath.Join(v.root, p)
		if (dir == full || strings.HasPrefix(dir, full+"/") || p == "") && len(p) > best {
			best, out = len(p), fs
		}
	}
	if best < 0 || out.Device == 0 {
		return FS{}, errors.New("transport endpoint is not connected")
	}
	return out, nil
}

func TestSpace(t *testing.T) {
	const much = 1 << 40
	plenty := FS{Device: 1, Bytes: much, Files: much, CountsFiles: true}
	with := func(change func(*FS)) FS {
		fs := plenty
		change(&fs)
		return fs
	}
	for name, tt := range map[string]struct {
		at     map[string]FS
		change func(*Input)
		check  string
		status component.CheckStatus
		words  []string
	}{
		"plenty": {at: map[string]FS{"": plenty}, check: DiskSpace, status: component.CheckOK},
		// Per component: 1 kB of archive, 3 kB in staging, 3 kB beside, and its
		// 1 kB and configuration in the backup; 4 MB of records; a fifth more.
		"everything on one":      {at: map[string]FS{"": with(func(fs *FS) { fs.Bytes = 4_800_000 + 19_000 })}, check: DiskSpace, status: component.CheckFail, words: []string{"5 MB", "df -h "}},
		"just enough":            {at: map[string]FS{"": with(func(fs *FS) { fs.Bytes = 4_800_000 + 20_000 })}, check: DiskSpace, status: component.CheckOK},
		"inodes":                 {at: map[string]FS{"": with(func(fs *FS) { fs.Files = 90 })}, check: Inodes, status: component.CheckFail, words: []string{"found 90", "df -i "}},
		"btrfs":                  {at: map[string]FS{"": with(func(fs *FS) { fs.Files, fs.CountsFiles = 0, false })}, check: Inodes, status: component.CheckOK},
		"read-only":              {at: map[string]FS{"": with(func(fs *FS) { fs.ReadOnly = true })}, check: FileSystem, status: component.CheckFail, words: []string{"read-only", "remount,rw"}},
		"staging noexec":         {at: map[string]FS{"": with(func(fs *FS) { fs.NoExec = true })}, check: FileSystem, status: component.CheckFail, words: []string{"noexec", "paths.staging"}},
		"a size nobody states":   {at: map[string]FS{"": with(func(fs *FS) { fs.Bytes = 1_600_000_000 })}, change: unstated, check: DiskSpace, status: component.CheckFail, words: []string{"1.7 GB"}},
		"data is backed up":      {at: map[string]FS{"": with(func(fs *FS) { fs.Bytes = 6_000_000 })}, change: withData, check: DiskSpace, status: component.CheckFail},
		"data is not backed up":  {at: map[string]FS{"": with(func(fs *FS) { fs.Bytes = 6_000_000 })}, change: func(in *Input) { withData(in); in.Data = nil }, check: DiskSpace, status: component.CheckOK},
		"what is cached is free": {at: map[string]FS{"": with(func(fs *FS) { fs.Bytes = 4_800_000 + 17_700 })}, change: cached, check: DiskSpace, status: component.CheckOK},
	} {
		t.Run(name, func(t *testing.T) {
			in := host(t, "loki", "prometheus")
			in.FileSystems = volumes{string(in.Root), tt.at}
			if tt.change != nil {
				tt.change(&in)
			}
			checks := of(Run(t.Context(), in), tt.check)
			if len(checks) == 0 {
				t.Fatal("no result")
			}
			expectCheck(t, checks[0], tt.status, tt.words...)
		})
	}
}

func unstated(in *Input) {
	for i := range in.Plan.Phases[0].Steps {
		in.Plan.Phases[0].Steps[i].DownloadBytes = 0
	}
}

func withData(in *Input) {
	in.Data = []DataCopy{{Dir: in.Root.Path("var/lib/prometheus"), Bytes: 1_000_000}}
}

func cached(in *Input) {
	in.Downloads = []Download{{Component: "loki", Cached: true}, {Component: "prometheus", Cached: true}}
}

// Each file system counts for itself, and one that cannot be asked is named.
func TestSpacePerFileSystem(t *testing.T) {
	in := host(t, "prometheus")
	for _, dir := range []string{in.Root.Backups(), in.Root.Cache(), in.Staging, in.Root.Lib()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	in.FileSystems = volumes{string(in.Root), map[string]FS{
		"": {Device: 1, Bytes: 1 << 40}, "var/backups": {Device: 2, Bytes: 100}, "var/cache": {Device: 3, Bytes: 1 << 40}, "tmp": {},
	}}
	r := Run(t.Context(), in)
	checks := of(r, DiskSpace)
	if len(checks) != 3 {
		t.Fatalf("%+v", checks)
	}
	for _, c := range checks {
		if bad := strings.Contains(c.Detail, "backups"); bad != (c.Status == component.CheckFail) {
			t.Errorf("%+v", c)
		}
	}
	expect(t, r, FileSystem, component.CheckFail, "not connected", "findmnt -T "+in.Staging)
}

// The kernel's own answers, on a small file system.
func TestSpaceOnTmpfs(t *testing.T) {
	in := host(t, "prometheus")
	dir := in.Root.Path("var/backups")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func(flags uintptr, options string) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
			t.Skipf("a tmpfs cannot be mounted here: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	mount(0, "size=4k,nr_inodes=50")
	write(t, filepath.Join(dir, "full"), strings.Repeat("x", 4096), 0o644)
	r := Run(t.Context(), in)
	if failed := Failed(of(r, DiskSpace)); len(failed) != 1 || failed[0].Next != "df -h "+dir {
		t.Errorf("%+v", of(r, DiskSpace))
	}
	if failed := Failed(of(r, Inodes)); len(failed) != 1 || failed[0].Next != "df -i "+dir {
		t.Errorf("%+v", of(r, Inodes))
	}
	expect(t, r, BackupReadiness, component.CheckFail, "no space left", "df -h "+dir)
	mount(unix.MS_RDONLY, "size=1m")
	r = Run(t.Context(), in)
	expect(t, r, FileSystem, component.CheckFail, "read-only", dir)
	expect(t, r, BackupReadiness, component.CheckFail, "read-only")
}

// A walk over a large data directory ends with its context.
func TestMeasureEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a/b"), "12345", 0o644)
	if u := measure(t.Context(), dir); u.bytes != 5 || u.files != 3 {
		t.Errorf("%+v", u)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if u := measure(ctx, dir); u.files != 0 {
		t.Errorf("%+v", u)
	}
}
