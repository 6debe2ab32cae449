package preflight

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// Every check reports, in the same order, also when all is well.
func TestAllIsWell(t *testing.T) {
	r := Run(t.Context(), host(t, "prometheus", "loki"))
	var names []string
	for _, c := range r.Checks {
		if c.Status != component.CheckOK && c.Status != component.CheckSkipped {
			t.Errorf("%+v", c)
		}
		if len(names) == 0 || names[len(names)-1] != c.Name {
			names = append(names, c.Name)
		}
	}
	want := []string{
		DiskSpace, ServiceHealth, Compatibility, ConfigSyntax, BackupReadiness, Network, Lock, MaintenanceWindow,
		Inodes, FileSystem, Staging, BinaryWritable, UnitFile, HistoryReadable, Clock, AlertGate,
	}
	if len(names) != len(want) {
		t.Fatalf("got %v", names)
	}
	for i := range want {
		if names[i] != want[i] {
			t.Errorf("%d is %s, expected %s", i, names[i], want[i])
		}
	}
	if got := of(r, ServiceHealth); len(got) != 2 || got[0].Component != "prometheus" || got[1].Component != "loki" {
		t.Errorf("not in the order of the plan: %+v", got)
	}
	if len(r.Failed()) != 0 || len(r.Baseline) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestNothingToCheck(t *testing.T) {
	r := Run(t.Context(), Input{Plan: &plan.Plan{}})
	if r.Checks == nil || len(r.Checks) != 0 {
		t.Errorf("%+v", r)
	}
}

// A plan and a caller that leave out all they can are no reason to panic.
func TestBareInput(t *testing.T) {
	in := host(t, "prometheus")
	bare := Input{Plan: in.Plan, Installed: in.Installed, Root: in.Root, Staging: in.Staging}
	bare.Plan.Phases[0].Steps = append(bare.Plan.Phases[0].Steps, plan.Step{Component: "not installed"})
	if r := Run(t.Context(), bare); len(r.Failed()) != 0 {
		t.Errorf("%+v", r.Failed())
	}
}

// All jobs are at work at the same moment: each waits for all others.
func TestChecksRunSideBySide(t *testing.T) {
	const n = 20
	var all sync.WaitGroup
	all.Add(n)
	jobs := make([]job, n)
	for i := range jobs {
		jobs[i] = job{name: Lock, do: func(context.Context) finding {
			all.Done()
			all.Wait()
			return found(ok(Lock, "", "%d", i))
		}}
	}
	for i, f := range runAll(t.Context(), time.Minute, jobs) {
		if len(f.checks) != 1 || f.checks[0].Status != component.CheckOK {
			t.Errorf("%d: %+v", i, f)
		}
	}
}

// A check that ignores its context, as a system call on a dead file server
// does, is left behind at its deadline, and the others are reported.
func TestHangingCheck(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	in := host(t, "prometheus")
	in.Deadline = 3 * time.Second // for all the others
	in.TryWrite = func(string) error {
		<-release
		return nil
	}
	start := time.Now()
	r := Run(t.Context(), in)
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	expect(t, r, BackupReadiness, component.CheckFail, "no answer within 3s", "findmnt")
	expect(t, r, ServiceHealth, component.CheckOK)
	if n := len(r.Failed()); n != 1 {
		t.Errorf("%d failed: %+v", n, r.Failed())
	}
}

// A job that reports under several names is silent under all of them.
func TestUnansweredReportsEveryName(t *testing.T) {
	f := job{name: Network, names: []string{Clock}}.unanswered(errors.New("no answer within 10s"))
	if len(f.checks) != 2 || f.checks[1].Name != Clock || f.checks[1].Status != component.CheckFail {
		t.Errorf("%+v", f)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range Run(ctx, host(t, "prometheus")).Checks {
		if c.Status == component.CheckFail {
			t.Errorf("%+v", c)
		}
	}
}

func TestCompatibility(t *testing.T) {
	in := host(t, "prometheus")
	expect(t, Run(t.Context(), in), Compatibility, component.CheckOK, "every rule that is built in; there is no "+in.Root.Matrix())
	write(t, in.Root.Matrix(), "compatibility: {}\n", 0o644)
	expect(t, Run(t.Context(), in), Compatibility, component.CheckOK, "and those of "+in.Root.Matrix())
	in.Plan.Warnings = []string{"loki 3.0.0 needs promtail 3.x, and it is 2.9.3; this was so before the upgrade"}
	expect(t, Run(t.Context(), in), Compatibility, component.CheckWarn, "so before the upgrade")
}

func TestLock(t *testing.T) {
	in := host(t, "prometheus")
	l, err := lock.Acquire(in.Root.Lock(), "apply")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, Run(t.Context(), in), Lock, component.CheckOK, "this run")
	in.HoldsLock = false
	expect(t, Run(t.Context(), in), Lock, component.CheckFail, "process", "ps -fp")
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	expect(t, Run(t.Context(), in), Lock, component.CheckOK, "no other run")
}

func TestWindowAndHistory(t *testing.T) {
	in := host(t, "prometheus")
	expect(t, Run(t.Context(), in), MaintenanceWindow, component.CheckSkipped)
	in.Window = func(context.Context) component.Check {
		return component.Check{Status: component.CheckWarn, Detail: "closed until 02:00 UTC"}
	}
	in.History = func(context.Context) error { return errors.New("file is not a database") }
	r := Run(t.Context(), in)
	expect(t, r, MaintenanceWindow, component.CheckWarn, "closed until")
	expect(t, r, HistoryReadable, component.CheckFail, "not a database")
}

func TestServiceHealth(t *testing.T) {
	bad := func(names ...string) health.Report {
		var r health.Report
		for _, n := range names {
			r.Checks = append(r.Checks, component.Check{Name: n, Status: health.Fail, Detail: n + " is bad"})
		}
		return r
	}
	for name, tt := range map[string]struct {
		report   health.Report
		change   func(*Input)
		status   component.CheckStatus
		words    []string
		baseline int
	}{
		"healthy":     {report: healthy, status: component.CheckOK},
		"not ready":   {report: bad("ready"), status: component.CheckFail, words: []string{"expected it healthy", "ready is bad", "journalctl -eu prometheus.service"}},
		"not running": {report: bad("service"), change: func(in *Input) { in.Installed["prometheus"].Status.Active = false }, status: component.CheckFail, words: []string{"restart --component=prometheus"}},
		"metric":      {report: bad("metric"), status: component.CheckWarn, words: []string{"metric is bad", "not held against it"}, baseline: 1},
		"metric too":  {report: bad("ready", "metric"), status: component.CheckFail, words: []string{"ready is bad"}, baseline: 1},
		"crash loop": {report: bad("metric"), change: func(in *Input) {
			in.Installed["prometheus"].Status.Restarts, in.Installed["prometheus"].Status.StartedAt = 2, now.Add(-time.Second)
		}, status: component.CheckFail, words: []string{"metric is bad", "journalctl -eu prometheus.service"}},
		"replaced file": {report: bad("executable"), change: func(in *Input) { in.Installed["prometheus"].Status.ExecDeleted = true }, status: component.CheckWarn},
		"other file":    {report: bad("executable"), status: component.CheckFail},
		"skipped":       {report: bad("ready"), change: func(in *Input) { in.SkipHealth = true }, status: component.CheckSkipped, words: []string{"--skip-health-checks", "ready is bad"}},
		"crashed lately": {report: healthy, change: func(in *Input) {
			in.Installed["prometheus"].Status.Restarts, in.Installed["prometheus"].Status.StartedAt = 2, now.Add(-time.Hour)
		}, status: component.CheckWarn, words: []string{"2 times"}},
		"crashed long ago": {report: healthy, change: func(in *Input) {
			in.Installed["prometheus"].Status.Restarts, in.Installed["prometheus"].Status.StartedAt = 2, now.AddDate(0, 0, -9)
		}, status: component.CheckOK},
		"no unit": {report: healthy, change: func(in *Input) { in.Installed["prometheus"].Status.Exists = false }, status: component.CheckWarn, words: []string{"only its files"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := host(t, "prometheus")
			in.Now = func() time.Time { return now }
			in.Prober = prober{"prometheus": tt.report}
			if tt.change != nil {
				tt.change(&in)
			}
			r := Run(t.Context(), in)
			expect(t, r, ServiceHealth, tt.status, tt.words...)
			if got := len(r.Baseline["prometheus"]); got != tt.baseline {
				t.Errorf("baseline %v", r.Baseline)
			}
		})
	}
}

// --skip-health-checks lets nothing else pass.
func TestSkippingHealthSkipsNothingElse(t *testing.T) {
	in := host(t, "prometheus")
	in.SkipHealth = true
	in.Prober = prober{"prometheus": {Checks: []component.Check{{Name: "ready", Status: health.Fail}}}}
	in.History = func(context.Context) error { return errors.New("file is not a database") }
	if failed := Run(t.Context(), in).Failed(); len(failed) != 1 || failed[0].Name != HistoryReadable {
		t.Errorf("%+v", failed)
	}
}
