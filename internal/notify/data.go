package notify

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// The events (config.Events).
const (
	UpgradeAvailable  = "upgrade_available"
	UpgradeStarted    = "upgrade_started"
	UpgradeCompleted  = "upgrade_completed"
	UpgradeFailed     = "upgrade_failed"
	RollbackRequired  = "rollback_required"
	RollbackCompleted = "rollback_completed"
)

// testEvent is what `notify test` sends; no channel can list it.
const testEvent = "test"

// maxError bounds the error that a message tells, in bytes.
const maxError = 4096

// maxWarnings bounds how many of a run's warnings it tells.
const maxWarnings = 20

// Data is what happened: what templates work with and what a webhook gets. Its
// field names are those of the specification's templates.
type Data struct {
	Event             string      `json:"event"`    // one of the six
	Hostname          string      `json:"hostname"` // this host's, when left out
	RunID             string      `json:"run_id"`
	Status            string      `json:"status"`    // of the run: success, rolled_back …
	Timestamp         Time        `json:"timestamp"` // now, when left out
	Components        []Component `json:"components"`
	EstimatedDuration Duration    `json:"estimated_duration_seconds"`
	ActualDuration    Duration    `json:"actual_duration_seconds"`
	FailedComponent   string      `json:"failed_component"`
	Error             string      `json:"error"`
	AutoRollback      bool        `json:"auto_rollback"`    // a rollback is made without a person
	BackupTimestamp   string      `json:"backup_timestamp"` // of the backup point to go back to; of a rollback, the one that it went back to

	Operation       string      `json:"operation"`        // of the run: apply or rollback; "" without one
	FailedUnit      string      `json:"failed_unit"`      // the failed component's on this host; "" where none is known
	Refused         bool        `json:"refused"`          // the upgrade was refused, or failed, before anything was touched
	Unchecked       bool        `json:"unchecked"`        // of something that was upgraded nobody asked whether it is healthy
	Next            string      `json:"next"`             // what to type next, as the command line says
	RollbackCommand string      `json:"rollback_command"` // to go back by hand; "" where there is nothing to go back from
	Kept            []Component `json:"kept"`             // what the run changed, or was to, and what stays at CurrentVersion all the same
	Warnings        []string    `json:"warnings"`         // of the run
}

// Component is what happened to one component. OldVersion and NewVersion are what
// an upgrade goes from and to; what is left out of the others follows from them.
type Component struct {
	Name              string `json:"name"`
	Instance          string `json:"instance"`            // of several; "" for the component
	CurrentVersion    string `json:"current_version"`     // what is installed; of a rollback, what was
	LatestVersion     string `json:"latest_version"`      // the newest that it may go to
	OldVersion        string `json:"old_version"`         // before the upgrade
	NewVersion        string `json:"new_version"`         // after the upgrade
	RolledBackVersion string `json:"rolled_back_version"` // after a rollback
	Vulnerabilities   IDs    `json:"vulnerabilities"`     // ids of those known in CurrentVersion
}

// IDs prints as a list with commas.
type IDs []string

// String is "CVE-1, CVE-2".
func (i IDs) String() string { return strings.Join(i, ", ") }

// MarshalJSON never gives null.
func (i IDs) MarshalJSON() ([]byte, error) { return json.Marshal(append([]string{}, i...)) }

// Time prints as 2026-12-31 02:00:00 UTC. In templates it has the methods of
// time.Time: {{.Timestamp.Format "15:04"}}.
type Time struct{ time.Time }

// String is in UTC, to the second.
func (t Time) String() string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// Duration prints as 45s, 12m30s, 1h5m0s; in JSON it is a number of seconds.
type Duration time.Duration

// String rounds to seconds.
func (d Duration) String() string { return time.Duration(d).Round(time.Second).String() }

// MarshalJSON gives seconds.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).Seconds()) }

// UnmarshalJSON takes seconds.
func (d *Duration) UnmarshalJSON(b []byte) error {
	const most = 1e9 // some thirty years
	var s float64
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s < -most || s > most {
		return fmt.Errorf("%v seconds are out of range", s)
	}
	*d = Duration(s * float64(time.Second))
	return nil
}

