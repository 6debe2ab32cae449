package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/Masterminds/semver/v3"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Matrix is etc/observability/compatibility-matrix.yaml: specification section
// 8, with stepping stones and one-way doors.
type Matrix struct {
	Compatibility      map[string]map[string]map[string]string `yaml:"compatibility"` // component -> versions -> other -> versions
	Blacklist          []Blacklisted                           `yaml:"blacklist"`
	Paths              map[string][]Path                       `yaml:"paths"`
	OneWay             map[string][]Edge                       `yaml:"one_way"`
	AutoUpgrade        *AutoUpgrade                            `yaml:"auto_upgrade"`
	MaintenanceWindows []Window                                `yaml:"maintenance_windows"`
	File               string                                  `yaml:"-"`
}

// Blacklisted is a version known to be broken.
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
func LoadMatrix(root layout.Root) (*Matrix, error) {
	m := &Matrix{File: root.Matrix()}
	n, err := yamlfile.Load(m.File)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	if err := n.Decode(m); err != nil {
		return nil, err
	}
	return m, m.validate(n)
}

func (m *Matrix) validate(n *yamlfile.Node) error {
	var errs yamlfile.Errors
	check := func(text string, path ...any) {
		if _, err := ParseRange(text); err != nil {
			errs = append(errs, n.Errorf(path, "%v", err))
		}
	}
	for name, rules := range m.Compatibility {
		for when, needs := range rules {
			check(when, "compatibility", name, when)
			for other, want := range needs {
				check(want, "compatibility", name, when, other)
			}
		}
	}
	for i, b := range m.Blacklist {
		if b.Component == "" {
			errs = append(errs, n.Errorf([]any{"blacklist", i, "component"}, "is missing"))
		}
		check(b.Version, "blacklist", i, "version")
	}
	for name, list := range m.Paths {
		for i, p := range list {
			check(p.To, "paths", name, i, "to")
			check(p.From, "paths", name, i, "from")
		}
	}
	for name, list := range m.OneWay {
		for i, e := range list {
			check(e.To, "one_way", name, i, "to")
			check(e.From, "one_way", name, i, "from")
			switch e.Reversible {
			case "yes", "with-backup", "no":
			default:
				errs = append(errs, n.Errorf([]any{"one_way", name, i, "reversible"}, "%q: want yes, with-backup or no", e.Reversible))
			}
		}
	}
	errs = append(errs, validateAuto(n, m.AutoUpgrade)...)
	errs = append(errs, validateWindows(n, m.MaintenanceWindows)...)
	return errs.Err()
}

// CheckConflicts refuses a key that both the policy and the matrix define.
func CheckConflicts(p *Policy, m *Matrix) error {
	var errs []error
	both := func(key string, a, b bool) {
		if a && b {
			errs = append(errs, fmt.Errorf("%s is defined in %s and in %s; keep one", key, p.File, m.File))
		}
	}
	both("auto_upgrade", p.AutoUpgrade != nil, m.AutoUpgrade != nil)
	both("maintenance_windows", p.MaintenanceWindows != nil, m.MaintenanceWindows != nil)
	return errors.Join(errs...)
}

// Range is a set of versions.
type Range struct {
	text string
	c    *semver.Constraints
}

// String is the range as written.
func (r Range) String() string { return r.text }

// ParseRange reads "2.49.x", ">=0.26.0", "3.x.x", "2.48.0" and every form of
// semantic-version range ("^1.2", "~1.4.0", ">=1 <2 || 3.x").
func ParseRange(s string) (Range, error) {
	text := strings.TrimSpace(s)
	if text == "" {
		return Range{}, errors.New("a version range is missing")
	}
	c, err := semver.NewConstraint(text)
	if err != nil {
		return Range{}, fmt.Errorf("version range %q: want a form such as 2.49.x, >=0.26.0 or >=1.0.0 <2.0.0", s)
	}
	c.IncludePrerelease = true
	return Range{text: text, c: c}, nil
}

// Contains reports whether a version is in the range. Build metadata counts for
// nothing; a pre-release belongs to what its number is in.
func (r Range) Contains(v component.Version) bool {
	return r.c != nil && v.Semver() != nil && r.c.Check(v.Semver())
}

func owner(st fs.FileInfo) (uint32, bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return sys.Uid, true
}
