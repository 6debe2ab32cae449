package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// outcome says what becomes of candidate i, and why.
func (s *solver) outcome(i int) verdict {
	c := s.cands[i]
	top := c.ladder.top()
	if top == 0 {
		return c.staying
	}
	var notes []string
	if s.target[i] < top {
		notes = append(notes, s.explain(i, top))
	}
	if !s.upgraded(i) {
		return verdict{causeRule, strings.Join(notes, "; ")}
	}
	if c.note != "" {
		notes = append(notes, c.note)
	}
	if lifted := c.ladder.nodes[s.target[i]].lifted; lifted != "" {
		notes = append([]string{lifted}, notes...)
	}
	return verdict{causeNone, strings.Join(notes, "; ")}
}

// explain gives the shortest true reason for which candidate i is not at node v.
func (s *solver) explain(i, v int) string {
	if text := s.explainOrder(i, v); text != "" {
		return text
	}
	if text := s.explainAlone(i, v); text != "" {
		return text
	}
	if r, hit := s.conflict(i, v); hit {
		best := s.version(i, v)
		if r.a == i {
			return fmt.Sprintf("%s %s needs %s %s; %s", r.Component, best, r.Other, rangeText(r.Needs), s.standing(r.b)) + note(r.Text)
		}
		return fmt.Sprintf("%s %s needs %s %s, and %s is newer", r.Component, s.version(r.a, s.target[r.a]), r.Other, rangeText(r.Needs), best) + note(r.Text)
	}
	return fmt.Sprintf("%s %s fits in no set of versions with the others that come first", s.cands[i].name, s.version(i, v))
}

// explainOrder is the reason when the set as such is compatible, and no order of
// steps to it is.
func (s *solver) explainOrder(i, v int) string {
	for _, d := range s.dead {
		at := slices.Index(d.cands[:d.core], i)
		if at < 0 || d.targets[at] != v {
			continue
		}
		var names, why []string
		goal := map[int]int{}
		for k, j := range d.cands[:d.core] {
			goal[j] = d.targets[k]
			names = append(names, fmt.Sprintf("%s %s", s.cands[j].name, s.version(j, d.targets[k])))
		}
		for _, r := range s.rules {
			x, inA := goal[r.a]
			y, inB := goal[r.b]
			if !inA || !inB {
				continue
			}
			if !r.allows(x, 0) {
				why = append(why, fmt.Sprintf("%s %s needs %s %s", r.Component, s.version(r.a, x), r.Other, rangeText(r.Needs)))
			}
			if !r.allows(0, y) {
				why = append(why, fmt.Sprintf("%s %s needs %s %s", r.Component, s.version(r.a, 0), r.Other, rangeText(r.Needs)))
			}
		}
		if len(names) == 1 {
			return fmt.Sprintf("there is no order of steps to %s that is compatible all the way", names[0])
		}
		text := fmt.Sprintf("%s would have to change at the same moment", strings.Join(names, " and "))
		if len(why) > 0 {
			text += ": " + strings.Join(why, ", and ")
		}
		return text
	}
	return ""
}

// explainAlone is the reason when no set at all has candidate i at node v,
// whatever the others do: the chain of rules from there to a component that
// cannot follow.
func (s *solver) explainAlone(i, v int) string {
	e := s.explanation()
	e.doms[i] = newBitset(len(s.cands[i].ladder.nodes))
	e.doms[i].add(v)
	wiped := e.run(i)
	if wiped == nil {
		return ""
	}
	var parts []string
	for _, k := range e.trace(*wiped, i) {
		r := &s.rules[k]
		at := rangeText(r.When)
		if r.a == i {
			at = s.version(i, v).String()
		}
		parts = append(parts, fmt.Sprintf("%s %s needs %s %s", r.Component, at, r.Other, rangeText(r.Needs))+note(r.Text))
	}
	last := &s.rules[*wiped]
	if end := last.b; end != i {
		parts = append(parts, s.standing(end))
	} else {
		parts = append(parts, s.standing(last.a))
	}
	return strings.Join(parts, "; ")
}

