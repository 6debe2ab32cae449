package component

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustRange(t *testing.T, s string) Range {
	t.Helper()
	r, err := ParseRange(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFor(t *testing.T) {
	c := &Component{
		Name: "tool", Asset: "tool_{version}_{os}_{arch}.tar.gz", Checksums: "sums.txt", Arches: map[string]string{"amd64": "amd64", "arm": "armv7"},
		Binaries: []Binary{{Name: "tool", Path: "tool", Install: "/usr/local/bin/tool"}, {Name: "toolctl", Path: "toolctl", Install: "/usr/local/bin/toolctl"}},
		Variants: []Variant{
			{Versions: mustRange(t, "<0.6.0"), Asset: "old-tool_{version}_{os}_{arch}.tar.gz", Paths: map[string]string{"tool": "old-tool"}},
			{Versions: mustRange(t, "<1.0.0"), Arches: map[string]string{"amd64": "x86_64"}, Checksums: "{asset}.sha256"},
		},
	}
	before := *c
	for version, want := range map[string]struct {
		asset, checksums, path string
		arm                    bool
	}{
		"0.5.0":      {"old-tool_0.5.0_linux_amd64.tar.gz", "sums.txt", "old-tool", true},
		"0.6.0-rc.1": {"tool_0.6.0-rc.1_linux_x86_64.tar.gz", "{asset}.sha256", "tool", false},
		"0.9.0":      {"tool_0.9.0_linux_x86_64.tar.gz", "{asset}.sha256", "tool", false},
		"1.0.0":      {"tool_1.0.0_linux_amd64.tar.gz", "sums.txt", "tool", true},
	} {
		v := MustParseVersion(version)
		d := c.For(v)
		if _, arm := d.ArchName("arm"); d.Checksums != want.checksums || d.Binaries[0].Path != want.path || d.Binaries[1].Path != "toolctl" || arm != want.arm || d.Variants != nil {
			t.Errorf("%s: %+v", version, d)
		}
		if got := c.Vars("", "linux", "amd64", Release{Version: v}).Asset; got != want.asset {
			t.Errorf("%s: asset %q, want %q", version, got, want.asset)
		}
		if again := d.For(v); again != d {
			t.Errorf("%s: what applies is changed once more", version)
		}
	}
	if d := cmp.Diff(before, *c); d != "" {
		t.Errorf("the definition was changed: %s", d)
	}
	if d := c.For(Version{}); d.Asset != c.Asset {
		t.Errorf("of an unknown version: %+v", d)
	}
}

func TestMatchAssets(t *testing.T) {
	var r Release
	for _, n := range []string{"a_checksums.txt", "b_checksums.txt", "c.sha256", "x*y", "xzy"} {
		r.Assets = append(r.Assets, Asset{Name: n})
	}
	for name, want := range map[string]int{"c.sha256": 1, "c.sha": 0, "*_checksums.txt": 2, "b_*": 1, "?.sha256": 0, "x*y": 2, "[": 0} {
		if got := r.MatchAssets(name); len(got) != want {
			t.Errorf("%s: %v, want %d", name, got, want)
		}
	}
}

func TestRangeText(t *testing.T) {
	r := mustRange(t, " >=1.2.0 <2 ")
	b, err := r.MarshalText()
	var again Range
	if err != nil || again.UnmarshalText(b) != nil || !again.Equal(r) || !again.Contains(MustParseVersion("1.9.0")) || again.Contains(MustParseVersion("2.0.0")) {
		t.Errorf("%q %v %v", b, again, err)
	}
	if err := again.UnmarshalText([]byte("soon")); err == nil {
		t.Error("accepted")
	}
}
