package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// node is a version that a component can be at during a run.
type node struct {
	option
	version component.Version
	at      int  // index into ladder.listed; -1 for the installed version
	goal    bool // the run may leave it there
	steps   int  // the least number of steps to it from the installed version; -1: there is no way
}

// stone is a stepping stone with what its ranges hold, as ladder.in has it.
type stone struct {
	Path
	inTo, inFrom []bool
}

// ladder is what one component can climb: the installed version, and above it
// one node for each stretch of releases between which no rule, stepping stone or
// one-way door makes a difference. Of each stretch only the newest usable
// release is a node, since none of the others can do anything that it cannot.
//
// Stepping stones and one-way doors (the contract's `paths` and `one_way`) begin
// at the first release of their `to` range above where the component is, and
// hold for everything from there on: a jump over a range passes through it.
type ladder struct {
	c      *candidate
	listed []component.Version // releases above the installed version, oldest first
	member map[string][]bool   // by range text: the installed version, then listed
	stones []stone
	doors  []Edge   // those that are shut
	failed []option // usable releases that failed here, newest first
	nodes  []node   // nodes[0] is the installed version, the others oldest first
	open   []bitset // open[u]: the nodes that can be entered from node u in one step
	sets   map[setKey]bitset
}

func newLadder(in Input, c *candidate) *ladder {
	l := &ladder{c: c, member: map[string][]bool{}, nodes: []node{{version: c.Current, at: -1, goal: true}}}
	for _, r := range slices.Backward(c.listed) {
		if n := len(l.listed); c.Current.Less(r.Version) && (n == 0 || l.listed[n-1].Less(r.Version)) {
			l.listed = append(l.listed, r.Version)
		}
	}
	for _, p := range in.Paths {
		if p.Component == c.name {
			l.stones = append(l.stones, stone{p, l.in(p.To), l.in(p.From)})
		}
	}
	slices.SortFunc(l.stones, func(a, b stone) int {
		return cmp.Or(strings.Compare(rangeText(a.From), rangeText(b.From)), strings.Compare(rangeText(a.To), rangeText(b.To)),
			strings.Compare(a.Reason, b.Reason), strings.Compare(a.Reference, b.Reference))
	})
	for _, e := range in.OneWay {
		open := e.Reversible == "yes" || in.Force || e.Reversible == "with-backup" && c.DataKept && !in.Auto
		if e.Component == c.name && !open {
			l.doors = append(l.doors, e)
		}
	}
	slices.SortFunc(l.doors, func(a, b Edge) int {
		return cmp.Or(strings.Compare(a.Reversible, b.Reversible), strings.Compare(a.Reason, b.Reason), strings.Compare(a.Reference, b.Reference))
	})
	return l
}

// in says of the installed version, and then of each listed one, whether a range
// contains it.
func (l *ladder) in(r Range) []bool {
	if r == nil {
		return slices.Repeat([]bool{true}, len(l.listed)+1)
	}
	text := r.String()
	if m, ok := l.member[text]; ok {
		return m
	}
	m := make([]bool, len(l.listed)+1)
	m[0] = contains(r, l.c.Current)
	if s, ok := r.(spanner); ok {
		if from, to, ok := s.Span(l.listed); ok {
			for i := from; i < to; i++ {
				m[i+1] = true
			}
			l.member[text] = m
			return m
		}
	}
	for i, v := range l.listed {
		m[i+1] = r.Contains(v)
	}
	l.member[text] = m
	return m
}

var _ spanner = component.Range{}

// spanner is a range that can tell which of a sorted list of versions, the oldest
// first, are in it: those from one up to another, when ok. It is asked once where
// Contains would be asked for each.
type spanner interface {
	Span(sorted []component.Version) (from, to int, ok bool)
}

// build makes the nodes of the usable options (newest first); ranges are those
// of the matrix that speak of this component. Nothing at or below floor is a
// goal: it is the newest version that failed here.
func (l *ladder) build(usable []option, ranges []Range, floor component.Version) {
	ends := make([]bool, len(l.listed)+1) // whether a stretch ends before a listed version
	tell := func(m []bool) {
		for i := 1; i < len(m); i++ {
			ends[i] = ends[i] || m[i] != m[i-1]
		}
	}
	for _, r := range ranges {
		if _, met := l.member[r.String()]; !met { // those of stones are told below
			tell(l.in(r))
		}
	}
	for _, p := range l.stones {
		tell(p.inTo)
		tell(p.inFrom)
	}
	for _, e := range l.doors {
		tell(l.in(e.To))
		tell(l.in(e.From))
	}
	for _, o := range usable {
		if !o.failed.passes() {
			l.failed = append(l.failed, o)
		}
	}
	next := len(usable) - 1
	var last *option // newest usable release of the stretch
	var lastAt int
	closeStretch := func() {
		if last != nil && last.failed.passes() {
			v := last.release.Version
			l.nodes = append(l.nodes, node{option: *last, version: v, at: lastAt, goal: !last.stone && (floor.IsZero() || floor.Less(v))})
		}
		last = nil
	}
	for i, v := range l.listed {
		if i > 0 && ends[i+1] {
			closeStretch()
		}
		for next >= 0 && usable[next].release.Version.Equal(v) {
			if o := &usable[next]; last == nil || last.stone || !o.stone {
				last, lastAt = o, i
			}
			next--
		}
	}
	closeStretch()
	l.count()
}

