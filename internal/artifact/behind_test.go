package artifact

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

// failing takes so many bytes and no more.
type failing struct{ left int }

var errFull = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestCopyBehind(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 20*chunkSize + 7} {
		body := random(size)
		for name, src := range map[string]io.Reader{"at once": bytes.NewReader(body), "by halves": iotest.HalfReader(bytes.NewReader(body)), "with its end": iotest.DataErrReader(bytes.NewReader(body))} {
			var got bytes.Buffer
			if n, err := copyBehind(&got, src); err != nil || n != int64(size) || !bytes.Equal(got.Bytes(), body) {
				t.Errorf("%d bytes %s: %d, %v", size, name, n, err)
			}
		}
		for name, end := range map[string]error{"broken": errors.New("broken"), "cut": io.ErrUnexpectedEOF} {
			var got bytes.Buffer
			src := io.MultiReader(bytes.NewReader(body), iotest.ErrReader(end))
			if n, err := copyBehind(&got, src); !errors.Is(err, end) || n != int64(size) || !bytes.Equal(got.Bytes(), body) {
				t.Errorf("%d bytes, then %s: %d, %v", size, name, n, err)
			}
		}
		if size == 0 {
			continue
		}
		for _, left := range []int{0, size / 2, size - 1} {
			if _, err := copyBehind(&failing{left}, bytes.NewReader(body)); !errors.Is(err, errFull) {
				t.Errorf("%d bytes, room for %d: %v", size, left, err)
			}
		}
	}
	// What cannot be written is not read to its end, which may never come.
	if _, err := copyBehind(&failing{3 * chunkSize}, noEnd{}); !errors.Is(err, errFull) {
		t.Error(err)
	}
}

type noEnd struct{}

// Read implements io.Reader.
func (noEnd) Read(p []byte) (int, error) { return len(p), nil }

func TestWriteout(t *testing.T) {
	path, body := filepath.Join(t.TempDir(), "file"), random(3*writeoutPiece/2)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := &writeout{file: f}
	if _, err := copyBehind(w, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	if w.begun == 0 || w.offset != int64(len(body)) {
		t.Errorf("begun %d of %d", w.begun, w.offset)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
