package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// policy is what an unattended run obeys for a component. A run by hand obeys
// none of it: a person who types the command may go to any version, at any time,
// however new it is. Both obey holds, pins, the blacklist, the matrix, stepping
// stones, one-way doors and the memory of what failed here.
func (in Input) policy(name string) Policy {
	p, ok := in.Policies[name]
	if !ok {
		p = in.DefaultPolicy
	}
	if p.Level == "" {
		p.Level = PatchOnly
	}
	return p
}

// PolicyOf is what an unattended run obeys for a component.
func (in Input) PolicyOf(name string) Policy { return in.policy(name) }

// permitted judges a release by the policy of its component.
func (c *candidate) permitted(in Input, r component.Release) verdict {
	if !in.Auto {
		return verdict{}
	}
	p := in.policy(c.name)
	bump := component.BumpBetween(c.Current, r.Version)
	switch {
	case p.Level == None:
		return verdict{causePolicy, "its policy is none: unattended runs leave it alone"}
	case p.Level == PatchOnly && bump != component.BumpPatch, p.Level == MinorLevel && bump == component.BumpMajor:
		return verdict{causeTarget, fmt.Sprintf("%s is a %s upgrade, beyond its policy %s", r.Version, bump, p.Level)}
	case !contains(p.Channel, r.Version):
		return verdict{causePolicy, fmt.Sprintf("%s is not in its channel %s (%s)", r.Version, p.ChannelName, rangeText(p.Channel))}
	case p.MinReleaseAge > 0 && r.PublishedAt.IsZero():
		return verdict{causePolicy, fmt.Sprintf("%s has no release date, and its policy asks for releases that are %s old", r.Version, days(p.MinReleaseAge))}
	case in.Now.Sub(r.PublishedAt) < p.MinReleaseAge:
		return verdict{causePolicy, fmt.Sprintf("%s was released on %s; its policy asks for releases that are %s old, which it is on %s",
			r.Version, date(r.PublishedAt), days(p.MinReleaseAge), date(r.PublishedAt.Add(p.MinReleaseAge)))}
	}
	return verdict{}
}

// youngEnough holds a component whose installed version is not yet as old as its
// policy's max_age_days. The age is that of the installed version's release, and
// where upstream does not list it, at least that of the oldest newer release.
func (c *candidate) youngEnough(in Input) verdict {
	p := in.policy(c.name)
	if !in.Auto || p.MaxAge <= 0 {
		return verdict{}
	}
	var released time.Time
	known := false
	for _, r := range c.listed {
		if r.PublishedAt.IsZero() || r.Version.Less(c.Current) {
			continue
		}
		if r.Version.Equal(c.Current) {
			released, known = r.PublishedAt, true
			break
		}
		if released.IsZero() || r.PublishedAt.Before(released) {
			released = r.PublishedAt
		}
	}
	switch {
	case !released.IsZero() && in.Now.Sub(released) > p.MaxAge:
		return verdict{}
	case !known:
		return verdict{causePolicy, fmt.Sprintf("the release date of %s is not known, and its policy upgrades only versions older than %s", c.Current, days(p.MaxAge))}
	}
	return verdict{causePolicy, fmt.Sprintf("%s was released on %s; its policy upgrades only versions older than %s", c.Current, date(released), days(p.MaxAge))}
}

// outside says which pin a version is not within.
func (c *candidate) outside(in Input, v component.Version) verdict {
	var reasons []string
	for _, p := range in.Pinned {
		if p.Component != c.name || contains(p.Range, v) || !p.Until.IsZero() && !in.Now.Before(p.Until) {
			continue
		}
		text := fmt.Sprintf("%s is outside its pin %s", v, rangeText(p.Range))
		if !p.Until.IsZero() {
			text += " until " + date(p.Until)
		}
		reasons = append(reasons, text+because(p.Reason, ""))
	}
	if len(reasons) == 0 {
		return verdict{}
	}
	return verdict{causeHold, slices.Min(reasons)}
}

func days(d time.Duration) string { return count(int(d/(24*time.Hour)), "day") }

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }
