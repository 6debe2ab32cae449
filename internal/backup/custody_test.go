package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/custody"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// point takes a backup of a binary and a directory of configuration, one file of
// which belongs to user 4711 where this test may give it away.
func takePoint(t *testing.T) *Point {
	t.Helper()
	dir := t.TempDir()
	fill(t, dir, map[string]string{"bin/x": "x 1.0.0", "etc/x.conf": "a", "etc/own.conf": "b"})
	for link, to := range map[string]string{"etc/link": "x.conf"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "etc/own.conf"), 4711, 4711); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Take(t.Context(), &hostfs.Host{}, "20260101_000000", Request{
		Dir: filepath.Join(dir, "backups"), RunID: "20260101_000000", Operation: "apply", Now: time.Now(),
		Subjects: []Subject{{Name: "x", Version: "1.0.0", Binaries: []Source{{Name: "x", Path: filepath.Join(dir, "bin/x")}}, Configs: []string{filepath.Join(dir, "etc")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(p.Path, "data"), map[string]string{"x.json": "{}", "x/samples": "1"})
	for _, path := range []string{"data", "data/x.json"} {
		if err := os.Chmod(filepath.Join(p.Path, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestCustody(t *testing.T) {
	give := func(names ...string) func(p *Point) error {
		return func(p *Point) error {
			var errs []error
			for _, n := range names {
				errs = append(errs, os.Lchown(filepath.Join(p.Path, n), 1234, 1234))
			}
			return errors.Join(errs...)
		}
	}
	replace := func(name string) func(p *Point) error {
		return func(p *Point) error {
			path := filepath.Join(p.Path, name)
			return errors.Join(os.Rename(path, path+"-elsewhere"), os.Symlink(path+"-elsewhere", path))
		}
	}
	for name, tt := range map[string]struct {
		change func(p *Point) error
		root   bool
		want   string // in the error; "" for none
	}{
		"as taken":                    {change: func(*Point) error { return nil }},
		"the data is the service's":   {change: give("data/x", "data/x/samples"), root: true},
		"all points are a user's":     {change: give(".."), root: true, want: "chown -R 0 "},
		"the point is a user's":       {change: give("."), root: true, want: "chown -R 0 "},
		"the manifest is a user's":    {change: give("manifest.json"), root: true, want: "manifest.json: expected it to belong to root, found uid 1234"},
		"the checksums are a user's":  {change: give("SHA256SUMS"), root: true, want: "found uid 1234"},
		"a binary is a user's":        {change: give("bin/x"), root: true, want: "bin/x"},
		"configuration is a user's":   {change: give("config/x/x.conf"), root: true, want: "chown 0 "},
		"one user's file, another's":  {change: give("config/x/own.conf"), root: true, want: "own.conf"},
		"a stored link is a user's":   {change: give("config/x/link"), root: true, want: "config/x/link"},
		"a directory is a user's":     {change: give("systemd"), root: true, want: "systemd"},
		"everybody writes a binary":   {change: func(p *Point) error { return os.Chmod(filepath.Join(p.Path, "bin/x"), 0o777) }, want: "chmod o-w "},
		"everybody writes the point":  {change: func(p *Point) error { return os.Chmod(p.Path, 0o777) }, want: "chmod go-w "},
		"everybody writes its list":   {change: func(p *Point) error { return os.Chmod(filepath.Join(p.Path, "SHA256SUMS"), 0o666) }, want: "chmod go-w "},
		"a directory is a link":       {change: replace("bin"), want: "found a link"},
		"the manifest is a link":      {change: replace("manifest.json"), want: "found a link"},
		"the data's directory is one": {change: replace("data"), want: "found a link"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.root && os.Geteuid() != 0 {
				t.Skip("only root gives files away")
			}
			p := takePoint(t)
			if err := tt.change(p); err != nil {
				t.Fatal(err)
			}
			err := Custody(p)
			var e *custody.Error
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &e) || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
		})
	}
}
