package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// set is one choice for every component, upgraded or not, judged as a whole by
// the compatibility matrix.
//
// The chooser starts from everyone's best option, lowers one component at a time
// until no rule is broken, and then raises again whatever can be raised alone.
// The result is valid and cannot be improved by changing one component; it is
// not always the best there is.
type set struct {
	cands   []*candidate // sorted by name
	choice  []int        // index into options; len(options) stands for staying
	rules   []bound
	touches [][]int // rules by candidate
}

// bound is a rule both of whose components are installed.
type bound struct {
	Rule
	a, b   int  // candidates of Component and Other
	before bool // broken by what is installed now: not ours to mend
	waived bool // set aside by a version that a person forced
}

func newSet(in Input, cands []*candidate) *set {
	s := &set{cands: cands, choice: make([]int, len(cands)), touches: make([][]int, len(cands))}
	index := map[string]int{}
	for i, c := range cands {
		index[c.name] = i
	}
	for _, r := range in.Rules {
		a, okA := index[r.Component]
		b, okB := index[r.Other]
		if !okA || !okB || a == b {
			continue
		}
		s.rules = append(s.rules, bound{
			Rule: r, a: a, b: b,
			before: r.broken(cands[a].Current, cands[b].Current),
			waived: cands[a].forced || cands[b].forced,
		})
	}
	slices.SortFunc(s.rules, func(x, y bound) int {
		return cmp.Or(x.a-y.a, x.b-y.b, strings.Compare(rangeText(x.When), rangeText(y.When)),
			strings.Compare(rangeText(x.Needs), rangeText(y.Needs)), strings.Compare(x.Text, y.Text))
	})
	for i, r := range s.rules {
		s.touches[r.a] = append(s.touches[r.a], i)
		s.touches[r.b] = append(s.touches[r.b], i)
	}
	s.repair()
	s.raise()
	return s
}

// broken judges one pair of versions. An unknown version of Other fulfils no
// demand.
func (r Rule) broken(v, other component.Version) bool {
	return !v.IsZero() && contains(r.When, v) && !contains(r.Needs, other)
}

// version is what candidate i is at when its choice is k.
func (s *set) version(i, k int) component.Version {
	if c := s.cands[i]; k < len(c.options) {
		return c.options[k].release.Version
	}
	return s.cands[i].Current
}

func (s *set) upgraded(i int) bool { return s.choice[i] < len(s.cands[i].options) }

// violated reports whether the choice breaks rule r that was not broken before.
func (s *set) violated(r int) bool {
	b := &s.rules[r]
	return !b.before && !b.waived && b.broken(s.version(b.a, s.choice[b.a]), s.version(b.b, s.choice[b.b]))
}

// conflict is the first rule that candidate i breaks with choice k, the others
// staying as they are.
func (s *set) conflict(i, k int) (bound, bool) {
	old := s.choice[i]
	s.choice[i] = k
	defer func() { s.choice[i] = old }()
	for _, r := range s.touches[i] {
		if s.violated(r) {
			return s.rules[r], true
		}
	}
	return bound{}, false
}

// repair lowers candidates until no rule is violated. Each round lowers one, and
// a rule violated while both of its components stay would have been broken
// before, so it ends with a valid set.
func (s *set) repair() {
	for r := 0; r < len(s.rules); {
		if !s.violated(r) {
			r++
			continue
		}
		s.lower(s.yields(s.rules[r]))
		r = 0
	}
}

// yields is the candidate that gives way to a rule: the one that the rule speaks
// of, unless it stays where it is or a person named its version.
func (s *set) yields(b bound) int {
	named := !s.cands[b.a].pin.IsZero() && s.cands[b.b].pin.IsZero()
	if !s.upgraded(b.a) || named && s.upgraded(b.b) {
		return b.b
	}
	return b.a
}

// lower takes candidate i to its next best option that fits, or lets it stay.
func (s *set) lower(i int) {
	for s.choice[i]++; s.upgraded(i); s.choice[i]++ {
		if _, hit := s.conflict(i, s.choice[i]); !hit {
			return
		}
	}
}

// raise takes back what was lowered in vain, those named by a person first.
func (s *set) raise() {
	order := make([]int, len(s.cands))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int {
		a, b := s.cands[x], s.cands[y]
		if a.pin.IsZero() != b.pin.IsZero() {
			if b.pin.IsZero() {
				return -1
			}
			return 1
		}
		return a.Component.Role.Order() - b.Component.Role.Order()
	})
	for again := true; again; {
		again = false
		for _, i := range order {
			for k := range s.choice[i] {
				if _, hit := s.conflict(i, k); !hit {
					s.choice[i], again = k, true
					break
				}
			}
		}
	}
}

// outcome says what becomes of candidate i, and why.
func (s *set) outcome(i int) verdict {
	c := s.cands[i]
	if len(c.options) == 0 {
		return c.staying
	}
	var notes []string
	if b, hit := s.conflict(i, 0); hit && s.choice[i] > 0 {
		notes = append(notes, s.explain(b, i))
	}
	if !s.upgraded(i) {
		return verdict{causeRule, strings.Join(notes, "; ")}
	}
	if n := c.options[s.choice[i]].note; n != "" {
		notes = append(notes, n)
	}
	return verdict{causeNone, strings.Join(notes, "; ")}
}

// explain says why candidate i cannot have its best option because of a rule.
func (s *set) explain(b bound, i int) string {
	best := s.version(i, 0)
	if i == b.a {
		return fmt.Sprintf("%s %s needs %s %s; %s", b.Component, best, b.Other, rangeText(b.Needs), s.standing(b.b)) + note(b.Text)
	}
	return fmt.Sprintf("%s %s needs %s %s, and %s is newer", b.Component, s.version(b.a, s.choice[b.a]), b.Other, rangeText(b.Needs), best) + note(b.Text)
}

func note(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// standing says where a component is and why it goes no further.
func (s *set) standing(i int) string {
	c := s.cands[i]
	if c.Current.IsZero() {
		return fmt.Sprintf("the installed version of %s is not known", c.name)
	}
	if s.upgraded(i) {
		return fmt.Sprintf("%s goes to %s", c.name, s.version(i, s.choice[i]))
	}
	at := fmt.Sprintf("%s is %s", c.name, c.Current)
	switch {
	case !c.selected:
		return at + " and not selected"
	case len(c.options) > 0:
		return at + " and kept back by another rule"
	}
	switch c.staying.cause {
	case causeNewest:
		return at + ", and upstream has nothing newer"
	case causeHold:
		return at + " and on hold"
	case causeFailed:
		return at + ", and its newer version failed here"
	case causeExcluded:
		return at + " and not upgraded by this program"
	case causeUpstream:
		return at + ", and its upstream is not known"
	case causeTarget:
		return at + ", and its newer version is beyond the target"
	}
	return at + " and blocked"
}

// warnings tells of rules that the result breaks all the same: those broken
// before, and those that a person set aside. Only components of the plan count.
func (s *set) warnings() []string {
	var out []string
	for _, b := range s.rules {
		v, o := s.version(b.a, s.choice[b.a]), s.version(b.b, s.choice[b.b])
		if !s.upgraded(b.a) && !s.upgraded(b.b) || !b.broken(v, o) {
			continue
		}
		text := fmt.Sprintf("%s %s needs %s %s, and it is %s", b.Component, v, b.Other, rangeText(b.Needs), versionText(o)) + note(b.Text)
		if b.before {
			text += "; this was so before the upgrade"
		} else {
			text += "; set aside by --force"
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
