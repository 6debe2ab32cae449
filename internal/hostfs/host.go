// Package hostfs is the one door through which a run changes the host. Every
// operation is durable when it returns (content and directory synced) and is
// announced to a Guard first, so that a test can fail it, kill the process or
// count it. Reading needs no door: callers read with package os.
package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Guard is told of every effect before it happens, with the operation's name
// and the path (or unit) it is about to touch. An error stops the effect and is
// returned to the caller.
type Guard func(op, target string) error

// ErrCrashed is what a fault-injecting guard returns to play dead: every later
// operation must fail with it too, as nothing runs after a kill.
var ErrCrashed = errors.New("simulated crash")

// Host performs effects on the file system. The zero value is ready to use and
// has no guard. It holds no state and may be used from several goroutines.
type Host struct {
	Guard Guard
	// SyncFS makes all that was written to the file system of a path durable; nil is
	// syncfs(2). A file system in user space is not told of that call (FUSE passes it
	// on only for virtiofs), so whoever runs on one says here how it is done.
	SyncFS func(path string) error
}

// Check announces an effect that is not a file operation, such as stopping a
// service, to the guard.
func (h *Host) Check(op, target string) error {
	if h == nil || h.Guard == nil {
		return nil
	}
	return h.Guard(op, target)
}

// MkdirAll creates a directory and its missing parents with perm, whatever the
// umask, and syncs each directory that gained an entry.
func (h *Host) MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	if st, err := os.Stat(path); err == nil {
		if st.IsDir() {
			return nil
		}
		return &fs.PathError{Op: "mkdir", Path: path, Err: unix.ENOTDIR}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err // it may be there: a disk that fails does not tell
	}
	if parent := filepath.Dir(path); parent != path {
		if err := h.MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := h.Check("mkdir", path); err != nil {
		return err
	}
	if err := os.Mkdir(path, perm); err != nil {
		// Another process may have been first; a link to nowhere is no directory.
		if st, statErr := os.Stat(path); statErr != nil || !st.IsDir() {
			return err
		}
	} else if err := undoUmask(path, perm); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// undoUmask gives a new directory the permissions that the umask took. Its other
// bits, such as a group that it has from its parent, stay.
func undoUmask(dir string, perm fs.FileMode) error {
	st, err := os.Lstat(dir)
	if err != nil || st.Mode().Perm() == perm.Perm() {
		return err
	}
	return os.Chmod(dir, st.Mode()&^fs.ModePerm|perm.Perm())
}

// WriteFile replaces path with data atomically: a synced temporary file beside
// it is renamed over it and the directory is synced. A reader sees the old or
// the new content, never a part. An existing file keeps its owner and mode.
func (h *Host) WriteFile(path string, data []byte, perm fs.FileMode) error {
	if err := h.Check("write", path); err != nil {
		return err
	}
	tmp := besideName(path, "tmp")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, perm)
	if err != nil {
		return err
	}
	err = func() error {
		defer f.Close()
		if err := likeExisting(f, path, perm); err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Sync()
	}()
	if err == nil {
		err = h.Check("write.rename", path)
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		if !errors.Is(err, ErrCrashed) {
			_ = os.Remove(tmp)
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// likeExisting gives a temporary file the owner and mode of the file it is
// about to replace, or perm when there is none.
func likeExisting(f *os.File, path string, perm fs.FileMode) error {
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() {
		return f.Chmod(perm)
	}
	if err := chownLike(f.Name(), st); err != nil {
		return err
	}
	return f.Chmod(st.Mode().Perm())
}

// Append adds data to the end of path in one write and syncs it; the file is
// created with perm where it is missing. When that fails the file is made as long
// as it was: what was not acknowledged does not stay in front of what follows.
func (h *Host) Append(path string, data []byte, perm fs.FileMode) error {
	if err := h.Check("append", path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("append to %s: %w", path, err), f.Truncate(before.Size()))
	}
	if before.Size() == 0 { // it may be new, or what made it had failed
		return syncDir(filepath.Dir(path))
	}
	return nil
}

// Truncate cuts a file to a size in bytes that it has at least, and syncs it. It
// needs no space.
func (h *Host) Truncate(path string, size int64) error {
	if err := h.Check("truncate", path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < size {
		return fmt.Errorf("cut %s to %d bytes: it has only %d", path, size, st.Size())
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// Exchange swaps two files or two directories of one file system, atomically where
// it can (renameat2 RENAME_EXCHANGE). Where it cannot, as on NFS, b takes a's place
// first and then a's content b's; what a crash leaves in between is at Aside(b).
// Unlike the other operations it does not sync: call SyncDirs before claiming that
// it will last.
func (h *Host) Exchange(a, b string) error {
	err := h.Check("exchange", a)
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	}
	switch {
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP):
		return exchangeInSteps(a, b)
	case errors.As(err, new(unix.Errno)):
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return err
}

// Aside is where the content of a may be found after an Exchange of a and b that
// was cut off.
func Aside(b string) string { return b + ".aside" }

// exchangeInSteps exchanges by renames. A file that can have two names leaves no
// moment in which a is not there; a directory, which cannot be renamed over another,
// steps aside first, and back where b cannot follow.
func exchangeInSteps(a, b string) error {
	if _, err := os.Lstat(b); err != nil {
		return err
	}
	st, err := os.Lstat(a)
	if err != nil {
		return err
	}
	aside := Aside(b)
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if st.IsDir() || os.Link(a, aside) != nil {
		if err := os.Rename(a, aside); err != nil {
			return err
		}
	}
	if err := os.Rename(b, a); err != nil {
		return errors.Join(err, os.Rename(aside, a))
	}
	return os.Rename(aside, b)
}

// SyncDirs makes renames and exchanges of the given paths durable: it syncs
// each of their directories once.
func (h *Host) SyncDirs(paths ...string) error {
	done := map[string]bool{}
	for _, p := range paths {
		dir := filepath.Dir(p)
		if done[dir] {
			continue
		}
		done[dir] = true
		if err := h.Check("sync", dir); err != nil {
			return err
		}
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Rename moves a file or directory within its file system and syncs both
// directories.
func (h *Host) Rename(from, to string) error {
	if err := h.Check("rename", to); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) == filepath.Dir(to) {
		return nil
	}
	return syncDir(filepath.Dir(from))
}

// Link makes path a symbolic link to target, durably; one that leads there already
// is left as it is, and anything else at path is fs.ErrExist.
func (h *Host) Link(target, path string) error {
	if have, err := os.Readlink(path); err == nil && have == target {
		return nil
	}
	if err := h.Check("link", path); err != nil {
		return err
	}
	if err := os.Symlink(target, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Remove deletes one file; a missing one is no error.
func (h *Host) Remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := h.Check("remove", path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// RemoveAll deletes a file or a directory with all it holds; a missing one is
// no error.
func (h *Host) RemoveAll(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := h.Check("remove", path); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// RemoveAllIn removes what is at rel below dir, durably, where dir belongs to
// somebody who may be hostile: no link leads the removal out of dir, whenever it is
// put there.
func (h *Host) RemoveAllIn(dir, rel string) error {
	path := filepath.Join(dir, rel)
	if err := h.Check("remove", path); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.RemoveAll(rel); err != nil {
		return err
	}
	above, err := root.Open(filepath.Dir(rel))
	if err != nil {
		return err
	}
	defer above.Close()
	return above.Sync()
}

// Beside is the hidden name in the same directory under which a run keeps a
// file that is about to take path's place, or the one that gave it up.
func Beside(path, runID string) string { return besideName(path, runID) }

func besideName(path, tag string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".obsup-"+tag)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
