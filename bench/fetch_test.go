package bench

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// What a process that a benchmark starts of this one is told.
const (
	childRole = "BENCH_ROLE" // stage, hash or unpack
	childFrom = "BENCH_FROM" // stage: an address; otherwise a file
	childInto = "BENCH_INTO" // a directory
	childSize = "BENCH_SIZE"
	childSum  = "BENCH_SUM"
	childPeak = "BENCH_PEAK" // the file that gets the peak of its memory
)

// child does one thing in a process of its own, whose time and memory are measured.
func child(role string) int {
	from, into, sum := os.Getenv(childFrom), os.Getenv(childInto), os.Getenv(childSum)
	err := error(nil)
	switch role {
	case "stage":
		err = stage(from, into, sum)
	case "hash":
		err = hashAlone(from, sum)
	case "unpack":
		err = unpackAlone(from, into)
	default:
		err = fmt.Errorf("no such role: %q", role)
	}
	if err == nil {
		err = tellPeak(os.Getenv(childPeak))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// stage is what the program does with a release before it touches anything.
func stage(url, dir, sum string) error {
	size, err := strconv.ParseInt(os.Getenv(childSize), 10, 64)
	if err != nil {
		return err
	}
	_, err = artifact.New(artifact.Options{CacheDir: filepath.Join(dir, "cache")}).Stage(context.Background(), artifact.Request{
		Component: &component.Component{Name: "tool", Asset: "tool.tar.gz", Binaries: []component.Binary{{Name: "tool", Path: "*/tool"}}},
		Release: component.Release{Version: component.MustParseVersion("1.2.0"), Assets: []component.Asset{
			{Name: "tool.tar.gz", URL: url, Size: size, Digest: component.Digest("sha256:" + sum)},
		}},
		OS: "linux", Arch: "amd64", Staging: filepath.Join(dir, "staging"), ChecksumRequired: true,
	})
	return err
}

func hashAlone(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, f, make([]byte, 1<<20)); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("sum %s, want %s", got, want)
	}
	return nil
}

func unpackAlone(path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return err
	}
	in := tar.NewReader(z)
	if _, err := in.Next(); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(dir, "tool"))
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, in, make([]byte, 1<<20)); err != nil {
		return err
	}
	return out.Sync()
}

// tellPeak writes the most resident memory that this process had (VmHWM, proc(5)).
func tellPeak(path string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, after, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		return errors.New("no VmHWM in /proc/self/status")
	}
	return os.WriteFile(path, []byte(strings.Fields(after)[0]), 0o600)
}

