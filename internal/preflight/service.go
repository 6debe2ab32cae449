package preflight

import (
	"context"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
)

const (
	// recent is how long ago a crash is still worth a word.
	recent = 24 * time.Hour
	// lately is how long ago a crash is one of a loop, if nothing answers.
	lately = 10 * time.Second
)

// Specification section 2 asks for a running unit and a good answer: failures of
// these checks of health refuse the upgrade. Any other failure is excused in the
// run, as it may be there after the upgrade too.
var needed = []string{"service", "ready"}

// These fail where what runs is not what is installed: a restart mends it, so the
// run expects them.
const (
	executableCheck = "executable"
	versionCheck    = "version"
)

// checkService takes the baseline: what is broken before an upgrade would be
// blamed on it afterwards. With SkipHealth it is told and refuses nothing.
func (c *checker) checkService(ctx context.Context, st step) finding {
	f := c.health(ctx, st)
	for i, check := range f.checks {
		if c.SkipHealth && check.Status != component.CheckSkipped {
			f.checks[i].Status, f.checks[i].Detail = component.CheckSkipped, "--skip-health-checks; found "+check.Detail
		}
	}
	return f
}

func (c *checker) health(ctx context.Context, st step) finding {
	name, in := st.in.Set(), st.in
	if !in.Status.Exists {
		if in.Service.Unit == "" && len(in.Service.Command) == 0 {
			return found(skipped(ServiceHealth, name, "it has no service"))
		}
		return found(warn(ServiceHealth, name, "systemctl daemon-reload", "%s does not exist: only its files are replaced", in.Service.Label()))
	}
	if c.Target == nil || c.Prober == nil {
		return found(skipped(ServiceHealth, name, "nobody asks"))
	}
	t, err := c.Target(in)
	if err != nil {
		return found(fail(ServiceHealth, name, "observability-upgrade components show "+st.Component, "expected a health check that can be made, found: %v", err))
	}
	r := c.Prober.Once(ctx, t)
	needed := slices.Clone(needed)
	if in.Status.Restarts > 0 && c.Now().Sub(in.Status.StartedAt) < lately {
		needed = append(needed, "metric") // it runs for a moment in each round of its loop
	}
	var blocking health.Report
	var tolerated []string
	f := finding{baseline: Baseline{}}
	for _, check := range r.Checks {
		switch {
		case check.Status != health.Fail:
		case check.Name == executableCheck && in.Status.ExecDeleted, check.Name == versionCheck:
			tolerated = append(tolerated, check.Detail)
		case check.Name == executableCheck || slices.Contains(needed, check.Name):
			blocking.Checks = append(blocking.Checks, check)
		default:
			f.baseline[name] = append(f.baseline[name], check.Name)
			tolerated = append(tolerated, check.Name+": "+check.Detail)
		}
	}
	switch {
	case len(blocking.Checks) > 0:
		next := "observability-upgrade restart --component=" + st.Component
		if in.Status.Active && in.Service.Unit != "" && blocking.Checks[0].Name != executableCheck {
			next = "journalctl -eu " + in.Service.Unit
		}
		if in.Status.Masked { // which nothing starts
			next = "systemctl unmask " + in.Service.Label()
		}
		f.checks = append(f.checks, fail(ServiceHealth, name, next, "expected it healthy before the upgrade, found %s", blocking.Failures()))
	case len(tolerated) > 0:
		for _, detail := range tolerated {
			f.checks = append(f.checks, warn(ServiceHealth, name, "", "ready, but %s; that is so before the upgrade and is not held against it", detail))
		}
	case in.Status.Unknown != "":
		f.checks = append(f.checks, warn(ServiceHealth, name, "sudo observability-upgrade plan", "not known whether it runs: %s", in.Status.Unknown))
	case in.Status.Restarts > 0 && (in.Status.StartedAt.IsZero() || c.Now().Sub(in.Status.StartedAt) < recent):
		f.checks = append(f.checks, warn(ServiceHealth, name, "journalctl -eu "+in.Service.Label(),
			"healthy, but it crashed or ended lately: its manager restarted it %d times", in.Status.Restarts))
	default:
		f.checks = append(f.checks, ok(ServiceHealth, name, "healthy"))
	}
	return f
}
