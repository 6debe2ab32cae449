package hostfs

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

func owner(t *testing.T, path string) (uid, gid int, mode fs.FileMode) {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return int(sys.Uid), int(sys.Gid), st.Mode()
}

func digest(t *testing.T, path string) string {
	t.Helper()
	d, err := Digest(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// capNetBind is a security.capability value, revision 2: cap_net_bind_service,
// effective and permitted (linux/capability.h).
var capNetBind = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	put(t, src, "content", 0o754)
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := os.Chtimes(src, old, old); err != nil {
		t.Fatal(err)
	}
	withUser := xattr.LSet(src, "user.note", []byte("hello")) == nil
	if err := (&Host{}).Copy(src, dst, filepath.Join(dir, "no such example")); err != nil {
		t.Fatal(err)
	}
	expect(t, dst, "content")
	st, err := os.Stat(dst)
	if err != nil || st.Mode() != 0o754 || !st.ModTime().Equal(old) {
		t.Errorf("%v %v, %v", st.Mode(), st.ModTime(), err)
	}
	if got, err := xattr.LGet(dst, "user.note"); withUser && string(got) != "hello" {
		t.Errorf("user.note is %q, %v", got, err)
	}
	if digest(t, src) != digest(t, dst) {
		t.Error("digests differ")
	}
}

func TestCopyUnreadableMode(t *testing.T) {
	dir := t.TempDir()
	src, like, dst := filepath.Join(dir, "src"), filepath.Join(dir, "like"), filepath.Join(dir, "dst")
	put(t, src, "new", 0o600)
	put(t, like, "old", 0o111) // can be executed, cannot be read, even by its owner
	if err := (&Host{}).Copy(src, dst, like); err != nil {
		t.Fatal(err)
	}
	if _, _, mode := owner(t, dst); mode != 0o111 {
		t.Errorf("mode %v", mode)
	}
}

func TestCopyTakesOverFromTheReplaced(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing owners and capabilities needs root")
	}
	dir := t.TempDir()
	src, like, dst := filepath.Join(dir, "src"), filepath.Join(dir, "like"), filepath.Join(dir, "dst")
	put(t, src, "new", 0o600)
	put(t, like, "old", 0o755)
	at := time.Date(2021, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := errors.Join(os.Chtimes(src, at, at), os.Chown(like, 1234, 5678), os.Chmod(like, 0o750|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	caps := xattr.LSet(like, "security.capability", capNetBind)
	user := xattr.LSet(like, "user.note", []byte("x"))
	if err := (&Host{}).Copy(src, dst, like); err != nil {
		t.Fatal(err)
	}
	expect(t, dst, "new")
	uid, gid, mode := owner(t, dst)
	if uid != 1234 || gid != 5678 || mode != 0o750|fs.ModeSetgid {
		t.Errorf("owner %d:%d, mode %v", uid, gid, mode)
	}
	if st, err := os.Stat(dst); err != nil || !st.ModTime().Equal(at) {
		t.Errorf("time %v, %v; want that of the new content", st.ModTime(), err)
	}
	if caps == nil {
		if got, err := xattr.LGet(dst, "security.capability"); string(got) != string(capNetBind) {
			t.Errorf("capability is %x, %v", got, err)
		}
		// And once more by plain copy, as a backup and its restore do.
		again := filepath.Join(dir, "again")
		if err := (&Host{}).Copy(dst, again, ""); err != nil {
			t.Fatal(err)
		}
		if got, err := xattr.LGet(again, "security.capability"); string(got) != string(capNetBind) {
			t.Errorf("capability of the second copy is %x, %v", got, err)
		}
		if uid, gid, mode := owner(t, again); uid != 1234 || gid != 5678 || mode != 0o750|fs.ModeSetgid {
			t.Errorf("second copy: owner %d:%d, mode %v", uid, gid, mode)
		}
	}
	if got, err := xattr.LGet(dst, "user.note"); user == nil && string(got) != "x" {
		t.Errorf("user.note is %q, %v", got, err)
	}
	if caps != nil {
		t.Skipf("this file system or kernel takes no capabilities, which were not checked: %v", caps)
	}
}

// accessList is the value of an access list, version 2, of entries of tag,
// permissions and id (linux/posix_acl_xattr.h).
func accessList(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// A copy has the access lists of what it is a copy of, and none from the directory
// that it is made in.
func TestCopyTakesNoAccessListOfTheDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"listed/sub", "plain/sub", "dst"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"listed/secret.yml", "listed/sub/secret.yml", "plain/secret.yml", "plain/sub/secret.yml"} {
		put(t, filepath.Join(dir, file), "secret", 0o640)
	}
	const none = ^uint32(0)
	list := accessList([3]uint32{1, 7, none}, [3]uint32{2, 7, 1234}, [3]uint32{4, 5, none}, [3]uint32{0x10, 7, none}, [3]uint32{0x20, 0, none})
	for path, name := range map[string]string{"dst": "system.posix_acl_default", "listed/sub": "system.posix_acl_default", "listed/secret.yml": "system.posix_acl_access"} {
		if err := xattr.LSet(filepath.Join(dir, path), name, list); err != nil {
			t.Skipf("no access lists here: %v", err)
		}
	}
	for _, d := range []string{"listed", "plain"} {
		src, dst := filepath.Join(dir, d), filepath.Join(dir, "dst", d)
		if err := (&Host{}).Copy(src, dst, ""); err != nil {
			t.Fatal(err)
		}
		like := filepath.Join(dst, "like.yml")
		if err := (&Host{}).Copy(filepath.Join(src, "sub/secret.yml"), like, filepath.Join(src, "secret.yml")); err != nil {
			t.Fatal(err)
		}
		for copied, from := range map[string]string{dst: src, dst + "/sub": src + "/sub", dst + "/secret.yml": src + "/secret.yml", dst + "/sub/secret.yml": src + "/sub/secret.yml", like: src + "/secret.yml"} {
			for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
				want, wantErr := xattr.LGet(from, name)
				got, err := xattr.LGet(copied, name)
				if string(got) != string(want) || (err == nil) != (wantErr == nil) {
					t.Errorf("%s: %s is %x (%v), of %s %x (%v)", copied, name, got, err, from, want, wantErr)
				}
			}
			if same, err := SameAttrs(from, copied); !same || err != nil {
				t.Errorf("%s is said to differ from %s (%v)", copied, from, err)
			}
		}
	}
	if same, err := SameAttrs(filepath.Join(dir, "plain/sub"), filepath.Join(dir, "listed/sub")); same || err != nil {
		t.Errorf("an access list besides makes no difference (%v)", err)
	}
}

func TestSameAttrs(t *testing.T) {
	const note = "user.note"
	file := func(mode fs.FileMode, value string) func(string) error {
		return func(path string) error {
			err := errors.Join(os.WriteFile(path, []byte("its own"), 0o600), os.Chmod(path, mode))
			if value != "" {
				err = errors.Join(err, xattr.LSet(path, note, []byte(value)))
			}
			return err
		}
	}
	for name, tt := range map[string]struct {
		want, have func(path string) error
		same       bool
	}{
		"other content":         {file(0o640, ""), file(0o640, ""), true},
		"another mode":          {file(0o640, ""), file(0o600, ""), false},
		"set-id":                {file(0o640, ""), file(0o640|fs.ModeSetuid, ""), false},
		"a directory":           {file(0o640, ""), func(p string) error { return os.Mkdir(p, 0o640) }, false},
		"a link":                {file(0o777, ""), func(p string) error { return os.Symlink("x", p) }, false},
		"links to two places":   {func(p string) error { return os.Symlink("x", p) }, func(p string) error { return os.Symlink("y", p) }, true},
		"the same attribute":    {file(0o640, "a"), file(0o640, "a"), true},
		"another attribute":     {file(0o640, "a"), file(0o640, "b"), false},
		"without the attribute": {file(0o640, "a"), file(0o640, ""), false},
		"with one besides":      {file(0o640, ""), file(0o640, "b"), true},
		"another owner":         {file(0o640, ""), func(p string) error { return errors.Join(file(0o640, "")(p), os.Lchown(p, 1234, -1)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			want, have := filepath.Join(dir, "want"), filepath.Join(dir, "have")
			err := errors.Join(tt.want(want), tt.have(have))
			if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
				t.Skip(err)
			}
			same, sameErr := SameAttrs(want, have)
			if err := errors.Join(err, sameErr); same != tt.same || err != nil {
				t.Errorf("same: %v, want %v (%v)", same, tt.same, err)
			}
			missing := filepath.Join(dir, "missing")
			for _, pair := range [][2]string{{want, missing}, {missing, have}} {
				if _, err := SameAttrs(pair[0], pair[1]); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%v: %v", pair, err)
				}
			}
		})
	}
}

