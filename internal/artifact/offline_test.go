package artifact

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func TestOffline(t *testing.T) {
	digest := digestOf([]byte("archive"))
	for name, tt := range map[string]struct {
		change func(*Request)
		want   bool
	}{
		"the API's digest is enough": {func(*Request) {}, true},
		"other bytes":                {func(r *Request) { r.Release.Assets[0].Digest = digestOf([]byte("other")) }, false},
		"no digest":                  {func(r *Request) { r.Release.Assets[0].Digest = "" }, false},
		"an earlier run's digest":    {func(r *Request) { r.Release.Assets[0].Digest, r.KnownDigest = "", digest }, true},
		"a checksum file to ask for": {func(r *Request) { r.Component.Checksums = "sha256sums.txt" }, false},
		"a signature to ask for":     {func(r *Request) { r.Component.Signature = &component.Signature{Type: "gpg"} }, false},
		"no such asset":              {func(r *Request) { r.Component.Asset = "another" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{CacheDir: t.TempDir()})
			path := s.blob(digest)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("archive"), 0o600); err != nil {
				t.Fatal(err)
			}
			req := Request{
				Component: &component.Component{Name: "tool", Asset: "tool.tar.gz"}, OS: "linux", Arch: "amd64",
				Release: component.Release{Version: component.MustParseVersion("1.0.0"), Assets: []component.Asset{{Name: "tool.tar.gz", Digest: digest}}},
			}
			tt.change(&req)
			if got := s.Offline(req); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
