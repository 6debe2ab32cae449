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
	*Rule
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
// component; but no new version may be installed that breaks it. The result is
// sorted, so that the order of the matrix changes nothing.
func bind(in Input, cands []*candidate) []bound {
	index := make(map[string]int, len(cands))
	for i, c := range cands {
		index[c.name] = i
	}
	type place struct{ rule, b int }
	byA := make([][]place, len(cands)) // what is sorted together is short then
	n := 0
	for i := range in.Rules {
		a, okA := index[in.Rules[i].Component]
		b, okB := index[in.Rules[i].Other]
		if okA && okB && a != b {
			byA[a] = append(byA[a], place{i, b})
			n++
		}
	}
	out := make([]bound, 0, n)
	for a, list := range byA {
		slices.SortFunc(list, func(x, y place) int {
			if x.b != y.b {
				return x.b - y.b
			}
			r, q := &in.Rules[x.rule], &in.Rules[y.rule]
			return cmp.Or(strings.Compare(rangeText(r.When), rangeText(q.When)), strings.Compare(rangeText(r.Needs), rangeText(q.Needs)), strings.Compare(r.Text, q.Text))
		})
		for _, p := range list {
			ca, cb := cands[a], cands[p.b]
			x := bound{Rule: &in.Rules[p.rule], a: a, b: p.b, waived: ca.forced || cb.forced}
			x.when, x.needs = ca.ladder.set(x.When, false), cb.ladder.set(x.Needs, x.Needs == nil)
			if x.before = x.when.has(0) && !x.needs.has(0); x.before {
				x.when = slices.Clone(x.when)
				x.when.remove(0)
			}
			out = append(out, x)
		}
	}
	return out
}

// pair is all that the rules in force say of two candidates: for each node of one,
// the nodes of the other that it can be beside. Of a stack with a rule for every
// line of releases it is a small part of the rules.
type pair struct {
	a, b int      // a < b
	ofA  []bitset // by node of a: the nodes of b
	ofB  []bitset // by node of b: the nodes of a
}

// from is the pair as one of the two sees it: the other, and what of the other
// goes with each node of the one.
func (p *pair) from(i int) (other int, beside []bitset) {
	if i == p.a {
		return p.b, p.ofA
	}
	return p.a, p.ofB
}

// other is the other of the two, and what of the one goes with each node of it.
func (p *pair) other(i int) (other int, beside []bitset) {
	if i == p.a {
		return p.b, p.ofB
	}
	return p.a, p.ofA
}

// pairUp draws the rules together. They are sorted, but those of a pair are in two
// places: what a needs of b, and b of a.
func pairUp(rules []bound, cands []*candidate) []pair {
	var out []pair
	at := map[[2]int]int{}
	last, k := [2]int{-1, -1}, 0
	for i := range rules {
		r := &rules[i]
		if r.waived {
			continue
		}
		if key := [2]int{min(r.a, r.b), max(r.a, r.b)}; key != last {
			known := false
			if k, known = at[key]; !known {
				k = len(out)
				at[key] = k
				sizeA, sizeB := len(cands[key[0]].ladder.nodes), len(cands[key[1]].ladder.nodes)
				out = append(out, pair{a: key[0], b: key[1], ofA: fullBitsets(sizeA, sizeB), ofB: fullBitsets(sizeB, sizeA)})
			}
			last = key
		}
		beside, back := out[k].ofA, out[k].ofB
		if r.a != out[k].a {
			beside, back = back, beside
		}
		for x := range beside {
			if r.when.has(x) {
				beside[x].keep(r.needs)
			}
		}
		for y := range back {
			if !r.needs.has(y) {
				back[y].drop(r.when)
			}
		}
	}
	return out
}

// set is the nodes in a range; the unknown installed version only where unknown
// says so. It is shared and must not be changed.
func (l *ladder) set(r Range, unknown bool) bitset {
	key := setKey{unknown: unknown}
	if r != nil {
		key.text = r.String()
	}
	if b, ok := l.sets[key]; ok {
		return b
	}
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
	if l.sets == nil {
		l.sets = map[setKey]bitset{}
	}
	l.sets[key] = b
	return b
}

// setKey is a range, and whether the unknown version is in it.
type setKey struct {
	text    string
	unknown bool
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

// ranges lists what the matrix says of each component, by name; some more than
// once, since the ladder knows those it has met.
func ranges(in Input) map[string][]Range {
	out := map[string][]Range{}
	for i := range in.Rules {
		r := &in.Rules[i]
		if r.When != nil {
			out[r.Component] = append(out[r.Component], r.When)
		}
		if r.Needs != nil {
			out[r.Other] = append(out[r.Other], r.Needs)
		}
	}
	return out
}
