// Package lock lets one mutating command run at a time. The lock is the
// kernel's (flock(2)) on a file that stays, so it ends with the process however
// that dies. The file's text is for people.
package lock

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

const (
	// patience is how long Acquire waits for a lock that is taken: Holder takes
	// it for an instant to look, and that must not turn a run away.
	patience = 200 * time.Millisecond
	poll     = 5 * time.Millisecond
)

// HeldError says who holds the lock.
type HeldError struct {
	PID     int // 0 when the file does not tell
	Command string
	Path    string
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another run is in progress: a process that `fuser %s` shows holds %s", e.Path, e.Path)
	}
	return fmt.Sprintf("another run is in progress: process %d (%s) holds %s", e.PID, e.Command, e.Path)
}

// UnsafeError refuses a lock file that another user could have planted.
type UnsafeError struct {
	Path   string
	Reason string
}

func (e *UnsafeError) Error() string {
	return fmt.Sprintf("lock file %s %s, so it is not used; look at it, then: rm %s", e.Path, e.Reason, e.Path)
}

// Lock is held until Release or until the process dies; child processes do not
// inherit it. It is not safe for concurrent use.
type Lock struct{ f *os.File }

// Acquire takes the lock for a command, of which one line is kept for people to
// read, or returns HeldError within a fraction of a second. The directory is
// created where it is missing and may be a link, as /var/lock is; the file may
// not (UnsafeError), and must belong to the caller or root.
func Acquire(path, command string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for deadline := time.Now().Add(patience); ; {
		l, err := try(path)
		var held *HeldError
		switch {
		case err == nil && l != nil:
			if err := l.sign(command); err != nil {
				return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), l.f.Close())
			}
			return l, nil
		case err != nil && !errors.As(err, &held):
			return nil, err
		case time.Now().After(deadline):
			if err == nil {
				err = fmt.Errorf("lock %s: the file is replaced again and again by something else", path)
			}
			return nil, err
		}
		time.Sleep(poll)
	}
}

// try takes the lock once. It returns neither lock nor error where the file was
// removed or replaced in between, as a lock on that would keep nobody out.
func try(path string) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := safe(f, path); err != nil {
		f.Close()
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, cmd := read(f)
			return nil, &HeldError{pid, cmd, path}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	mine, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(mine, now) {
		f.Close()
		return nil, nil
	}
	return &Lock{f}, nil
}

// open opens the file, creating it where it is missing. It never asks to create
// what exists: with fs.protected_regular the kernel refuses that to root for
// another user's file in a directory such as /var/lock, before its owner could
// be told.
func open(path string) (*os.File, error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) { // another process was first
			f, err = os.OpenFile(path, flags, 0)
		}
		if err == nil {
			err = f.Chmod(0o644) // whatever the umask
		}
	}
	if err == nil {
		return f, nil
	}
	if st, statErr := os.Lstat(path); statErr == nil {
		if unsafe := judge(st, path); unsafe != nil {
			return nil, unsafe
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("lock: %w; run this as the user who owns the installation, usually root", err)
	}
	return nil, fmt.Errorf("lock: %w", err)
}

func safe(f *os.File, path string) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if unsafe := judge(st, path); unsafe != nil {
		return unsafe
	}
	return nil
}

// judge tells what is wrong with a lock file; nil when nothing is.
func judge(st fs.FileInfo, path string) *UnsafeError {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		return &UnsafeError{path, "is a link"}
	case !st.Mode().IsRegular():
		return &UnsafeError{path, "is not a regular file"}
	case ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
		return &UnsafeError{path, fmt.Sprintf("belongs to uid %d, expected root or uid %d", sys.Uid, os.Geteuid())}
	case ok && sys.Nlink > 1: // its text would overwrite another file
		return &UnsafeError{path, fmt.Sprintf("has %d names (hard links), expected 1", sys.Nlink)}
	}
	return nil
}

// sign writes the PID and the command, on one line.
func (l *Lock) sign(command string) error {
	command = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, command)
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt(fmt.Appendf(nil, "%d %s\n", os.Getpid(), command), 0)
	return err
}

// Release frees the lock; releasing again does nothing. The file stays, emptied:
// removing it would race with a process that has just opened it.
func (l *Lock) Release() error {
	if l == nil || l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return errors.Join(f.Truncate(0), f.Close())
}

// Holder tells whether some process holds the lock, and which (0 when the file
// does not tell). It needs no more than the right to read the file, and a file
// that cannot be read counts as not held.
func Holder(path string) (pid int, held bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, false
	}
	pid, _ = read(f)
	return pid, true
}

// read takes PID and command from the file's text.
func read(f *os.File) (pid int, command string) {
	data := make([]byte, 4096)
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, ""
	}
	return parse(string(data[:n]))
}

func parse(text string) (pid int, command string) {
	line, _, _ := strings.Cut(text, "\n")
	first, rest, _ := strings.Cut(line, " ")
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 0 {
		return 0, ""
	}
	return pid, rest
}
