// Package plan decides what is upgraded, to which version and in which order.
//
// It is pure: no I/O, no clock, no randomness. The same input, in whatever
// order its lists come, gives the same answer. All functions are safe for
// concurrent use as long as the input is not changed meanwhile.
//
// Sources: docs/specification.md, sections 1, 8 and 10; docs/reference.md.
package plan

import (
	"fmt"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Range is a set of versions, such as ">=0.26.0" or "2.49.x". It is never asked
// about the unknown (zero) version.
type Range interface {
	Contains(v component.Version) bool
	String() string
}

// Target is how far an upgrade may go from the installed version.
type Target string

// The targets. Latest is meant where none is given.
const (
	Latest Target = "latest"
	Minor  Target = "minor" // same major version
	Patch  Target = "patch" // same major and minor version
)

// ParseTarget reads the value of --target; "" is Latest.
func ParseTarget(s string) (Target, error) {
	switch t := Target(s); t {
	case "":
		return Latest, nil
	case Latest, Minor, Patch:
		return t, nil
	}
	return "", fmt.Errorf("target %q: want latest, minor or patch", s)
}

// admits reports whether a step from cur to v stays within the target.
func (t Target) admits(cur, v component.Version) bool {
	switch t {
	case "", Latest:
		return true
	case Minor:
		return cur.Major() == v.Major()
	case Patch:
		return cur.Major() == v.Major() && cur.Minor() == v.Minor()
	}
	return false
}

// Installed is one component on this host and what its upstream offers.
type Installed struct {
	Component *component.Component
	Current   component.Version   // zero when it cannot be read
	Releases  []component.Release // in any order; pre-releases are left out by the planner
	Err       error               // why upstream's answer is not known, or is an old one
	Excluded  string              // why this program cannot upgrade it, such as that a package owns it; "" when it can
	Amiss     string              // what is wrong with what is installed, which stands in the way until it is mended; "" for nothing
	Failed    []Failed            // versions that failed on this host
	Instances []string            // of one that has several, in the order they are upgraded
	Security  Security            // what is known of vulnerabilities
	DataKept  bool                // a copy of its data can be kept, or it keeps none: opens doors that are reversible with one to a person
}

// Failed is a version that failed on this host (docs/reference.md, promise 7).
type Failed struct {
	Version component.Version
	Reason  string
	At      time.Time
	// TakenBack: it did not fail; a person rolled it back. Reason is empty.
	TakenBack bool
}

// Hold is a person's wish that a component not go to some versions.
type Hold struct {
	Component string
	Range     Range // versions not to go to; nil for all
	Reason    string
	Until     time.Time // the hold ends at this moment; zero for never
}

// Pin is a person's wish that a component stay among some versions.
type Pin struct {
	Component string
	Range     Range
	Reason    string
	Until     time.Time // the pin ends at this moment; zero for never
}

// Level is how far an unattended run may go from the installed version.
type Level string

// The levels, docs/specification.md, section 8. PatchOnly is meant where none is given.
const (
	PatchOnly  Level = "patch_only"
	MinorLevel Level = "minor"
	Any        Level = "any"
	None       Level = "none" // unattended runs leave the component alone
)

// Policy is what unattended runs obey for one component; runs by hand do not.
type Policy struct {
	Level         Level
	MaxAge        time.Duration // upgrade only when the installed version is older than this; 0: at once
	MinReleaseAge time.Duration // a release must have been out for so long; one without a date has not
	Channel       Range         // the line of releases to follow, such as long-term support; nil for all
	ChannelName   string
	Security      string // any: a release that fixes a known vulnerability may be gone to in spite of this policy and of holds
}

// Blacklisted is a set of versions known to be broken.
type Blacklisted struct {
	Component string
	Range     Range // an exact version, or more; nil for all
	Reason    string
	Reference string
}

// Rule is one line of the compatibility matrix: versions in When of Component
// need a version in Needs of Other. It does not apply while one of the two is
// not installed.
type Rule struct {
	Component string
	When      Range // nil for every version
	Other     string
	Needs     Range  // nil for any version
	Text      string // why, or where it is written; appended to reasons; may be empty
}

// Edge is a one-way door: a step from a version in From into one in To.
type Edge struct {
	Component  string
	From, To   Range
	Reversible string // yes | with-backup | no
	Reason     string
	Reference  string
}

// Path is a stepping stone: before a version in To is entered, the component
// must be at one in From.
type Path struct {
	Component string
	To, From  Range
	Reason    string
	Reference string
}

// Input is everything a decision is made from.
type Input struct {
	Installed     []Installed                  // all that are installed: rules speak of those not selected too
	Target        Target                       // how far unnamed versions may go
	Selected      []string                     // components asked for; with Pins empty too: all
	Pins          map[string]component.Version // versions a person named (X@VERSION); they are selected
	Force         bool                         // --force: pins override blacklist and matrix and may go back; one-way doors are open
	Holds         []Hold
	Pinned        []Pin
	Blacklist     []Blacklisted
	Rules         []Rule
	OneWay        []Edge
	Paths         []Path
	Auto          bool              // an unattended run: policies apply
	DefaultPolicy Policy            // of components that Policies does not name
	Policies      map[string]Policy // by component

	Now            time.Time // the moment holds are judged at, and the report's checked_at
	OS, Arch, Root string    // Go's names of system and architecture; prefix of {root}

	// Estimate is how long a component's upgrade takes; 0, or a nil function,
	// stands for DefaultEstimate.
	Estimate func(component string) time.Duration
}

// DefaultEstimate is how long an upgrade is taken to last where nothing is known.
const DefaultEstimate = 15 * time.Second

// contains asks a range that may be nil; the unknown version is only in nil.
func contains(r Range, v component.Version) bool {
	return r == nil || !v.IsZero() && r.Contains(v)
}

func rangeText(r Range) string {
	if r == nil {
		return "any version"
	}
	return r.String()
}
