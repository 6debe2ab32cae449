package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "versions.state")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSpecificationFile(t *testing.T) {
	f, err := Load("testdata/spec.json")
	if err != nil {
		t.Fatal(err)
	}
	prom := f.Components["prometheus"]
	if prom.CurrentVersion != "2.48.1" || prom.PreviousVersion != "2.47.0" || prom.Checksum != "abc123..." ||
		prom.BinaryPath != "/usr/local/bin/prometheus" || !prom.UpgradedAt.Equal(time.Date(2024, 12, 1, 14, 20, 0, 0, time.UTC)) ||
		len(prom.Backups) != 1 || prom.Backups[0].Timestamp != "20241201_142000" {
		t.Errorf("prometheus is %+v", prom)
	}
	if len(f.UpgradeHistory) != 1 || f.UpgradeHistory[0].DurationSeconds != 45 || f.Format != 1 {
		t.Errorf("file is %+v", f)
	}

	// Everything the specification's file says is in what is written from it.
	path := filepath.Join(t.TempDir(), "a", "b", "versions.state")
	if err := Save(&hostfs.Host{}, path, f); err != nil {
		t.Fatal(err)
	}
	var want, got map[string]any
	if err := json.Unmarshal([]byte(content(t, "testdata/spec.json")), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(content(t, path)), &got); err != nil {
		t.Fatal(err)
	}
	want["format_version"] = 1.0
	want["upgrade_history"].([]any)[0].(map[string]any)["id"] = ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestUnknownKeysSurvive(t *testing.T) {
	path := write(t, `{"last_updated":"2026-01-01T00:00:00Z","Components":"other case","site":{"a":[1,2.50]},"big":12345678901234567890,
"components":{"loki":{"current_version":"3.0.0","owner":"<team & co>","binary_path":"/l"}},"upgrade_history":null}`)
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	f.SetVersion("loki", "3.1.0", day)
	f.SetVersion("tempo", "1.0.0", day)
	if err := Save(&hostfs.Host{}, path, f); err != nil {
		t.Fatal(err)
	}
	want := `{
  "last_updated": "2026-01-01T00:00:00Z",
  "components": {
    "loki": {
      "current_version": "3.1.0",
      "previous_version": "3.0.0",
      "installed_at": "2026-03-01T12:00:00Z",
      "upgraded_at": "2026-03-01T12:00:00Z",
      "checksum": "",
      "binary_path": "/l",
      "owner": "<team & co>"
    },
    "tempo": {
      "current_version": "1.0.0",
      "previous_version": "",
      "installed_at": "2026-03-01T12:00:00Z",
      "checksum": "",
      "binary_path": ""
    }
  },
  "upgrade_history": [],
  "format_version": 1,
  "Components": "other case",
  "big": 12345678901234567890,
  "site": {
    "a": [
      1,
      2.50
    ]
  }
}
`
	if diff := cmp.Diff(want, content(t, path)); diff != "" {
		t.Error(diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	whole := content(t, "testdata/spec.json")
	for name, tc := range map[string]struct{ text, want string }{
		"empty":              {"", "it is empty"},
		"zeros":              {strings.Repeat("\x00", 4096), "invalid character"},
		"truncated":          {whole[:len(whole)/2], "unexpected end"},
		"trailing":           {whole + "{}", "after top-level value"},
		"null":               {"null", "null where an object is expected"},
		"list":               {"[]", "cannot unmarshal array"},
		"no components":      {`{"last_updated":"2026-01-01T00:00:00Z"}`, `no "components"`},
		"null component":     {`{"components":{"x":null}}`, "null where an object"},
		"nameless component": {`{"components":{"":{}}}`, "empty name"},
		"wrong type":         {`{"components":{"x":{"backups":"none"}}}`, "cannot unmarshal string"},
		"format zero":        {`{"components":{},"format_version":0}`, "expected 1"},
		"format text":        {`{"components":{},"format_version":"1"}`, "cannot unmarshal string"},
		"bad time":           {`{"components":{},"last_updated":"yesterday"}`, "parsing time"},
		"too large":          {strings.Repeat(" ", maxSize) + whole, "larger than 16777216"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, tc.text)
			_, err := Load(path)
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || corrupt.Path != path || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want a CorruptError with %q", err, tc.want)
			}
			if err := Save(&hostfs.Host{}, path, New()); !errors.As(err, &corrupt) {
				t.Errorf("Save went over it: %v", err)
			}
			if content(t, path) != tc.text {
				t.Error("the file was changed")
			}
		})
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, pipe} {
		var corrupt *CorruptError
		if _, err := Load(path); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Load(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestForbiddenIsNotCorrupt(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read every file")
	}
	path := write(t, `{"components":{}}`)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if _, err := Load(path); !errors.Is(err, fs.ErrPermission) || errors.As(err, &corrupt) {
		t.Errorf("got %v", err)
	}
}

func TestNewerFormatIsLeftAlone(t *testing.T) {
	// Nothing of a newer format may be interpreted: components is a list here.
	text := `{"format_version":7,"components":[]}`
	path := write(t, text)
	_, err := Load(path)
	var newer *NewerError
	if !errors.As(err, &newer) || newer.Have != 7 || !strings.Contains(err.Error(), "a newer observability-upgrade wrote it") {
		t.Fatalf("got %v", err)
	}
	if err := Save(&hostfs.Host{}, path, New()); !errors.As(err, &newer) {
		t.Errorf("Save: %v", err)
	}
	if content(t, path) != text {
		t.Error("the file was changed")
	}
}

func TestSaveWritesOnlyChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "versions.state")
	var ops []string
	h := &hostfs.Host{Guard: func(op, _ string) error { ops = append(ops, op); return nil }}
	f := New()
	f.SetVersion("x", "1.0.0", day)
	f.LastUpdated = day
	if err := Save(h, path, f); err != nil || len(ops) == 0 {
		t.Fatalf("first save: %v, operations %v", err, ops)
	}
	first := content(t, path)
	ops = nil
	f.LastUpdated = day.Add(time.Hour)
	if err := Save(h, path, f); err != nil || len(ops) != 0 || content(t, path) != first {
		t.Errorf("saving the same again: %v, operations %v", err, ops)
	}
	if !f.LastUpdated.Equal(day.Add(time.Hour)) {
		t.Error("Save changed its argument")
	}
	f.SetVersion("x", "1.1.0", day)
	if err := Save(h, path, f); err != nil || len(ops) == 0 {
		t.Errorf("saving a change: %v, operations %v", err, ops)
	}
}

