package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Matrix is etc/observability/compatibility-matrix.yaml:
// docs/specification.md, section 8, with stepping stones, one-way doors and
// channels. All version texts in it are ranges that ParseRange accepts.
type Matrix struct {
	Compatibility      map[string]map[string]map[string]Need `yaml:"compatibility"` // component -> versions -> other -> need
	Blacklist          []Blacklisted                         `yaml:"blacklist"`
	Paths              map[string][]Path                     `yaml:"paths"`
	OneWay             map[string][]Edge                     `yaml:"one_way"`
	Channels           map[string]map[string]Line            `yaml:"channels"`            // component -> name -> releases
	AutoUpgrade        *AutoUpgrade                          `yaml:"auto_upgrade"`        // nil: not given here
	MaintenanceWindows []Window                              `yaml:"maintenance_windows"` // nil: not given here
	File               string                                `yaml:"-"`
	Root               *yamlfile.Node                        `yaml:"-"` // the file as written; nil without one
}

// Need is what a rule asks of another component: its versions, or a map that
// says why as well.
type Need struct {
	Needs     string `yaml:"needs"`
	Reason    string `yaml:"reason"`
	Reference string `yaml:"reference"`
}

// UnmarshalYAML reads both forms.
func (n *Need) UnmarshalYAML(decode func(any) error) error {
	var probe any
	if err := decode(&probe); err != nil {
		return err
	}
	if _, ok := probe.(map[string]any); ok {
		type plain Need
		return decode((*plain)(n))
	}
	return decode(&n.Needs)
}

// Line is a named line of releases, such as those with long-term support.
type Line struct {
	Versions  string `yaml:"versions"`
	Reference string `yaml:"reference"`
}

// Blacklisted is a version, or a range of them, known to be broken.
type Blacklisted struct {
	Component string `yaml:"component"`
	Version   string `yaml:"version"`
	Reason    string `yaml:"reason"`
	Reference string `yaml:"reference"`
}

// Path is a stepping stone: be at From before entering To.
type Path struct {
	To        string `yaml:"to"`
	From      string `yaml:"from"`
	Reason    string `yaml:"reason"`
	Reference string `yaml:"reference"`
}

// Edge is a one-way door.
type Edge struct {
	From       string `yaml:"from"`
	To         string `yaml:"to"`
	Reversible string `yaml:"reversible"` // yes | with-backup | no
	Reason     string `yaml:"reason"`
	Reference  string `yaml:"reference"`
}

// LoadMatrix reads the matrix below root; a missing file is an empty matrix.
// Errors are as those of LoadPolicy.
func LoadMatrix(root layout.Root) (*Matrix, error) {
	m := &Matrix{File: root.Matrix()}
	n, errs, err := load(m.File)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	m.Root = n
	errs = errs.Beside(decode(n, m))
	if err := errs.Beside(m.validate(n)).Err(); err != nil {
		return m, err
	}
	return m, nil
}

func (m *Matrix) validate(n *yamlfile.Node) yamlfile.Errors {
	v := validator{node: n, file: m.File}
	for _, name := range slices.Sorted(maps.Keys(m.Compatibility)) {
		rules := m.Compatibility[name]
		for _, when := range slices.Sorted(maps.Keys(rules)) {
			path := []any{"compatibility", name, when}
			if _, err := ParseRange(when); err != nil {
				v.errs = append(v.errs, n.KeyErrorf(path, "%v", err))
			}
			for _, other := range slices.Sorted(maps.Keys(rules[when])) {
				at := append(slices.Clone(path), other)
				if n.At(at...).Get("needs") != nil {
					at = append(at, "needs")
				}
				v.versions(at, rules[when][other].Needs)
			}
		}
	}
	for i, b := range m.Blacklist {
		if b.Component == "" {
			v.fail([]any{"blacklist", i}, "component is not given")
		}
		v.versions([]any{"blacklist", i, "version"}, b.Version)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Paths)) {
		for i, p := range m.Paths[name] {
			v.versions([]any{"paths", name, i, "to"}, p.To)
			v.versions([]any{"paths", name, i, "from"}, p.From)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.OneWay)) {
		for i, e := range m.OneWay[name] {
			v.versions([]any{"one_way", name, i, "to"}, e.To)
			v.versions([]any{"one_way", name, i, "from"}, e.From)
			v.oneOf([]any{"one_way", name, i, "reversible"}, e.Reversible, "yes", "with-backup", "no")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.Channels)) {
		for _, channel := range slices.Sorted(maps.Keys(m.Channels[name])) {
			v.versions([]any{"channels", name, channel, "versions"}, m.Channels[name][channel].Versions)
		}
	}
	v.autoUpgrade(m.AutoUpgrade)
	v.windows(m.MaintenanceWindows)
	return v.errs
}

// CheckConflicts refuses a key that both the policy and the matrix define
// (docs/reference.md). The error is yamlfile.Errors.
func CheckConflicts(p *Policy, m *Matrix) error {
	v := validator{node: m.Root, file: m.File}
	both := func(key string, a, b bool) {
		if !a || !b {
			return
		}
		at := p.File
		if e := p.Root.KeyErrorf([]any{key}, ""); e.Line > 0 {
			at = fmt.Sprintf("%s:%d", p.File, e.Line)
		}
		v.errs = append(v.errs, v.key([]any{key}, fmt.Sprintf("is defined in %s too; keep one of them", at)))
	}
	both("auto_upgrade", p.AutoUpgrade != nil, m.AutoUpgrade != nil)
	both("maintenance_windows", p.MaintenanceWindows != nil, m.MaintenanceWindows != nil)
	return v.errs.Err()
}
