package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// doors are the stepping stones and one-way doors between a component's
// installed version and the releases above it (CONTRACT.md section 6).
//
// Both begin at the first release of their `to` range above the installed
// version, and hold for everything from there on: a jump over a range passes
// through it.
type doors struct {
	c      *candidate
	stones []stone
	oneWay []door
}

// stone is a path that the installed version does not fulfil.
type stone struct {
	Path
	at component.Version // the first release that may not be entered directly
}

type door struct {
	Edge
	at component.Version // the first release behind the door
}

func newDoors(in Input, c *candidate) *doors {
	d := &doors{c: c}
	for _, p := range in.Paths {
		if p.Component != c.name || contains(p.To, c.Current) || contains(p.From, c.Current) {
			continue
		}
		if at, ok := d.first(p.To); ok {
			d.stones = append(d.stones, stone{p, at})
		}
	}
	// The highest demand comes first: it is the one that is nearest to the goal.
	slices.SortFunc(d.stones, func(a, b stone) int {
		return cmp.Or(b.at.Compare(a.at), strings.Compare(rangeText(a.From), rangeText(b.From)), strings.Compare(a.Reason, b.Reason),
			strings.Compare(a.Reference, b.Reference))
	})
	if in.Force {
		return d
	}
	for _, e := range in.OneWay {
		if e.Component != c.name || e.Reversible == "yes" {
			continue
		}
		if at, ok := d.crossing(e); ok {
			d.oneWay = append(d.oneWay, door{e, at})
		}
	}
	slices.SortFunc(d.oneWay, func(a, b door) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.Reversible, b.Reversible), strings.Compare(a.Reason, b.Reason),
			strings.Compare(a.Reference, b.Reference))
	})
	return d
}

// above yields the listed versions newer than the installed one, oldest first.
func (d *doors) above(yield func(component.Version) bool) {
	for _, r := range slices.Backward(d.c.listed) {
		if d.c.Current.Less(r.Version) && !yield(r.Version) {
			return
		}
	}
}

// first is the oldest release above the installed one that is in the range.
func (d *doors) first(to Range) (component.Version, bool) {
	for v := range d.above {
		if contains(to, v) {
			return v, true
		}
	}
	return component.Version{}, false
}

// crossing is the oldest release at which the door has been gone through.
func (d *doors) crossing(e Edge) (component.Version, bool) {
	before := contains(e.From, d.c.Current)
	for v := range d.above {
		if before && contains(e.To, v) && !contains(e.To, d.c.Current) {
			return v, true
		}
		before = before || contains(e.From, v)
	}
	return component.Version{}, false
}

// shut says which door keeps a release from being entered.
func (d *doors) shut(v component.Version) verdict {
	for _, e := range d.oneWay {
		if v.Less(e.at) {
			continue
		}
		why := "there is no way back from it"
		if e.Reversible != "no" {
			why = "the way back needs a backup of its data, which this version does not make"
		}
		return verdict{causeOneWay, fmt.Sprintf("%s is a one-way upgrade%s; %s; --force goes all the same", v, because(e.Reason, e.Reference), why)}
	}
	return verdict{}
}

// missing is the stepping stone that a release needs first.
func (d *doors) missing(v component.Version) (stone, bool) {
	for _, s := range d.stones {
		if !v.Less(s.at) {
			return s, true
		}
	}
	return stone{}, false
}

// reach turns the usable releases (newest first) into options that can be
// entered in one step: the release itself, or the stepping stone on the way to
// it. It goes no further down than the newest release that failed here. Without
// any option the verdict is that of the newest release. The first option's note
// says why it is not a newer one; skipped is what is known of that so far.
func (d *doors) reach(usable []option, skipped string) ([]option, verdict) {
	var out []option
	var refused verdict
	seen := map[string]bool{}
	for _, goal := range usable {
		if !goal.failed.passes() {
			break
		}
		o, v := goal, d.shut(goal.release.Version)
		if v.passes() {
			o, v = d.step(goal, usable)
		}
		if !v.passes() {
			if refused.passes() {
				refused = v
			}
			continue
		}
		if key := o.release.Version.String(); !seen[key] {
			seen[key] = true
			if len(out) == 0 {
				o.note = cmp.Or(o.note, refused.reason, skipped)
			}
			out = append(out, o)
		}
	}
	if len(out) > 0 {
		return out, verdict{}
	}
	return nil, refused
}

// step is the first step towards a goal: the goal, or the newest release that a
// stepping stone asks for, or that one's own stone in turn.
func (d *doors) step(goal option, usable []option) (option, verdict) {
	s, needed := d.missing(goal.release.Version)
	if !needed {
		return goal, verdict{}
	}
	refused := verdict{causePath, s.demand(goal.release.Version) + fmt.Sprintf("; none of those can be installed from %s", d.c.Current)}
	for _, o := range usable {
		if !o.release.Version.Less(s.at) || !contains(s.From, o.release.Version) {
			continue
		}
		if !o.failed.passes() {
			return option{}, o.failed
		}
		// The stone lies below s.at, so each round has a lower goal and ends.
		next, v := d.step(o, usable)
		if v.passes() {
			v = d.shut(next.release.Version)
		}
		if v.passes() {
			next.note = s.demand(goal.release.Version) + "; the next step follows in the next run"
			return next, verdict{}
		}
		if v.cause == causeFailed {
			return option{}, v
		}
	}
	return option{}, refused
}

// demand says in words what the stone asks for.
func (s stone) demand(goal component.Version) string {
	return fmt.Sprintf("%s needs %s %s first%s", goal, s.Component, rangeText(s.From), because(s.Reason, s.Reference))
}

// direct is for a version that a person named: it is entered in one step or not
// at all.
func (d *doors) direct(o option) ([]option, verdict) {
	v := o.release.Version
	if shut := d.shut(v); !shut.passes() {
		return nil, shut
	}
	s, needed := d.missing(v)
	if !needed {
		return []option{o}, verdict{}
	}
	text := s.demand(v)
	for _, r := range d.c.stable {
		if r.Version.Less(s.at) && d.c.Current.Less(r.Version) && contains(s.From, r.Version) {
			text += fmt.Sprintf("; begin with --component=%s@%s", d.c.name, r.Version)
			break
		}
	}
	return nil, verdict{causePath, text}
}
