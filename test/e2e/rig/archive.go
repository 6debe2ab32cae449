package rig

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// WriteArchive packs the regular files in dir, which has no directories, as the
// gzipped tar file path with the one top directory top, as promu does. Tests use
// it to make broken releases. The file must not exist.
func WriteArchive(path, top, dir string) (err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	packed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(packed)
	stamp := time.Unix(1_700_000_000, 0)
	if err := tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeDir, Name: top + "/", Mode: 0o755, ModTime: stamp,
	}); err != nil {
		return err
	}
	for _, e := range entries {
		if err := addFile(tw, filepath.Join(dir, e.Name()), top+"/"+e.Name(), stamp); err != nil {
			return fmt.Errorf("pack %s into %s: %w", e.Name(), path, err)
		}
	}
	return errors.Join(tw.Close(), packed.Close())
}

func addFile(tw *tar.Writer, path, name string, stamp time.Time) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("is %s, not a regular file", st.Mode().Type())
	}
	if err := tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: int64(st.Mode().Perm()), Size: st.Size(), ModTime: stamp,
		Uid: 1001, Gid: 1002,
	}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

// copyFile copies one regular file; the target must not exist.
func copyFile(from, to string, mode fs.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
