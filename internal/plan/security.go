package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// SecurityState says whether a version has known vulnerabilities.
type SecurityState string

// The states. The empty one is meant where nobody looked.
const (
	SecurityAffected SecurityState = "affected"
	SecurityNone     SecurityState = "none" // none is known, and what there is to know was looked at
	SecurityUnknown  SecurityState = "unknown"
)

// vulnerable is the state as a truth value; nil when it is not known.
func (s SecurityState) vulnerable() *bool {
	if s != SecurityAffected && s != SecurityNone {
		return nil
	}
	v := s == SecurityAffected
	return &v
}

// Vulnerability is a known weakness of a version.
type Vulnerability struct {
	ID       string   `json:"id"`
	FixedIn  string   `json:"fixed_in"` // the first release of its line without it; "" where none is known
	Summary  string   `json:"summary"`
	Aliases  []string `json:"aliases,omitempty"`
	Severity string   `json:"severity,omitempty"` // unknown | low | medium | high | critical
	Source   string   `json:"source,omitempty"`   // component | dependency | stdlib: what of it is vulnerable
	Module   string   `json:"module,omitempty"`   // that
	Version  string   `json:"version,omitempty"`  // of that
}

// Own reports whether it is the component's own, and not one of what it was built
// from.
func (v Vulnerability) Own() bool { return v.Source == "" || v.Source == "component" }

// Security is what is known of vulnerabilities of a component. The zero value knows
// nothing.
type Security struct {
	State    SecurityState
	Reason   string                     // why nothing is known, or what should be known besides
	Found    []Vulnerability            // of the installed version
	Releases map[string]ReleaseSecurity // by the version as it is written
}

// ReleaseSecurity is what is known of a release that is offered.
type ReleaseSecurity struct {
	Fixes []string // ids of what the installed version has and this is known not to have, sorted
	State SecurityState
	Found []Vulnerability // its own
}

// fixes are the known vulnerabilities of the installed version that a version is
// known not to have.
func (s Security) fixes(v component.Version) []string { return s.Releases[v.String()].Fixes }

// securityAny is the value of Policy.Security that lifts policies and holds.
const securityAny = "any"

// urgent adds to what an unattended run may go to (newest first) the releases that
// fix a known vulnerability which the newest of them does not: in spite of the
// policy's level and ages and of holds, and of nothing else. It adds no more than
// is needed: of patch, minor and major releases the smallest step that fixes most.
// What has to be passed through on the way is added too.
func (c *candidate) urgent(in Input, usable []option) []option {
	p := in.policy(c.name)
	if !in.Auto || p.Security != securityAny {
		return usable
	}
	var within []string // fixed without lifting anything
	if len(usable) > 0 && usable[0].failed.passes() {
		within = c.Security.fixes(usable[0].release.Version)
	}
	open := func(v component.Version) (ids []string) {
		for _, id := range c.Security.fixes(v) {
			if !slices.Contains(within, id) {
				ids = append(ids, id)
			}
		}
		return ids
	}
	var lifted []option
	most, step := 0, component.BumpNone
	for _, r := range c.stable { // newest first
		if !c.Current.Less(r.Version) {
			break
		}
		ids := open(r.Version)
		if len(ids) == 0 || slices.ContainsFunc(usable, func(o option) bool { return o.release.Version.Equal(r.Version) }) {
			continue
		}
		o, v := c.lift(in, r)
		if !v.passes() || !c.failedHere(r.Version).passes() {
			continue
		}
		_, against := c.judge(in, r)
		if against.passes() {
			against = c.youngEnough(in)
		}
		o.lifted = fmt.Sprintf("security: fixes %s, though %s", strings.Join(ids, ", "), against.reason)
		lifted = append(lifted, o)
		if bump := component.BumpBetween(c.Current, r.Version); len(ids) > most || len(ids) == most && stride(bump) < stride(step) {
			most, step = len(ids), bump
		}
	}
	lifted = slices.DeleteFunc(lifted, func(o option) bool {
		return c.stride(o.release.Version) > stride(step) || c.failedSince(o.release.Version, step)
	})
	if len(lifted) == 0 {
		return usable
	}
	return c.withStones(in, append(usable, lifted...), lifted[0].release.Version)
}

func (c *candidate) stride(v component.Version) int {
	return stride(component.BumpBetween(c.Current, v))
}

// stride orders steps by their size.
func stride(b component.Bump) int {
	return slices.Index([]component.Bump{component.BumpUnknown, component.BumpNone, component.BumpPatch, component.BumpMinor, component.BumpMajor}, b)
}

// failedSince reports whether a release newer than v, within a step of that size,
// failed here: an older one is no way around it.
func (c *candidate) failedSince(v component.Version, step component.Bump) bool {
	return slices.ContainsFunc(c.stable, func(r component.Release) bool {
		return v.Less(r.Version) && c.stride(r.Version) <= stride(step) && !c.failedHere(r.Version).passes()
	})
}

// lift judges a release by what a known vulnerability does not lift.
func (c *candidate) lift(in Input, r component.Release) (option, verdict) {
	if !in.Target.admits(c.Current, r.Version) {
		return option{}, verdict{causeTarget, "beyond the target"}
	}
	o, v := c.allowed(in, r, false)
	if v.passes() {
		v = c.outside(in, r.Version)
	}
	if p := in.policy(c.name); v.passes() && !contains(p.Channel, r.Version) {
		v = verdict{causePolicy, "not in its channel"}
	}
	return o, v
}

// withStones adds what may be passed through on the way to a release, and sorts.
func (c *candidate) withStones(in Input, usable []option, top component.Version) []option {
	for _, r := range c.stable {
		if !c.Current.Less(r.Version) || !r.Version.Less(top) || slices.ContainsFunc(usable, func(o option) bool { return o.release.Version.Equal(r.Version) }) {
			continue
		}
		if o, v := c.lift(in, r); v.passes() && c.failedHere(r.Version).passes() {
			o.stone = true
			usable = append(usable, o)
		}
	}
	slices.SortStableFunc(usable, func(a, b option) int { return b.release.Version.Compare(a.release.Version) })
	return usable
}

// hurry notes which candidates of a group fix a known vulnerability, and which must
// go before them, by dependencies and rules.
func (s *solver) hurry(group []int) {
	var queue []int
	add := func(i int) {
		if s.upgraded(i) && !s.early[i] {
			s.early[i] = true
			queue = append(queue, i)
		}
	}
	for _, i := range group {
		if s.upgraded(i) && len(s.cands[i].Security.fixes(s.version(i, s.target[i]))) > 0 {
			add(i)
		}
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, j := range s.deps[i] {
			add(j)
		}
		for _, k := range s.touches[i] {
			r := &s.rules[k]
			j := r.a + r.b - i
			x, y := s.target[r.a], s.target[r.b]
			if j == r.a {
				x = 0
			} else {
				y = 0
			}
			if !r.allows(x, y) {
				add(j)
			}
		}
	}
}

// words say in one line what a vulnerability is.
func (v Vulnerability) words() string {
	text := v.ID
	if cve := slices.IndexFunc(v.Aliases, func(a string) bool { return strings.HasPrefix(a, "CVE-") }); cve >= 0 {
		text += " (" + v.Aliases[cve] + ")"
	}
	if v.Severity != "" && v.Severity != "unknown" {
		text += ", " + v.Severity
	}
	return text + ", " + cmp.Or(prefixed("fixed in ", v.FixedIn), "no fix known")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
