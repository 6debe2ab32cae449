package yamlfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// InsecureError says that somebody other than root and the caller could change
// a file (docs/reference.md, promise 10).
type InsecureError struct {
	Path string // file or directory
	Mode string // its permission bits, octal
	Why  string
	Fix  string // command to type
}

func (e *InsecureError) Error() string {
	return fmt.Sprintf("%s (mode %s) %s, so it is not used; type: %s", e.Path, e.Mode, e.Why, e.Fix)
}

// Read reads a file and decodes it strictly into out; see Decode. It refuses,
// with an InsecureError, a file that others can write. A missing file is an
// error that wraps fs.ErrNotExist.
func Read(path string, out any) error {
	n, err := Load(path)
	return n.decodeBeside(err, out)
}

// Load is Read without the decoding. An empty file gives a nil node; beside an
// error there may be one, see Parse.
func Load(path string) (*Node, error) {
	data, err := ReadSecure(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// ReadSecure returns the content of a file that root or the caller owns and
// nobody else can write, in a directory of which the same is true. Of a link,
// the target and both directories are looked at.
func ReadSecure(path string) ([]byte, error) {
	// A pipe in its place has no writer to wait for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if target, linked := os.Readlink(path); linked == nil && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: it is a link to %s, which does not exist; mend or remove it", path, target) // not one that is left out
	}
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			return nil, fmt.Errorf("read %s: %w", path, pe.Err)
		}
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if err := checkSecure(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > MaxSize {
		return nil, Errors{{File: path, Message: fmt.Sprintf("larger than %d KiB, the most that is read of a configuration file", MaxSize>>10)}}
	}
	return data, nil
}

// CheckSecure refuses what ReadSecure would, without reading the file: whoever asks
// may not be allowed to. A missing file is no error.
func CheckSecure(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", path, err)
	}
	return checkSecure(path, info)
}

func checkSecure(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("read %s: not a regular file (%s)", path, info.Mode().Type())
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := checkOwner(real, info); err != nil {
		return err
	}
	dirs := []string{filepath.Dir(path)}
	if filepath.Dir(real) != dirs[0] {
		dirs = append(dirs, filepath.Dir(real))
	}
	for _, dir := range dirs {
		di, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if err := checkOwner(dir, di); err != nil {
			return err
		}
	}
	return nil
}

// checkOwner refuses what somebody other than root and the caller owns or can
// write. Group root may write what root owns.
func checkOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner cannot be read", path)
	}
	perm := info.Mode().Perm()
	e := &InsecureError{Path: path, Mode: fmt.Sprintf("%04o", perm)}
	uid := os.Geteuid()
	switch {
	case st.Uid != 0 && int(st.Uid) != uid:
		e.Why, e.Fix = fmt.Sprintf("belongs to user %d, neither root nor you", st.Uid), "chown root: "+path
		if uid != 0 {
			e.Fix = "sudo " + e.Fix
		}
	case perm&0o002 != 0:
		e.Why, e.Fix = "can be written by everybody", "chmod go-w "+path
	case perm&0o020 != 0 && (st.Uid != 0 || st.Gid != 0):
		e.Why, e.Fix = fmt.Sprintf("can be written by group %d", st.Gid), "chmod g-w "+path
	default:
		return nil
	}
	return e
}
