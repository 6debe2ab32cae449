package component

import "fmt"

// Package is what a database of known vulnerabilities calls a component: its
// records name a package of an ecosystem, and count versions in the package's own
// way.
type Package struct {
	Ecosystem string `yaml:"ecosystem" json:"ecosystem"` // as the OSV format writes it: Go, Bitnami …
	// Package is the package's name, exactly: github.com/grafana/loki/v3 and
	// github.com/grafana/loki are two.
	Package   string      `yaml:"package" json:"package"`
	Versions  Range       `yaml:"versions,omitempty" json:"versions,omitzero"`    // the releases that go by this name; all when empty
	Numbering Numbering   `yaml:"numbering,omitempty" json:"numbering,omitempty"` // how the package counts its versions; release when empty
	Except    []Exception `yaml:"except,omitempty" json:"except,omitempty"`       // records that do not concern the component
}

// Exception is a record of a known vulnerability that is set aside, and why.
type Exception struct {
	ID     string `yaml:"id" json:"id"` // the record's, or an alias of it, such as a CVE
	Reason string `yaml:"reason" json:"reason"`
}

// Numbering names a way from a release's version to that of a package.
type Numbering string

// The numberings. Prometheus' Go module has 0.A.B for release 2.A.B, and
// 0.(300+A).B for release 3.A.B.
const (
	NumberingRelease    Numbering = "release"
	NumberingPrometheus Numbering = "prometheus"
)

// Of reports whether the package's name goes for a release.
func (p Package) Of(v Version) bool { return p.Versions.IsZero() || p.Versions.Contains(v) }

// numberOffset is what Prometheus' module adds to the minor version of release 3.
const numberOffset = 300

// Number is the package's version of a release; zero where it has none.
func (n Numbering) Number(release Version) Version {
	if n != NumberingPrometheus || release.IsZero() {
		return release
	}
	minor := release.Minor()
	switch release.Major() {
	case 2:
	case 3:
		minor += numberOffset
	default:
		return release
	}
	return renumbered(0, minor, release)
}

// Release is the release of a package's version; the way back from Number.
func (n Numbering) Release(number Version) Version {
	if n != NumberingPrometheus || number.IsZero() || number.Major() != 0 {
		return number
	}
	if number.Minor() >= numberOffset {
		return renumbered(3, number.Minor()-numberOffset, number)
	}
	return renumbered(2, number.Minor(), number)
}

// renumbered is v with another major and minor version.
func renumbered(major, minor uint64, v Version) Version {
	text := fmt.Sprintf("%d.%d.%d", major, minor, v.Patch())
	if pre := v.sem.Prerelease(); pre != "" {
		text += "-" + pre
	}
	out, err := ParseVersion(text)
	if err != nil {
		return Version{} // not reached: the parts come from a version
	}
	return out
}