func TestFailedSaveKeepsTheOldFile(t *testing.T) {
	for _, op := range []string{"write", "write.rename"} {
		path := write(t, `{"components":{}}`)
		h := &hostfs.Host{Guard: func(got, _ string) error {
			if got == op {
				return hostfs.ErrCrashed
			}
			return nil
		}}
		f := New()
		f.SetVersion("x", "1.0.0", day)
		if err := Save(h, path, f); !errors.Is(err, hostfs.ErrCrashed) {
			t.Errorf("%s: %v", op, err)
		}
		if got := content(t, path); got != `{"components":{}}` {
			t.Errorf("%s: file holds %q", op, got)
		}
	}
}

func TestMoveAside(t *testing.T) {
	h := &hostfs.Host{}
	path := write(t, "one")
	for i, want := range []string{path + ".corrupt", path + ".corrupt.2", path + ".corrupt.3"} {
		text := strings.Repeat("x", i+1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := MoveAside(h, path)
		if err != nil || got != want || content(t, got) != text {
			t.Errorf("moved to %s, %v; want %s", got, err, want)
		}
	}
	if _, err := MoveAside(h, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("moving a missing file: %v", err)
	}
	// A name that cannot even be looked up ends the search.
	if _, err := MoveAside(h, filepath.Join(path+".corrupt", "below-a-file")); err == nil {
		t.Error("moving below a file succeeded")
	}
}

func FuzzDecode(f *testing.F) {
	spec, err := os.ReadFile("testdata/spec.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(spec), `{"components":{}}`, `{"components":{"x":{"k":1}},"k":[]}`, `{"format_version":2}`, `null`, "",
		`{"components":{"x":{"failed_versions":[{"version":"1","failed_at":"2026-01-01T00:00:00+02:00"}],"binaries":null}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := decode(data)
		if err != nil {
			return
		}
		once, err := file.encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := decode(once)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, once)
		}
		twice, err := again.encode()
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("a second round differs: %v\n%s\n%s", err, once, twice)
		}
	})
}
