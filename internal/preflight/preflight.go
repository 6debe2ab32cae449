// Package preflight looks at a host before a plan is carried out on it: space,
// health, configuration, backup directory, network, lock, window, and what else
// has made upgrades fail that need not have been begun. All checks run side by
// side, each with a deadline, and all of them are reported: a person wants the
// whole list, not the first line of it.
//
// Nothing is changed. What was broken before and stops nothing is handed on as
// the baseline, so that the run does not blame the new version for it.
//
// Sources: docs/specification.md, sections 2 and 10; docs/reference.md, promises
// 2, 4, 5 and 10.
package preflight

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// The names of the checks, in the order they are reported: the eight of the
// specification first.
const (
	DiskSpace         = "disk_space"
	ServiceHealth     = "service_health"
	Compatibility     = "compatibility"
	ConfigSyntax      = "config_syntax"
	BackupReadiness   = "backup_readiness"
	Network           = "network"
	Lock              = "lock"
	MaintenanceWindow = "maintenance_window"
	Inodes            = "inodes"
	FileSystem        = "file_system"
	Staging           = "staging"
	BinaryWritable    = "binary_writable"
	UnitFile          = "unit_file"
	HistoryReadable   = "history_readable"
	Clock             = "clock"
	AlertGate         = "alert_gate"
	// DataBackup is made by the caller, who knows what becomes of data.
	DataBackup = "data_backup"
)

// DefaultDeadline is how long a check may take.
const DefaultDeadline = 10 * time.Second

// Prober asks a component how it is.
type Prober interface {
	// Once looks at the component as it is now.
	Once(ctx context.Context, t health.Target) health.Report
}

// Input is what the checks look at. Functions that are nil leave their check
// out, reported as skipped.
type Input struct {
	Plan      *plan.Plan
	Installed map[string]*inventory.Installed // by component; all those of the plan
	Root      layout.Root
	Staging   string // the directory of all staging directories
	// StagingDirs are the names, in Staging, of those that the run will use.
	StagingDirs []string

	Data       []DataCopy // the copies of data that the run cannot do without
	SkipHealth bool       // --skip-health-checks: health is looked at and refuses nothing
	HoldsLock  bool       // this process holds the run's lock
	CutOff     string     // tells of a run that was cut off and is recovered first; may be empty

	Prober Prober
	// Target is what to probe on a component as it is installed.
	Target func(*inventory.Installed) (health.Target, error)
	// Tool runs a tool on the configuration in place and returns what it printed.
	Tool func(ctx context.Context, args []string) (string, error)
	// TryWrite proves that a file can be made in a directory.
	TryWrite func(dir string) error
	// History proves that the history can be opened.
	History func(ctx context.Context) error
	// Window judges the maintenance window. Its name is set here; with status OK
	// its detail is the window that is open, such as "02:00-06:00 UTC".
	Window func(ctx context.Context) component.Check

	Downloads []Download   // one per step of the plan
	HTTP      *http.Client // for upstream and the alert gate
	Gate      *Gate        // nil: none is configured

	FileSystems FileSystems      // nil: the host's
	Now         func() time.Time // nil: the host's clock
	Deadline    time.Duration    // of each check; 0: DefaultDeadline
}

// DataCopy is a copy of data that a run keeps, and what it takes: in the backup
// point, and beside the data itself where an undo puts it back.
type DataCopy struct {
	Dir   string // the data directory
	Bytes int64
	Files int64
}

// Report is what was found.
type Report struct {
	Checks   []component.Check
	Baseline Baseline
}

// Baseline names, per component or instance of one (name@instance), the health checks that failed before the
// upgrade without standing in its way; see health.Target.
type Baseline map[string][]string

// Failed lists the checks that refuse the run.
func (r Report) Failed() []component.Check { return Failed(r.Checks) }

// Failed picks the checks that refuse a run.
func Failed(checks []component.Check) []component.Check {
	var out []component.Check
	for _, c := range checks {
		if c.Status == component.CheckFail {
			out = append(out, c)
		}
	}
	return out
}