// explanation is a propagation that remembers which rule first narrowed each
// candidate, and what it was narrowed by.
type explanation struct {
	s    *solver
	doms []bitset
	by   map[int]narrowing
}

// narrowing is a rule that narrowed a candidate because of where the other is.
type narrowing struct{ rule, other int }

func (s *solver) explanation() *explanation {
	e := &explanation{s: s, doms: make([]bitset, len(s.cands)), by: map[int]narrowing{}}
	for j, c := range s.cands {
		e.doms[j] = c.ladder.goals()
	}
	return e
}

// run propagates from a candidate, breadth first, until one has nothing left; it
// returns the rule that took the last of it, nil when none did.
func (e *explanation) run(from int) *int {
	const most = 10_000
	queue := []int{from}
	narrowed := func(i, rule, other int) bool {
		if _, ok := e.by[i]; !ok && !e.doms[i].empty() {
			e.by[i] = narrowing{rule, other}
		}
		queue = append(queue, i)
		return e.doms[i].empty()
	}
	for n := 0; n < len(queue) && n < most; n++ {
		for _, k := range e.s.touches[queue[n]] {
			r := &e.s.rules[k]
			da, db := e.doms[r.a], e.doms[r.b]
			empty := false
			switch {
			case !db.meets(r.needs) && da.drop(r.when):
				empty = narrowed(r.a, k, r.b)
			case da.within(r.when) && db.keep(r.needs):
				empty = narrowed(r.b, k, r.a)
			}
			if empty {
				return &k
			}
		}
	}
	return nil
}

// trace lists the rules that lead from a candidate to the one that left nothing.
func (e *explanation) trace(last, from int) []int {
	var chain []int
	seen := map[int]bool{from: true}
	var why func(i int)
	why = func(i int) {
		n, ok := e.by[i]
		if !ok || seen[i] {
			return
		}
		seen[i] = true
		why(n.other)
		chain = append(chain, n.rule)
	}
	why(e.s.rules[last].a)
	why(e.s.rules[last].b)
	return append(chain, last)
}

func note(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// standing says where a component is and why it goes no further.
func (s *solver) standing(i int) string {
	c := s.cands[i]
	if c.Current.IsZero() {
		return fmt.Sprintf("the installed version of %s is not known", c.name)
	}
	if s.upgraded(i) {
		return fmt.Sprintf("%s goes to %s", c.name, s.version(i, s.target[i]))
	}
	at := fmt.Sprintf("%s is %s", c.name, c.Current)
	switch {
	case !c.selected:
		return at + " and not selected"
	case c.ladder.top() > 0:
		return at + " and kept back by another rule"
	}
	switch c.staying.cause {
	case causeNewest:
		return at + ", and upstream has nothing newer"
	case causeHold:
		return at + " and on hold"
	case causePolicy:
		return at + ", and its policy lets it go no further"
	case causeFailed:
		return at + ", and its newer version failed here"
	case causeExcluded:
		return at + " and not upgraded by this program"
	case causeUpstream:
		return at + ", and its upstream is not known"
	case causeTarget:
		return at + ", and its newer version is beyond the target or its policy"
	}
	return at + " and blocked"
}

// warnings tells of rules that the result breaks all the same: those broken
// before, and those that a person set aside. Only components of the plan count.
func (s *solver) warnings() []string {
	out := slices.Clone(s.told)
	for _, r := range s.rules {
		if !r.before && !r.waived {
			continue // no result breaks it
		}
		v, o := s.version(r.a, s.target[r.a]), s.version(r.b, s.target[r.b])
		if !s.upgraded(r.a) && !s.upgraded(r.b) || !r.broken(v, o) {
			continue
		}
		text := fmt.Sprintf("%s %s needs %s %s, and it is %s", r.Component, v, r.Other, rangeText(r.Needs), versionText(o)) + note(r.Text)
		if r.waived {
			text += "; set aside by --force"
		} else {
			text += "; this was so before the upgrade"
		}
		out = append(out, text)
	}
	return out
}

func versionText(v component.Version) string {
	if v.IsZero() {
		return "unknown"
	}
	return v.String()
}
