package catalogue

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// variants checks what differs in some of the releases.
func (v *validator) variants() {
	if !v.swapped() {
		if len(v.c.Variants) > 0 {
			v.fail(at("variants"), "a package source has no files of which some releases' could differ")
		}
		return
	}
	var names []string
	for _, b := range v.c.Binaries {
		names = append(names, b.Name)
	}
	for i, one := range v.c.Variants {
		p := at("variants", i)
		if one.Versions.Equal(component.Range{}) {
			v.fail(p, "versions is not given: the releases it holds for, such as \"<0.158.0\"")
		}
		if one.Asset == "" && one.Checksums == "" && len(one.Arches) == 0 && len(one.Paths) == 0 {
			v.fail(p, "it changes nothing; give asset, arches, checksums or paths")
		}
		v.fileName(below(p, "asset"), one.Asset)
		v.fileName(below(p, "checksums"), one.Checksums)
		v.arches(below(p, "arches"), one.Arches)
		for _, name := range slices.Sorted(maps.Keys(one.Paths)) {
			if !slices.Contains(names, name) {
				hint := ""
				if near := yamlfile.Nearest(name, names); near != "" {
					hint = fmt.Sprintf("; did you mean %q?", near)
				}
				v.fail(below(p, "paths", name), "%q is none of the binaries%s", name, hint)
			}
			v.insideArchive(below(p, "paths", name), one.Paths[name])
		}
	}
}

// fileName checks the name of an asset, in which "*" may stand for what is not
// known beforehand.
func (v *validator) fileName(at []any, s string) {
	v.placeholders(at, s)
	if strings.ContainsAny(s, "/\\") {
		v.fail(at, "%q: an asset's name holds no slash", s)
	}
	if _, err := path.Match(s, ""); err != nil {
		v.fail(at, "%q: the pattern is not closed ([ without ])", s)
	}
}

func (v *validator) arches(at []any, arches map[string]string) {
	for _, a := range slices.Sorted(maps.Keys(arches)) {
		if !slices.Contains(archs, a) {
			v.fail(below(at, a), "%q is not an architecture of Go's; known are %s", a, strings.Join(archs, ", "))
		}
		if arches[a] == "" {
			v.fail(below(at, a), "the name that assets use for %s is empty", a)
		}
	}
}

func (v *validator) insideArchive(at []any, p string) {
	v.placeholders(at, p)
	if strings.HasPrefix(p, "/") || slices.Contains(strings.Split(p, "/"), "..") {
		v.fail(at, "%q: want a path inside the archive", p)
	}
}
