package cli

import (
	"strings"
	"testing"
)

// What is given as --component: names, and versions that belong to them.
func FuzzPins(f *testing.F) {
	for _, s := range []string{"prometheus", "prometheus@3.5.0", "a@", "@1.0.0", "a@b@c", "a@v1.2.3-rc.1", "a,b", "../x@1.0.0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		names, pins, err := splitPins([]string{arg})
		if err != nil {
			return
		}
		for _, name := range names {
			if strings.Contains(name, "@") {
				t.Fatalf("%q is no name", name)
			}
		}
		for name, v := range pins {
			if v.IsZero() || strings.Contains(name, "@") {
				t.Fatalf("%q: %v", name, v)
			}
		}
	})
}
