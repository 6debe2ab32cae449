package component

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is a release version of a component, without a leading "v".
//
// Ordering is semantic-version precedence. Build metadata ("+ds1", as Debian's
// builds append) is kept for display and ignored in comparisons, but for Grafana's
// "+security-01", which comes after the release without it. The zero Version means
// "unknown"; it sorts before every known version.
type Version struct {
	text     string // as published, leading "v" removed
	sem      *semver.Version
	security uint64 // of "+security-NN"; 0 without
}

// ParseVersion reads "1.2.3", "v1.2.3", "1.2" or "1.2.3-rc.1+meta". It refuses
// text that has no leading number, such as a branch name.
func ParseVersion(s string) (Version, error) {
	text := strings.TrimSpace(s)
	text = strings.TrimPrefix(text, "v")
	sem, err := semver.NewVersion(text)
	if err == nil && (text[0] < '0' || text[0] > '9') {
		err = errors.New("it does not begin with a number") // the library takes a second "v"
	}
	if err != nil {
		return Version{}, fmt.Errorf("version %.80q: %w", s, err)
	}
	v := Version{text: text, sem: sem}
	if n, ok := strings.CutPrefix(sem.Metadata(), "security-"); ok {
		v.security, _ = strconv.ParseUint(n, 10, 32) // another form counts for nothing, as all metadata
	}
	return v, nil
}

// MustParseVersion is ParseVersion for constants in tests and tables; it panics
// on bad input.
func MustParseVersion(s string) Version {
	v, err := ParseVersion(s)
	if err != nil {
		panic(err)
	}
	return v
}

// IsZero reports whether the version is unknown.
func (v Version) IsZero() bool { return v.sem == nil }

// String is the version as published, without a leading "v"; "" when unknown.
func (v Version) String() string { return v.text }

// Core is the version without build metadata: what upstream's release names
// carry when a distribution appended "+ds".
func (v Version) Core() string {
	if i := strings.IndexByte(v.text, '+'); i >= 0 {
		return v.text[:i]
	}
	return v.text
}

// Compare returns -1, 0 or 1. Unknown versions sort first.
func (v Version) Compare(o Version) int {
	switch {
	case v.sem == nil && o.sem == nil:
		return 0
	case v.sem == nil:
		return -1
	case o.sem == nil:
		return 1
	}
	return cmp.Or(v.sem.Compare(o.sem), cmp.Compare(v.security, o.security))
}

// Equal reports whether both have the same precedence.
func (v Version) Equal(o Version) bool { return v.Compare(o) == 0 }

// SameRelease compares without build metadata, as what a program says of itself
// may leave it out. The unknown version is the same as none.
func (v Version) SameRelease(o Version) bool {
	return v.sem != nil && o.sem != nil && v.sem.Compare(o.sem) == 0
}

// Less reports whether v precedes o.
func (v Version) Less(o Version) bool { return v.Compare(o) < 0 }

// Prerelease reports whether the version carries a pre-release part ("-rc.1").
func (v Version) Prerelease() bool { return v.sem != nil && v.sem.Prerelease() != "" }

// Major is the first numeric part; 0 when unknown.
func (v Version) Major() uint64 {
	if v.sem == nil {
		return 0
	}
	return v.sem.Major()
}

// Minor is the second numeric part; 0 when unknown.
func (v Version) Minor() uint64 {
	if v.sem == nil {
		return 0
	}
	return v.sem.Minor()
}

// Patch is the third numeric part; 0 when unknown.
func (v Version) Patch() uint64 {
	if v.sem == nil {
		return 0
	}
	return v.sem.Patch()
}

// Semver exposes the parsed form for range checks; nil when unknown.
func (v Version) Semver() *semver.Version { return v.sem }

// MarshalText writes the version as text, "" when unknown.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.text), nil }

// UnmarshalText reads what MarshalText writes.
func (v *Version) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*v = Version{}
		return nil
	}
	p, err := ParseVersion(string(b))
	if err != nil {
		return err
	}
	*v = p
	return nil
}

// Bump says how far apart two versions are.
type Bump string

// The kinds of step between two versions, as `check` and `plan` print them.
const (
	BumpMajor   Bump = "major"
	BumpMinor   Bump = "minor"
	BumpPatch   Bump = "patch"
	BumpNone    Bump = "none"
	BumpUnknown Bump = "unknown"
)

// BumpBetween classifies the step from one version to another by the first
// numeric part that differs. A step that changes only the pre-release part
// counts as a patch.
func BumpBetween(from, to Version) Bump {
	switch {
	case from.IsZero() || to.IsZero():
		return BumpUnknown
	case from.Equal(to):
		return BumpNone
	case from.Major() != to.Major():
		return BumpMajor
	case from.Minor() != to.Minor():
		return BumpMinor
	}
	return BumpPatch
}
