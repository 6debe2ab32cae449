package component

import (
	"slices"
	"testing"
)

func TestVersionOrder(t *testing.T) {
	// Oldest first; those on one line are equal.
	order := [][]string{
		{"2.9.0-rc.1"},
		{"2.9.0", "v2.9.0", "2.9", "2.9.0+ds1"},
		{"2.10.0"},
		{"11.0.6", "11.0.6+build.7", "11.0.6+security-x"},
		{"11.0.6+security-01", "11.0.6+security-1"},
		{"11.0.6+security-02"},
		{"11.0.6+security-10"},
		{"11.1.0"},
	}
	for i, line := range order {
		for _, a := range line {
			for j, others := range order {
				for _, b := range others {
					want := min(1, max(-1, i-j))
					if got := MustParseVersion(a).Compare(MustParseVersion(b)); got != want {
						t.Errorf("%s to %s: %d, want %d", a, b, got, want)
					}
				}
			}
		}
	}
	if !(Version{}).Less(MustParseVersion("0.0.1")) || !(Version{}).IsZero() {
		t.Error("the unknown version is not the first")
	}
	if got := MustParseVersion("11.0.6+security-01").Core(); got != "11.0.6" {
		t.Errorf("core %s", got)
	}
}

func TestSameRelease(t *testing.T) {
	v := MustParseVersion
	for _, pair := range [][2]string{{"2.53.3", "2.53.3+ds1"}, {"11.0.6+security-01", "11.0.6"}} {
		if !v(pair[0]).SameRelease(v(pair[1])) {
			t.Errorf("%v are not the same", pair)
		}
	}
	if v("2.53.3").SameRelease(v("2.53.4")) || v("3.0.0-rc.1").SameRelease(v("3.0.0")) || (Version{}).SameRelease(Version{}) {
		t.Error("others are the same")
	}
}

func TestParseVersionRefuses(t *testing.T) {
	for _, s := range []string{"", "main", "v", "1.2.3.4", "latest", "1..2"} {
		if v, err := ParseVersion(s); err == nil {
			t.Errorf("%q gives %s", s, v)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"1.2.3", "v1.2", "11.0.6+security-01", "2.53.3+ds1", "1.0.0-rc.1", "main"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVersion(s)
		if err != nil {
			return
		}
		again, err := ParseVersion(v.String())
		if err != nil || !again.Equal(v) || again.String() != v.String() {
			t.Errorf("%q reads as %s and then as %s (%v)", s, v, again, err)
		}
		if all := []Version{v, again}; !slices.IsSortedFunc(all, Version.Compare) {
			t.Errorf("%s does not sort with itself", v)
		}
	})
}
