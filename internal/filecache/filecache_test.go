package filecache

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// later is a clock by which all files of a test have been left alone for long.
func later() time.Time { return time.Now().Add(time.Hour) }

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// asked returns what the cache says of a file that would tell answer, and whether
// the file was asked.
func asked(t *testing.T, c *Cache[string], path, about, answer string) (string, bool) {
	t.Helper()
	did := false
	got, err := c.Get(path, about, func() (string, bool, error) { did = true; return answer, true, nil })
	if err != nil {
		t.Fatal(err)
	}
	return got, did
}

func TestRemember(t *testing.T) {
	dir := t.TempDir()
	file, program := filepath.Join(dir, "cache/answers.json"), filepath.Join(dir, "program")
	write(t, program, "one")
	c := Open[string](file, "s", later, slog.New(slog.DiscardHandler))
	if got, did := asked(t, c, program, "version", "1"); got != "1" || !did {
		t.Fatalf("got %q, asked %v", got, did)
	}
	c.Save()
	c = Open[string](file, "s", later, slog.New(slog.DiscardHandler))
	if got, did := asked(t, c, program, "version", "2"); got != "1" || did {
		t.Fatalf("not remembered: got %q, asked %v", got, did)
	}
	if got, did := asked(t, c, program, "name", "x"); got != "x" || !did {
		t.Fatalf("another question: got %q, asked %v", got, did)
	}
	// The same size and times do not make it the same file.
	st, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	write(t, program+".new", "two")
	if err := errors.Join(os.Chtimes(program+".new", st.ModTime(), st.ModTime()), os.Rename(program+".new", program)); err != nil {
		t.Fatal(err)
	}
	if got, did := asked(t, c, program, "version", "2"); got != "2" || !did {
		t.Fatalf("replaced: got %q, asked %v", got, did)
	}
	c.Save()
	data, err := os.ReadFile(file)
	if err != nil || strings.Count(string(data), `"identity"`) != 1 {
		t.Fatalf("%s (%v)", data, err)
	}
	if c = Open[string](file, "other", later, slog.New(slog.DiscardHandler)); len(c.known) != 0 {
		t.Fatalf("of another scope: %v", c.known)
	}
}

// Nothing is remembered of a file that was just written, that changes while it is
// asked, whose answer says so, or of one that is away.
func TestNotRemembered(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	write(t, program, "one")
	fresh := Open[string]("", "", time.Now, slog.New(slog.DiscardHandler))
	old := Open[string]("", "", later, slog.New(slog.DiscardHandler))
	for name, get := range map[string]func() (string, error){
		"just written": func() (string, error) {
			return fresh.Get(program, "", func() (string, bool, error) { return "1", true, nil })
		},
		"changes": func() (string, error) {
			return old.Get(program, "", func() (string, bool, error) { write(t, program, "three"); return "1", true, nil })
		},
		"not to be kept": func() (string, error) {
			return old.Get(program, "", func() (string, bool, error) { return "1", false, nil })
		},
	} {
		if got, err := get(); err != nil || got != "1" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if len(fresh.known)+len(old.known) != 0 {
		t.Errorf("remembered: %v %v", fresh.known, old.known)
	}
	if _, err := old.Get(program+"-away", "", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A file that cannot be read is empty, and is replaced.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	file, program := filepath.Join(dir, "answers.json"), filepath.Join(dir, "program")
	write(t, program, "one")
	for _, damage := range []string{"{", "[]", `{"files":{"a":7}}`, ""} {
		write(t, file, damage)
		var said strings.Builder
		c := Open[string](file, "", later, slog.New(slog.NewTextHandler(&said, nil)))
		if got, did := asked(t, c, program, "", "1"); got != "1" || !did || !strings.Contains(said.String(), "cannot be read") {
			t.Errorf("%q: got %q, asked %v, said %q", damage, got, did, said.String())
		}
		c.Save()
		if again := Open[string](file, "", later, slog.New(slog.DiscardHandler)); len(again.known) != 1 {
			t.Errorf("%q: not replaced", damage)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"scope":"s","files":{"/bin/a\nversion":{"path":"/bin/a","identity":"1:2 3 4.5 6.7","value":"1.0.0"}}}`))
	f.Add([]byte(`{"files":null}`))
	f.Add([]byte(`{"files":{"":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "f")
		write(t, file, string(data))
		c := Open[string](file, "s", later, slog.New(slog.DiscardHandler))
		c.changed = true
		c.Save() // what is not so of a file that is there goes
		if len(c.known) != 0 {
			t.Fatalf("kept: %v", c.known)
		}
	})
}
