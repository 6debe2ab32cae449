package preflight

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Inode flags of linux/fs.h, FS_IOC_GETFLAGS: ioctl_iflags(2).
const (
	flagImmutable  = 0x10
	flagAppendOnly = 0x20
)

// checkBinary proves that the files may be replaced: their directories can be
// written, and nobody has locked them with chattr.
func (c *checker) checkBinary(_ context.Context, st step) finding {
	var checks []component.Check
	for _, name := range slices.Sorted(maps.Keys(st.in.Binaries)) {
		path := st.in.Binaries[name]
		dir := filepath.Dir(path)
		if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
			checks = append(checks, fail(BinaryWritable, st.Component, "sudo observability-upgrade plan",
				"%s: expected a directory this user can write, found: %v", dir, err))
		}
		for _, p := range []string{path, dir} {
			if flag := locked(p); flag != 0 {
				letter, word := "i", "immutable"
				if flag&flagImmutable == 0 {
					letter, word = "a", "append-only"
				}
				checks = append(checks, fail(BinaryWritable, st.Component, "chattr -"+letter+" "+p,
					"%s: expected a file that can be replaced, found it %s (lsattr)", p, word))
			}
		}
	}
	checks = slices.Compact(checks)
	if len(checks) == 0 {
		checks = append(checks, ok(BinaryWritable, st.Component, "its files can be replaced"))
	}
	return found(checks...)
}

// locked returns the flags that keep a file from being replaced; 0 also where
// the file system has none.
func locked(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return 0
	}
	return flags & (flagImmutable | flagAppendOnly)
}
