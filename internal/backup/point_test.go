package backup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tooDeep makes directories in dir whose path is too long to be looked into, by
// whoever it is.
func tooDeep(t *testing.T, dir string) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	for range 20 {
		name := strings.Repeat("d", 250)
		if err == nil {
			err = root.Mkdir(name, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		above := root
		root, err = above.OpenRoot(name)
		above.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	root.Close()
}

// A point that cannot be read whole loses its size, and hides neither itself nor
// the others.
func TestSizeThatCannotBeTold(t *testing.T) {
	dir := t.TempDir()
	const old, own = "20250101_000000", "20260101_000000"
	for _, stamp := range []string{old, own} {
		fill(t, dir, map[string]string{stamp + "/manifest.json": `{"run_id":"` + stamp + `"}`, stamp + "/SHA256SUMS": "", stamp + "/data/x/file": "content"})
	}
	tooDeep(t, filepath.Join(dir, old, "data"))
	p, err := Open(dir, own)
	if err != nil || !p.Complete || p.Manifest.RunID != own {
		t.Fatalf("opened %+v, %v", p, err)
	}
	points, err := List(dir)
	if err != nil || len(points) != 2 || points[0].Timestamp != own || points[1].Timestamp != old {
		t.Fatalf("listed %v, %v", points, err)
	}
	if points[0].SizeErr != nil || points[0].Bytes != points[1].Bytes {
		t.Errorf("%d bytes (%v), and of what can be reached of the other %d", points[0].Bytes, points[0].SizeErr, points[1].Bytes)
	}
	if err := points[1].SizeErr; !points[1].Complete || err == nil || !strings.Contains(err.Error(), "backup "+old+": its size is not known") {
		t.Errorf("complete %v, size: %v", points[1].Complete, err)
	}
}

// A point without its marker was never completed; one that has it and no manifest that
// can be read is damaged.
func TestDamageIsNotIncompleteness(t *testing.T) {
	const stamp = "20260101_000000"
	for name, tt := range map[string]struct {
		files    map[string]string
		complete bool
		damage   string
	}{
		"whole":                    {files: map[string]string{"manifest.json": "{}", "SHA256SUMS": ""}, complete: true},
		"nothing yet":              {files: map[string]string{"bin/prom": ""}},
		"without a marker":         {files: map[string]string{"manifest.json": "{}"}},
		"cut off, without marker":  {files: map[string]string{"manifest.json": "{"}},
		"cut off":                  {files: map[string]string{"manifest.json": `{"run_id":"x"`, "SHA256SUMS": ""}, damage: "manifest.json: cannot be read: unexpected end of JSON input"},
		"without a manifest":       {files: map[string]string{"SHA256SUMS": ""}, damage: "manifest.json: cannot be read: open"},
		"a directory for manifest": {files: map[string]string{"SHA256SUMS": "", "manifest.json/x": ""}, damage: "manifest.json: cannot be read: read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, filepath.Join(dir, stamp), tt.files)
			p, err := Open(dir, stamp)
			if err != nil || p.Complete != tt.complete || p.Manifest.RunID != "" {
				t.Fatalf("%+v, %v", p, err)
			}
			if (p.Damage == nil) != (tt.damage == "") || tt.damage != "" && !strings.HasPrefix(p.Damage.Error(), "backup "+stamp+" is damaged: "+tt.damage) {
				t.Errorf("damage: %v, want %q", p.Damage, tt.damage)
			}
		})
	}
}

func TestOpenMissing(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, map[string]string{"20260101_000000_9/manifest.json": "{}", "20260101_000000_10/manifest.json": "{}", "notes/manifest.json": "{}"})
	for _, stamp := range []string{"20260101_000000", "notes", "", "../x"} {
		_, err := Open(dir, stamp)
		var missing *NotFoundError
		if !errors.As(err, &missing) || strings.Join(missing.Have, " ") != "20260101_000000_10 20260101_000000_9" {
			t.Errorf("%q: %v", stamp, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "none"), "20260101_000000"); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("without a directory: %v", err)
	}
}
