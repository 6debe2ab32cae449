package artifact

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

const script = "#!/bin/sh\necho 'tool, version 1.2.0 (branch: HEAD)' >&2\n"

// fixture is a release of one component on a release server.
type fixture struct {
	t       *testing.T
	server  *releaseserver.Server
	url     string
	store   *Store
	comp    *component.Component
	release component.Release
	staging string
	cache   string
}

func newFixture(t *testing.T, asset string, body []byte) *fixture {
	t.Helper()
	srv := releaseserver.New(releaseserver.Options{})
	ts := httptest.NewServer(srv)
	t.Cleanup(ts.Close)
	sum := sha256.Sum256(body)
	sums := fmt.Appendf(nil, "%s  other-file.tar.gz\n%x  %s\n", strings.Repeat("0", 64), sum, asset)
	srv.AddRelease(releaseserver.GitHub, "o/tool", releaseserver.Release{
		Tag: "v1.2.0", Assets: []releaseserver.Asset{releaseserver.Bytes(asset, body), releaseserver.Bytes("sha256sums.txt", sums)},
	})
	f := &fixture{t: t, server: srv, url: ts.URL, staging: filepath.Join(t.TempDir(), "staging"), cache: t.TempDir()}
	f.store = New(Options{CacheDir: f.cache, RetryBase: time.Millisecond, MaxUnpacked: 64 << 20})
	f.comp = &component.Component{
		Name: "tool", Asset: asset, Checksums: "sha256sums.txt",
		Binaries: []component.Binary{{Name: "tool", Path: "tool-1.2.0/tool", Install: "/usr/local/bin/tool"}},
	}
	f.release = component.Release{Version: component.MustParseVersion("1.2.0"), Tag: "v1.2.0", Assets: []component.Asset{
		{Name: asset, URL: f.asset(asset), Size: int64(len(body)), Digest: component.Digest("sha256:" + hex.EncodeToString(sum[:]))},
		{Name: "sha256sums.txt", URL: f.asset("sha256sums.txt")},
	}}
	return f
}

func (f *fixture) asset(name string) string {
	return f.url + "/o/tool/releases/download/v1.2.0/" + name
}

func (f *fixture) stage() (*Staged, error) {
	return f.store.Stage(f.t.Context(), Request{
		Component: f.comp, Release: f.release, OS: "linux", Arch: "amd64", Staging: f.staging, ChecksumRequired: true,
	})
}

// nothingStaged asserts that a refusal left no file outside the cache.
func (f *fixture) nothingStaged() {
	f.t.Helper()
	left, err := filepath.Glob(filepath.Join(f.staging, "*", "*"))
	if err != nil || len(left) > 0 {
		f.t.Fatalf("left in staging: %v %v", left, err)
	}
}

func archive(t *testing.T, kind string, files map[string]releaseserver.File) []byte {
	t.Helper()
	data, err := releaseserver.Archive(kind, "tool-1.2.0", files)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var good = map[string]releaseserver.File{
	"tool": {Body: []byte(script), Mode: 0o755}, "README": {Body: bytes.Repeat([]byte("text "), 100000), Mode: 0o644},
}

func TestStageEveryKind(t *testing.T) {
	for _, kind := range []string{"tar", "tar.gz", "tar.xz", "tar.zst", "zip"} {
		t.Run(kind, func(t *testing.T) {
			f := newFixture(t, "tool-1.2.0.linux-amd64."+kind, archive(t, kind, good))
			st, err := f.stage()
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(st.Files[0].Path)
			if err != nil || string(got) != script {
				t.Fatalf("staged %q, %v", got, err)
			}
			if st.ChecksumSource != "sha256sums.txt" || st.FromCache {
				t.Fatalf("%+v", st)
			}
			v, out, err := Probe(t.Context(), ProbeSpec{Path: st.Files[0].Path})
			if err != nil || v.String() != "1.2.0" {
				t.Fatalf("probe: %s %q %v", v, out, err)
			}
			f.server.ResetRequests()
			st, err = f.stage()
			if err != nil || !st.FromCache {
				t.Fatalf("second time: %+v %v", st, err)
			}
			for _, r := range f.server.Requests() {
				if strings.Contains(r.Path, kind) {
					t.Fatalf("the archive was fetched again: %+v", r)
				}
			}
		})
	}
}

func TestStageBare(t *testing.T) {
	f := newFixture(t, "tool-linux-amd64", []byte(script))
	st, err := f.stage()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(st.Files[0].Path); err != nil || info.Mode().Perm() != 0o755 {
		t.Fatalf("%v %v", info, err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(script))
	_ = z.Close()
	f = newFixture(t, "tool-linux-amd64.gz", b.Bytes())
	if _, err := f.stage(); err != nil {
		t.Fatal(err)
	}
}

func TestTamperedBytesAreRefused(t *testing.T) {
	f := newFixture(t, "tool.tar.gz", archive(t, "tar.gz", good))
	f.server.Fault("tool.tar.gz", releaseserver.Fault{Kind: releaseserver.WrongSum})
	_, err := f.stage()
	var sum *ChecksumError
	if !errors.As(err, &sum) || sum.Expected == sum.Got {
		t.Fatalf("err = %v", err)
	}
	f.nothingStaged()
	f.server.ClearFaults()
	if _, err := f.stage(); err != nil {
		t.Fatalf("after the fault is gone: %v", err)
	}
}

func TestBrokenConnectionIsResumed(t *testing.T) {
	body := archive(t, "tar.gz", map[string]releaseserver.File{"tool": {Body: append([]byte(script), random(3<<20)...), Mode: 0o755}})
	f := newFixture(t, "tool.tar.gz", body)
	f.server.Fault("tool.tar.gz", releaseserver.Fault{Kind: releaseserver.Truncate, N: 1 << 20, Times: 1})
	if _, err := f.stage(); err != nil {
		t.Fatal(err)
	}
	ranges := 0
	for _, r := range f.server.Requests() {
		if r.Range != "" {
			ranges++
		}
	}
	if ranges == 0 {
		t.Fatal("the download began anew instead of going on")
	}
}

// A partial file of an earlier process is gone on from; a wrong one costs one
// more download and is never used.
func TestPartialFile(t *testing.T) {
	body := archive(t, "tar.gz", map[string]releaseserver.File{"tool": {Body: append([]byte(script), random(1<<20)...), Mode: 0o755}})
	for name, part := range map[string][]byte{"right": body[:len(body)/2], "wrong": random(len(body) / 2)} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "tool.tar.gz", body)
			sum := sha256.Sum256(body)
			dir := filepath.Join(f.cache, "partial")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:])), part, 0o600); err != nil {
				t.Fatal(err)
			}
			st, err := f.stage()
			if err != nil {
				t.Fatal(err)
			}
			if st.Archive.Hex() != hex.EncodeToString(sum[:]) {
				t.Fatalf("digest %s", st.Archive)
			}
		})
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

