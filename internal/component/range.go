package component

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Range is a set of versions. The zero Range is empty. It is safe for
// concurrent use.
type Range struct {
	text        string
	constraints *semver.Constraints
	prerelease  bool      // the text names a pre-release
	plain       *interval // the same, where the text is of a plain form
}

// maxRange is the longest text a range is read from, in bytes.
const maxRange = 256

var (
	namesPrerelease = regexp.MustCompile(`[0-9]-[0-9A-Za-z]`)
	// wildPrerelease is what the library reads, but nobody can mean: "3.x-rc.1".
	wildPrerelease = regexp.MustCompile(`[xX*]-`)
)

// ParseRange reads "2.49.x", "3.x.x", "2.48.0", ">=0.26.0" and every other form
// of semantic-version range: "^1.2", "~1.4.0", ">=1.0.0 <2.0.0 || 3.x".
func ParseRange(s string) (Range, error) {
	text := strings.TrimSpace(s)
	switch {
	case text == "":
		return Range{}, errors.New("a version or range of versions is missing")
	case len(text) > maxRange:
		return Range{}, fmt.Errorf("version range %.20q…: longer than %d characters", text, maxRange)
	}
	c, err := semver.NewConstraint(text)
	if err != nil || wildPrerelease.MatchString(text) {
		return Range{}, fmt.Errorf("version range %q: want a form such as 2.49.x, >=0.26.0 or >=1.0.0 <2.0.0", s)
	}
	c.IncludePrerelease = true
	r := Range{text: text, constraints: c, prerelease: namesPrerelease.MatchString(text)}
	if i, ok := parseInterval(text); ok {
		r.plain = &i
	}
	return r, nil
}

// String is the range as written.
func (r Range) String() string { return r.text }

// Contains reports whether a version is in the range. Build metadata ("+ds1")
// counts for nothing. A pre-release counts as the release it leads to, 3.0.0-rc.1
// as 3.0.0, since it already has that release's format and behaviour; only where
// the range itself names a pre-release do they compare as semver.org section 11
// says. The unknown version is in no range.
func (r Range) Contains(v Version) bool {
	sv := v.Semver()
	if r.constraints == nil || sv == nil {
		return false
	}
	if r.plain != nil {
		return r.plain.contains(v)
	}
	pre := ""
	if r.prerelease {
		pre = sv.Prerelease()
	}
	return r.constraints.Check(semver.New(sv.Major(), sv.Minor(), sv.Patch(), pre, ""))
}

// IsZero reports whether it is the zero Range, as where none was given.
func (r Range) IsZero() bool { return r.text == "" }

// Span tells which of a list of known versions, the oldest first, are in the
// range: those from one up to, and without, another. It reports false where only
// Contains can tell, since the range is not of one piece.
func (r Range) Span(sorted []Version) (from, to int, ok bool) {
	if r.plain == nil {
		return 0, 0, false
	}
	first := func(bound [3]uint64) int {
		at, _ := slices.BinarySearchFunc(sorted, bound, func(v Version, bound [3]uint64) int {
			if less([3]uint64{v.Major(), v.Minor(), v.Patch()}, bound) {
				return -1
			}
			return 1
		})
		return at
	}
	from = first(r.plain.low)
	return from, max(from, first(r.plain.high)), true
}

// Equal reports whether both ranges are written alike.
func (r Range) Equal(o Range) bool { return r.text == o.text }

// MarshalText writes the range as written.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.text), nil }

// UnmarshalText reads what ParseRange does.
func (r *Range) UnmarshalText(b []byte) error {
	p, err := ParseRange(string(b))
	if err != nil {
		return err
	}
	*r = p
	return nil
}
