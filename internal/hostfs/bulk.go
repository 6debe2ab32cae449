package hostfs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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
	// Link is asked about every symbolic link before it is copied as a link; an
	// error ends the copy. nil allows all.
	Link func(rel string) error
	// Stop is asked between files and within long ones; an error ends the copy.
	Stop func() error
	// Tell hears of bytes as they are done.
	Tell func(bytes int64)

	buf []byte // what is read at a time
}

// Bulked is what CopyBulk made.
type Bulked struct {
	Bytes  int64 // of regular files, shared ones included
	Linked int   // files that are shared by a hard link
	Shared int64 // and their bytes
	// Sums is the SHA-256 in hex of each regular file's content as it was read, by
	// its path relative to the source. Files that are shared by a hard link are
	// not in it: they are not read, and there is no second content to compare.
	Sums map[string]string
}

// CopyBulk copies a directory of many files from src to dst, which must not
// exist, and syncs the file system once at the end instead of each file (Linux'
// syncfs). Content is shared by reflink where the file system can, and read once
// for its digest. src must be a directory itself, not a link to one: a copy of
// the link would hold nothing. Sockets, pipes and devices are left out: they hold
// no data.
func (h *Host) CopyBulk(src, dst string, b Bulk) (Bulked, error) {
	out := Bulked{Sums: map[string]string{}}
	b.buf = make([]byte, 1<<20)
	if err := h.Check("copy", dst); err != nil {
		return out, err
	}
	if st, err := os.Lstat(src); err != nil {
		return out, err
	} else if !st.IsDir() {
		return out, fmt.Errorf("copy %s to %s: expected a directory, found a %s", src, dst, kind(st.Mode()))
	}
	var dirs []string
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		if err := b.stopped(); err != nil {
			return err
		}
		if rel != "." && b.Skip != nil && b.Skip(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			dirs = append(dirs, rel)
			return os.Mkdir(filepath.Join(dst, rel), 0o700)
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		return b.entry(path, filepath.Join(dst, rel), rel, st, &out)
	})
	for i := len(dirs) - 1; err == nil && i >= 0; i-- {
		from := filepath.Join(src, dirs[i])
		var st fs.FileInfo
		if st, err = os.Lstat(from); err == nil {
			err = copyAttrs(from, filepath.Join(dst, dirs[i]), st, nil)
		}
	}
	if err == nil {
		err = h.syncFS(dst)
	}
	if err != nil {
		return out, fmt.Errorf("copy %s to %s: %w", src, dst, err)
	}
	return out, syncDir(filepath.Dir(dst))
}

// entry copies one that is no directory.
func (b *Bulk) entry(src, dst, rel string, st fs.FileInfo, out *Bulked) error {
	switch {
	case st.Mode().IsRegular():
		if b.Immutable != nil && b.Immutable(rel) && os.Link(src, dst) == nil {
			out.Linked++
			out.Bytes += st.Size()
			out.Shared += st.Size()
			b.tell(st.Size())
			return nil
		}
		n, sum, err := b.file(src, dst, st)
		if err != nil {
			return err
		}
		out.Bytes += n
		out.Sums[rel] = sum
	case st.Mode()&fs.ModeSymlink != 0:
		if b.Link != nil {
			if err := b.Link(rel); err != nil {
				return err
			}
		}
		return copyEntry(src, dst, st, nil)
	}
	return nil
}

// file copies a regular file with its attributes, unsynced, and returns how much
// was read and its digest.
func (b *Bulk) file(src, dst string, st fs.FileInfo) (int64, string, error) {
	in, err := os.OpenFile(src, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, "", err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, "", err
	}
	defer out.Close()
	sum := sha256.New()
	var n int64
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		n, err = b.read(out, sum) // what the copy holds
	} else {
		n, err = b.read(in, io.MultiWriter(out, sum))
	}
	if err != nil {
		return n, "", err
	}
	if err := copyAttrs(src, dst, st, nil); err != nil {
		return n, "", err
	}
	return n, hex.EncodeToString(sum.Sum(nil)), out.Close()
}

// read hands all that from holds to to, in pieces large enough for a disk.
func (b *Bulk) read(from io.Reader, to io.Writer) (int64, error) {
	return io.CopyBuffer(io.MultiWriter(to, meter{b}), struct{ io.Reader }{from}, b.buf)
}

// meter counts what passes, and ends it when the copy is to stop.
type meter struct{ b *Bulk }

func (m meter) Write(p []byte) (int, error) {
	if err := m.b.stopped(); err != nil {
		return 0, err
	}
	m.b.tell(int64(len(p)))
	return len(p), nil
}

func (b *Bulk) stopped() error {
	if b.Stop == nil {
		return nil
	}
	return b.Stop()
}

func (b *Bulk) tell(n int64) {
	if b.Tell != nil {
		b.Tell(n)
	}
}

// kind is a file's type in words.
func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m.IsRegular():
		return "file"
	case m&fs.ModeSymlink != 0:
		return "link"
	}
	return m.Type().String()
}

// SyncAll makes durable all that was written to the file system of path, such as
// many small files, at once.
func (h *Host) SyncAll(path string) error {
	if err := h.Check("sync", path); err != nil {
		return err
	}
	return h.syncFS(path)
}

// syncFS makes all that was written to the file system of path durable.
func (h *Host) syncFS(path string) error {
	if h != nil && h.SyncFS != nil {
		return h.SyncFS(path)
	}
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
	return h.syncFS(dst)
}