// archive makes a tar.gz of about size bytes whose content is 8 parts noise and 5
// parts text, which packs as programs do, and returns its digest.
func archive(b *testing.B, path string, size int64) string {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		b.Fatal(err)
	}
	w := tar.NewWriter(z)
	long := size * 13 / 8
	if err := w.WriteHeader(&tar.Header{Name: "tool-1.2.0/tool", Typeflag: tar.TypeReg, Mode: 0o755, Size: long}); err != nil {
		b.Fatal(err)
	}
	const head = "#!/bin/sh\necho version 1.2.0\nexit 0\n"
	if _, err := io.WriteString(w, head); err != nil {
		b.Fatal(err)
	}
	if _, err := io.CopyN(w, &halfNoise{rand.NewChaCha8([32]byte{1})}, long-int64(len(head))); err != nil {
		b.Fatal(err)
	}
	for _, c := range []interface{ Close() error }{w, z} {
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

type halfNoise struct{ noise *rand.ChaCha8 }

// Read implements io.Reader.
func (h *halfNoise) Read(p []byte) (int, error) {
	for i := 0; i < len(p); i += 1664 {
		end := min(i+1664, len(p))
		_, _ = h.noise.Read(p[i:min(i+1024, end)])
		for j := i + 1024; j < end; j++ {
			p[j] = "the quick brown fox "[j%20]
		}
	}
	return len(p), nil
}

// BenchmarkFetch is download, verification and unpacking of an archive from a
// server on this machine, in turns with what people do today, and against the
// limit: the slower of hashing and of unpacking the archive, alone, by the same
// code. All sync what they made to disk.
func BenchmarkFetch(b *testing.B) {
	for _, c := range []struct {
		name string
		size int64
		rows int
	}{{"100MB", 100e6, 5}, {"1GB", 1e9, 3}} {
		b.Run(c.name, func(b *testing.B) { fetch(b, c.size, c.rows) })
	}
}

// route is one way from an address to unpacked files.
type route struct {
	name string
	role string   // of a process of ours, or
	cmd  []string // a program; $URL, $SUM and $OUT stand for what they say
	rows samples
}

func fetch(b *testing.B, size int64, rows int) {
	dir := b.TempDir()
	file := filepath.Join(dir, "tool.tar.gz")
	sum := archive(b, file, size)
	st, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }))
	b.Cleanup(ts.Close)
	url := ts.URL + "/tool.tar.gz"
	routes := []*route{
		{name: "ours", role: "stage"},
		{name: "hash", role: "hash"},
		{name: "unpack", role: "unpack"},
		{name: "curl-sha256sum-tar", cmd: []string{"sh", "-ec", `cd "$OUT"; curl -sfo a.tar.gz "$URL"; echo "$SUM  a.tar.gz" | sha256sum -c --quiet; mkdir out; tar xzf a.tar.gz -C out; sync -f out`}},
	}
	if tool(b, "eget") {
		routes = append(routes, &route{name: "eget", cmd: []string{"sh", "-ec", `cd "$OUT"; eget --quiet --file=tool --verify-sha256="$SUM" "$URL"; sync -f .`}})
	}
	if tool(b, "ansible-playbook") {
		put(b, filepath.Join(dir, "play.yml"), `- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.get_url: {url: "{{ lookup('env', 'URL') }}", dest: "{{ lookup('env', 'OUT') }}/a.tar.gz", checksum: "sha256:{{ lookup('env', 'SUM') }}"}
    - ansible.builtin.unarchive: {src: "{{ lookup('env', 'OUT') }}/a.tar.gz", dest: "{{ lookup('env', 'OUT') }}", remote_src: true}
`, 0o644)
		routes = append(routes, &route{name: "ansible", cmd: []string{"sh", "-ec", `ansible-playbook -i localhost, -c local "$PLAY"; sync -f "$OUT"`}})
	}
	for b.Loop() {
		for range rows {
			for _, r := range routes {
				out := b.TempDir()
				r.rows = append(r.rows, r.run(b, file, url, sum, st.Size(), out, filepath.Join(dir, "play.yml")))
				if err := os.RemoveAll(out); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	limit := routes[1]
	if routes[2].rows.time() > limit.rows.time() {
		limit = routes[2]
	}
	for _, r := range routes {
		b.ReportMetric(r.rows.time().Seconds()*1000, r.name+"-ms")
		b.ReportMetric(mib(r.rows.peak()), r.name+"-MiB")
	}
	b.ReportMetric(ratio(routes[0].rows, limit.rows), "ours/slower-of-hash-and-unpack")
	for _, r := range routes[3:] {
		b.ReportMetric(ratio(routes[0].rows, r.rows), "ours/"+r.name)
	}
}

func (r *route) run(b *testing.B, file, url, sum string, size int64, out, play string) cost {
	b.Helper()
	if r.role == "" {
		return timed(b, []string{"URL=" + url, "SUM=" + sum, "OUT=" + out, "PLAY=" + play}, r.cmd[0], r.cmd[1:]...)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	from := file
	if r.role == "stage" {
		from = url
	}
	peak := filepath.Join(out, "peak")
	c := timed(b, []string{
		childRole + "=" + r.role, childFrom + "=" + from, childInto + "=" + out, childSum + "=" + sum,
		childSize + "=" + strconv.FormatInt(size, 10), childPeak + "=" + peak,
	}, self)
	told, err := os.ReadFile(peak)
	if err != nil {
		b.Fatal(err)
	}
	kib, err := strconv.ParseInt(string(told), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	c.peak = kib << 10
	return c
}
