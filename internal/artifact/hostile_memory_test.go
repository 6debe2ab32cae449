package artifact

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

const childBombs = "ARTIFACT_TEST_BOMBS"

// TestBombsCostNoMemory stages what is made to need memory in a process of its
// own each, and looks at its peak.
func TestBombsCostNoMemory(t *testing.T) {
	if dir := os.Getenv(childBombs); dir != "" {
		stageBomb(t, dir)
		return
	}
	if testing.Short() {
		t.Skip("builds and stages big archives; not with -short")
	}
	if raceEnabled {
		t.Skip("the race detector multiplies memory")
	}
	zeros := entry{name: "zeros", body: string(make([]byte, 96<<20))}
	noise := entry{name: "noise", body: strings.Repeat(string(random(1<<20)), 96)} // nothing repeats within 1 MiB
	windowed := func(size int, entries ...entry) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(size), zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err == nil {
			_, err = w.Write(rawTar(entries...))
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	many := make([]zipPart, 300_000)
	for i := range many {
		many[i].name = itoa(i)
	}
	long := make([]zipPart, 800)
	for i := range long {
		long[i].name = itoa(i) + strings.Repeat("x", 65_000)
	}
	for name, tc := range map[string]struct {
		asset string
		body  []byte
		want  string
		most  int // MiB
	}{
		"zeros, gzip":               {"t.tar.gz", pack(t, "tar.gz", rawTar(zeros)), "times its size", 40},
		"zeros, zstd":               {"t.tar.zst", pack(t, "tar.zst", rawTar(zeros)), "times its size", 56},
		"a window of 64 MiB":        {"t.tar.zst", windowed(64<<20, noise), "holds no", 192},
		"a window of 128 MiB":       {"t.tar.zst", windowed(128<<20, noise), "window size exceeded", 40},
		"4 GiB of dictionary":       {"t.tar.xz", join(xzBlock(0, strings.Repeat("\x00", 512)), xzBlock(40, "x")), "dictionary of", 40},
		"200,000 entries":           {"t.tar.gz", pack(t, "tar.gz", rawTar(numbered(200_001, itoa)...)), "one too many", 96},
		"names of 32 MiB":           {"t.tar.gz", pack(t, "tar.gz", rawTar(numbered(20_000, deep)...)), "all names", 192},
		"300,000 entries, zip":      {"t.zip", rawZip(0, many...), "more than 200000", 192},
		"50 MiB of names, zip":      {"t.zip", rawZip(0, long...), "is longer than", 192},
		"a PAX header of a MiB":     {"t.tar", rawTar(entry{name: "x", pax: []string{"comment=" + strings.Repeat("x", 1<<20-100)}}), "holds no", 40},
		"a sparse map of a million": {"t.tar", rawTar(sparse("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=10", "GNU.sparse.numblocks=1000000", "GNU.sparse.map="+strings.Repeat("0,0,", 200_000)+"0,0")), "t.tar", 48},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tc.asset), tc.body, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBombsCostNoMemory$", "-test.v")
			cmd.Env = append(os.Environ(), childBombs+"="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tc.want) {
				t.Fatalf("%v, want %q in\n%s", err, tc.want, out)
			}
			_, after, ok := strings.Cut(string(out), "VmHWM:")
			kib, err := strconv.Atoi(strings.Fields(after + " -")[0])
			if !ok || err != nil {
				t.Fatalf("no peak in\n%s", out)
			}
			t.Logf("archive of %d KiB: peak of resident memory %d MiB", len(tc.body)>>10, kib>>10)
			if kib > tc.most<<10 {
				t.Errorf("peak of %d KiB, want at most %d MiB", kib, tc.most)
			}
		})
	}
}

// stageBomb stages the one archive of a directory, which must be refused, and
// prints the error and the peak.
func stageBomb(t *testing.T, dir string) {
	found, err := filepath.Glob(filepath.Join(dir, "t*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	sum := sha256.New()
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.WriteTo(sum)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	req := bigRequest("file://"+found[0], size, component.Digest(fmt.Sprintf("sha256:%x", sum.Sum(nil))), filepath.Join(dir, "staging"))
	req.Component.Asset, req.Release.Assets[0].Name = filepath.Base(found[0]), filepath.Base(found[0])
	_, err = New(Options{CacheDir: filepath.Join(dir, "cache")}).Stage(t.Context(), req)
	if err == nil {
		t.Fatal("it was taken")
	}
	fmt.Printf("error: %.300s\n", err)
	printPeak(t)
}
