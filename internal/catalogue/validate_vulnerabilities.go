package catalogue

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// numberings are those that a package may count its versions by.
var numberings = []string{string(component.NumberingRelease), string(component.NumberingPrometheus)}

// vulnerabilities checks by which names databases of known vulnerabilities have
// the component.
func (v *validator) vulnerabilities() {
	type name struct{ ecosystem, pkg, versions string }
	seen := map[name]bool{}
	for i, p := range v.c.Vulnerabilities {
		here := at("vulnerabilities", i)
		v.plainName(here, "ecosystem", p.Ecosystem, "Go, or as the OSV format has it")
		v.plainName(here, "package", p.Package, "its name in that ecosystem, such as github.com/prometheus/prometheus")
		if n := (name{p.Ecosystem, p.Package, p.Versions.String()}); seen[n] {
			v.fail(here, "%s %s is listed twice", p.Ecosystem, p.Package)
		} else {
			seen[n] = true
		}
		if n := string(p.Numbering); n != "" && !slices.Contains(numberings, n) {
			hint := ""
			if near := yamlfile.Nearest(n, numberings); near != "" {
				hint = fmt.Sprintf("; did you mean %q?", near)
			}
			v.fail(below(here, "numbering"), "%q: want one of %s%s", n, strings.Join(numberings, ", "), hint)
		}
		for j, e := range p.Except {
			v.plainName(below(here, "except", j), "id", e.ID, "of the record, such as GO-2024-3168")
			if strings.TrimSpace(e.Reason) == "" {
				v.fail(below(here, "except", j), "reason is not given: why does the record not concern %s?", v.c.Name)
			}
		}
	}
}

// plainName checks a name that is compared as it stands.
func (v *validator) plainName(path []any, key, value, what string) {
	switch {
	case value == "":
		v.fail(path, "%s is not given: %s", key, what)
	case strings.ContainsFunc(value, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		v.fail(below(path, key), "%q holds white space or control characters", value)
	}
}
