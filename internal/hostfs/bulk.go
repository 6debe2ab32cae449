package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Bulk says how a directory of data is copied.
type Bulk struct {
	// Skip leaves out an entry, with all below it; rel is relative to the source.
	Skip func(rel string) bool
	// Immutable tells files that are never written again once they are there: they
	// are shared by a hard link where both are on one file system.
	Immutable func(rel string) bool
	// Stop is asked between files; an error ends the copy.
	Stop func() error
}

// CopyBulk copies a directory of many files from src to dst, which must not
// exist, and syncs the file system once at the end instead of each file (Linux'
// syncfs). Content is shared by reflink where the file system can. It returns the
// bytes of regular files, shared ones included, and how many of them were linked.
// Sockets, pipes and devices are left out: they hold no data.
func (h *Host) CopyBulk(src, dst string, b Bulk) (bytes int64, linked int, err error) {
	if err := h.Check("copy", dst); err != nil {
		return 0, 0, err
	}
	var dirs []string
	err = filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if b.Stop != nil {
			if err := b.Stop(); err != nil {
				return err
			}
		}
		if rel != "." && b.Skip != nil && b.Skip(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(dst, rel)
		switch {
		case d.IsDir():
			dirs = append(dirs, rel)
			return os.Mkdir(target, 0o700)
		case st.Mode().IsRegular():
			bytes += st.Size()
			if b.Immutable != nil && b.Immutable(rel) && os.Link(path, target) == nil {
				linked++
				return nil
			}
			return cloneFile(path, target, st)
		case st.Mode()&fs.ModeSymlink != 0:
			return copyEntry(path, target, st, nil)
		}
		return nil
	})
	for i := len(dirs) - 1; err == nil && i >= 0; i-- {
		from := filepath.Join(src, dirs[i])
		var st fs.FileInfo
		if st, err = os.Lstat(from); err == nil {
			err = copyAttrs(from, filepath.Join(dst, dirs[i]), st, nil)
		}
	}
	if err == nil {
		err = syncFS(dst)
	}
	if err != nil {
		return bytes, linked, fmt.Errorf("copy %s to %s: %w", src, dst, err)
	}
	return bytes, linked, syncDir(filepath.Dir(dst))
}

// cloneFile copies a regular file with its attributes, unsynced.
func cloneFile(src, dst string, st fs.FileInfo) error {
	return copyContent(src, dst, func(*os.File) error { return copyAttrs(src, dst, st, nil) })
}

// SyncAll makes durable all that was written to the file system of path, such as
// many small files, at once.
func (h *Host) SyncAll(path string) error {
	if err := h.Check("sync", path); err != nil {
		return err
	}
	return syncFS(path)
}

// syncFS makes all that was written to the file system of path durable.
func syncFS(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("sync the file system of %s: %w", path, err)
	}
	return nil
}

// Adopt gives dst the owner, mode, times and extended attributes of src and makes
// all of dst's file system durable.
func (h *Host) Adopt(src, dst string) error {
	if err := h.Check("adopt", dst); err != nil {
		return err
	}
	st, err := os.Lstat(src)
	if err != nil {
		return err
	}
	if err := copyAttrs(src, dst, st, nil); err != nil {
		return err
	}
	return syncFS(dst)
}
