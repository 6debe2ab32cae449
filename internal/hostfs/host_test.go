package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, path, text string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("%s holds %q, %v; want %q", path, got, err, text)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// failAt returns a guard that refuses one operation with err and notes all.
func failAt(op string, err error) (*Host, *[]string) {
	var ops []string
	return &Host{Guard: func(got, target string) error {
		ops = append(ops, got+" "+filepath.Base(target))
		if got == op {
			return err
		}
		return nil
	}}, &ops
}

var errInjected = errors.New("injected")

func TestWriteFile(t *testing.T) {
	var h *Host // usable without a guard, and as nil
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := h.WriteFile(path, []byte("one"), 0o604); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o604 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := errors.Join(os.Chmod(path, 0o640), h.WriteFile(path, []byte("two"), 0o604)); err != nil {
		t.Fatal(err)
	}
	expect(t, path, "two")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("the existing file's mode was not kept: %v, %v", st.Mode(), err)
	}

	// A link is replaced; what it points to is not touched.
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Symlink(path, link), h.WriteFile(link, []byte("three"), 0o600)); err != nil {
		t.Fatal(err)
	}
	expect(t, path, "two")
	expect(t, link, "three")
}

func TestWriteFileIsAtomic(t *testing.T) {
	for _, op := range []string{"write", "write.rename"} {
		for _, injected := range []error{errInjected, ErrCrashed} {
			t.Run(fmt.Sprint(op, " ", injected), func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "f")
				put(t, path, "old", 0o640)
				h, _ := failAt(op, injected)
				if err := h.WriteFile(path, []byte("new"), 0o644); !errors.Is(err, injected) {
					t.Errorf("got %v", err)
				}
				expect(t, path, "old")
				// After a crash nothing runs, so nothing tidies up.
				if left := names(t, dir) != "f"; left != (op == "write.rename" && errors.Is(injected, ErrCrashed)) {
					t.Errorf("directory holds %s", names(t, dir))
				}
				if err := (&Host{}).WriteFile(path, []byte("new"), 0o644); err != nil {
					t.Error(err)
				}
				expect(t, path, "new")
				if got := names(t, dir); got != "f" {
					t.Errorf("directory holds %s after the next write", got)
				}
			})
		}
	}
}

