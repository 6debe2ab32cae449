package hostfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// TryWrite proves that a file can be made in a directory: one is written, synced
// and gone again. Where the file system can, it never has a name (O_TMPFILE,
// open(2)), so that nothing stays however this process ends and the directory
// keeps its times.
func (h *Host) TryWrite(dir string) error {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_WRONLY, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) {
		if err := h.Check("try-write", dir); err != nil {
			return err
		}
		if f, err = os.CreateTemp(dir, ".obsup-write-test-*"); err != nil {
			return err
		}
		return errors.Join(fill(f), os.Remove(f.Name()))
	}
	if err != nil {
		return err
	}
	return fill(f)
}

// fill writes a page, as an empty file needs no space, and syncs it.
func fill(f *os.File) error {
	_, err := f.Write(make([]byte, 4096))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
