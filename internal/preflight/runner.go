package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// job is one look at the host; it reports under name, and under names too.
type job struct {
	name      string
	names     []string
	component string
	late      component.CheckStatus // what silence counts as; "" is a failure
	do        func(context.Context) finding
}

// runAll runs all jobs side by side and returns what they found, in their order.
// None is waited for longer than its deadline: a system call on a file system
// whose server is gone cannot be cancelled (nfs(5), hard mounts). The goroutine
// of such a job ends with its call; what it finds then goes nowhere.
func runAll(ctx context.Context, deadline time.Duration, jobs []job) []finding {
	late := fmt.Errorf("no answer within %s", deadline)
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, late)
	defer cancel()
	answers := make([]chan finding, len(jobs))
	for i, j := range jobs {
		answer := make(chan finding, 1) // an answer too late blocks nobody
		answers[i] = answer
		go func() {
			f := j.do(ctx)
			if ctx.Err() != nil { // what it found is that it had no time
				f = j.unanswered(context.Cause(ctx))
			}
			answer <- f
		}()
	}
	out := make([]finding, len(jobs))
	for i, j := range jobs {
		select {
		case out[i] = <-answers[i]:
			continue
		default:
		}
		select {
		case out[i] = <-answers[i]:
		case <-ctx.Done():
			out[i] = j.unanswered(context.Cause(ctx))
		}
	}
	return out
}

// unanswered stands for what a job did not find in time.
func (j job) unanswered(cause error) finding {
	status, detail := j.late, cause.Error()
	if status == "" {
		status = component.CheckFail
	}
	if errors.Is(cause, context.Canceled) {
		status, detail = component.CheckSkipped, "interrupted"
	}
	var f finding
	for _, name := range append([]string{j.name}, j.names...) {
		f.checks = append(f.checks, component.Check{Name: name, Component: j.component, Status: status, Detail: detail, Next: j.nextWhenLate(status)})
	}
	return f
}

// nextWhenLate is what shows why nothing answers.
func (j job) nextWhenLate(status component.CheckStatus) string {
	switch {
	case status == component.CheckSkipped:
		return ""
	case j.name == DiskSpace || j.name == BackupReadiness || j.name == Staging || j.name == BinaryWritable:
		return "findmnt -D"
	case j.name == ServiceHealth || j.name == UnitFile:
		return "observability-upgrade status"
	}
	return "observability-upgrade plan"
}

// inOrder sorts by check; within a check the order of the plan stays.
func inOrder(r Report) Report {
	order := []string{
		DiskSpace, ServiceHealth, Compatibility, ConfigSyntax, BackupReadiness, Network, Lock, MaintenanceWindow,
		Inodes, FileSystem, Staging, BinaryWritable, UnitFile, HistoryReadable, Clock, AlertGate,
	}
	slices.SortStableFunc(r.Checks, func(a, b component.Check) int {
		return slices.Index(order, a.Name) - slices.Index(order, b.Name)
	})
	return r
}
