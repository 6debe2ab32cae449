package modeldisk

import (
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/pkg/xattr"
)

// Serve serves a disk where this process was started by Start, and tells whether
// it was; call it first in TestMain. It returns when the other process closed the
// disk or died.
func Serve() (mine bool, err error) {
	dir := os.Getenv(mountAt)
	if dir == "" {
		return false, nil
	}
	// An interrupt from the keyboard is for the other one: this ends after it.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	enc, dec := gob.NewEncoder(os.Stdout), gob.NewDecoder(os.Stdin)
	s := newServer()
	f, err := fuse.NewServer(s, dir, &fuse.MountOptions{
		DirectMount: true, FsName: "modeldisk", Name: "modeldisk", SingleThreaded: true, DisableReadDirPlus: true, Options: []string{"dev", "suid"},
	})
	if err != nil {
		var q ask
		return true, errors.Join(dec.Decode(&q), enc.Encode(answer{Err: err.Error()}))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Serve()
	}()
	err = f.WaitMount()
	c := control{s: s, images: map[Image]tree{}, logs: map[Log]kept{}}
	for err == nil {
		var q ask
		if err = dec.Decode(&q); err == nil {
			err = enc.Encode(c.answer(q))
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	// A container that was started meanwhile may hold a copy of the mount. The server's
	// own way to unmount would wait for that; it ends with this process.
	err = errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH))
	select {
	case <-done:
	case <-time.After(time.Second):
	}
	return true, err
}

// kept is a log with what was there when it began.
type kept struct {
	base tree
	log  []op
}

// control answers requests.
type control struct {
	s      *server
	images map[Image]tree
	logs   map[Log]kept
	last   int
}

func (c *control) answer(q ask) (a answer) {
	if q.What == "syncfs" {
		if err := c.s.syncAll(); err != nil {
			errors.As(err, &a.Errno)
		}
		return a
	}
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch q.What {
	case "ready":
	case "save":
		c.last++
		c.images[Image(c.last)] = s.tree.clone()
		a.N = c.last
	case "load":
		im, ok := c.images[q.Image]
		if !ok {
			a.Err = fmt.Sprintf("no image %d", q.Image)
			return a
		}
		s.load(im.clone())
	case "begin":
		s.begin()
	case "keep":
		c.last++
		c.logs[Log(c.last)] = kept{s.base, slices.Clone(s.log)}
		a.N = c.last
		for _, o := range s.log {
			a.Texts = append(a.Texts, o.label)
		}
	case "drop":
		delete(c.logs, q.Log)
	case "crash":
		k, ok := c.logs[q.Log]
		if !ok || q.N < 0 || q.N > len(k.log) {
			a.Err = fmt.Sprintf("no operation %d of log %d", q.N, q.Log)
			return a
		}
		var t tree
		t, a.Texts = after(k.base, k.log, q.N, q.Loss, q.Seed)
		a.Sum = t.sum()
		if q.Label == "" {
			s.load(t)
		} else if err := t.write(q.Label); err != nil {
			a.Err = err.Error()
		}
	case "mark":
		s.do(op{kind: opMark, label: q.Label})
		a.N = len(s.log)
	case "fail":
		s.fault, s.count, s.hit, s.short = &q.Fault, 0, nil, false
	case "repair":
		a.N, a.Texts = s.count, s.hit
		s.fault, s.count, s.hit, s.short = nil, 0, nil, false
	case "sum":
		a.Sum = s.tree.sum()
	default:
		a.Err = "unknown request " + q.What
	}
	return a
}

// write writes all that is there into an empty directory.
func (t tree) write(dir string) error {
	first := map[uint64]string{} // a name of each file
	var walk func(path string, ino uint64) error
	walk = func(path string, ino uint64) error {
		n := t[ino]
		var err error
		switch {
		case first[ino] != "":
			return os.Link(first[ino], path)
		case n.isDir():
			if ino != rootIno {
				err = os.Mkdir(path, 0o700)
			}
			for _, name := range slices.Sorted(maps.Keys(n.entries)) {
				if child := n.entries[name]; err == nil && t[child] != nil {
					err = walk(filepath.Join(path, name), child)
				}
			}
		case n.mode&syscall.S_IFMT == syscall.S_IFLNK:
			return os.Symlink(n.target, path)
		default:
			first[ino] = path
			err = os.WriteFile(path, n.data, 0o600)
		}
		if err != nil {
			return err
		}
		return n.dress(path)
	}
	return walk(dir, rootIno)
}

// dress gives a file the attributes of an inode.
func (n *inode) dress(path string) error {
	var err error
	if n.uid != 0 || n.gid != 0 {
		err = os.Chown(path, int(n.uid), int(n.gid))
	}
	err = errors.Join(err, syscall.Chmod(path, n.mode&0o7777))
	for _, name := range slices.Sorted(maps.Keys(n.xattr)) {
		err = errors.Join(err, xattr.Set(path, name, n.xattr[name]))
	}
	if n.mtime != 0 {
		err = errors.Join(err, os.Chtimes(path, time.Unix(0, n.mtime), time.Unix(0, n.mtime)))
	}
	return err
}

// sum is a digest of all that can be reached from the root but times.
func (t tree) sum() string {
	h := sha256.New()
	var walk func(path string, ino uint64)
	walk = func(path string, ino uint64) {
		n := t[ino]
		fmt.Fprintf(h, "%q %o %d %d %q %d\n", path, n.mode, n.uid, n.gid, n.target, len(n.data))
		h.Write(n.data)
		for _, name := range slices.Sorted(maps.Keys(n.xattr)) {
			fmt.Fprintf(h, "%q %q\n", name, n.xattr[name])
		}
		for _, name := range slices.Sorted(maps.Keys(n.entries)) {
			if child := n.entries[name]; t[child] != nil { // whose creation survived
				walk(path+"/"+name, child)
			}
		}
	}
	walk("", rootIno)
	return hex.EncodeToString(h.Sum(nil))
}
