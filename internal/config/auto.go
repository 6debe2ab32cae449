package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // hosts without zoneinfo must not read windows otherwise

	"github.com/observability-upgrade/observability-upgrade/internal/window"
)

// AutoUpgrade are the rules of unattended runs, docs/specification.md, section 8.
type AutoUpgrade struct {
	DefaultPolicy     string                `yaml:"default_policy"` // patch_only | minor | any | none; empty: patch_only
	MinReleaseAgeDays *int                  `yaml:"min_release_age_days"`
	Security          string                `yaml:"security"` // any | none: whether a known vulnerability that a release fixes lifts policies and holds; empty: none
	Policies          map[string]AutoPolicy `yaml:"policies"` // by component
}

// AutoPolicy is the rule of one component. What it does not give is that of
// AutoUpgrade.
type AutoPolicy struct {
	Policy            string `yaml:"policy"` // patch_only | minor | any | none
	MaxAgeDays        *int   `yaml:"max_age_days"`
	MinReleaseAgeDays *int   `yaml:"min_release_age_days"`
	Security          string `yaml:"security"` // any | none
	Channel           string `yaml:"channel"`  // the name of one of the component's channels, or a range of versions
}

// Window is a maintenance window, written {day, start, end, timezone} or
// "HH:MM-HH:MM". With an end before its start it ends on the next day.
type Window struct {
	Day      string `yaml:"day"`      // monday … sunday or mon … sun, in any case; empty or daily: every day
	Start    string `yaml:"start"`    // HH:MM
	End      string `yaml:"end"`      // HH:MM, up to 24:00
	Timezone string `yaml:"timezone"` // IANA name; empty: UTC
}

// UnmarshalYAML reads both forms.
func (w *Window) UnmarshalYAML(decode func(any) error) error {
	var probe any
	if err := decode(&probe); err != nil {
		return err
	}
	switch text := probe.(type) {
	case string:
		start, end, ok := strings.Cut(text, "-")
		if !ok {
			return fmt.Errorf("window %q: want HH:MM-HH:MM, or a map {day, start, end, timezone}", text)
		}
		*w = Window{Start: strings.TrimSpace(start), End: strings.TrimSpace(end)}
		return nil
	case map[string]any:
		type plain Window
		return decode((*plain)(w))
	}
	return errors.New(`want a map {day, start, end, timezone}, or text such as "02:00-04:00"`)
}

func (v *validator) autoUpgrade(a *AutoUpgrade) {
	if a == nil {
		return
	}
	policy := func(path []any, s string) {
		if s != "" {
			v.oneOf(path, s, "patch_only", "minor", "any", "none")
		}
	}
	const most = 36500
	days := func(path []any, n *int) {
		switch {
		case n == nil:
		case *n < 0:
			v.fail(path, "%d is negative", *n)
		case *n > most:
			v.fail(path, "%d days are more than 100 years; that nothing is upgraded is said by `policy: none`", *n)
		}
	}
	policy([]any{"auto_upgrade", "default_policy"}, a.DefaultPolicy)
	security := func(path []any, s string) {
		if s != "" {
			v.oneOf(path, s, "any", "none")
		}
	}
	days([]any{"auto_upgrade", "min_release_age_days"}, a.MinReleaseAgeDays)
	security([]any{"auto_upgrade", "security"}, a.Security)
	for _, name := range slices.Sorted(maps.Keys(a.Policies)) {
		p, at := a.Policies[name], func(key string) []any { return []any{"auto_upgrade", "policies", name, key} }
		policy(at("policy"), p.Policy)
		days(at("max_age_days"), p.MaxAgeDays)
		days(at("min_release_age_days"), p.MinReleaseAgeDays)
		security(at("security"), p.Security)
	}
}

func (v *validator) windows(windows []Window) {
	for i, w := range windows {
		at := func(key string) []any { return []any{"maintenance_windows", i, key} }
		if _, _, err := window.ParseDay(w.Day); err != nil {
			v.oneOf(at("day"), strings.ToLower(w.Day), "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "daily")
		}
		start, err := window.ParseClock(w.Start, false)
		if err != nil {
			v.fail(at("start"), "%v", err)
		}
		end, wrong := window.ParseClock(w.End, true)
		if wrong != nil {
			v.fail(at("end"), "%v", wrong)
		}
		if err == nil && wrong == nil && start == end {
			v.fail([]any{"maintenance_windows", i}, "begins and ends at %s; for a whole day write 00:00 to 24:00", w.Start)
		}
		if _, err := time.LoadLocation(w.Timezone); err != nil {
			v.fail(at("timezone"), "%q is not a time zone such as UTC or Europe/Berlin", w.Timezone)
		}
	}
}
