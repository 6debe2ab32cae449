package hostfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Bulk says how a directory of data is copied. Its functions are called one at a
// time.
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
// for its digest, which several processors do at a time. src must be a directory itself, not a link to one: a copy of
// the link would hold nothing. Sockets, pipes and devices are left out: they hold
// no data.
func (h *Host) CopyBulk(src, dst string, b Bulk) (Bulked, error) {
	if err := h.Check("copy", dst); err != nil {
		return Bulked{Sums: map[string]string{}}, err
	}
	c := &bulkCopy{Bulk: b, host: h, src: src, dst: dst, out: Bulked{Sums: map[string]string{}}}
	if err := c.run(); err != nil {
		return c.out, fmt.Errorf("copy %s to %s: %w", src, dst, explained(err, src, dst))
	}
	return c.out, syncDir(filepath.Dir(dst))
}

// atOnce is how many files are copied at a time: more would only wait for the disk.
const atOnce = 4

// bulkCopy is one copy at work.
type bulkCopy struct {
	Bulk
	host     *Host
	src, dst string
	buffers  sync.Pool
	broken   context.Context // done once a file could not be copied

	mu  sync.Mutex // held for out and for what Bulk asks and tells
	out Bulked
}

func (c *bulkCopy) run() error {
	if st, err := os.Lstat(c.src); err != nil {
		return err
	} else if !st.IsDir() {
		return fmt.Errorf("expected a directory, found a %s", kind(st.Mode()))
	}
	c.buffers.New = func() any { b := make([]byte, 1<<20); return &b }
	g, ctx := errgroup.WithContext(context.Background())
	c.broken = ctx
	g.SetLimit(min(atOnce, runtime.GOMAXPROCS(0)))
	dirs, err := c.walk(g)
	if first := g.Wait(); first != nil {
		err = first // what the walk and the others ended by
	}
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		from := filepath.Join(c.src, dirs[i])
		st, err := os.Lstat(from)
		if err != nil {
			return err
		}
		if err := copyAttrs(from, filepath.Join(c.dst, dirs[i]), st, nil); err != nil {
			return err
		}
	}
	return c.host.syncFS(c.dst)
}

// walk makes all that is no regular file, has g copy those, and returns the
// directories, whose attributes are to be set last.
func (c *bulkCopy) walk(g *errgroup.Group) (dirs []string, err error) {
	return dirs, filepath.WalkDir(c.src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.src, path)
		if err != nil {
			return err
		}
		if err := c.stopped(); err != nil {
			return err
		}
		if rel != "." && c.asks(c.Skip, rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		to := filepath.Join(c.dst, rel)
		if d.IsDir() {
			dirs = append(dirs, rel)
			return os.Mkdir(to, 0o700)
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case st.Mode().IsRegular():
			g.Go(func() error { return c.regular(path, to, rel, st) })
		case st.Mode()&fs.ModeSymlink != 0:
			if err := c.mayLink(rel); err != nil {
				return err
			}
			return copyEntry(path, to, st, nil)
		}
		return nil
	})
}

func (c *bulkCopy) asks(question func(rel string) bool, rel string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return question != nil && question(rel)
}

func (c *bulkCopy) mayLink(rel string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Link == nil {
		return nil
	}
	return c.Link(rel)
}

// regular shares or copies one regular file.
func (c *bulkCopy) regular(src, dst, rel string, st fs.FileInfo) error {
	if c.asks(c.Immutable, rel) && os.Link(src, dst) == nil {
		c.mu.Lock()
		c.out.Linked++
		c.out.Bytes += st.Size()
		c.out.Shared += st.Size()
		c.mu.Unlock()
		c.tell(st.Size())
		return nil
	}
	n, sum, err := c.file(src, dst, st)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Bytes += n
	c.out.Sums[rel] = sum
	return nil
}

// file copies a regular file with its attributes, unsynced, and returns how much
// was read and its digest.
func (c *bulkCopy) file(src, dst string, st fs.FileInfo) (int64, string, error) {
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
		n, err = c.read(out, sum) // what the copy holds
	} else {
		n, err = c.read(in, io.MultiWriter(out, sum))
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
func (c *bulkCopy) read(from io.Reader, to io.Writer) (int64, error) {
	buf, _ := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buf)
	return io.CopyBuffer(io.MultiWriter(to, meter{c}), struct{ io.Reader }{from}, *buf)
}

// meter counts what passes, and ends it when the copy is to stop.
type meter struct{ c *bulkCopy }

func (m meter) Write(p []byte) (int, error) {
	if err := m.c.stopped(); err != nil {
		return 0, err
	}
	m.c.tell(int64(len(p)))
	return len(p), nil
}

func (c *bulkCopy) stopped() error {
	if err := c.broken.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Stop == nil {
		return nil
	}
	return c.Stop()
}

func (c *bulkCopy) tell(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Tell != nil {
		c.Tell(n)
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
