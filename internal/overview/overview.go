// Package overview holds what there is to know of the stack on this host at one
// moment, gathered from files alone: the state file, the history, the logs of
// runs, and what the last check found. Metrics and the status page are views of
// it. Nothing here asks the network or a service manager.
package overview

import (
	"context"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

// Source gives overviews. It is safe for concurrent use.
type Source interface {
	// Overview reads one; it costs a few milliseconds. An error means that nothing
	// could be read; what could not be read in part is told in Problems.
	Overview(ctx context.Context) (*Overview, error)
}

// Overview is what is known at one moment.
type Overview struct {
	ReadAt     time.Time
	Host       string
	Build      string            // this program's version
	Components []Component       // sorted by name
	Check      *plan.CheckReport // what the last look at upstream found; nil: there was none
	Running    *runlog.Record    // the run at work now; nil: none
	// Preparing is set while a mutating command is at work that has not begun a
	// run: it looks, downloads, verifies, or waits for an answer.
	Preparing   *Process
	Interrupted *runlog.Record // a run that was cut off, or could not undo what failed, and was not recovered yet
	// Broken are the components whose rollback failed in the newest run, and that no
	// restart since has found healthy.
	Broken   []string
	Runs     []state.RunSummary // newest first
	Upgrades []history.Upgrade  // rows of the history, newest first, at most RecentUpgrades
	Totals   Totals             // of the whole history
	Holds    []plan.Hold        // that have not ended
	Windows  Windows
	Auto     Auto
	Backups  []Backup // newest first
	// VulnerabilityData is the database of vulnerabilities as of the last assessment;
	// nil: there was none.
	VulnerabilityData *vulnerability.Info
	Problems          []string // what could not be read, and why
}

// RecentUpgrades bounds Overview.Upgrades.
const RecentUpgrades = 200

// Totals are what the rows of the history add up to.
type Totals struct {
	Counts    []history.Count             // by component and status
	Downtimes map[string]history.Downtime // by component, with the bounds DowntimeBounds
	Newest    []history.Upgrade           // of each component, sorted by it
}

// DowntimeBounds are the buckets of Totals.Downtimes, in seconds: from a restart
// that nobody notices to one that outlasts every timeout.
func DowntimeBounds() []float64 {
	return []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
}

// Process is a command at work.
type Process struct{ PID int }

// Component is what is known of one component.
type Component struct {
	Name        string
	Role        component.Role
	Homepage    string
	Version     string // installed, as the last run, adoption or check saw it
	Previous    string
	InstalledAt time.Time // zero: not known
	UpgradedAt  time.Time // zero: never
	Service     string
	Candidate   *plan.Candidate // what the last check said of it; nil: nothing
	CheckError  string          // why the last check could not ask upstream
	// Vulnerability is what is known of vulnerabilities of the installed version;
	// nil: it was not assessed.
	Vulnerability *vulnerability.Result
	Failed        []state.FailedVersion // that failed here
	Policy        string                // of unattended runs: patch_only | minor | any | none
	Security      string                // any: unattended runs mend known vulnerabilities past the policy
}

// Unattended reports whether unattended runs, where there are any, may upgrade the
// component: as far as its policy goes, or to mend known vulnerabilities.
func (c Component) Unattended() bool {
	return c.Policy != "" && (c.Policy != "none" || c.Security == "any")
}

// Unchecked is the reason of a Candidate that a check found before a run changed
// the version: what could be done now is not known.
const Unchecked = "not checked since its version changed"

// Windows are the maintenance windows.
type Windows struct {
	List []string  // as people read them; empty: an unattended run may begin at any time
	Open bool      // one is open now, or there are none
	Next time.Time // when the next one opens; zero: not known, or there are none
}

// Auto tells of unattended upgrades.
type Auto struct {
	Enabled  bool // this program's timer is enabled
	Policy   string
	Schedule string
}

// Backup is a backup point.
type Backup struct {
	Timestamp  string            `json:"timestamp"`
	Path       string            `json:"path"`
	Complete   bool              `json:"complete"`
	Bytes      int64             `json:"bytes"`
	Components map[string]string `json:"components"` // version by name
}

// Component returns the component of that name; nil where there is none.
func (o *Overview) Component(name string) *Component {
	for i := range o.Components {
		if o.Components[i].Name == name {
			return &o.Components[i]
		}
	}
	return nil
}
