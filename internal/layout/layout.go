// Package layout names every file and directory this program owns, below one
// root directory. It is the only place that knows these paths.
package layout

import (
	"path/filepath"
	"strings"
)

// Root is the directory given with --root; "/" by default. It relocates this
// program's own files and the paths of component definitions; it is no chroot.
type Root string

// Path joins an absolute or relative path below the root.
func (r Root) Path(elem ...string) string {
	return filepath.Join(append([]string{string(r)}, elem...)...)
}

// Prefix is the value of the {root} placeholder: "" for "/".
func (r Root) Prefix() string {
	return strings.TrimSuffix(filepath.Clean(string(r)), "/")
}

// IsHost reports whether the root is the host's own "/".
func (r Root) IsHost() bool { return filepath.Clean(string(r)) == "/" }

// Config is the directory of everything an administrator writes.
func (r Root) Config() string { return r.Path("etc/observability") }

// Policy is the policy file.
func (r Root) Policy() string { return r.Path("etc/observability/upgrade-policy.yaml") }

// Matrix is the compatibility matrix file.
func (r Root) Matrix() string { return r.Path("etc/observability/compatibility-matrix.yaml") }

// Notifications is the notification file.
func (r Root) Notifications() string { return r.Path("etc/observability/notifications.yaml") }

// Environment sets variables for the units of systemd.
func (r Root) Environment() string { return r.Path("etc/observability/environment") }

// ComponentsDir holds the users' own component definitions.
func (r Root) ComponentsDir() string { return r.Path("etc/observability/components.d") }

// SecretsDir holds one file per ${SECRET:name}.
func (r Root) SecretsDir() string { return r.Path("etc/observability/secrets") }

// Lib is the directory of everything this program must not lose.
func (r Root) Lib() string { return r.Path("var/lib/observability") }

// State is the version state file.
func (r Root) State() string { return r.Path("var/lib/observability/versions.state") }

// Holds is what `hold` and `unhold` set.
func (r Root) Holds() string { return r.Path("var/lib/observability/holds.json") }

// History is the upgrade history database.
func (r Root) History() string { return r.Path("var/lib/observability/upgrade-history.db") }

// Audit is the audit log.
func (r Root) Audit() string { return r.Path("var/lib/observability/audit.log") }

// VulnDB is the database of known vulnerabilities, as the last refresh left it.
func (r Root) VulnDB() string { return r.Path("var/lib/observability/vulndb") }

// Vulnerabilities is what is known of the installed components, for others to
// read.
func (r Root) Vulnerabilities() string { return r.Path("var/cache/observability/vulnerabilities.json") }

// JournalDir holds the journal of a run in progress.
func (r Root) JournalDir() string { return r.Path("var/lib/observability/journal") }

// RunsDir keeps, per run, what it recorded: its closed journal and evidence.
func (r Root) RunsDir() string { return r.Path("var/lib/observability/runs") }

// NotifyDir keeps the messages that are to be sent, those that could not be, and
// what was sent of late.
func (r Root) NotifyDir() string { return r.Path("var/lib/observability/notify") }

// ProcessDir holds the process manager's records of what it started.
func (r Root) ProcessDir() string { return r.Path("var/lib/observability/process") }

// LogDir holds the logs of what the process manager started.
func (r Root) LogDir() string { return r.Path("var/log/observability") }

// Cache is the directory of everything that can be fetched again.
func (r Root) Cache() string { return r.Path("var/cache/observability") }

// LastCheck is what the last look at upstream found.
func (r Root) LastCheck() string { return r.Path("var/cache/observability/last-check.json") }

// BackupList lists the backup points for readers who may not look into them.
func (r Root) BackupList() string { return r.Path("var/cache/observability/backups.json") }

// Monitoring is what `monitoring install` placed, and where.
func (r Root) Monitoring() string { return r.Path("var/lib/observability/monitoring.json") }

// Backups holds one backup point per timestamp.
func (r Root) Backups() string { return r.Path("var/backups/observability") }

// Staging is where new binaries wait; the policy's paths.staging moves it.
func (r Root) Staging() string { return r.Path("tmp/observability-upgrade") }

// Lock is the lock file of mutating commands.
func (r Root) Lock() string { return r.Path("var/lock/observability-upgrade.lock") }