// count finds for each node the least number of steps to it.
func (l *ladder) count() {
	l.open = make([]bitset, len(l.nodes))
	for u := range l.nodes {
		l.open[u] = newBitset(len(l.nodes))
		for v := u + 1; v < len(l.nodes); v++ {
			_, needed := l.missing(u, v)
			_, shut := l.shut(u, v)
			if !needed && !shut {
				l.open[u].add(v)
			}
		}
	}
	for v := 1; v < len(l.nodes); v++ {
		l.nodes[v].steps = -1
		for u := range v {
			if n := l.nodes[u].steps; n >= 0 && (l.nodes[v].steps < 0 || n+1 < l.nodes[v].steps) && l.passes(u, v) {
				l.nodes[v].steps = n + 1
			}
		}
	}
}

// passes reports whether node v can be entered from node u in one step.
func (l *ladder) passes(u, v int) bool { return l.open[u].has(v) }

// missing is the stepping stone that keeps node v from being entered from node
// u; of several the one whose forbidden releases begin last.
func (l *ladder) missing(u, v int) (Path, bool) {
	from, to := l.nodes[u].at+1, l.nodes[v].at+1
	best, at := -1, -1
	for i := range l.stones {
		inTo := l.stones[i].inTo
		if inTo[from] || l.stones[i].inFrom[from] {
			continue
		}
		for w := from + 1; w <= to; w++ {
			if inTo[w] {
				if w > at {
					best, at = i, w
				}
				break
			}
		}
	}
	if best < 0 {
		return Path{}, false
	}
	return l.stones[best].Path, true
}

// shut is the one-way door between two nodes.
func (l *ladder) shut(u, v int) (Edge, bool) {
	for _, e := range l.doors {
		if l.crosses(e, l.nodes[u].at+1, l.nodes[v].at+1) {
			return e, true
		}
	}
	return Edge{}, false
}

// crosses reports whether a jump goes through a door: whether it comes to the
// `to` range from or over the `from` range. The numbers are indices into what in
// answers.
func (l *ladder) crosses(e Edge, from, to int) bool {
	inFrom, inTo := l.in(e.From), l.in(e.To)
	if inTo[from] {
		return false
	}
	before := inFrom[from]
	for w := from + 1; w <= to; w++ {
		if inTo[w] && !inTo[w-1] && before {
			return true
		}
		before = before || inFrom[w]
	}
	return false
}

// refusal says why a node cannot be reached.
func (l *ladder) refusal(v int) verdict {
	goal := l.nodes[v].version
	if e, ok := l.shut(0, v); ok {
		why := "there is no way back from it"
		if e.Reversible != "no" {
			why = "the way back needs a copy of its data, and where that is, is not known"
			if l.c.DataKept {
				why = "a run by hand goes, with a copy of its data where it has any"
			}
		}
		if !l.c.DataKept || e.Reversible == "no" {
			why += "; --force goes all the same"
		}
		return verdict{causeOneWay, fmt.Sprintf("%s is a one-way upgrade%s; %s", goal, because(e.Reason, e.Reference), why)}
	}
	p, _ := l.missing(0, v)
	for _, o := range l.failed {
		if contains(p.From, o.release.Version) {
			return o.failed
		}
	}
	return verdict{causePath, p.demand(goal) + fmt.Sprintf("; none of those can be installed from %s", l.c.Current)}
}

// demand says in words what a stepping stone asks for.
func (p Path) demand(goal component.Version) string {
	return fmt.Sprintf("%s needs %s %s first%s", goal, p.Component, rangeText(p.From), because(p.Reason, p.Reference))
}

// goals are the nodes that the run may leave the component at, as a set.
func (l *ladder) goals() bitset {
	b := newBitset(len(l.nodes))
	for i, n := range l.nodes {
		if n.goal && n.steps >= 0 {
			b.add(i)
		}
	}
	return b
}

// top is the best goal that can be reached; 0 when the component must stay.
func (l *ladder) top() int { return l.goals().highest() }

// left is the least number of steps from each node to the goal; -1 where there
// is no way.
func (l *ladder) left(goal int) []int {
	left := make([]int, goal+1)
	for u := goal - 1; u >= 0; u-- {
		left[u] = -1
		for v := u + 1; v <= goal; v++ {
			if left[v] >= 0 && (left[u] < 0 || left[v]+1 < left[u]) && l.passes(u, v) {
				left[u] = left[v] + 1
			}
		}
	}
	return left
}

// index is the place of a version among the listed ones; -1 when it is not above
// the installed version.
func (l *ladder) index(v component.Version) int {
	return slices.IndexFunc(l.listed, v.Equal)
}

// below is the newest listed version older than v; zero when there is none.
func (l *ladder) below(v component.Version) component.Version {
	var last component.Version
	for _, x := range l.listed {
		if !x.Less(v) {
			break
		}
		last = x
	}
	return last
}
