package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// NoRoomError says how much room a copy lacked.
type NoRoomError struct {
	Dir  string // that the copy was made in
	Free int64  // bytes for it, at the moment it failed
	Need int64  // bytes of what was copied
	Err  error
}

func (e *NoRoomError) Error() string {
	text := fmt.Sprintf("%v; the file system of %s has %s free, and %s are needed", e.Err, e.Dir, megabytes(e.Free), megabytes(e.Need))
	if e.Need > e.Free {
		text += ": " + megabytes(e.Need-e.Free) + " are missing"
	}
	return text
}

func (e *NoRoomError) Unwrap() error { return e.Err }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// explained adds to the error of a copy how much room it lacked, where that is
// what it says.
func explained(err error, src, dst string) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	dir := filepath.Dir(dst)
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Files > 0 && st.Ffree == 0 {
		return err // inodes are missing, not bytes
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert,gosec // narrower on arm; no disk is that large
	return &NoRoomError{Dir: dir, Free: free + size(dst), Need: size(src), Err: err}
}

// size is what the regular files at and below a path hold, as far as they can be
// seen.
func size(path string) (n int64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it is an estimate for a message
		}
		if st, err := d.Info(); err == nil && st.Mode().IsRegular() {
			n += st.Size()
		}
		return nil
	})
	return n
}

// Remedy is what to type about an error of the file system that a person must
// mend: one that is full, read-only or broken. It is "" for any other error.
func Remedy(err error) string {
	path, errno := failed(err)
	if path == "" {
		return ""
	}
	dir := filepath.Dir(path)
	for {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	switch errno {
	case unix.ENOSPC, unix.EDQUOT:
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Files > 0 && st.Ffree == 0 {
			return "df -i " + dir
		}
		return "df -h " + dir
	case unix.EROFS:
		return "mount -o remount,rw $(findmnt -no TARGET -T " + dir + ")"
	case unix.EIO, unix.EUCLEAN, unix.ESHUTDOWN:
		return "findmnt -T " + dir + "; dmesg | tail"
	}
	return ""
}

// failed is the path and the number of the first error of the file system in a
// tree of errors.
func failed(err error) (path string, errno unix.Errno) {
	if err == nil {
		return "", 0
	}
	switch e := err.(type) { //nolint:errorlint // each level is looked at
	case *fs.PathError:
		if errors.As(e.Err, &errno) {
			return e.Path, errno
		}
	case *os.LinkError:
		if errors.As(e.Err, &errno) {
			return e.New, errno
		}
	}
	switch e := err.(type) { //nolint:errorlint // as above
	case interface{ Unwrap() error }:
		return failed(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if path, errno := failed(one); path != "" && remediable(errno) {
				return path, errno
			}
		}
	}
	return "", 0
}

func remediable(errno unix.Errno) bool {
	switch errno {
	case unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EUCLEAN, unix.ESHUTDOWN:
		return true
	}
	return false
}
