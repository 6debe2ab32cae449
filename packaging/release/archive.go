package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// archive writes the parts and their SHA256SUMS as NAME-VERSION.PLATFORM.tar.gz,
// with one directory at its top.
func (b *builder) archive(parts map[string]part) error {
	all := maps.Clone(parts)
	var sums bytes.Buffer
	for _, p := range slices.Sorted(maps.Keys(parts)) {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(parts[p].data), p)
	}
	all["SHA256SUMS"] = part{sums.Bytes(), 0o644}
	data, err := tarball(b.base(), all, b.source.time)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.out, b.base()+".tar.gz"), data, 0o644)
}

// tarball packs files below a top directory: in order, all of one time, all root's.
func tarball(top string, parts map[string]part, at time.Time) ([]byte, error) {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)
	dirs := map[string]bool{}
	add := func(name string, kind byte, p part) error {
		h := &tar.Header{Typeflag: kind, Name: name, Size: int64(len(p.data)), Mode: int64(p.mode), ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, err := tw.Write(p.data)
		return err
	}
	for _, p := range slices.Sorted(maps.Keys(parts)) {
		full := path.Join(top, p)
		var above []string
		for dir := path.Dir(full); dir != "." && !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true
			above = append(above, dir)
		}
		for _, dir := range slices.Backward(above) {
			if err := add(dir+"/", tar.TypeDir, part{mode: 0o755}); err != nil {
				return nil, err
			}
		}
		if err := add(full, tar.TypeReg, parts[p]); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// gzipped compresses a file as packages have manual pages: without name and time.
func gzipped(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	if _, err := zw.Write(data); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
