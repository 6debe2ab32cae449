package backup

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"
)

// What is read of a file of checksums names files inside, and is written as it was
// read.
func FuzzSums(f *testing.F) {
	sum := strings.Repeat("0a", 32)
	f.Add(sum + "  data/prom.json\n")
	f.Add("\\" + sum + "  a\\nb\\\\c\n")
	f.Add(sum + "  ../../etc/passwd\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := parseSums("", sumsFile, []byte(text))
		if err != nil {
			return
		}
		for name := range first {
			if !filepath.IsLocal(name) {
				t.Fatalf("%q is outside", name)
			}
		}
		second, err := parseSums("", sumsFile, formatSums(first))
		if err != nil || !maps.Equal(first, second) {
			t.Errorf("%q was read as %q, and written as %q (%v)", text, first, second, err)
		}
	})
}
