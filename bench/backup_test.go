package bench

import (
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// dataGiB is how much data BenchmarkBackup copies, in GiB, unless BENCH_DATA_GIB
// says so.
const dataGiB = 5

// BenchmarkBackup copies a data directory of 5 GiB within ext4, xfs and btrfs, as
// the backup before an upgrade does (with a digest of each file), against `cp -a`,
// `cp -a` with the digests that it does not make, and `cp -a --reflink=always`
// where the file system can. All sync what they made.
func BenchmarkBackup(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("mounting file systems needs root")
	}
	gib := int64(dataGiB)
	if text := os.Getenv("BENCH_DATA_GIB"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 {
			b.Fatalf("BENCH_DATA_GIB=%q: want a number of GiB", text)
		}
		gib = n
	}
	for _, kind := range []string{"ext4", "xfs", "btrfs"} {
		b.Run(kind, func(b *testing.B) {
			if tool(b, "mkfs."+kind) {
				backup(b, mount(b, kind, 3*gib+1), kind != "ext4", gib)
			}
		})
	}
}

// mount makes a file system of so many GiB in a file, and mounts it.
func mount(b *testing.B, kind string, gib int64) string {
	b.Helper()
	top := b.TempDir()
	image, dir := filepath.Join(top, "image"), filepath.Join(top, "mounted")
	f, err := os.Create(image)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Truncate(gib << 30); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	timed(b, nil, "mkfs."+kind, "-q", image)
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	timed(b, nil, "mount", "-o", "loop", image, dir)
	b.Cleanup(func() {
		// The directory goes with the test, and must be no mount point then.
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil { //nolint:noctx // the benchmark's context has ended
			b.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

func backup(b *testing.B, dir string, reflink bool, gib int64) {
	const files = 20
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range files {
		f, err := os.Create(filepath.Join(data, fmt.Sprintf("%06d", i)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyN(f, rand.Reader, gib<<30/files); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	unix.Sync()
	var ours, cp, sums, clone samples
	run := func(into *samples, script string) {
		out := filepath.Join(dir, "copy")
		*into = append(*into, timed(b, []string{"FROM=" + data, "OUT=" + out}, "sh", "-ec", script))
		if err := os.RemoveAll(out); err != nil {
			b.Fatal(err)
		}
		unix.Sync()
	}
	for b.Loop() {
		for range 3 {
			out := filepath.Join(dir, "copy")
			begin := time.Now()
			if _, err := new(hostfs.Host).CopyBulk(data, out, hostfs.Bulk{}); err != nil {
				b.Fatal(err)
			}
			ours = append(ours, cost{time: time.Since(begin)})
			if err := os.RemoveAll(out); err != nil {
				b.Fatal(err)
			}
			unix.Sync()
			run(&cp, `cp -a --reflink=never "$FROM" "$OUT"; sync -f "$OUT"`)
			run(&sums, `cp -a --reflink=auto "$FROM" "$OUT"; sync -f "$OUT"; sha256sum "$OUT"/* >/dev/null`)
			if reflink {
				run(&clone, `cp -a --reflink=always "$FROM" "$OUT"; sync -f "$OUT"`)
			}
		}
	}
	b.ReportMetric(ours.time().Seconds()*1000, "ours-ms")
	b.ReportMetric(cp.time().Seconds()*1000, "cp-ms")
	b.ReportMetric(ratio(ours, cp), "ours/cp")
	b.ReportMetric(ratio(ours, sums), "ours/cp-and-sha256sum")
	if reflink {
		b.ReportMetric(clone.time().Seconds()*1000, "cp-reflink-ms")
		b.ReportMetric(ratio(ours, clone), "ours/cp-reflink")
	}
}
