package artifact

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func TestPrune(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		limit   int64
		needed  []component.Digest
		left    string
		removed int64
	}{
		"there is room":                {limit: 40, left: "sha256/a sha256/b sha256/c sha256/d sha512/d"},
		"the longest unused goes":      {limit: 39, left: "sha256/b sha256/c sha256/d sha512/d", removed: 10},
		"what is needed stays":         {limit: 25, needed: []component.Digest{"sha256:a"}, left: "sha256/a sha256/d sha512/d", removed: 20},
		"by its other name too":        {limit: 0, needed: []component.Digest{"sha512:d"}, left: "sha256/d sha512/d", removed: 30},
		"all names of one go":          {limit: 0, left: "", removed: 40},
		"what is needed is too much":   {limit: 5, needed: []component.Digest{"sha256:b", "sha256:c"}, left: "sha256/b sha256/c", removed: 20},
		"needed, and not in the cache": {limit: 40, needed: []component.Digest{"sha256:e"}, left: "sha256/a sha256/b sha256/c sha256/d sha512/d"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, sub := range []string{"artifacts/sha256", "artifacts/sha512", "partial"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			put := func(path string, age time.Duration) {
				path = filepath.Join(dir, path)
				if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
					t.Fatal(err)
				}
			}
			for i, n := range []string{"a", "b", "c", "d"} { // a was not used for longest
				put("artifacts/sha256/"+n, time.Duration(10-i)*time.Hour)
			}
			if err := os.Link(filepath.Join(dir, "artifacts/sha256/d"), filepath.Join(dir, "artifacts/sha512/d")); err != nil {
				t.Fatal(err)
			}
			put("partial/young", 6*24*time.Hour)
			put("partial/old", 8*24*time.Hour)
			put("partial/held", 8*24*time.Hour)
			held, err := os.Open(filepath.Join(dir, "partial/held"))
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			needed := map[component.Digest]bool{}
			for _, d := range tt.needed {
				needed[d] = true
			}
			removed, err := New(Options{CacheDir: dir}).Prune(needed, tt.limit, now)
			if err != nil || removed != tt.removed {
				t.Errorf("removed %d bytes, want %d, %v", removed, tt.removed, err)
			}
			list := func(pattern string) string {
				found, _ := filepath.Glob(filepath.Join(dir, pattern))
				slices.Sort(found)
				for i := range found {
					found[i], _ = filepath.Rel(filepath.Join(dir, strings.Split(pattern, "/")[0]), found[i])
				}
				return strings.Join(found, " ")
			}
			if got := list("artifacts/*/*"); got != tt.left {
				t.Errorf("left %s, want %s", got, tt.left)
			}
			if got := list("partial/*"); got != "held young" {
				t.Errorf("left of downloads: %s", got)
			}
		})
	}
}

// An archive that is used is as young as its use.
func TestUseKeepsAnArchiveYoung(t *testing.T) {
	body := []byte(script)
	s := newShelf(t, &component.Component{Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}}},
		map[string][]byte{"tool": body, "sums": sumLine(body, "tool")})
	if _, err := s.stage(); err != nil {
		t.Fatal(err)
	}
	path, old := s.store.blob(digestOf(body)), time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if st, err := s.stage(); err != nil || !st.FromCache {
		t.Fatalf("%+v, %v", st, err)
	}
	if st, err := os.Stat(path); err != nil || time.Since(st.ModTime()) > time.Minute {
		t.Errorf("%v, %v", st.ModTime(), err)
	}
}
