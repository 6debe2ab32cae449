package artifact

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

var built string // the file of bigArchive

// bigArchive is a tar.gz of about 300 MB, half of it incompressible, as
// releases of Go programs are; built once per process.
var bigArchive = sync.OnceValues(func() (path string, err error) {
	f, err := os.CreateTemp("", "artifact-bench-*.tar.gz")
	if err != nil {
		return "", err
	}
	defer f.Close()
	built = f.Name()
	z, err := kgzip.NewWriterLevel(f, kgzip.BestSpeed)
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(z)
	const size = 480 << 20
	if err := w.WriteHeader(&tar.Header{Name: "tool-1.2.0/tool", Typeflag: tar.TypeReg, Mode: 0o755, Size: size}); err != nil {
		return "", err
	}
	if _, err := io.WriteString(w, script); err != nil {
		return "", err
	}
	if _, err := io.CopyN(w, &halfRandom{src: rand.NewChaCha8([32]byte{1})}, size-int64(len(script))); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return f.Name(), z.Close()
})

// halfRandom gives random bytes and, after each 1 KiB of them, 600 of text.
type halfRandom struct{ src *rand.ChaCha8 }

// Read implements io.Reader.
func (h *halfRandom) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 1624 {
		end := min(i+1624, len(p))
		_, _ = h.src.Read(p[i:min(i+1024, end)])
		for j := i + 1024; j < end; j++ {
			p[j] = "the quick brown fox "[j%20]
		}
	}
	return len(p), nil
}

// TestMain removes the big archive, if a test had it built.
func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.Remove(built)
	}
	os.Exit(code)
}

func bigRequest(url string, size int64, digest component.Digest, staging string) Request {
	return Request{
		Component: &component.Component{Name: "tool", Asset: "tool.tar.gz", Binaries: []component.Binary{{Name: "tool", Path: "*/tool"}}},
		Release: component.Release{Version: component.MustParseVersion("1.2.0"), Assets: []component.Asset{
			{Name: "tool.tar.gz", URL: url, Size: size, Digest: digest},
		}},
		OS: "linux", Arch: "amd64", Staging: staging, ChecksumRequired: true,
	}
}

func serveBig(t testing.TB) (url string, size int64, digest component.Digest) {
	t.Helper()
	path, err := bigArchive()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	t.Cleanup(ts.Close)
	return ts.URL + "/tool.tar.gz", size, component.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil)))
}

const childURL = "ARTIFACT_TEST_URL"

// TestMemoryIsBounded stages 300 MB in a process of its own, whose peak of
// resident memory (VmHWM, proc(5)) must stay below 64 MiB.
func TestMemoryIsBounded(t *testing.T) {
	if url := os.Getenv(childURL); url != "" {
		stageAsChild(t, url)
		return
	}
	if testing.Short() {
		t.Skip("builds and stages 300 MB; not with -short")
	}
	if raceEnabled {
		t.Skip("the race detector multiplies memory")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &fs); err == nil && fs.Bavail*uint64(fs.Bsize) < 2<<30 {
		t.Skip("less than 2 GiB free in " + os.TempDir())
	}
	url, size, digest := serveBig(t)
	if size < 290<<20 {
		t.Fatalf("the archive has %d bytes", size)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemoryIsBounded$", "-test.v")
	cmd.Env = append(os.Environ(), childURL+"="+url, "ARTIFACT_TEST_SIZE="+strconv.FormatInt(size, 10), "ARTIFACT_TEST_DIGEST="+string(digest))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, after, ok := strings.Cut(string(out), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(after + " -")[0])
	if !ok || err != nil {
		t.Fatalf("no peak in\n%s", out)
	}
	t.Logf("archive of %d MiB: peak of resident memory %d KiB", size>>20, kib)
	if kib > 64<<10 {
		t.Fatalf("peak of %d KiB, want at most 64 MiB", kib)
	}
}

func stageAsChild(t *testing.T, url string) {
	size, err := strconv.ParseInt(os.Getenv("ARTIFACT_TEST_SIZE"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := New(Options{CacheDir: filepath.Join(dir, "cache")})
	if _, err := s.Stage(t.Context(), bigRequest(url, size, component.Digest(os.Getenv("ARTIFACT_TEST_DIGEST")), filepath.Join(dir, "staging"))); err != nil {
		t.Fatal(err)
	}
	printPeak(t)
}

// printPeak prints the peak of this process's resident memory (proc(5)).
func printPeak(t *testing.T) {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "VmHWM:") {
			fmt.Println(lines.Text())
		}
	}
}
