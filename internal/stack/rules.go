package stack

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// addRules turns the configuration into the planner's input. Ranges were
// checked when the files were read. The order is fixed, so that the same
// configuration always gives the same plan.
func (s *Stack) addRules(in *plan.Input) {
	for _, h := range s.Policy.Pins {
		pin := plan.Pin{Component: h.Component, Range: mustRange(h.Version), Reason: h.Reason}
		pin.Until, _ = h.UntilTime()
		in.Pinned = append(in.Pinned, pin)
	}
	for _, b := range s.Matrix.Blacklist {
		in.Blacklist = append(in.Blacklist, plan.Blacklisted{Component: b.Component, Range: mustRange(b.Version), Reason: b.Reason, Reference: b.Reference})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Matrix.Compatibility)) {
		rules := s.Matrix.Compatibility[name]
		for _, when := range slices.Sorted(maps.Keys(rules)) {
			for _, other := range slices.Sorted(maps.Keys(rules[when])) {
				in.Rules = append(in.Rules, plan.Rule{Component: name, When: mustRange(when), Other: other, Needs: mustRange(rules[when][other].Needs), Text: text(rules[when][other])})
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

// text is why a rule is there.
func text(n config.Need) string {
	switch {
	case n.Reason == "":
		return n.Reference
	case n.Reference == "":
		return n.Reason
	}
	return n.Reason + ", " + n.Reference
}

// autoUpgrade is the file's section; the policy and the matrix may not both have
// it.
func (s *Stack) autoUpgrade() config.AutoUpgrade {
	for _, a := range []*config.AutoUpgrade{s.Policy.AutoUpgrade, s.Matrix.AutoUpgrade} {
		if a != nil {
			return *a
		}
	}
	return config.AutoUpgrade{}
}

// addPolicies tells the planner what unattended runs obey; level, when it is not
// empty, takes the place of the default policy.
func (s *Stack) addPolicies(in *plan.Input, level string) error {
	a := s.autoUpgrade()
	if level != "" {
		a.DefaultPolicy = level
	}
	in.DefaultPolicy = plan.Policy{Level: plan.Level(a.DefaultPolicy), MinReleaseAge: days(a.MinReleaseAgeDays), Security: a.Security}
	in.Policies = map[string]plan.Policy{}
	for name, p := range a.Policies {
		out := in.DefaultPolicy
		if p.Policy != "" {
			out.Level = plan.Level(p.Policy)
		}
		if p.MinReleaseAgeDays != nil {
			out.MinReleaseAge = days(p.MinReleaseAgeDays)
		}
		out.MaxAge = days(p.MaxAgeDays)
		if p.Security != "" {
			out.Security = p.Security
		}
		if p.Channel != "" {
			r, err := s.Matrix.Channel(name, p.Channel)
			if err != nil {
				return fmt.Errorf("%w: auto_upgrade.policies.%s.channel: %w", ErrConfig, name, err)
			}
			out.Channel, out.ChannelName = r, p.Channel
		}
		in.Policies[name] = out
	}
	return nil
}

func days(n *int) time.Duration {
	if n == nil {
		return 0
	}
	return time.Duration(*n) * 24 * time.Hour
}

func mustRange(text string) plan.Range {
	r, err := config.ParseRange(text)
	if err != nil {
		panic("a version range was not checked when its file was read: " + err.Error())
	}
	return r
}