// Run makes all checks. A plan without steps needs none. A check that a
// cancelled context cut short says so; the caller judges the context.
func Run(ctx context.Context, in Input) Report {
	c := &checker{Input: in}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.FileSystems == nil {
		c.FileSystems = hostFileSystems{}
	}
	if c.HTTP == nil {
		c.HTTP = http.DefaultClient
	}
	if c.Deadline <= 0 {
		c.Deadline = DefaultDeadline
	}
	for _, st := range in.Plan.Steps() {
		if found := in.Installed[st.Component]; found != nil && found.Component != nil {
			c.steps = append(c.steps, step{Step: st, in: found})
		}
	}
	report := Report{Checks: []component.Check{}, Baseline: Baseline{}}
	if len(c.steps) == 0 {
		return report
	}
	for _, f := range runAll(ctx, c.Deadline, c.jobs()) {
		report.Checks = append(report.Checks, f.checks...)
		for name, broken := range f.baseline {
			report.Baseline[name] = broken
		}
	}
	return inOrder(report)
}

// checker is one run of the checks.
type checker struct {
	Input
	steps []step
}

// step is a step of the plan with what is installed.
type step struct {
	plan.Step
	in *inventory.Installed
}

func (c *checker) jobs() []job {
	jobs := []job{
		{name: DiskSpace, names: []string{Inodes, FileSystem}, do: c.checkFileSystems},
		{name: Compatibility, do: c.checkCompatibility},
		{name: BackupReadiness, do: c.checkBackupDir},
		{name: Staging, do: c.checkStaging},
		{name: Network, names: []string{Clock}, do: c.checkNetwork},
		{name: Lock, do: c.checkLock},
		{name: MaintenanceWindow, do: c.checkWindow},
		{name: HistoryReadable, do: c.checkHistory},
		{name: AlertGate, do: c.checkAlerts, late: c.silentGate()},
	}
	looked := map[string]bool{}
	for _, st := range c.steps {
		if looked[st.Component] {
			continue // a further step of the same component: it was looked at
		}
		looked[st.Component] = true
		late := component.CheckFail
		if c.SkipHealth {
			late = component.CheckSkipped
		}
		one := func(st step, name string, late component.CheckStatus, do func(context.Context, step) finding) job {
			return job{name: name, component: st.in.Set(), late: late, do: func(ctx context.Context) finding { return do(ctx, st) }}
		}
		for _, in := range st.in.Local() {
			each := step{Step: st.Step, in: in}
			jobs = append(jobs, one(each, ServiceHealth, late, c.checkService), one(each, UnitFile, component.CheckFail, c.checkUnit))
		}
		jobs = append(jobs,
			// The new version's tools look again before anything stops, with more time.
			one(st, ConfigSyntax, component.CheckWarn, c.checkConfig),
			one(st, BinaryWritable, component.CheckFail, c.checkBinary),
			one(st, BackupReadiness, component.CheckFail, c.checkLinked),
		)
	}
	return jobs
}

// finding is what one job found.
type finding struct {
	checks   []component.Check
	baseline Baseline
}

func found(checks ...component.Check) finding { return finding{checks: checks} }

func ok(name, comp, format string, args ...any) component.Check {
	return component.Check{Name: name, Component: comp, Status: component.CheckOK, Detail: fmt.Sprintf(format, args...)}
}

func skipped(name, comp, format string, args ...any) component.Check {
	return component.Check{Name: name, Component: comp, Status: component.CheckSkipped, Detail: fmt.Sprintf(format, args...)}
}

func warn(name, comp, next, format string, args ...any) component.Check {
	return component.Check{Name: name, Component: comp, Status: component.CheckWarn, Detail: fmt.Sprintf(format, args...), Next: next}
}

func fail(name, comp, next, format string, args ...any) component.Check {
	return component.Check{Name: name, Component: comp, Status: component.CheckFail, Detail: fmt.Sprintf(format, args...), Next: next}
}