func TestEveryEffectAsksTheGuard(t *testing.T) {
	for op, do := range map[string]func(h *Host, dir string) error{
		"mkdir":  func(h *Host, dir string) error { return h.MkdirAll(filepath.Join(dir, "x", "y"), 0o755) },
		"write":  func(h *Host, dir string) error { return h.WriteFile(filepath.Join(dir, "a"), nil, 0o644) },
		"append": func(h *Host, dir string) error { return h.Append(filepath.Join(dir, "a"), []byte("x"), 0o644) },
		"copy":   func(h *Host, dir string) error { return h.Copy(filepath.Join(dir, "a"), filepath.Join(dir, "c"), "") },
		"exchange": func(h *Host, dir string) error {
			return h.Exchange(filepath.Join(dir, "a"), filepath.Join(dir, "b"))
		},
		"rename": func(h *Host, dir string) error { return h.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "c")) },
		"remove": func(h *Host, dir string) error { return h.Remove(filepath.Join(dir, "a")) },
		"stop":   func(h *Host, _ string) error { return h.Check("stop", "x.service") },
	} {
		t.Run(op, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "a"), "a", 0o644)
			put(t, filepath.Join(dir, "b"), "b", 0o644)
			h, ops := failAt(op, ErrCrashed)
			if err := do(h, dir); !errors.Is(err, ErrCrashed) {
				t.Errorf("got %v", err)
			}
			if len(*ops) != 1 {
				t.Errorf("announced %v", *ops)
			}
			if got := names(t, dir); got != "a b" {
				t.Errorf("directory holds %s", got)
			}
			expect(t, filepath.Join(dir, "a"), "a")
			if err := do(&Host{}, dir); err != nil {
				t.Errorf("without the guard: %v", err)
			}
		})
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "d", "f"), "f", 0o644)
	h, _ := failAt("remove", ErrCrashed)
	if err := h.RemoveAll(filepath.Join(dir, "d")); !errors.Is(err, ErrCrashed) {
		t.Errorf("RemoveAll: %v", err)
	}
	expect(t, filepath.Join(dir, "d", "f"), "f")
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	h, ops := failAt("", nil)
	if err := h.MkdirAll(filepath.Join(dir, "a", "b", "c"), 0o750); err != nil {
		t.Fatal(err)
	}
	if want := []string{"mkdir a", "mkdir b", "mkdir c"}; !slices.Equal(*ops, want) {
		t.Errorf("announced %v, want %v", *ops, want)
	}
	*ops = nil
	if err := h.MkdirAll(filepath.Join(dir, "a", "b"), 0o750); err != nil || len(*ops) != 0 {
		t.Errorf("again: %v, announced %v", err, *ops)
	}
	put(t, filepath.Join(dir, "file"), "", 0o644)
	for name, target := range map[string]string{"good": "a", "nowhere": "missing"} {
		if err := os.Symlink(filepath.Join(dir, target), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.MkdirAll(filepath.Join(dir, "good", "x"), 0o755); err != nil {
		t.Errorf("below a link to a directory: %v", err)
	}
	for _, path := range []string{"file", "file/x", "nowhere", "nowhere/x"} {
		if err := h.MkdirAll(filepath.Join(dir, path), 0o755); err == nil {
			t.Errorf("%s: no error, though it is no directory", path)
		}
	}
	// Several at once, as two first runs would.
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { errs[i] = (&Host{}).MkdirAll(filepath.Join(dir, "p", "q", "r"), 0o755) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestAppend(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	h := &Host{}
	for _, line := range []string{"one\n", "two\n"} {
		if err := h.Append(path, []byte(line), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, path, "one\ntwo\n")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := h.Append(link, []byte("three\n"), 0o640); !errors.Is(err, unix.ELOOP) {
		t.Errorf("appending through a link: %v", err)
	}
	expect(t, path, "one\ntwo\n")
}

// Each becomes what the other was, whether the file system can exchange or not.
func TestExchange(t *testing.T) {
	for _, tc := range []struct {
		name, a, b string
		refused    error
	}{
		{name: "files", a: "a", b: "b"},
		{name: "directories", a: "da", b: "db"},
		{name: "files in steps", a: "a", b: "b", refused: unix.EINVAL},
		{name: "directories in steps", a: "da", b: "db", refused: unix.ENOTSUP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &Host{Guard: func(op, _ string) error {
				if op == "exchange" {
					return tc.refused
				}
				return nil
			}}
			dir := t.TempDir()
			put(t, filepath.Join(dir, "a"), "A", 0o755)
			put(t, filepath.Join(dir, "b"), "B", 0o700)
			put(t, filepath.Join(dir, "da", "x"), "A", 0o644)
			put(t, filepath.Join(dir, "db", "y", "z"), "B", 0o644)
			a, b := filepath.Join(dir, tc.a), filepath.Join(dir, tc.b)
			put(t, filepath.Join(Aside(b), "left"), "by a run that was cut off", 0o644)
			digests := func() [2]string {
				x, errX := Digest(a)
				y, errY := Digest(b)
				if err := errors.Join(errX, errY); err != nil {
					t.Fatal(err)
				}
				return [2]string{x, y}
			}
			before := digests()
			if err := h.Exchange(a, b); err != nil {
				t.Fatal(err)
			}
			if after := digests(); after[0] != before[1] || after[1] != before[0] {
				t.Errorf("digests %v, then %v", before, after)
			}
			if err := h.Exchange(a, b); err != nil || digests() != before {
				t.Errorf("exchanging back: %v", err)
			}
			if err := h.Exchange(a, filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) || digests() != before {
				t.Errorf("exchanging with nothing: %v", err)
			}
			if _, err := os.Lstat(Aside(b)); tc.refused != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what was aside is left: %v", err)
			}
		})
	}
}

func TestRenameAndRemove(t *testing.T) {
	dir := t.TempDir()
	h := &Host{}
	put(t, filepath.Join(dir, "a", "f"), "f", 0o644)
	put(t, filepath.Join(dir, "b", "g"), "g", 0o644)
	if err := h.Rename(filepath.Join(dir, "a", "f"), filepath.Join(dir, "b", "g")); err != nil {
		t.Fatal(err)
	}
	expect(t, filepath.Join(dir, "b", "g"), "f")
	for _, path := range []string{"b/g", "b/g", "missing/x", "b"} {
		if err := h.Remove(filepath.Join(dir, path)); err != nil {
			t.Errorf("remove %s: %v", path, err)
		}
	}
	put(t, filepath.Join(dir, "a", "c", "f"), "f", 0o644)
	if err := h.Remove(filepath.Join(dir, "a")); err == nil {
		t.Error("Remove deleted a directory with content")
	}
	for range 2 {
		if err := h.RemoveAll(filepath.Join(dir, "a")); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, dir); got != "" {
		t.Errorf("directory holds %s", got)
	}
}

func TestBeside(t *testing.T) {
	if got := Beside("/usr/local/bin/prometheus", "new"); got != "/usr/local/bin/.prometheus.obsup-new" {
		t.Error(got)
	}
}

func TestMkdirAllWhateverTheUmask(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	err := (&Host{}).MkdirAll(filepath.Join(dir, "a", "b"), 0o755)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "a/b"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v %v", name, st.Mode(), err)
		}
	}
	// A group that new entries get from their directory is kept.
	if err := os.Chmod(dir, 0o755|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	if err := (&Host{}).MkdirAll(filepath.Join(dir, "c"), 0o775); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "c")); err != nil || st.Mode().Perm() != 0o775 || st.Mode()&fs.ModeSetgid == 0 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// A link that somebody puts into their directory does not lead a removal out of it.
func TestRemoveAllInStaysInside(t *testing.T) {
	base := t.TempDir()
	data, victim := filepath.Join(base, "data"), filepath.Join(base, "victim")
	for _, dir := range []string{filepath.Join(data, "real", "x"), filepath.Join(victim, "x")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../victim", filepath.Join(data, "link")); err != nil {
		t.Fatal(err)
	}
	h := &Host{}
	if err := h.RemoveAllIn(data, "link/x"); err == nil {
		t.Error("a link out was followed")
	}
	if err := h.RemoveAllIn(data, "../victim"); err == nil {
		t.Error("a path out was followed")
	}
	if _, err := os.Lstat(filepath.Join(victim, "x")); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveAllIn(data, "real/x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(data, "real", "x")); !os.IsNotExist(err) {
		t.Fatalf("it is still there: %v", err)
	}
}
