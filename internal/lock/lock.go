// Package lock lets one mutating command run at a time.
package lock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// HeldError says who holds the lock.
type HeldError struct {
	PID     int
	Command string
	Path    string
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("another run is in progress: process %d (%s) holds %s", e.PID, e.Command, e.Path)
}

// UnsafeError refuses a lock file that another user could have planted.
type UnsafeError struct {
	Path   string
	Reason string
}

func (e *UnsafeError) Error() string {
	return fmt.Sprintf("lock file %s %s: `rm %s`", e.Path, e.Reason, e.Path)
}

// Lock is held until Release or until the process dies.
type Lock struct{ f *os.File }

// Acquire takes the lock or returns HeldError at once.
func Acquire(path, command string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o644)
	if errors.Is(err, unix.ELOOP) {
		return nil, &UnsafeError{path, "is a link"}
	}
	if err != nil {
		return nil, err
	}
	if err := safe(f, path); err != nil {
		f.Close()
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, cmd := read(path)
			return nil, &HeldError{pid, cmd, path}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(fmt.Sprintf("%d %s\n", os.Getpid(), command)), 0)
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return &Lock{f}, nil
}

func safe(f *os.File, path string) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &UnsafeError{path, "is not a regular file"}
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return &UnsafeError{path, fmt.Sprintf("belongs to uid %d", sys.Uid)}
	}
	return nil
}

// Release frees the lock. The file stays: removing it would race.
func (l *Lock) Release() error {
	return errors.Join(l.f.Truncate(0), l.f.Close())
}

// Holder tells which process holds the lock.
func Holder(path string) (pid int, held bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || err != nil {
		return 0, false
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ = read(path)
		return pid, true
	}
	return 0, false
}

func read(path string) (pid int, command string) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, ""
	}
	first, rest, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	pid, _ = strconv.Atoi(first)
	return pid, rest
}
