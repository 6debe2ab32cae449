package backup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A manifest that was tampered with never makes a point that would be restored
// from: nothing vouches for it here.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"timestamp":"20260101_000000","run_id":"20260101_000000","operation":"apply","taken_at":"2026-01-01T00:00:00Z","components":[{"name":"x","version":"1.0.0","items":[{"kind":"binary","name":"x","path":"/usr/local/bin/x","stored":"bin/x","digest":"00"}]}]}`), []byte("00  manifest.json\n"))
	f.Add([]byte(`{"components":[{"items":[{"stored":"../../etc/passwd","tree":true}]}]}`), []byte("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  bin/x\n"))
	f.Add([]byte(`{"components":null}`), []byte(`\e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\nb`))
	f.Add([]byte("null"), []byte{})
	f.Fuzz(func(t *testing.T, manifest, sums []byte) {
		dir := filepath.Join(t.TempDir(), "20260101_000000")
		if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{manifestFile: manifest, sumsFile: sums, "bin/x": []byte("x")} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		points, err := List(filepath.Dir(dir))
		if err != nil || len(points) != 1 {
			t.Fatalf("%d points, %v", len(points), err)
		}
		if err := Verify(t.Context(), points[0]); err == nil {
			t.Fatal("a point whose sums nobody made is taken for whole")
		}
		if _, err := points[0].Data("x"); err != nil && !errors.As(err, new(*DamagedError)) {
			t.Fatalf("%v", err)
		}
	})
}
