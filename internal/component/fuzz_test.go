package component

import (
	"strings"
	"testing"
)

// A tag is one of the template's or is not; what is found in it stands in it.
func FuzzVersionFromTag(f *testing.F) {
	f.Add("v{version}", "v1.2.3")
	f.Add("", "v1.2.3-rc.1")
	f.Add("release-{version}-lts", "release-1.2-lts")
	f.Add("{version}{version}", "1.2.31.2.3")
	f.Add("x", "x")
	f.Fuzz(func(t *testing.T, template, tag string) {
		v, ok := VersionFromTag(template, tag)
		if ok == v.IsZero() || ok && !strings.Contains(tag, v.String()) {
			t.Fatalf("%q of %q: %v", v, tag, ok)
		}
	})
}

// A range holds a version or not, the short way and the library's alike.
func FuzzRange(f *testing.F) {
	for _, s := range []string{">=1.2.3 <2.0.0", "1.x", "1.2.x", "~1.2", "^3", "<=1.2.3 || >5", "1 - 2", "=v1.2.3", ">1.2.999999999", "x", ">=1.2.3, <2", "1.x.x"} {
		f.Add(s, "1.2.3")
	}
	f.Fuzz(func(t *testing.T, text, version string) {
		r, err := ParseRange(text)
		if err != nil {
			return
		}
		v, err := ParseVersion(version)
		if err != nil {
			return
		}
		_ = r.Contains(v)
	})
}

func FuzzDigest(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("a", 64))
	f.Add(strings.Repeat("A", 128))
	f.Add("md5:" + strings.Repeat("a", 32))
	f.Add("sha512:")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDigest(text)
		if err != nil {
			return
		}
		again, err := ParseDigest(string(d))
		if err != nil || again != d || d.Algorithm() != "sha256" && d.Algorithm() != "sha512" || strings.ToLower(d.Hex()) != d.Hex() {
			t.Fatalf("%q: %q %q %v", text, d, again, err)
		}
	})
}

// An address comes apart and together again.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"http://localhost:9090/-/ready", "https://[::1]:8443", "http://user:pw@h/x?y#z", "h:1", "://", "http://[::1", "http://a@b@c:d/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		before, host, port, after := SplitAddress(raw)
		if !strings.HasPrefix(raw, before) || !strings.HasSuffix(raw, after) || !strings.Contains(raw, port) || strings.ContainsAny(host, "/?#") {
			t.Fatalf("%q: %q %q %q %q", raw, before, host, port, after)
		}
		_ = PortOf(raw)
	})
}
