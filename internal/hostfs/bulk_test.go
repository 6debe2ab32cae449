package hostfs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCopyBulk(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	long := strings.Repeat("x", 3<<20)
	for name, content := range map[string]string{"a/b": "content", "block": "shared", "long": long, "skipped/c": "no"} {
		path := filepath.Join(src, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	var told int64
	got, err := new(Host).CopyBulk(src, filepath.Join(t.TempDir(), "dst"), Bulk{
		Skip:      func(rel string) bool { return rel == "skipped" },
		Immutable: func(rel string) bool { return rel == "block" },
		Tell:      func(n int64) { told += n },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := int64(len("content") + len("shared") + len(long))
	if got.Bytes != want || told != want || got.Linked != 1 || got.Shared != int64(len("shared")) {
		t.Errorf("%+v, told of %d, want %d bytes", got, told, want)
	}
	for _, name := range []string{"a/b", "long"} {
		if sum, err := Digest(filepath.Join(src, name)); err != nil || got.Sums[name] != sum {
			t.Errorf("%s: sum %s, want %s (%v)", name, got.Sums[name], sum, err)
		}
	}
	if len(got.Sums) != 2 {
		t.Errorf("sums %v: want those of files that were read", got.Sums)
	}
}

func TestCopyBulkStops(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "long"), make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	enough, asked := errors.New("enough"), 0
	_, err := new(Host).CopyBulk(src, filepath.Join(t.TempDir(), "dst"), Bulk{Stop: func() error {
		if asked++; asked > 4 { // twice for the entries, then within the file
			return enough
		}
		return nil
	}})
	if !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
}

// A file that cannot be copied ends the copy of the others, by its own error.
func TestCopyBulkFails(t *testing.T) {
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "dst")
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		if err := os.WriteFile(filepath.Join(src, name), make([]byte, 8<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var told int64
	_, err := new(Host).CopyBulk(src, dst, Bulk{
		Skip: func(rel string) bool {
			if rel == "b" { // somebody takes its place
				_ = os.Mkdir(filepath.Join(dst, rel), 0o700)
			}
			return false
		},
		Tell: func(n int64) { told += n },
	})
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("%v", err)
	}
	if told >= 40<<20 {
		t.Error("the others were copied whole")
	}
}

// A copy of a link to a directory would hold nothing, and look like one.
func TestCopyBulkOfALink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(dir, "dst")
	if _, err := new(Host).CopyBulk(link, dst, Bulk{}); err == nil || !strings.Contains(err.Error(), "expected a directory, found a link") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(dst); err == nil {
		t.Error("something was copied")
	}
	never := errors.New("it leads out")
	if _, err := new(Host).CopyBulk(dir, filepath.Join(t.TempDir(), "dst"), Bulk{Link: func(string) error { return never }}); !errors.Is(err, never) {
		t.Errorf("%v", err)
	}
}
