// Package modeldisk is a file system in memory that knows what a power cut would
// leave of it. It is served through FUSE by a process of its own, so that programs
// use it with ordinary system calls; a test tells that process to save what is
// there, to cut the power after any operation, and to fail operations.
//
// What is durable follows POSIX, not the kindness of one file system:
//
//   - fsync of a file makes its content, size and attributes durable, and not its
//     name;
//   - fsync of a directory makes its entries durable, and not what they lead to;
//   - of everything else any part may be there after a cut: each write in sectors of
//     512 bytes, sizes without their content, operations on entries in any order but
//     for those that build on one another;
//   - a rename or an exchange is there whole or not at all;
//   - after an fsync that failed, what it was to sync may be lost for good, also
//     when a later one succeeds, as on Linux.
package modeldisk

import (
	"bytes"
	"maps"
	"syscall"
)

const rootIno = 1

// inode is a file, a directory or a symbolic link.
type inode struct {
	mode     uint32 // with the type bits of stat(2)
	uid, gid uint32
	mtime    int64 // nanoseconds
	data     []byte
	target   string            // of a symbolic link
	entries  map[string]uint64 // of a directory
	xattr    map[string][]byte
}

func (n *inode) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func (n *inode) clone() *inode {
	c := *n
	c.data, c.entries, c.xattr = bytes.Clone(n.data), maps.Clone(n.entries), maps.Clone(n.xattr)
	return &c
}

// tree is all inodes by number; the root has number 1.
type tree map[uint64]*inode

func newTree() tree {
	return tree{rootIno: &inode{mode: syscall.S_IFDIR | 0o755, entries: map[string]uint64{}}}
}

func (t tree) clone() tree {
	c := make(tree, len(t))
	for ino, n := range t {
		c[ino] = n.clone()
	}
	return c
}

// renumbered returns what can be reached from the root under numbers that were
// never used before: a kernel that remembers content by number must not find the
// old one. Nothing is copied.
func (t tree) renumbered(next *uint64) tree {
	out := tree{}
	seen := map[uint64]uint64{rootIno: rootIno}
	var walk func(old uint64)
	walk = func(old uint64) {
		n := t[old]
		out[seen[old]] = n
		for name, child := range n.entries {
			if t[child] == nil {
				delete(n.entries, name)
				continue
			}
			fresh, known := seen[child]
			if !known {
				*next++
				fresh = *next
				seen[child] = fresh
				walk(child)
			}
			n.entries[name] = fresh
		}
	}
	walk(rootIno)
	return out
}

// links counts the names of each inode; a directory counts as two.
func (t tree) links(ino uint64) uint32 {
	if t[ino].isDir() {
		return 2
	}
	var n uint32
	for _, d := range t {
		for _, child := range d.entries {
			if child == ino {
				n++
			}
		}
	}
	return n
}

// kind is what an operation does.
type kind string

const (
	opCreate   kind = "create" // a file, a directory or a link, with its name
	opLink     kind = "link"
	opUnlink   kind = "unlink" // or rmdir
	opRename   kind = "rename"
	opExchange kind = "exchange"
	opWrite    kind = "write"
	opTruncate kind = "truncate"
	opAttr     kind = "attr" // mode, owner or time
	opXattr    kind = "xattr"
	opSync     kind = "fsync"
	opSyncAll  kind = "syncfs"
	opMark     kind = "mark" // no operation of the disk: something else happened here
)

// op is one operation that changed the tree, or made changes durable.
type op struct {
	kind  kind
	label string // for people
	ino   uint64 // what it is about; of an exchange the first
	other uint64 // of an exchange: the second

	dir, dir2   uint64 // directories whose entries change
	name, name2 string

	fresh  *inode // of a create
	off    int64
	data   []byte // of a write; the value of an xattr, nil where it is removed
	size   int64
	attr   func(*inode)
	failed bool // of a sync: it returned an error
}

// apply does what an operation does.
func (t tree) apply(o *op) {
	n := t[o.ino]
	if n == nil && len(o.keys()) == 0 {
		return // the file itself did not survive
	}
	switch o.kind {
	case opCreate:
		t[o.ino] = o.fresh.clone()
		t.set(o.dir, o.name, o.ino)
	case opLink:
		t.set(o.dir, o.name, o.ino)
	case opUnlink:
		t.set(o.dir, o.name, 0)
	case opRename:
		t.set(o.dir, o.name, 0)
		t.set(o.dir2, o.name2, o.ino)
	case opExchange:
		t.set(o.dir, o.name, o.other)
		t.set(o.dir2, o.name2, o.ino)
	case opWrite:
		n.write(o.off, o.data)
	case opTruncate:
		n.resize(o.size)
	case opAttr:
		o.attr(n)
	case opXattr:
		if o.data == nil {
			delete(n.xattr, o.name)
			break
		}
		if n.xattr == nil {
			n.xattr = map[string][]byte{}
		}
		n.xattr[o.name] = o.data
	}
}

// set makes a name lead to an inode; to none with 0.
func (t tree) set(dir uint64, name string, ino uint64) {
	d := t[dir]
	if d == nil {
		return // the directory itself did not survive
	}
	if ino == 0 {
		delete(d.entries, name)
		return
	}
	d.entries[name] = ino
}

func (n *inode) write(off int64, data []byte) {
	if end := off + int64(len(data)); end > int64(len(n.data)) {
		n.resize(end)
	}
	copy(n.data[off:], data)
}

func (n *inode) resize(size int64) {
	if size <= int64(len(n.data)) {
		n.data = n.data[:size:size] // what follows is not to come back when it grows again
		return
	}
	n.data = append(n.data, make([]byte, size-int64(len(n.data)))...)
}