func TestCopyLeavesIntegrityAttributesOfOtherContent(t *testing.T) {
	dir := t.TempDir()
	src, like := filepath.Join(dir, "src"), filepath.Join(dir, "like")
	put(t, src, "new", 0o755)
	put(t, like, "old", 0o755)
	if err := xattr.LSet(like, "security.ima", []byte{1, 2, 3}); err != nil {
		t.Skipf("security.ima cannot be set here: %v", err)
	}
	if err := (&Host{}).Copy(src, filepath.Join(dir, "dst"), like); err != nil {
		t.Fatal(err)
	}
	if got, err := xattr.LGet(filepath.Join(dir, "dst"), "security.ima"); err == nil {
		t.Errorf("the new content carries the old one's security.ima %x", got)
	}
	if err := (&Host{}).Copy(like, filepath.Join(dir, "same"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := xattr.LGet(filepath.Join(dir, "same"), "security.ima"); err != nil {
		t.Errorf("a copy of the same content lost its security.ima: %v", err)
	}
}

func TestCopyRefusesAnExistingTarget(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "src"), "new", 0o644)
	put(t, filepath.Join(dir, "victim"), "precious", 0o644)
	put(t, filepath.Join(dir, "tree", "f"), "f", 0o644)
	for name, target := range map[string]string{"link": "victim", "dangling": "missing", "dirlink": "."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dst := range []string{"victim", "link", "dangling"} {
		if err := (&Host{}).Copy(filepath.Join(dir, "src"), filepath.Join(dir, dst), ""); !errors.Is(err, fs.ErrExist) {
			t.Errorf("to %s: %v", dst, err)
		}
	}
	if err := (&Host{}).Copy(filepath.Join(dir, "tree"), filepath.Join(dir, "dirlink"), ""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("tree to a link: %v", err)
	}
	expect(t, filepath.Join(dir, "victim"), "precious")
	if _, err := os.Lstat(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the link was followed")
	}
	if err := (&Host{}).Copy(filepath.Join(dir, "missing"), filepath.Join(dir, "x"), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing source: %v", err)
	}
}

// tree makes a directory with all that is met in practice.
func tree(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "t")
	put(t, filepath.Join(root, "rules", "a.yml"), "a", 0o640)
	put(t, filepath.Join(root, "rules", "deep", "b.yml"), "b", 0o600)
	put(t, filepath.Join(root, "locked", "c"), "c", 0o400)
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	err := errors.Join(os.Symlink("rules/a.yml", filepath.Join(root, "link")), os.Symlink("/nowhere", filepath.Join(root, "dangling")),
		os.Mkdir(filepath.Join(root, "empty"), 0o711), os.Chtimes(filepath.Join(root, "rules"), old, old), os.Chmod(filepath.Join(root, "locked"), 0o500))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(root, "locked"), 0o700) })
	return root
}

