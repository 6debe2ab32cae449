package releaseserver

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func TestArchive(t *testing.T) {
	files := map[string]File{"bin/tool": {Body: []byte("#!"), Mode: 0o755}, "README": {Body: []byte("hi")}, "link": {Link: "README"}}
	want := []string{"top/", "top/README", "top/bin/", "top/bin/tool", "top/link"}
	for _, kind := range []string{"tar", "tar.gz", "tar.xz", "tar.zst", "zip"} {
		t.Run(kind, func(t *testing.T) {
			a, err := Archive(kind, "top", files)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Archive(kind, "top", files)
			if err != nil || !bytes.Equal(a, b) {
				t.Errorf("not deterministic (%v)", err)
			}
			var names []string
			if kind == "zip" {
				r, err := zip.NewReader(bytes.NewReader(a), int64(len(a)))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range r.File {
					names = append(names, f.Name)
					if f.Name == "top/link" && f.Mode()&fs.ModeSymlink == 0 {
						t.Error("link is no link")
					}
				}
			} else {
				names = tarNames(t, kind, a)
			}
			slices.Sort(names)
			if !slices.Equal(names, want) {
				t.Errorf("members %q, want %q", names, want)
			}
		})
	}
	if got, err := Archive("bare", "", map[string]File{"x": {Body: []byte("b")}}); err != nil || string(got) != "b" {
		t.Errorf("bare: %q %v", got, err)
	}
	if _, err := Archive("gz", "", files); err == nil {
		t.Error("gz of three files: no error")
	}
	if _, err := Archive("rar", "", files); err == nil {
		t.Error("unknown kind: no error")
	}
}

func tarNames(t *testing.T, kind string, a []byte) []string {
	t.Helper()
	var r io.Reader = bytes.NewReader(a)
	var err error
	switch kind {
	case "tar.gz":
		r, err = gzip.NewReader(r)
	case "tar.xz":
		r, err = xz.NewReader(r)
	case "tar.zst":
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "top/bin/tool" && h.Mode != 0o755 {
			t.Errorf("mode %o", h.Mode)
		}
		names = append(names, h.Name)
	}
}

func TestChecksums(t *testing.T) {
	got, err := Checksums(Bytes("a", []byte("x")), Bytes("b", nil))
	want := "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881  a\n" +
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
}