// Vulnerabilities are the ids known of each component that has any, by its name.
func (d Data) Vulnerabilities() map[string]IDs {
	out := map[string]IDs{}
	for _, c := range d.Components {
		if len(c.Vulnerabilities) > 0 {
			out[c.Name] = c.Vulnerabilities
		}
	}
	return out
}

// Actions are what a person is to do after an event that calls for one, numbered.
func (d Data) Actions() []string {
	var list []string
	add := func(text, value string) {
		if value != "" {
			list = append(list, fmt.Sprintf("%d. %s%s", len(list)+1, text, value))
		}
	}
	logs := ""
	if d.FailedUnit != "" {
		logs = fmt.Sprintf("journalctl -u %s -n 100", d.FailedUnit)
	}
	switch {
	case d.Event == UpgradeFailed && d.Refused:
		add("Next: ", cmp.Or(d.Next, "observability-upgrade plan"))
	case d.Event == UpgradeFailed:
		add("Check logs: ", logs)
		add("Manual rollback: ", d.RollbackCommand)
		if d.RollbackCommand == "" {
			add("Next: ", d.Next)
		}
		list = append(list, fmt.Sprintf("%d. Contact ops team if needed", len(list)+1))
	case d.Event == RollbackRequired && !d.AutoRollback:
		add("Check logs: ", logs)
		add("Next: ", cmp.Or(d.Next, "observability-upgrade status; mend the cause, then: observability-upgrade recover"))
		add("Or go back by hand: ", d.RollbackCommand)
	}
	return list
}

func (d Data) check() error {
	if slices.Contains(config.Events(), d.Event) {
		return nil
	}
	return fmt.Errorf("notification of an unknown event %q; known are %s", d.Event, strings.Join(config.Events(), ", "))
}

// failing reports whether the event is one that people must be called for.
func failing(event string) bool { return event == UpgradeFailed || event == RollbackRequired }

// ending reports whether the event tells how a run ended.
func ending(event string) bool {
	return event == UpgradeCompleted || event == RollbackCompleted || failing(event)
}

// id names the message of an event on a channel. It is the same whenever the same
// thing is told again: event, run and failed component, and where there is no run
// the components and versions.
func (d Data) id(channel string) string {
	parts := []string{d.Event, d.RunID, d.FailedComponent, channel}
	if d.Event == RollbackRequired && d.AutoRollback {
		parts[0] += " by itself" // that a person is needed after all is another message
	}
	if d.Refused {
		parts[0] += " refused" // it took no name from the next run, which may begin in the same second
	}
	if d.RunID == "" {
		for _, c := range d.Components {
			parts = append(parts, c.Name+"@"+c.LatestVersion)
		}
		slices.Sort(parts[4:])
	}
	return digest(strings.Join(parts, "\x00"))
}

// digest is 16 hexadecimal digits that stand for a text.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

// complete fills in the versions that follow from those given, so that every
// sample of the specification says something sensible for every event.
func complete(event string, list []Component) []Component {
	out := append([]Component{}, list...) // never null in JSON
	for i := range out {
		c := &out[i]
		or := func(into *string, from ...string) {
			for _, f := range from {
				if *into == "" {
					*into = f
				}
			}
		}
		or(&c.OldVersion, c.RolledBackVersion)
		or(&c.NewVersion, c.LatestVersion)
		switch event {
		case UpgradeCompleted, RollbackCompleted, RollbackRequired: // the new one is, or was, in place
			or(&c.CurrentVersion, c.NewVersion, c.OldVersion)
		default:
			or(&c.CurrentVersion, c.OldVersion)
		}
		or(&c.OldVersion, c.CurrentVersion)
		or(&c.NewVersion, c.CurrentVersion)
		or(&c.LatestVersion, c.NewVersion)
		or(&c.RolledBackVersion, c.OldVersion)
	}
	return out
}

// clip shortens a text to at most n bytes and says so.
func clip(s string, n int) string {
	const mark = " … (cut off)"
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len(mark)], "") + mark
}

// nearest is " did you mean …" for a field name that is none.
func nearest(word string, known []string) string {
	if near := yamlfile.Nearest(word, known); near != "" {
		return fmt.Sprintf("; did you mean .%s?", near)
	}
	return "; there are ." + strings.Join(known, ", .")
}