func TestCopyTree(t *testing.T) {
	src := tree(t)
	dst := filepath.Join(t.TempDir(), "copy")
	if err := (&Host{}).Copy(src, dst, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dst, "locked"), 0o700) })
	if digest(t, src) != digest(t, dst) {
		t.Error("digests differ")
	}
	for _, rel := range []string{".", "rules", "rules/a.yml", "rules/deep", "locked", "locked/c", "empty"} {
		want, errW := os.Lstat(filepath.Join(src, rel))
		got, errG := os.Lstat(filepath.Join(dst, rel))
		if err := errors.Join(errW, errG); err != nil || got.Mode() != want.Mode() || !got.ModTime().Equal(want.ModTime()) {
			t.Errorf("%s: %v %v, want %v %v; %v", rel, got.Mode(), got.ModTime(), want.Mode(), want.ModTime(), err)
		}
	}
	if target, err := os.Readlink(filepath.Join(dst, "dangling")); target != "/nowhere" {
		t.Errorf("dangling is %q, %v", target, err)
	}
}

func TestCopyTreeTakesOverTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing owners needs root")
	}
	src, like, dst := tree(t), t.TempDir(), filepath.Join(t.TempDir(), "copy")
	if err := os.Chown(like, 1234, 5678); err != nil {
		t.Fatal(err)
	}
	if err := (&Host{}).Copy(src, dst, like); err != nil {
		t.Fatal(err)
	}
	for _, rel := range []string{".", "rules/deep/b.yml", "link", "empty"} {
		if uid, gid, _ := owner(t, filepath.Join(dst, rel)); uid != 1234 || gid != 5678 {
			t.Errorf("%s belongs to %d:%d", rel, uid, gid)
		}
	}
	if digest(t, src) != digest(t, dst) {
		t.Error("digests differ")
	}
}

