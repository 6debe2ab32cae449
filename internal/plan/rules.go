package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// bound is a rule of the matrix both of whose components are installed, over
// their nodes: while a is at one of when, b must be at one of needs.
type bound struct {
	Rule
	a, b   int // candidates of Component and Other
	when   bitset
	needs  bitset
	before bool // broken by what is installed now
	waived bool // set aside by a version that a person forced
}

// broken judges one pair of versions. An unknown version of Other fulfils no
// demand.
func (r Rule) broken(v, other component.Version) bool {
	return !v.IsZero() && contains(r.When, v) && !contains(r.Needs, other)
}

// bind looks up the rules' components. A rule that is broken before the run is
// not the run's to mend, so it says nothing of the installed version of its
// component; but no new version may be installed that breaks it.
func bind(in Input, cands []*candidate) []bound {
	index := map[string]int{}
	for i, c := range cands {
		index[c.name] = i
	}
	var out []bound
	for _, r := range in.Rules {
		a, okA := index[r.Component]
		b, okB := index[r.Other]
		if !okA || !okB || a == b {
			continue
		}
		ca, cb := cands[a], cands[b]
		x := bound{Rule: r, a: a, b: b, before: r.broken(ca.Current, cb.Current), waived: ca.forced || cb.forced}
		x.when, x.needs = ca.ladder.set(r.When, false), cb.ladder.set(r.Needs, r.Needs == nil)
		if x.before {
			x.when.remove(0)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(x, y bound) int {
		return cmp.Or(x.a-y.a, x.b-y.b, strings.Compare(rangeText(x.When), rangeText(y.When)),
			strings.Compare(rangeText(x.Needs), rangeText(y.Needs)), strings.Compare(x.Text, y.Text))
	})
	return out
}

// set is the nodes in a range; the unknown installed version only where unknown
// says so.
func (l *ladder) set(r Range, unknown bool) bitset {
	m := l.in(r)
	b := newBitset(len(l.nodes))
	for i, n := range l.nodes {
		if m[n.at+1] {
			b.add(i)
		}
	}
	if l.c.Current.IsZero() && !unknown {
		b.remove(0)
	}
	return b
}

// allows reports whether a may be at node x while b is at node y.
func (r *bound) allows(x, y int) bool { return r.waived || !r.when.has(x) || r.needs.has(y) }

// Fits says which rule of the matrix a component would break by going to a
// version while the others are at the given ones; those not given are where they
// are installed. It is for runs that went otherwise than planned.
func (in Input) Fits(name string, to component.Version, at map[string]component.Version) error {
	if in.Force && !in.Pins[name].IsZero() {
		return nil
	}
	now := map[string]component.Version{}
	for _, i := range in.Installed {
		now[i.Component.Name] = i.Current
	}
	maps.Copy(now, at)
	for _, r := range in.Rules {
		v, okA := now[r.Component]
		o, okB := now[r.Other]
		if !okA || !okB || r.Component == r.Other {
			continue
		}
		was := r.broken(v, o)
		switch name {
		case r.Component:
			v, was = to, false
		case r.Other:
			o = to
		default:
			continue
		}
		if r.broken(v, o) && !was {
			return fmt.Errorf("%s %s needs %s %s, and that is at %s", r.Component, v, r.Other, rangeText(r.Needs), versionText(o))
		}
	}
	return nil
}

// ranges lists what the matrix says of each component, by name.
func ranges(in Input) map[string][]Range {
	out := map[string][]Range{}
	seen := map[[2]string]bool{}
	add := func(name string, r Range) {
		if key := [2]string{name, rangeText(r)}; r != nil && !seen[key] {
			seen[key] = true
			out[name] = append(out[name], r)
		}
	}
	for _, r := range in.Rules {
		add(r.Component, r.When)
		add(r.Other, r.Needs)
	}
	return out
}
