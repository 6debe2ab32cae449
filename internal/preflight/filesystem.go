package preflight

import (
	"golang.org/x/sys/unix"
)

// FS is what is known of the file system a directory is on.
type FS struct {
	Device      uint64 // st_dev of the directory
	Bytes       int64  // free to us
	Files       int64  // free inodes
	CountsFiles bool   // false where inodes are made as needed (btrfs)
	ReadOnly    bool
	NoExec      bool
}

// FileSystems tells of the file system of a directory that exists.
type FileSystems interface {
	// Stat looks at the file system that dir is on.
	Stat(dir string) (FS, error)
}

// hostFileSystems asks the kernel: stat(2), statfs(2).
type hostFileSystems struct{}

// Stat looks at the file system that dir is on.
func (hostFileSystems) Stat(dir string) (FS, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return FS{}, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return FS{}, err
	}
	flags := int64(fs.Flags) //nolint:unconvert // 32 bits wide on arm
	return FS{
		Device: uint64(st.Dev), Bytes: int64(fs.Bavail) * int64(fs.Bsize), Files: int64(fs.Ffree), CountsFiles: fs.Files > 0, //nolint:unconvert,gosec // narrower on arm; less than 8 EiB
		ReadOnly: flags&unix.ST_RDONLY != 0, NoExec: flags&unix.ST_NOEXEC != 0,
	}, nil
}
