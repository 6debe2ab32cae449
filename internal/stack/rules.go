package stack

import (
	"maps"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// addRules turns the configuration into the planner's input. Ranges were
// checked when the files were read. The order is fixed, so that the same
// configuration always gives the same plan.
func (s *Stack) addRules(in *plan.Input) {
	for _, h := range s.Policy.Holds {
		hold := plan.Hold{Component: h.Component, Reason: h.Reason}
		if h.Version != "" {
			hold.Range = mustRange(h.Version)
		}
		hold.Until, _ = h.UntilTime() // checked when the file was read
		in.Holds = append(in.Holds, hold)
	}
	for _, b := range s.Matrix.Blacklist {
		in.Blacklist = append(in.Blacklist, plan.Blacklisted{Component: b.Component, Range: mustRange(b.Version), Reason: b.Reason, Reference: b.Reference})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Matrix.Compatibility)) {
		rules := s.Matrix.Compatibility[name]
		for _, when := range slices.Sorted(maps.Keys(rules)) {
			for _, other := range slices.Sorted(maps.Keys(rules[when])) {
				in.Rules = append(in.Rules, plan.Rule{Component: name, When: mustRange(when), Other: other, Needs: mustRange(rules[when][other])})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Matrix.Paths)) {
		for _, p := range s.Matrix.Paths[name] {
			in.Paths = append(in.Paths, plan.Path{Component: name, To: mustRange(p.To), From: mustRange(p.From), Reason: p.Reason, Reference: p.Reference})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Matrix.OneWay)) {
		for _, e := range s.Matrix.OneWay[name] {
			in.OneWay = append(in.OneWay, plan.Edge{Component: name, From: mustRange(e.From), To: mustRange(e.To), Reversible: e.Reversible, Reason: e.Reason, Reference: e.Reference})
		}
	}
}

func mustRange(text string) plan.Range {
	r, err := config.ParseRange(text)
	if err != nil {
		panic("a version range was not checked when its file was read: " + err.Error())
	}
	return r
}
