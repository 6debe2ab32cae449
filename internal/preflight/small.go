package preflight

import (
	"context"
	"fmt"
	"os"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
)

// checkCompatibility restates what the planner decided: what it planned keeps
// every rule of the matrix but those it warns of.
func (c *checker) checkCompatibility(context.Context) finding {
	if len(c.Plan.Warnings) == 0 {
		if _, err := os.Lstat(c.Root.Matrix()); err != nil {
			return found(ok(Compatibility, "", "the plan keeps every rule that is built in; there is no %s", c.Root.Matrix()))
		}
		return found(ok(Compatibility, "", "the plan keeps every rule that is built in, and those of %s", c.Root.Matrix()))
	}
	var f finding
	for _, w := range c.Plan.Warnings {
		f.checks = append(f.checks, warn(Compatibility, "", "", "%s", w))
	}
	return f
}

// checkLock proves that no other run is at work.
func (c *checker) checkLock(context.Context) finding {
	if c.HoldsLock {
		return found(ok(Lock, "", "held by this run"))
	}
	pid, held := lock.Holder(c.Root.Lock())
	switch {
	case held && pid == 0:
		return found(fail(Lock, "", "fuser "+c.Root.Lock(), "expected no other run, found that a process holds %s", c.Root.Lock()))
	case held:
		return found(fail(Lock, "", fmt.Sprintf("ps -fp %d", pid), "expected no other run, found that process %d holds %s", pid, c.Root.Lock()))
	}
	if c.CutOff != "" {
		return found(warn(Lock, "", "observability-upgrade recover", "%s", c.CutOff))
	}
	return found(ok(Lock, "", "no other run is in progress"))
}

// checkWindow asks whoever knows the maintenance windows.
func (c *checker) checkWindow(ctx context.Context) finding {
	if c.Window == nil {
		return found(skipped(MaintenanceWindow, "", "a run by hand is not bound to one"))
	}
	check := c.Window(ctx)
	check.Name = MaintenanceWindow
	if check.Status == "" {
		check.Status = component.CheckSkipped
	}
	return found(check)
}

// checkHistory proves that what the run does can be recorded.
func (c *checker) checkHistory(ctx context.Context) finding {
	if c.History == nil {
		return found(skipped(HistoryReadable, "", "it was not opened"))
	}
	if err := c.History(ctx); err != nil {
		return found(fail(HistoryReadable, "", "observability-upgrade history", "expected a history that can be opened, found: %v", err))
	}
	return found(ok(HistoryReadable, "", "it can be opened"))
}
