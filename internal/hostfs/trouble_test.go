package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemedy(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "gone", "file")
	at := func(errno unix.Errno) error { return &fs.PathError{Op: "write", Path: file, Err: errno} }
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"full":          {fmt.Errorf("copy: %w", at(unix.ENOSPC)), "df -h " + dir},
		"quota":         {at(unix.EDQUOT), "df -h " + dir},
		"read-only":     {errors.Join(errors.New("first"), at(unix.EROFS)), "mount -o remount,rw $(findmnt -no TARGET -T " + dir + ")"},
		"rename":        {&os.LinkError{Op: "rename", Old: "/a", New: file, Err: unix.EROFS}, "mount -o remount,rw $(findmnt -no TARGET -T " + dir + ")"},
		"broken":        {at(unix.EIO), "findmnt -T " + dir + "; dmesg | tail"},
		"another first": {errors.Join(at(unix.ENOENT), at(unix.EIO)), "findmnt -T " + dir + "; dmesg | tail"},
		"of something":  {at(unix.ENOENT), ""},
		"no path":       {unix.ENOSPC, ""},
		"none":          {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Remedy(tt.err); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A copy that found no room says how much was missing, and inodes are told apart.
func TestNoRoom(t *testing.T) {
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=1m,nr_inodes=3"); err != nil {
		t.Skipf("a tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, unix.MNT_DETACH) })
	src := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(src, make([]byte, 3<<20), 0o755); err != nil {
		t.Fatal(err)
	}
	var h Host
	err := h.Copy(src, filepath.Join(small, "program"), "")
	var room *NoRoomError
	if !errors.As(err, &room) || room.Need != 3<<20 || room.Free < 1<<19 || room.Free > 1<<20 || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%+v: %v", room, err)
	}
	if want := "the file system of " + small + " has 1.0 MB free, and 3.1 MB are needed: 2.1 MB are missing"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if got := Remedy(err); got != "df -h "+small {
		t.Errorf("next: %q", got)
	}
	if err := os.Remove(filepath.Join(small, "program")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := os.WriteFile(filepath.Join(small, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err = h.Copy(src, filepath.Join(small, "program"), "")
	if room = nil; errors.As(err, &room) || Remedy(err) != "df -i "+small {
		t.Errorf("%v; next: %q", err, Remedy(err))
	}
}
