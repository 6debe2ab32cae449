package modeldisk

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Fault makes operations fail.
type Fault struct {
	Errno syscall.Errno
	At    int  // the operation that fails, counted from 1 among those that Applies tells
	Stays bool // all that follow fail as well, until Repair
	// Reads has calls that change nothing fail too: open, read, look-up and the
	// like.
	Reads bool
}

// server serves a tree. One lock is around everything: order is what it is about.
type server struct {
	fuse.RawFileSystem // answers ENOSYS to the rest

	mu     sync.Mutex
	tree   tree
	base   tree // as it was when the log began
	log    []op
	names  map[uint64]string // a name of each inode, for labels
	next   uint64            // the highest inode number ever used
	lists  map[uint64][]fuse.DirEntry
	handle uint64

	fault *Fault
	count int      // operations that could have failed so
	hit   []string // those that did
	short bool     // a full disk has taken a part of a write
}

func newServer() *server {
	s := &server{RawFileSystem: fuse.NewDefaultRawFileSystem(), next: rootIno, lists: map[uint64][]fuse.DirEntry{}}
	s.load(newTree())
	return s
}

// load makes a tree the one that is served, all of it durable, and begins a log.
func (s *server) load(t tree) {
	s.tree = t.renumbered(&s.next)
	s.begin()
}

// begin begins a log: what is there now is durable.
func (s *server) begin() {
	s.base, s.log, s.names = s.tree.clone(), nil, map[uint64]string{rootIno: "/"}
	for _, n := range s.tree {
		for name, ino := range n.entries {
			s.names[ino] = name
		}
	}
	s.fault, s.count, s.hit, s.short = nil, 0, nil, false
}

// do applies an operation and keeps it in the log.
func (s *server) do(o op) {
	if o.name2 != "" && o.kind == opRename {
		s.names[o.ino] = o.name2
	}
	if o.kind == opCreate {
		s.names[o.ino] = o.name
	}
	if o.label == "" {
		o.label = string(o.kind) + " " + cmp.Or(o.name2, s.names[o.ino])
	}
	s.tree.apply(&o)
	s.log = append(s.log, o)
}

// grows are the calls that a full disk refuses.
var grows = map[string]bool{"create": true, "mkdir": true, "symlink": true, "link": true, "write": true, "setxattr": true}

// fails tells whether a call is to fail now, and how. The shared memory of a
// database is left alone: an error of a mapped page is a signal that ends the
// process, and a disk that is in that state has lost its root file system too.
func (s *server) fails(call string, ino uint64, name string, reads bool) fuse.Status {
	f := s.fault
	if f == nil || reads && !f.Reads || strings.HasSuffix(cmp.Or(name, s.names[ino]), "-shm") {
		return fuse.OK
	}
	if f.Errno == syscall.ENOSPC && !grows[call] {
		return fuse.OK
	}
	if f.Errno == syscall.EACCES && (call == "write" || call == "fsync" || call == "read") {
		return fuse.OK // decided when a file is opened
	}
	s.count++
	if s.count < f.At || s.count > f.At && !f.Stays {
		return fuse.OK
	}
	s.hit = append(s.hit, call+" "+cmp.Or(name, s.names[ino]))
	return fuse.Status(f.Errno)
}

func (s *server) String() string { return "modeldisk" }

func (s *server) attr(ino uint64, out *fuse.Attr) {
	n := s.tree[ino]
	out.Ino, out.Mode, out.Uid, out.Gid, out.Nlink = ino, n.mode, n.uid, n.gid, s.tree.links(ino)
	out.Size, out.Blksize = uint64(len(n.data)), 4096
	if n.mode&syscall.S_IFMT == syscall.S_IFLNK {
		out.Size = uint64(len(n.target))
	}
	out.Blocks = (out.Size + 511) / 512
	at := time.Unix(0, n.mtime)
	out.SetTimes(&at, &at, &at)
}

func (s *server) entry(ino uint64, out *fuse.EntryOut) {
	out.NodeId, out.Generation = ino, 1
	s.attr(ino, &out.Attr)
}

// child finds a name in a directory.
func (s *server) child(dir uint64, name string) (uint64, fuse.Status) {
	d := s.tree[dir]
	if d == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	if !d.isDir() {
		return 0, fuse.ENOTDIR
	}
	ino, ok := d.entries[name]
	if !ok {
		return 0, fuse.ENOENT
	}
	return ino, fuse.OK
}

