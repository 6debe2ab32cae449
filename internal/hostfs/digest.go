package hostfs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Digest is the SHA-256, in hex, of a regular file's content, of a symbolic
// link's target, or, for a directory, of the sorted list of its entries with
// their digests and modes, without sockets, which Copy leaves out too. A
// missing path gives "" and no error.
func Digest(path string) (string, error) {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return digestEntry(path, st)
}

func digestEntry(path string, st fs.FileInfo) (string, error) {
	sum := sha256.New()
	switch {
	case st.Mode().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if _, err := io.Copy(sum, f); err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "link %s", target)
	case st.IsDir():
		entries, err := os.ReadDir(path) // sorted by name
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if e.Type()&fs.ModeSocket != 0 {
				continue
			}
			info, err := e.Info()
			if err != nil {
				return "", err
			}
			d, err := digestEntry(filepath.Join(path, e.Name()), info)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%q %s %s\n", e.Name(), info.Mode(), d)
		}
	default:
		fmt.Fprintf(sum, "special %s", st.Mode().Type())
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// DigestBytes is the SHA-256 of data, in hexadecimal.
func DigestBytes(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
