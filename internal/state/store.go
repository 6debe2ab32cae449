package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Load reads the state file. A missing one gives an error that wraps
// fs.ErrNotExist, one that may not be read one that wraps fs.ErrPermission, one
// of a newer program NewerError, and every other trouble CorruptError.
func Load(path string) (*File, error) {
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("state file: %w", err)
	}
	if err != nil {
		return nil, &CorruptError{path, err}
	}
	f, err := decode(data)
	var newer errNewer
	if errors.As(err, &newer) {
		return nil, &NewerError{path, int(newer)}
	}
	if err != nil {
		return nil, &CorruptError{path, err}
	}
	return f, nil
}

// read reads a regular file of at most maxSize bytes; it does not wait for the
// writer of a pipe that lies in its place.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("it is a %s, expected a regular file", kind(st.Mode()))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("it is larger than %d bytes", maxSize)
	}
	return data, nil
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// Save writes the state file durably, with its directory where that is missing.
// Where the file already says the same, but for last_updated, nothing is
// written. A file that Load refuses is not overwritten: its error is returned.
func Save(h *hostfs.Host, path string, f *File) error {
	old, err := Load(path)
	switch {
	case err == nil:
		same := *old
		same.LastUpdated = f.LastUpdated
		before, errBefore := same.encode()
		after, errAfter := f.encode()
		if errBefore == nil && errAfter == nil && bytes.Equal(before, after) {
			return nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("not overwritten: %w", err)
	}
	data, err := f.encode()
	if err != nil {
		return fmt.Errorf("state file %s: %w", path, err)
	}
	if len(data) > maxSize {
		return fmt.Errorf("state file %s: not written, as its %d bytes are more than the %d that can be read back", path, len(data), maxSize)
	}
	if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	return h.WriteFile(path, data, 0o644)
}

// MoveAside renames an unreadable state file to PATH.corrupt, or to
// PATH.corrupt.2 and so on where that is taken, durably, and tells its new name.
// The caller holds the lock.
func MoveAside(h *hostfs.Host, path string) (string, error) {
	const most = 1000
	to := path + ".corrupt"
	for n := 2; n <= most; n++ {
		_, err := os.Lstat(to)
		if errors.Is(err, fs.ErrNotExist) {
			if err := h.Rename(path, to); err != nil {
				return "", fmt.Errorf("move the unreadable state file aside: %w", err)
			}
			return to, nil
		}
		if err != nil {
			return "", fmt.Errorf("move the unreadable state file aside: %w", err)
		}
		to = fmt.Sprintf("%s.corrupt.%d", path, n)
	}
	return "", fmt.Errorf("move the unreadable state file aside: %d of %s.corrupt.* exist already; remove old ones", most, path)
}
