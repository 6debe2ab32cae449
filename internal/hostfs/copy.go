package hostfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
)

// Copy copies a regular file, a symbolic link or a whole directory from src to
// dst, which must not exist, and syncs it. Content is shared by reflink where
// the file system can. Mode, owner, group, times and extended attributes
// (capabilities and security labels among them) follow.
//
// A like path, when not empty and existing, gives owner, mode and extended
// attributes instead of src: that is how a new binary takes over those of the
// one it replaces. For a directory only like's owner counts, for all it holds.
func (h *Host) Copy(src, dst, like string) error {
	if err := h.Check("copy", dst); err != nil {
		return err
	}
	st, err := os.Lstat(src)
	if err != nil {
		return err
	}
	var likeInfo fs.FileInfo
	if like != "" {
		if likeInfo, err = os.Lstat(like); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	switch {
	case st.IsDir():
		err = copyTree(src, dst, likeInfo)
	case likeInfo != nil && likeInfo.Mode().IsRegular():
		err = copyLike(src, dst, st, likeInfo, like)
	default:
		err = copyEntry(src, dst, st, nil)
	}
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w", src, dst, explained(err, src, dst))
	}
	return syncDir(filepath.Dir(dst))
}

func copyTree(src, dst string, owner fs.FileInfo) error {
	var dirs []string
	err := filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(dst, rel)
		if !d.IsDir() {
			return copyEntry(path, target, st, owner)
		}
		dirs = append(dirs, rel)
		return os.Mkdir(target, 0o700)
	})
	if err != nil {
		return err
	}
	// Directories get their attributes last and innermost first, so that a
	// read-only one can be filled and its times stay.
	for i := len(dirs) - 1; i >= 0; i-- {
		from, to := filepath.Join(src, dirs[i]), filepath.Join(dst, dirs[i])
		st, err := os.Lstat(from)
		if err != nil {
			return err
		}
		if err := copyAttrs(from, to, st, owner); err != nil {
			return err
		}
		if err := syncDir(to); err != nil {
			return err
		}
	}
	return nil
}

// copyEntry copies one non-directory. Sockets are left out, as who listens makes
// them anew; pipes and devices are refused by name.
func copyEntry(src, dst string, st, owner fs.FileInfo) error {
	switch {
	case st.Mode().IsRegular():
		if owner == nil {
			owner = st
		}
		return copyFile(src, dst, st, func() error { return copyAttrs(src, dst, st, owner) })
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, dst); err != nil {
			return err
		}
		if owner == nil {
			owner = st
		}
		return lchownLike(dst, owner)
	case st.Mode()&fs.ModeSocket != 0:
		return nil
	}
	return fmt.Errorf("%s is a %s, neither file, link nor directory", src, st.Mode().Type())
}

// copyLike copies src's content with like's owner, mode and attributes.
func copyLike(src, dst string, st, like fs.FileInfo, likePath string) error {
	return copyFile(src, dst, st, func() error { return copyAttrs(likePath, dst, like, nil, ofContent) })
}

// copyFile copies a regular file, has attrs give the copy its attributes, and
// syncs both: what is only in memory after a power cut is a binary that cannot
// be executed.
func copyFile(src, dst string, st fs.FileInfo, attrs func() error) error {
	return copyContent(src, dst, func(out *os.File) error {
		if err := attrs(); err != nil {
			return err
		}
		if err := os.Chtimes(dst, st.ModTime(), st.ModTime()); err != nil {
			return err
		}
		return out.Sync()
	})
}

// copyContent copies a regular file to one that does not exist, shared by reflink
// where the file system can, and has finish complete it before it is closed.
func copyContent(src, dst string, finish func(out *os.File) error) error {
	in, err := os.OpenFile(src, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd())); err != nil {
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
	if err := finish(out); err != nil {
		return err
	}
	return out.Close()
}