func (s *server) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	ino, st := s.child(h.NodeId, name)
	if st != fuse.OK {
		return st
	}
	if st := s.fails("lookup", ino, name, true); st != fuse.OK {
		return st
	}
	s.entry(ino, out)
	return fuse.OK
}

func (s *server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree[in.NodeId] == nil {
		return fuse.Status(syscall.ESTALE)
	}
	s.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

func (s *server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.tree[in.NodeId]
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if size, ok := in.GetSize(); ok {
		if st := s.fails("truncate", in.NodeId, "", false); st != fuse.OK {
			return st
		}
		s.do(op{kind: opTruncate, ino: in.NodeId, size: int64(size)})
	}
	mode, hasMode := in.GetMode()
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	mtime, hasTime := in.GetMTime()
	if hasMode || hasUID || hasGID {
		if st := s.fails("setattr", in.NodeId, "", false); st != fuse.OK {
			return st
		}
	}
	if hasMode || hasUID || hasGID || hasTime {
		s.do(op{kind: opAttr, ino: in.NodeId, attr: func(n *inode) {
			if hasMode {
				n.mode = n.mode&syscall.S_IFMT | mode&0o7777
			}
			if hasUID {
				n.uid = uid
			}
			if hasGID {
				n.gid = gid
			}
			if hasTime {
				n.mtime = mtime.UnixNano()
			}
		}})
	}
	s.attr(in.NodeId, &out.Attr)
	return fuse.OK
}

// make makes an inode with a name.
func (s *server) make(call string, dir uint64, name string, n *inode, out *fuse.EntryOut) fuse.Status {
	switch _, st := s.child(dir, name); st {
	case fuse.ENOENT:
	case fuse.OK:
		return fuse.Status(syscall.EEXIST)
	default:
		return st
	}
	if st := s.fails(call, 0, name, false); st != fuse.OK {
		return st
	}
	n.mtime = time.Now().UnixNano()
	s.next++
	ino := s.next
	s.do(op{kind: opCreate, ino: ino, dir: dir, name: name, fresh: n})
	s.entry(ino, out)
	return fuse.OK
}

func (s *server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.make("mkdir", in.NodeId, name, &inode{mode: syscall.S_IFDIR | in.Mode&0o7777, uid: in.Uid, gid: in.Gid, entries: map[string]uint64{}}, out)
}

func (s *server) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.make("symlink", h.NodeId, name, &inode{mode: syscall.S_IFLNK | 0o777, uid: h.Uid, gid: h.Gid, target: target}, out)
}

func (s *server) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.make("create", in.NodeId, name, &inode{mode: syscall.S_IFREG | in.Mode&0o7777, uid: in.Uid, gid: in.Gid}, &out.EntryOut)
}

func (s *server) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, st := s.child(in.NodeId, name); st != fuse.ENOENT {
		return fuse.Status(syscall.EEXIST)
	}
	if st := s.fails("link", in.Oldnodeid, name, false); st != fuse.OK {
		return st
	}
	s.do(op{kind: opLink, ino: in.Oldnodeid, dir: in.NodeId, name: name})
	s.entry(in.Oldnodeid, out)
	return fuse.OK
}

func (s *server) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.tree[h.NodeId].target), fuse.OK
}

func (s *server) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return s.remove(h.NodeId, name, false)
}

func (s *server) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return s.remove(h.NodeId, name, true)
}

func (s *server) remove(dir uint64, name string, isDir bool) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	ino, st := s.child(dir, name)
	if st != fuse.OK {
		return st
	}
	n := s.tree[ino]
	switch {
	case isDir && !n.isDir():
		return fuse.ENOTDIR
	case !isDir && n.isDir():
		return fuse.Status(syscall.EISDIR)
	case len(n.entries) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	if st := s.fails("unlink", ino, name, false); st != fuse.OK {
		return st
	}
	s.do(op{kind: opUnlink, ino: ino, dir: dir, name: name, label: "unlink " + name})
	return fuse.OK
}

