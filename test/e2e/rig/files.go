package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Path is where a file of the container is on the machine. Absolute symbolic
// links inside are not followed the container's way, and what is mounted inside
// (/run, /tmp) is not there: ReadFile and the like do both right.
func (c *Container) Path(path string) string { return filepath.Join(c.root, path) }

// openRoot opens the container's root directory: its own view while it runs.
func (c *Container) openRoot() (*os.File, error) {
	root := c.root
	if leader, err := c.Leader(); err == nil {
		root = fmt.Sprintf("/proc/%d/root", leader)
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	return os.NewFile(uintptr(fd), root), nil
}

// open opens a file as the container sees it: no symbolic link leads out.
func (c *Container) open(path string, flags int, mode fs.FileMode) (*os.File, error) {
	root, err := c.openRoot()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode.Perm())
	}
	fd, err := unix.Openat2(int(root.Fd()), path, how)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: c.Name + ":" + path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// WriteFile writes a file, owned by root, with the mode whatever the umask.
// Missing directories are made. An existing file is overwritten in place.
func (c *Container) WriteFile(path string, data []byte, mode fs.FileMode) error {
	return c.write(path, strings.NewReader(string(data)), mode)
}

// CopyIn copies a file of the machine into the container, as WriteFile does.
func (c *Container) CopyIn(hostPath, path string, mode fs.FileMode) error {
	in, err := os.Open(hostPath)
	if err != nil {
		return err
	}
	defer in.Close()
	return c.write(path, in, mode)
}

func (c *Container) write(path string, from io.Reader, mode fs.FileMode) (err error) {
	if err := c.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	// A program can be run once nobody has it open for writing; a child that this
	// process forks meanwhile, for another container, would have it until its exec.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := c.open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, from); err != nil {
		return fmt.Errorf("write %s in container %s: %w", path, c.Name, err)
	}
	return f.Chmod(mode)
}

// MkdirAll makes a directory and those above it, with mode 0755.
func (c *Container) MkdirAll(path string) error {
	path = filepath.Clean("/" + path)
	if d, err := c.open(path, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		return d.Close()
	} else if path == "/" || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := c.MkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	parent, err := c.open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := unix.Mkdirat(int(parent.Fd()), filepath.Base(path), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return &fs.PathError{Op: "mkdir", Path: c.Name + ":" + path, Err: err}
	}
	return unix.Fchmodat(int(parent.Fd()), filepath.Base(path), 0o755, 0)
}

// ReadFile reads a file of the container.
func (c *Container) ReadFile(path string) ([]byte, error) {
	f, err := c.open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// TreeDigest is one digest over everything at and below the paths; see
// TreeListing for what counts.
func (c *Container) TreeDigest(ctx context.Context, paths ...string) (string, error) {
	list, err := c.TreeListing(ctx, paths...)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(list, "\n")))
	return hex.EncodeToString(sum[:]), nil
}

// TreeListing describes everything at and below the paths, one line each in
// lexical order: name, type and mode, owner and group, time of modification in
// nanoseconds (not of directories: they change whenever a file is swapped and
// swapped back), extended attributes, and the digest of the content or the
// target of the link. A path that does not exist gives a line that says so.
// Paths are on the container's disk, not in what is mounted inside.
func (c *Container) TreeListing(ctx context.Context, paths ...string) ([]string, error) {
	var list []string
	for _, top := range paths {
		top = filepath.Clean("/" + top)
		if _, err := os.Lstat(c.Path(top)); errors.Is(err, fs.ErrNotExist) {
			list = append(list, top+" absent")
			continue
		}
		err := filepath.WalkDir(c.Path(top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			line, err := describe(path)
			if err != nil {
				return err
			}
			list = append(list, strings.TrimPrefix(path, c.root)+" "+line)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list %s in container %s: %w", top, c.Name, err)
		}
	}
	return list, nil
}

func describe(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	line := fmt.Sprintf("%o %d:%d", st.Mode, st.Uid, st.Gid)
	attrs, err := attributes(path)
	if err != nil {
		return "", err
	}
	line += attrs
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return line, nil
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return fmt.Sprintf("%s %d -> %s", line, st.Mtim.Nano(), target), err
	case unix.S_IFREG:
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %d %d sha256:%x", line, st.Mtim.Nano(), st.Size, h.Sum(nil)), nil
	default:
		return fmt.Sprintf("%s %d rdev %d", line, st.Mtim.Nano(), st.Rdev), nil
	}
}

func attributes(path string) (string, error) {
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return "", &fs.PathError{Op: "listxattr", Path: path, Err: err}
	}
	var line strings.Builder
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 65536)
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", &fs.PathError{Op: "getxattr " + name, Path: path, Err: err}
		}
		fmt.Fprintf(&line, " %s=%x", name, value[:size])
	}
	return line.String(), nil
}
