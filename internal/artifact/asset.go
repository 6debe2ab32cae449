package artifact

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// PickAsset finds the asset of a release for an operating system and a Go
// architecture. It must have exactly the name that the definition says: release
// pages are full of look-alikes. Where the definition's name holds "*", exactly
// one asset must match.
func PickAsset(c *component.Component, r component.Release, goos, goarch, root string) (component.Asset, error) {
	if _, ok := c.ArchName(goarch); !ok {
		return component.Asset{}, &NoAssetError{Component: c.Name, Version: r.Version, Want: goos + "/" + goarch, Reason: "upstream does not publish it for this architecture"}
	}
	name := c.Vars(root, goos, goarch, r).Asset
	if !strings.Contains(name, "*") {
		if a, ok := r.FindAsset(name); ok {
			return a, nil
		}
		return component.Asset{}, &NoAssetError{Component: c.Name, Version: r.Version, Want: name, Have: nearest(name, r.AssetNames())}
	}
	var found []component.Asset
	for _, a := range r.Assets {
		if ok, err := path.Match(name, a.Name); err == nil && ok {
			found = append(found, a)
		}
	}
	if len(found) != 1 {
		return component.Asset{}, &NoAssetError{Component: c.Name, Version: r.Version, Want: name, Have: nearest(name, r.AssetNames()), Reason: fmt.Sprintf("%d assets match", len(found))}
	}
	return found[0], nil
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