func (s *server) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	const noReplace, exchange = 1, 2 // renameat2(2)
	s.mu.Lock()
	defer s.mu.Unlock()
	ino, st := s.child(in.NodeId, from)
	if st != fuse.OK {
		return st
	}
	there, st := s.child(in.Newdir, to)
	if st != fuse.OK && st != fuse.ENOENT {
		return st
	}
	replaces := st == fuse.OK
	switch {
	case in.Flags&exchange != 0 && !replaces:
		return fuse.ENOENT
	case in.Flags&noReplace != 0 && replaces:
		return fuse.Status(syscall.EEXIST)
	case in.Flags&exchange == 0 && replaces && len(s.tree[there].entries) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	case replaces && there == ino:
		return fuse.OK
	}
	if st := s.fails("rename", ino, to, false); st != fuse.OK {
		return st
	}
	o := op{kind: opRename, ino: ino, dir: in.NodeId, name: from, dir2: in.Newdir, name2: to}
	if in.Flags&exchange != 0 {
		o.kind, o.other = opExchange, there
	}
	o.label = fmt.Sprintf("%s %s to %s", o.kind, from, to)
	s.do(o)
	return fuse.OK
}

func (s *server) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tree[in.NodeId] == nil {
		return fuse.Status(syscall.ESTALE)
	}
	return s.fails("open", in.NodeId, "", true)
}

func (s *server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.fails("read", in.NodeId, "", true); st != fuse.OK {
		return nil, st
	}
	data := s.tree[in.NodeId].data
	if in.Offset >= uint64(len(data)) {
		return fuse.ReadResultData(nil), fuse.OK
	}
	n := copy(buf[:in.Size], data[in.Offset:])
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (s *server) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.fails("write", in.NodeId, "", false); st != fuse.OK {
		if s.fault.Errno != syscall.ENOSPC || len(data) < 2 || s.short {
			return 0, st
		}
		data = data[:len(data)/2] // as much as there was room for
		s.short = true
		s.fault.At++ // what is written next of it has none
	}
	s.do(op{kind: opWrite, ino: in.NodeId, off: int64(in.Offset), data: slices.Clone(data)})
	return uint32(len(data)), fuse.OK
}

func (s *server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (s *server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.fails("fsync", in.NodeId, "", false)
	s.do(op{kind: opSync, ino: in.NodeId, failed: st != fuse.OK})
	return st
}

func (s *server) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.Fsync(cancel, in)
}

// syncAll is syncfs(2), which the kernel does not tell a file system in user space.
func (s *server) syncAll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.fails("syncfs", rootIno, "", false)
	if st != fuse.OK {
		return syscall.Errno(st)
	}
	s.do(op{kind: opSyncAll, label: "syncfs"})
	return nil
}

func (s *server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.tree[in.NodeId]
	if d == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if st := s.fails("opendir", in.NodeId, "", true); st != fuse.OK {
		return st
	}
	list := []fuse.DirEntry{{Mode: syscall.S_IFDIR, Name: ".", Ino: in.NodeId}, {Mode: syscall.S_IFDIR, Name: "..", Ino: in.NodeId}}
	for _, name := range slices.Sorted(maps.Keys(d.entries)) {
		ino := d.entries[name]
		list = append(list, fuse.DirEntry{Mode: s.tree[ino].mode, Name: name, Ino: ino})
	}
	s.handle++
	s.lists[s.handle] = list
	out.Fh = s.handle
	return fuse.OK
}

func (s *server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.lists[in.Fh]
	for i := int(in.Offset); i < len(list); i++ {
		list[i].Off = uint64(i + 1)
		if !out.AddDirEntry(list[i]) {
			break
		}
	}
	return fuse.OK
}

func (s *server) ReleaseDir(in *fuse.ReleaseIn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lists, in.Fh)
}

func (s *server) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.tree[h.NodeId].xattr[name]
	if !ok {
		return 0, fuse.ENODATA
	}
	return fit(value, dest)
}

func (s *server) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []byte
	for _, name := range slices.Sorted(maps.Keys(s.tree[h.NodeId].xattr)) {
		all = append(append(all, name...), 0)
	}
	return fit(all, dest)
}

func fit(value, dest []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

func (s *server) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.fails("setxattr", in.NodeId, "", false); st != fuse.OK {
		return st
	}
	s.do(op{kind: opXattr, ino: in.NodeId, name: name, data: append([]byte{}, value...), label: "xattr " + name})
	return fuse.OK
}

func (s *server) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.tree[h.NodeId].xattr[name]; !ok {
		return fuse.ENODATA
	}
	s.do(op{kind: opXattr, ino: h.NodeId, name: name, label: "remove xattr " + name})
	return fuse.OK
}

func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail = 1<<20, 1<<20, 1<<20
	out.Files, out.Ffree = 1<<20, 1<<20
	return fuse.OK
}