func TestCopySpecialFiles(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	src := filepath.Join(dir, "t")
	put(t, filepath.Join(src, "f"), "f", 0o644)
	l, err := net.Listen("unix", filepath.Join(src, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dst := filepath.Join(dir, "copy")
	if err := (&Host{}).Copy(src, dst, ""); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dst); got != "f" {
		t.Errorf("copy holds %s", got)
	}
	if digest(t, src) != digest(t, dst) {
		t.Error("a socket makes the digests differ, so a backup of it would never verify")
	}
	if err := unix.Mkfifo(filepath.Join(src, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = (&Host{}).Copy(src, filepath.Join(dir, "other"), "")
	if err == nil || !strings.Contains(err.Error(), "pipe is a p---------, neither file, link nor directory") {
		t.Errorf("copying a pipe: %v", err)
	}
}

func TestDigest(t *testing.T) {
	dir := t.TempDir()
	if got := digest(t, filepath.Join(dir, "missing")); got != "" {
		t.Errorf("missing has %s", got)
	}
	put(t, filepath.Join(dir, "f"), "abc", 0o644)
	if got, want := digest(t, filepath.Join(dir, "f")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := Digest(filepath.Join(dir, "f", "below")); err == nil {
		t.Error("a path below a file has a digest")
	}
	base := digest(t, tree(t))
	for name, change := range map[string]func(root string) error{
		"content": func(r string) error { return os.WriteFile(filepath.Join(r, "rules", "a.yml"), []byte("A"), 0o600) },
		"mode":    func(r string) error { return os.Chmod(filepath.Join(r, "rules", "a.yml"), 0o644) },
		"name":    func(r string) error { return os.Rename(filepath.Join(r, "rules"), filepath.Join(r, "rulez")) },
		"added":   func(r string) error { return os.WriteFile(filepath.Join(r, "rules", "deep", "new"), nil, 0o600) },
		"gone":    func(r string) error { return os.Remove(filepath.Join(r, "empty")) },
		"link": func(r string) error {
			return errors.Join(os.Remove(filepath.Join(r, "link")), os.Symlink("rules/b.yml", filepath.Join(r, "link")))
		},
	} {
		root := tree(t)
		if got := digest(t, root); got != base {
			t.Fatalf("the same tree elsewhere has another digest: %s, %s", got, base)
		}
		if err := change(root); err != nil {
			t.Fatal(err)
		}
		if digest(t, root) == base {
			t.Errorf("%s: the digest stayed the same", name)
		}
	}
}
