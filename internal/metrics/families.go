package metrics

import "github.com/prometheus/client_golang/prometheus"

// Family is one metric as its readers know it.
type Family struct {
	Name   string
	Type   string // gauge | counter | histogram
	Help   string
	Labels []string
	// Live metrics change with the clock or while a command is at work, so only a
	// scrape has them: in a file they would soon be wrong.
	Live bool

	desc *prometheus.Desc
}

// Families lists all metrics, by subject, for documents and tests.
func Families() []Family {
	var out []Family
	for _, f := range all {
		out = append(out, *f)
	}
	return out
}

// The values of labels that have fixed ones.
var (
	upgradeStatuses = []string{"success", "failed", "rolled_back"}
	runStatuses     = []string{"success", "failed", "rolled_back", "rollback_failed", "cancelled", "interrupted"}
	dataStates      = []string{Affected, None, Unknown}
)

// all is filled once, by the definitions below, in their order.
var all []*Family

func gauge(name, help string, labels ...string) *Family { return define("gauge", name, help, labels) }

func counter(name, help string, labels ...string) *Family {
	return define("counter", name, help, labels)
}

func define(kind, name, help string, labels []string) *Family {
	f := &Family{Name: name, Type: kind, Help: help, Labels: labels, desc: prometheus.NewDesc(name, help, labels, nil)}
	all = append(all, f)
	return f
}

func live(f *Family) *Family {
	f.Live = true
	return f
}

var (
	programInfo = gauge("observability_upgrade_info", "Constant 1; the labels are the version of observability-upgrade and of the Go it was built with.", "version", "goversion")

	versionInfo       = gauge("observability_component_version_info", "Constant 1; the label version is the installed version of the component.", "component", "version")
	versionsBehind    = gauge("observability_versions_behind", "Stable releases newer than the installed version, as the last check found; absent where that is not known.", "component")
	heldBack          = gauge("observability_hold", "Whether a hold keeps the component from all or some versions.", "component")
	holdUntil         = gauge("observability_hold_until_timestamp_seconds", "When the last hold of the component ends; absent where one has no end.", "component")
	autoEnabled       = gauge("observability_auto_upgrade_enabled", "Whether the timer of unattended runs is installed and the policy of the component lets them upgrade it, if only to mend known vulnerabilities (security: any).", "component")
	vulnerable        = gauge("observability_component_vulnerable", "Constant 1; the installed version of the component has the known vulnerability cve.", "component", "cve", "severity")
	vulnerabilityData = gauge("observability_vulnerability_data", "What is known of the vulnerabilities of the installed version: 1 for the state that holds, else 0. Unknown is not safe.", "component", "state")
	vulnerabilityTime = gauge("observability_vulnerability_database_timestamp_seconds", "When the newest record of the database of vulnerabilities was written; absent where there is none.")

	lastUpgrade         = gauge("observability_last_upgrade_timestamp", "When the version of the component last changed, in seconds since 1970; absent where it never did.", "component")
	upgradeStatus       = gauge("observability_upgrade_status", "How the last upgrade of the component ended: 1 for the status that holds, else 0.", "component", "status")
	lastUpgradeSuccess  = gauge("observability_last_upgrade_success", "Whether the last upgrade of the component reached its version and proved healthy, also if a person took it back later; absent where its health was not checked.", "component")
	upgradeDuration     = gauge("observability_upgrade_duration_seconds", "How long the last upgrade of the component took.", "component")
	lastUpgradeDowntime = gauge("observability_last_upgrade_downtime_seconds", "How long the last upgrade of the component kept it down.", "component")
	downtime            = define("histogram", "observability_upgrade_downtime_seconds", "How long the upgrades of the component kept it down.", []string{"component"})
	upgrades            = counter("observability_upgrades_total", "Upgrades of the component by how they ended; one that a person took back later counts as the success it was.", "component", "status")
	rollbacks           = counter("observability_rollbacks_total", "Upgrades of the component that were rolled back, after a failure or by a person.", "component")
	rollbackFailed      = gauge("observability_rollback_failed", "Whether the last rollback of the component failed, so that a person is needed.", "component")

	lastCheck        = gauge("observability_last_check_timestamp_seconds", "When upstream was last asked for new releases; absent where it never was.")
	lastCheckSuccess = gauge("observability_last_check_success", "Whether the last check could ask the upstream of every component.")
	checkErrors      = gauge("observability_check_errors", "Whether the last check could not ask the upstream of the component.", "component")

	lastRun         = gauge("observability_last_run_timestamp_seconds", "When the last run (apply, rollback) began; absent where there was none.")
	lastRunDuration = gauge("observability_last_run_duration_seconds", "How long the last run took.")
	lastRunStatus   = gauge("observability_last_run_status", "How the last run ended: 1 for the status that holds, else 0.", "status")
	interrupted     = gauge("observability_run_interrupted", "Whether a run was cut off, or could not undo what failed, and has not been recovered yet.")
	inProgress      = live(gauge("observability_run_in_progress", "Whether a run is at work now."))
	lockHeld        = live(gauge("observability_lock_held", "Whether a command that changes something is at work now, so that no other can begin."))

	windowOpen = live(gauge("observability_maintenance_window_open", "Whether an unattended run may begin now."))
	windowNext = live(gauge("observability_maintenance_window_next_timestamp_seconds", "When the next maintenance window opens; absent where there are none."))

	backupBytes  = gauge("observability_backup_bytes", "Size of all backup points.")
	backupPoints = gauge("observability_backup_points", "Backup points by state; an incomplete one cannot be gone back to.", "state")
	backupNewest = gauge("observability_backup_newest_timestamp_seconds", "When the newest complete backup point was taken; absent where there is none.")

	problems = gauge("observability_read_problems", "Things that these metrics are made from and that could not be read.")
)
