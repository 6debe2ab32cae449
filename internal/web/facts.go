package web

import (
	"fmt"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// facts is the summary: what one wants to know first.
func (v *homeView) facts(o *overview.Overview, now time.Time) []fact {
	out := []fact{v.healthFact(), v.updateFact(o), v.vulnerableFact(o, now), checkFact(o, now)}
	last := fact{Name: "Last run", Value: mark{"none", "None yet"}}
	if len(v.Runs) > 0 {
		r := v.Runs[0]
		last = fact{Name: "Last run", Value: r.Status, Note: r.Operation + ", " + r.Began.Ago, Link: "/runs/" + r.ID}
	}
	auto := fact{Name: "Unattended", Value: mark{"none", "Off"}, Note: "runs are made by hand"}
	if o.Auto.Enabled {
		auto.Value, auto.Note = mark{"ok", "On"}, o.Auto.Policy
		if o.Auto.Schedule != "" {
			auto.Note += "; " + o.Auto.Schedule
		}
	}
	return append(out, last, auto)
}

func (v *homeView) healthFact() fact {
	f := fact{Name: "Health"}
	var good, bad, unknown int
	for _, c := range v.Components {
		switch c.Health.Kind {
		case "ok":
			good++
		case "bad":
			bad++
		default:
			unknown++
		}
	}
	n := len(v.Components)
	switch {
	case n == 0:
		f.Value = mark{"none", "Nothing installed"}
	case bad > 0:
		f.Value = mark{"bad", fmt.Sprintf("%d of %d unhealthy", bad, n)}
	case unknown == n:
		f.Value = mark{"none", "Not known"}
	case unknown > 0:
		f.Value = mark{"warn", fmt.Sprintf("%d of %d healthy", good, n)}
	default:
		f.Value = mark{"ok", fmt.Sprintf("All %d healthy", n)}
	}
	switch {
	case v.Pending:
		f.Note = "being asked"
	case v.HealthAt.ISO != "":
		f.Note = "asked " + v.HealthAt.Ago
	}
	if bad > 0 && unknown > 0 {
		f.Note = fmt.Sprintf("%d not known; %s", unknown, f.Note)
	}
	return f
}

func (v *homeView) updateFact(o *overview.Overview) fact {
	f := fact{Name: "Updates"}
	if o.Check == nil {
		f.Value, f.Note = mark{"none", "Not known"}, "there was no check yet"
		return f
	}
	var ready, held, unknown int
	for _, c := range o.Components {
		switch {
		case c.Candidate == nil || c.Candidate.Latest.IsZero() || unchecked(c.Candidate):
			unknown++
		case c.Candidate.Action == plan.ActionUpgrade:
			ready++
		case c.Candidate.Action == plan.ActionHold || c.Candidate.Action == plan.ActionBlocked:
			held++
		}
	}
	f.Value = mark{"ok", "None"}
	if ready > 0 {
		f.Value = mark{"new", fmt.Sprintf("%d available", ready)}
	} else if held > 0 {
		f.Value = mark{"hold", fmt.Sprintf("%d held back", held)}
	} else if unknown > 0 {
		f.Value = mark{"none", fmt.Sprintf("%d not known", unknown)}
	}
	if ready > 0 && held > 0 {
		f.Note = fmt.Sprintf("%d more held back", held)
	}
	if unknown > 0 && (ready > 0 || held > 0) {
		f.Note = join(f.Note, fmt.Sprintf("%d not known", unknown))
	}
	return f
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

func (v *homeView) vulnerableFact(o *overview.Overview, now time.Time) fact {
	f := fact{Name: "Vulnerabilities"}
	var bad, unknown int
	for _, c := range v.Components {
		switch c.Vulnerable.Kind {
		case "bad":
			bad += c.count
		case "none":
			unknown++
		}
	}
	switch {
	case bad > 0:
		f.Value = mark{"bad", fmt.Sprintf("%d known", bad)}
	case unknown > 0 || len(v.Components) == 0:
		f.Value = mark{"none", "Not known"}
	default:
		f.Value = mark{"ok", "None known"}
	}
	if unknown > 0 && unknown < len(v.Components) {
		f.Note = fmt.Sprintf("of %s not known", plural(unknown, "component", "components"))
	}
	data := o.VulnerabilityData
	switch {
	case data == nil || data.Modified == nil:
		f.Note = join(f.Note, "there is no data")
	case data.Stale:
		f.Note = join(f.Note, "the data is old: of "+ago(now.Sub(*data.Modified)))
		if f.Value.Kind == "ok" {
			f.Value.Kind = "warn"
		}
	default:
		f.Note = join(f.Note, "data of "+ago(now.Sub(*data.Modified)))
	}
	return f
}

func checkFact(o *overview.Overview, now time.Time) fact {
	f := fact{Name: "Last check"}
	if o.Check == nil {
		f.Value, f.Note = mark{"warn", "Never"}, "observability-upgrade check"
		return f
	}
	age := now.Sub(o.Check.CheckedAt)
	f.Value = mark{"ok", ago(age)}
	if age > checkOld {
		f.Value, f.Note = mark{"warn", ago(age)}, "too old: observability-upgrade check"
	}
	if n := len(o.Check.Errors); n > 0 {
		f.Value.Kind, f.Note = "warn", join(plural(n, "upstream was", "upstreams were")+" not reached", f.Note)
	}
	return f
}

// headline is the state of the whole in one line: the worst there is.
func (v *homeView) headline(o *overview.Overview) mark {
	health, updates, vulnerable := v.Facts[0].Value, v.Facts[1].Value, v.Facts[2].Value
	switch {
	case v.Interrupted != nil:
		return mark{"bad", "A run must be recovered"}
	case v.Running != nil:
		return mark{"busy", v.Running.Operation + " at work"}
	case len(v.Broken) > 0:
		return mark{"bad", "A rollback failed"}
	case len(v.Components) == 0:
		return mark{"none", "No component is known on this host"}
	case health.Kind == "bad":
		return mark{"bad", health.Text}
	case vulnerable.Kind == "bad":
		return mark{"bad", "Vulnerable versions are installed"}
	case len(v.Problems) > 0:
		return mark{"warn", "Something could not be read"}
	case len(o.Runs) > 0 && (o.Runs[0].Status == "failed" || o.Runs[0].Status == "rollback_failed"):
		return mark{"bad", "The last run failed"}
	case health.Kind != "ok":
		return mark{"none", "Whether all is well is not known"}
	case updates.Kind == "new":
		return mark{"new", "Healthy; upgrades are available"}
	case updates.Kind == "hold":
		return mark{"ok", "Healthy; upgrades are held back"}
	case updates.Kind == "none":
		return mark{"ok", "Healthy; what is available is not known"}
	}
	return mark{"ok", "Healthy and up to date"}
}
