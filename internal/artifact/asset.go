package artifact

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// PickAsset finds the asset of a release for an operating system and a Go
// architecture. It must have exactly the name that the definition says for this
// version: release pages are full of look-alikes. Where that name holds "*",
// exactly one asset must match.
func PickAsset(c *component.Component, r component.Release, goos, goarch, root string) (component.Asset, error) {
	missing := &NoAssetError{Component: c.Name, Version: r.Version, Platform: goos + "/" + goarch}
	if _, ok := c.For(r.Version).ArchName(goarch); !ok {
		missing.Reason = "upstream does not publish it for this architecture"
		return component.Asset{}, missing
	}
	missing.Want = c.Vars(root, goos, goarch, r).Asset
	found := r.MatchAssets(missing.Want)
	if len(found) == 1 {
		return found[0], nil
	}
	if strings.Contains(missing.Want, "*") {
		missing.Reason = fmt.Sprintf("%d assets match", len(found))
	}
	missing.Have = nearest(missing.Want, r.AssetNames())
	return component.Asset{}, missing
}

// PickChecksums finds the checksum file that vouches for an asset of a release:
// by its name in the definition for this version, in which "*" stands for what
// no two sources agree on. name is what was looked for; why says why there is
// none.
func PickChecksums(c *component.Component, r component.Release, asset, goos, goarch, root string) (sums component.Asset, name, why string) {
	vars := c.Vars(root, goos, goarch, r)
	vars.Asset = asset
	name = vars.Expand(c.For(r.Version).Checksums)
	if name == "" {
		return component.Asset{}, "", "the definition names no checksum file and the release API states no digest"
	}
	switch found := r.MatchAssets(name); len(found) {
	case 1:
		return found[0], found[0].Name, ""
	case 0:
		return component.Asset{}, name, "the release has no " + name
	default:
		return component.Asset{}, name, fmt.Sprintf("%d assets of the release match %s", len(found), name)
	}
}

// nearest orders names by how much of their beginning and end they share with
// the wanted one, the likeliest first.
func nearest(want string, names []string) []string {
	score := func(s string) int {
		n := min(len(s), len(want))
		head := 0
		for head < n && s[head] == want[head] {
			head++
		}
		tail := 0
		for tail < n-head && s[len(s)-1-tail] == want[len(want)-1-tail] {
			tail++
		}
		return head + tail
	}
	sorted := slices.Clone(names)
	slices.SortStableFunc(sorted, func(a, b string) int {
		return cmp.Or(cmp.Compare(score(b), score(a)), strings.Compare(a, b))
	})
	return sorted
}