func TestRefusals(t *testing.T) {
	data := archive(t, "tar.gz", good)
	for name, c := range map[string]struct {
		change func(f *fixture)
		want   string
	}{
		"no checksum at all": {func(f *fixture) { f.release.Assets = f.release.Assets[:1]; f.release.Assets[0].Digest = "" }, "no checksum of tool.tar.gz: the release has no sha256sums.txt"},
		"no line for it": {func(f *fixture) {
			f.release.Assets[0].Digest = ""
			f.server.AddRelease(releaseserver.GitHub, "o/tool", releaseserver.Release{Tag: "v1.2.0", Assets: []releaseserver.Asset{
				releaseserver.Bytes("tool.tar.gz", data), releaseserver.Bytes("sha256sums.txt", []byte(strings.Repeat("a", 64)+"  windows.zip\n")),
			}})
		}, "has no line for it"},
		"API and file disagree": {func(f *fixture) { f.release.Assets[0].Digest = component.Digest("sha256:" + strings.Repeat("1", 64)) }, "one of them was tampered with"},
		"asset missing":         {func(f *fixture) { f.release.Assets[0].Name = "tool-web-ui.tar.gz" }, "has no asset tool.tar.gz"},
		"404":                   {func(f *fixture) { f.server.Fault("tool.tar.gz", releaseserver.Fault{Kind: releaseserver.Missing}) }, "answered 404"},
		"HTML page":             {func(f *fixture) { f.server.Fault("tool.tar.gz", releaseserver.Fault{Kind: releaseserver.HTML}) }, "HTML page"},
		"truncated for ever": {func(f *fixture) {
			f.server.Fault("tool.tar.gz", releaseserver.Fault{Kind: releaseserver.Truncate, N: 0})
		}, "tried 4 times"},
		"endless":            {func(f *fixture) { f.server.Fault("tool.tar.gz", releaseserver.Fault{Kind: releaseserver.EndlessBody}) }, ""},
		"wrong architecture": {func(f *fixture) { f.comp.Arches = map[string]string{"arm64": "arm64"} }, "does not publish it for this architecture"},
		"binary not inside":  {func(f *fixture) { f.comp.Binaries[0].Path = "elsewhere/tool" }, "holds no elsewhere/tool"},
		"signature wanted":   {func(f *fixture) { f.comp.Signature = &component.Signature{Type: "cosign", Asset: "x.sig"} }, "names neither a key nor an identity"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "tool.tar.gz", data)
			c.change(f)
			_, err := f.stage()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("err = %v, want %q in it", err, c.want)
			}
			f.nothingStaged()
		})
	}
}

func TestTree(t *testing.T) {
	f := newFixture(t, "tool.tar.gz", archive(t, "tar.gz", map[string]releaseserver.File{
		"bin/tool": {Body: []byte(script), Mode: 0o755}, "conf/defaults.ini": {Body: []byte("x"), Mode: 0o644}, "bin/alias": {Link: "tool"},
	}))
	f.comp.Binaries = []component.Binary{{Name: "home", Path: "*", Install: "/usr/share/tool", Tree: true}}
	st, err := f.stage()
	if err != nil {
		t.Fatal(err)
	}
	if !st.Files[0].Tree {
		t.Fatal("not a tree")
	}
	for _, p := range []string{"bin/tool", "conf/defaults.ini", "bin/alias"} {
		if _, err := os.Lstat(filepath.Join(st.Files[0].Path, p)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStagingMustBeOurs(t *testing.T) {
	f := newFixture(t, "tool.tar.gz", archive(t, "tar.gz", good))
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, f.staging); err != nil {
		t.Fatal(err)
	}
	_, err := f.stage()
	var insecure *InsecureDirError
	if !errors.As(err, &insecure) || !strings.HasPrefix(insecure.Fix, "rm ") {
		t.Fatalf("err = %v", err)
	}
	if left, _ := os.ReadDir(elsewhere); len(left) > 0 {
		t.Fatal("something was written through the link")
	}
}
