package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// A record for which there is only half the room leaves nothing: what is written
// once there is room again can be read, and all that was acknowledged.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("a tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	filler := filepath.Join(dir, "filler")
	w, err := Create(&hostfs.Host{}, filepath.Join(dir, "journal"), "run1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filler, make([]byte, 8<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	written := 0
	for ; err == nil && written < 1000; written++ {
		err = w.Append("step", payload{N: written, S: string(bytes.Repeat([]byte{'x'}, 700))})
	}
	written-- // the one that failed
	if !errors.Is(err, unix.ENOSPC) || written < 3 {
		t.Fatalf("%d records, then %v", written, err)
	}
	if recs, err := Read(w.Path()); err != nil || len(recs) != written {
		t.Fatalf("%d records while the disk is full, want %d: %v", len(recs), written, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Append("step", payload{N: written}); err != nil {
			t.Fatal(err)
		}
		written++
	}
	if recs, err := Read(w.Path()); err != nil || len(recs) != written {
		t.Fatalf("%d records, want %d: %v", len(recs), written, err)
	}
}
