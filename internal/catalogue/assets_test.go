package catalogue

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// published is testdata/assets/NAME.json: the asset lists of some releases of a
// component, look-alikes included. They are put together from upstreams' build
// files and public recipes, not taken from release pages; basis says from what.
type published struct {
	IgnoredTags []string `json:"ignored_tags"` // of the same repository; no stable release of this component
	Releases    []struct {
		Tag    string          `json:"tag"`
		Basis  string          `json:"basis"`
		Assets []string        `json:"assets"`
		Path   string          `json:"path"` // of the first binary inside the archive for amd64
		Want   map[string]want `json:"want"` // Go architecture -> what is picked
	} `json:"releases"`
}

// want is empty for an architecture that upstream does not publish.
type want struct {
	Asset     string `json:"asset"`
	Checksums string `json:"checksums"` // "" where the release has none
}

// TestAssets picks assets and checksum files for every built-in definition with
// the code that picks them for a download.
func TestAssets(t *testing.T) {
	c := builtIn(t)
	files, err := filepath.Glob("testdata/assets/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".json"); c.Origin(name) == "" {
			t.Errorf("%s: no such component", f)
		}
	}
	for _, d := range c.All() {
		if !d.Swappable() {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata/assets", d.Name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var p published
			dec := json.NewDecoder(strings.NewReader(string(data)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&p); err != nil {
				t.Fatal(err)
			}
			for _, tag := range p.IgnoredTags {
				if v, ok := component.VersionFromTag(d.Source.Tag, tag); ok && !v.Prerelease() {
					t.Errorf("tag %s is taken for version %s", tag, v)
				}
			}
			if len(p.Releases) < 2 {
				t.Errorf("%d releases, want a recent and an older one", len(p.Releases))
			}
			for _, r := range p.Releases {
				v, ok := component.VersionFromTag(d.Source.Tag, r.Tag)
				if !ok {
					t.Errorf("tag %s is not taken for a version", r.Tag)
					continue
				}
				rel := component.Release{Version: v, Tag: r.Tag}
				for _, name := range r.Assets {
					rel.Assets = append(rel.Assets, component.Asset{Name: name, URL: "https://example.com/" + name})
				}
				for _, arch := range []string{"amd64", "arm64", "arm"} {
					w, ok := r.Want[arch]
					if !ok {
						t.Errorf("%s: no word on %s", r.Tag, arch)
					}
					checkPick(t, d, rel, arch, w)
				}
				vars := d.Vars("", "linux", "amd64", rel)
				if got := vars.Expand(d.For(v).Binaries[0].Path); got != r.Path {
					t.Errorf("%s: path %q, want %q", r.Tag, got, r.Path)
				}
			}
		})
	}
}

func checkPick(t *testing.T, d *component.Component, rel component.Release, arch string, w want) {
	t.Helper()
	a, err := artifact.PickAsset(d, rel, "linux", arch, "")
	if w.Asset == "" {
		if err == nil {
			t.Errorf("%s for %s: picked %s, want an error", rel.Tag, arch, a.Name)
			return
		}
		for _, word := range []string{d.Name, rel.Version.String(), "linux/" + arch} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s for %s: %q does not name %s", rel.Tag, arch, err, word)
			}
		}
		return
	}
	if err != nil || a.Name != w.Asset {
		t.Errorf("%s for %s: picked %q (%v), want %q", rel.Tag, arch, a.Name, err, w.Asset)
		return
	}
	sums, _, why := artifact.PickChecksums(d, rel, a.Name, "linux", arch, "")
	if sums.Name != w.Checksums || (why == "") != (w.Checksums != "") {
		t.Errorf("%s for %s: checksums %q (%s), want %q", rel.Tag, arch, sums.Name, why, w.Checksums)
	}
}
