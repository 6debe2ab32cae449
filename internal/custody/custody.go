// Package custody tells whether somebody other than root and the caller could
// have put something into a directory or a file that this program is about to
// trust (docs/reference.md, promise 10). It looks and changes nothing.
package custody

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// Error says that somebody else could have changed a path.
type Error struct {
	Path string
	Want string // what was expected of it
	Have string // what was found
	Fix  string // command to type, once a person has looked at it
}

func (e *Error) Error() string { return e.Detail() + "; look at it, then type: " + e.Fix }

// Detail is the error without the command.
func (e *Error) Detail() string {
	return fmt.Sprintf("%s: expected %s, found %s", e.Path, e.Want, e.Have)
}

// Dir insists on a directory, no link, that root or the caller owns and nobody
// else can write. A missing one is no error: there is nothing in it to trust.
func Dir(path string) error {
	st, err := lstat(path)
	switch {
	case st == nil || err != nil:
		return err
	case st.Mode()&fs.ModeSymlink != 0:
		return &Error{path, "a directory", "a link", "rm " + path}
	case !st.IsDir():
		return &Error{path, "a directory", "a file", "rm " + path}
	}
	return judge(path, st, "-R ")
}

// File insists on a regular file, no link, that root or the caller owns and
// nobody else can write. A missing one is no error.
func File(path string) error {
	st, err := lstat(path)
	switch {
	case st == nil || err != nil:
		return err
	case st.Mode()&fs.ModeSymlink != 0:
		return &Error{path, "a file", "a link", "rm " + path}
	case !st.Mode().IsRegular():
		return &Error{path, "a file", "none (" + st.Mode().Type().String() + ")", "rm -r " + path}
	}
	return judge(path, st, "")
}

// lstat is os.Lstat with nil for a missing path.
func lstat(path string) (fs.FileInfo, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return st, err
}

func judge(path string, st fs.FileInfo, recursive string) error {
	if err := owner(path, st, recursive, nil); err != nil {
		return err
	}
	if st.Mode().Perm()&0o022 != 0 {
		return &Error{path, "that only its owner can write it", fmt.Sprintf("mode %04o", st.Mode().Perm()), "chmod go-w " + path}
	}
	return nil
}

// Owner insists that root, the caller or one of the users given, by their
// numbers, owns what st tells of.
func Owner(path string, st fs.FileInfo, users []int) error { return owner(path, st, "", users) }

func owner(path string, st fs.FileInfo, recursive string, users []int) error {
	uid := UID(st)
	if uid == 0 || uid == os.Geteuid() || slices.Contains(users, uid) {
		return nil
	}
	want := fmt.Sprintf("it to belong to root or uid %d", os.Geteuid())
	if os.Geteuid() == 0 {
		want = "it to belong to root"
	}
	return &Error{path, want, fmt.Sprintf("uid %d", uid), fmt.Sprintf("chown %s%d %s", recursive, os.Geteuid(), path)}
}

// UID is the owner's number; -1 where the file system tells none.
func UID(st fs.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}
