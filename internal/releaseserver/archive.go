package releaseserver

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// File is one member of an archive.
type File struct {
	Body []byte
	Mode fs.FileMode // 0644 when 0; only the permission bits count
	Link string      // target: the member is a symbolic link
}

var archiveTime = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// Archive builds a release archive in memory. kind is tar, tar.gz, tar.xz,
// tar.zst, zip, gz or bare; the last two take exactly one file. topDir is put
// before every name ("" for a flat archive). Names are written as they are, so
// hostile ones ("../x") can be made. Equal input gives equal bytes.
func Archive(kind, topDir string, files map[string]File) ([]byte, error) {
	var buf bytes.Buffer
	var err error
	switch kind {
	case "tar":
		err = writeTar(&buf, topDir, files)
	case "tar.gz":
		err = compressed(&buf, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestSpeed) }, topDir, files)
	case "tar.xz":
		err = compressed(&buf, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }, topDir, files)
	case "tar.zst":
		err = compressed(&buf, func(w io.Writer) (io.WriteCloser, error) {
			return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		}, topDir, files)
	case "zip":
		err = writeZip(&buf, topDir, files)
	case "gz", "bare":
		err = writeSingle(&buf, kind, files)
	default:
		err = errors.New("unknown kind; want tar, tar.gz, tar.xz, tar.zst, zip, gz or bare")
	}
	if err != nil {
		return nil, fmt.Errorf("archive of kind %q: %w", kind, err)
	}
	return buf.Bytes(), nil
}

func compressed(out io.Writer, open func(io.Writer) (io.WriteCloser, error), topDir string, files map[string]File) error {
	w, err := open(out)
	if err != nil {
		return err
	}
	return errors.Join(writeTar(w, topDir, files), w.Close())
}

func (f File) perm() fs.FileMode {
	if f.Mode == 0 {
		return 0o644
	}
	return f.Mode.Perm()
}

// members lists the names in order, with the directories above each before it.
func members(topDir string, files map[string]File) (names []string, dirs map[string]bool) {
	dirs = map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		full := name
		if topDir != "" {
			full = strings.TrimSuffix(topDir, "/") + "/" + name
		}
		for i, c := range full {
			if c == '/' && i > 0 && fs.ValidPath(full[:i]) && !dirs[full[:i+1]] {
				dirs[full[:i+1]] = true
				names = append(names, full[:i+1])
			}
		}
		names = append(names, full)
	}
	return names, dirs
}

func lookup(topDir, full string, files map[string]File) File {
	if topDir != "" {
		full = strings.TrimPrefix(full, strings.TrimSuffix(topDir, "/")+"/")
	}
	return files[full]
}

func writeTar(out io.Writer, topDir string, files map[string]File) error {
	w := tar.NewWriter(out)
	names, dirs := members(topDir, files)
	for _, name := range names {
		f := lookup(topDir, name, files)
		h := &tar.Header{Name: name, ModTime: archiveTime, Mode: int64(f.perm()), Size: int64(len(f.Body)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		switch {
		case dirs[name]:
			h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
		case f.Link != "":
			h.Typeflag, h.Linkname, h.Mode, h.Size = tar.TypeSymlink, f.Link, 0o777, 0
		}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if _, err := w.Write(f.Body); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return w.Close()
}

func writeZip(out io.Writer, topDir string, files map[string]File) error {
	w := zip.NewWriter(out)
	names, dirs := members(topDir, files)
	for _, name := range names {
		f := lookup(topDir, name, files)
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: archiveTime}
		h.SetMode(f.perm())
		body := f.Body
		switch {
		case dirs[name]:
			h.Method, body = zip.Store, nil
			h.SetMode(fs.ModeDir | 0o755)
		case f.Link != "":
			body = []byte(f.Link)
			h.SetMode(fs.ModeSymlink | 0o777)
		}
		m, err := w.CreateHeader(h)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := m.Write(body); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return w.Close()
}

func writeSingle(out io.Writer, kind string, files map[string]File) error {
	if len(files) != 1 {
		return fmt.Errorf("%d files given, want exactly one", len(files))
	}
	for name, f := range files {
		if kind == "bare" {
			_, err := out.Write(f.Body)
			return err
		}
		w := gzip.NewWriter(out)
		w.Name = name
		_, err := w.Write(f.Body)
		return errors.Join(err, w.Close())
	}
	return nil
}