// modeBits are what a mode has besides the type.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// copyAttrs gives dst the attributes of src. The order matters: chown clears
// set-id bits and capabilities, so mode and extended attributes come after it; and
// with an access list the mode's group bits are that list's mask.
// Extended attributes named in except are left out.
func copyAttrs(src, dst string, st, owner fs.FileInfo, except ...string) error {
	if owner == nil {
		owner = st
	}
	if err := chownLike(dst, owner); err != nil {
		return err
	}
	if err := shedACLs(src, dst); err != nil {
		return err
	}
	if err := os.Chmod(dst, st.Mode()&modeBits); err != nil {
		return err
	}
	if err := copyXattrs(src, dst, append(except, ofInode)); err != nil {
		return err
	}
	return os.Chtimes(dst, st.ModTime(), st.ModTime())
}

// Integrity attributes vouch for one file's content or for one inode (kernel
// documentation, IMA and EVM): on another they would have the kernel refuse it.
const (
	ofContent = "security.ima"
	ofInode   = "security.evm"
)

// copyXattrs copies the extended attributes but for those in except. One that
// the file system cannot have, or the caller may not set, is an error only where it
// matters to a running service: capabilities, security labels and access lists.
func copyXattrs(src, dst string, except []string) error {
	names, err := xattr.LList(src)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			return nil
		}
		return err
	}
	for _, name := range names {
		if slices.Contains(except, name) {
			continue
		}
		value, err := xattr.LGet(src, name)
		if err != nil {
			return err
		}
		if have, err := xattr.LGet(dst, name); err == nil && string(have) == string(value) {
			continue
		}
		if err := xattr.LSet(dst, name, value); err != nil {
			unable := errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM)
			if unable && (strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.")) {
				continue
			}
			return fmt.Errorf("keep extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// accessLists are the attributes that a new file has from its directory's default
// list, whether or not what it is a copy of has one.
var accessLists = []string{"system.posix_acl_access", "system.posix_acl_default"}

// shedACLs takes the access lists off dst that src lacks: they may let in whom src
// keeps out.
func shedACLs(src, dst string) error {
	for _, name := range accessLists {
		stray, err := lacks(src, dst, name)
		if err == nil && stray {
			err = xattr.LRemove(dst, name)
		}
		if err != nil {
			return fmt.Errorf("take off extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// lacks reports whether path has an extended attribute and want has not.
func lacks(want, path, name string) (bool, error) {
	have, err := xattrOf(path, name)
	if err != nil || have == "" {
		return false, err
	}
	wanted, err := xattrOf(want, name)
	return wanted == "", err
}

// xattrOf is the value of an extended attribute; "" where there is none, or the file
// system has none.
func xattrOf(path, name string) (string, error) {
	value, err := xattr.LGet(path, name)
	if errors.Is(err, xattr.ENOATTR) || errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	return string(value), err
}

// SameAttrs reports whether path has the owner, group, mode, extended attributes and
// access lists that Copy would give a copy of want. Other attributes that it has
// besides do not count: where want lies there may be no way to keep them.
func SameAttrs(want, path string) (bool, error) {
	wst, err := os.Lstat(want)
	if err != nil {
		return false, err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	a, ok := wst.Sys().(*syscall.Stat_t)
	b, okB := st.Sys().(*syscall.Stat_t)
	if wst.Mode() != st.Mode() || ok && okB && (a.Uid != b.Uid || a.Gid != b.Gid) {
		return false, nil
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		return true, nil // Copy gives a link no more than its owner
	}
	for _, name := range accessLists {
		if stray, err := lacks(want, path, name); err != nil || stray {
			return false, err
		}
	}
	names, err := xattr.LList(want)
	if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
		return false, err
	}
	for _, name := range names {
		if name == ofInode {
			continue
		}
		wanted, err := xattrOf(want, name)
		if err != nil {
			return false, err
		}
		if have, err := xattrOf(path, name); err != nil || have != wanted {
			return false, err
		}
	}
	return true, nil
}

// chownLike sets owner and group; a caller who is not root and already owns the
// file as asked needs no right to.
func chownLike(path string, owner fs.FileInfo) error { return changeOwner(path, owner, os.Chown) }

func lchownLike(path string, owner fs.FileInfo) error { return changeOwner(path, owner, os.Lchown) }

func changeOwner(path string, owner fs.FileInfo, chown func(string, int, int) error) error {
	want, ok := owner.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if have, ok := st.Sys().(*syscall.Stat_t); ok && have.Uid == want.Uid && have.Gid == want.Gid {
		return nil
	}
	return chown(path, int(want.Uid), int(want.Gid))
}
