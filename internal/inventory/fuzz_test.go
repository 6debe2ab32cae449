package inventory

import (
	"strings"
	"testing"
)

// What dpkg prints names owners of paths that it named.
func FuzzDpkgOwners(f *testing.F) {
	f.Add("prometheus: /usr/bin/prometheus\n")
	f.Add("diversion by x from: /usr/bin/y\ndiversion by x to: /usr/bin/z\nx, y:amd64: /usr/bin\n")
	f.Add(": \n: : /x")
	f.Fuzz(func(t *testing.T, out string) {
		for path, pkg := range dpkgOwners(out) {
			if !strings.Contains(out, pkg+": "+path) || strings.HasPrefix(pkg, "diversion by") {
				t.Fatalf("%q owns %q", pkg, path)
			}
		}
	})
}
