// Package run is the state machine of an upgrade: a journaled transaction over
// a host. A run is a list of changes, one per component; each change is a few
// small steps. Every step is written to the journal, synced, before it acts, so
// a crash, a kill, Ctrl+C, failed health and a person's rollback all go through
// the same undo code, which decides by what it finds on disk, not by what it
// remembers.
package run

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Strategy is how a service is restarted (specification section 5).
type Strategy string

// The strategies. Graceful is the default.
const (
	Graceful Strategy = "graceful" // stop, wait for the end, swap, start
	Fast     Strategy = "fast"     // swap, then the service manager's restart
	Reload   Strategy = "reload"   // of a restart: re-read the configuration; graceful where that is not possible
)

// Operation is what a run does.
type Operation string

// The operations.
const (
	Apply    Operation = "apply"
	Rollback Operation = "rollback"
	Restart  Operation = "restart" // nothing is swapped, and nothing recorded but the journal
)

// Swap is one file or directory tree that changes places.
type Swap struct {
	Kind   backup.Kind `json:"kind"`
	Name   string      `json:"name"`
	Path   string      `json:"path"`   // where it belongs
	Source string      `json:"source"` // where the new bytes are
	Beside string      `json:"beside"` // hidden name next to Path, same file system
	Old    string      `json:"old"`    // digest before; "" when Path did not exist
	New    string      `json:"new"`    // digest after
	Tree   bool        `json:"tree,omitempty"`
}

// unfinished is where a copy for Beside is made.
func (s *Swap) unfinished() string { return s.Beside + ".part" }

// What a file's digest is before and after the swap.
func before(s Swap) string { return s.Old }
func after(s Swap) string  { return s.New }

// Change is everything a run does to one component. It is journaled whole, so
// that recovery needs nothing but the journal and the backup point.
type Change struct {
	Component  string            `json:"component"`
	Instance   string            `json:"instance,omitempty"` // of several; see Rolling
	Rolling    *Rolling          `json:"rolling,omitempty"`  // nil for a component without instances
	Listed     []string          `json:"listed,omitempty"`   // all instances there are, changed or not; empty where that is not known
	Strategy   Strategy          `json:"strategy,omitempty"`
	From       component.Version `json:"from"`
	To         component.Version `json:"to"`
	ReleasedAt time.Time         `json:"released_at,omitzero"`
	Service    service.Service   `json:"service"` // Unit and Command both empty: nothing to stop or start
	Swaps      []Swap            `json:"swaps"`
	Health     Health            `json:"health"`
	WasActive  bool              `json:"was_active"`
	Executable string            `json:"executable"`       // installed path of the main binary
	Binaries   map[string]string `json:"binaries"`         // name -> installed path
	RunsBinary bool              `json:"runs_binary"`      // the unit's process is started from Executable
	Undoes     []int64           `json:"undoes,omitempty"` // history rows that a rollback takes back
	Redoes     []history.Mark    `json:"redoes,omitempty"` // history rows that are in force again after it
	Warning    string            `json:"warning,omitempty"`
	Data       *Data             `json:"data,omitempty"` // nil: it has none that matters
	// TakeBack forbids an undo to start the old version on what the new one wrote:
	// the copy of the data is put back first, and where there is none, the old
	// version is left stopped.
	TakeBack bool   `json:"take_back,omitempty"`
	Archive  string `json:"archive,omitempty"` // digest of what the new files came out of

	// Signature is how the new version was verified by a signature; nil when it
	// was not.
	Signature *state.SignatureVerified `json:"signature,omitempty"`
}

// Health is the probe of a change in a form that fits the journal.
type Health struct {
	Spec    health.Spec `json:"spec"`
	Skip    bool        `json:"skip,omitempty"`    // --skip-health-checks: only that the unit runs
	Excused []string    `json:"excused,omitempty"` // checks that failed before the run; see health.Target
}

// Set names what is changed: the component, or one instance of it.
func (c *Change) Set() string { return component.SetName(c.Component, c.Instance) }

// key names one change of a run: a component may be changed more than once.
func (c *Change) key() string { return c.Set() + " " + c.From.String() + " " + c.To.String() }

// filesAre reports whether all its files have the digests that of tells. It is false
// where that cannot be known.
func (c *Change) filesAre(of func(Swap) string) bool {
	for _, s := range c.Swaps {
		if have, err := hostfs.Digest(s.Path); err != nil || have != of(s) {
			return false
		}
	}
	return true
}

// filesRead reports whether all its files are there and can be read, whatever is in
// them.
func (c *Change) filesRead() bool {
	return !slices.ContainsFunc(c.Swaps, func(s Swap) bool {
		have, err := hostfs.Digest(s.Path)
		return err != nil || have == ""
	})
}

// eachOnce proves that no file is swapped twice by what cannot know of it: a second
// exchange brings the old one back. Instances share their files, and a component
// comes to them again with its next step.
func eachOnce(changes []Change) error {
	by := map[string]string{}
	for _, ch := range changes {
		mine := map[string]bool{}
		for _, s := range ch.Swaps {
			switch other, taken := by[s.Path]; {
			case mine[s.Path]:
				return fmt.Errorf("%s: expected each file once, found %s twice in its change to %s; nothing was touched", ch.Set(), s.Path, ch.To)
			case taken && other != ch.Component:
				return fmt.Errorf("%s: expected files of its own, found that %s has %s too; nothing was touched", ch.Set(), other, s.Path)
			}
			mine[s.Path], by[s.Path] = true, ch.Component
		}
	}
	return nil
}

func (c *Change) planned() Planned {
	return Planned{Name: c.Component, Instance: c.Instance, From: c.From.String(), To: c.To.String()}
}

// title is the change in words.
func (c *Change) title() string {
	if c.From.Equal(c.To) {
		return c.Set()
	}
	return fmt.Sprintf("%s %s → %s", c.Set(), c.From, c.To)
}

// hasService reports whether there is anything to stop and start.
func (c *Change) hasService() bool { return c.Service.Unit != "" || len(c.Service.Command) > 0 }

// touchesUnits reports whether the service manager must re-read unit files.
func (c *Change) touchesUnits() bool {
	for _, s := range c.Swaps {
		if s.Kind == backup.Unit {
			return true
		}
	}
	return false
}

// ComponentStatus is the outcome of one component in the contract's words.
type ComponentStatus string

// The outcomes of a component.
const (
	Upgraded           ComponentStatus = "upgraded"
	Skipped            ComponentStatus = "skipped"
	Failed             ComponentStatus = "failed"
	RolledBack         ComponentStatus = "rolled_back"
	RollbackFailed     ComponentStatus = "rollback_failed"
	NotAttempted       ComponentStatus = "not_attempted"
	StatusSuccess                      = "success"
	StatusNothingToDo                  = "nothing_to_do"
	StatusDryRun                       = "dry_run"
	StatusFailed                       = "failed"
	StatusRolledBack                   = "rolled_back"
	StatusRollbackFail                 = "rollback_failed"
	StatusCancelled                    = "cancelled"
	StatusInterrupted                  = "interrupted"
)

// Outcome is what became of one component. A rollback that brought a component
// to the version asked for counts as "rolled_back", as a failed upgrade that
// was undone does. One that was interrupted and undone counts as "failed": the
// component is healthy where it was before, and nobody is needed. One that failed
// by itself is "rollback_failed", also where it was undone; Healthy and Error tell
// which.
type Outcome struct {
	Name     string            `json:"name"`
	Instance string            `json:"instance,omitempty"`
	From     component.Version `json:"from"`
	To       component.Version `json:"to"`
	Status   ComponentStatus   `json:"status"`
	Error    string            `json:"error"`
	Downtime float64           `json:"downtime_seconds"`
	Duration float64           `json:"duration_seconds"`

	Evidence string `json:"evidence,omitempty"` // directory with what was found before the undo
	Healthy  bool   `json:"healthy"`            // the last health check passed
	Started  bool   `json:"started,omitempty"`  // the new version was started, could be read, and its balancer answered: what failed may be its doing
}

// Result is what became of a run; its JSON form is that of `apply` and
// `rollback`.
type Result struct {
	ID         string    `json:"id"`
	Operation  Operation `json:"operation"`
	Trigger    string    `json:"triggered_by"`
	StartedAt  time.Time `json:"started_at"`
	Status     string    `json:"status"`
	Components []Outcome `json:"components"`
	BackupPath string    `json:"backup_path"`
	Duration   float64   `json:"duration_seconds"`
	Warnings   []string  `json:"warnings,omitempty"`
}

// Step names a moment of a run in events and in the journal.
type Step string

// The steps, in the order they happen. Their names are the journal's record
// kinds.
const (
	StepBegin  Step = "begin"
	StepBackup Step = "backup"
	stepChange Step = "change"
	StepPlace  Step = "place"
	// The answers that recognise the data are taken; afterwards, compared.
	StepFingerprint Step = "fingerprint"
	StepDrain       Step = "drain"
	StepRemote      Step = "remote"
	StepReload      Step = "reload"
	StepData        Step = "data"
	StepStop        Step = "stop"
	StepSwap        Step = "swap"
	StepRestore     Step = "restore"
	StepStart       Step = "start"
	StepHealth      Step = "health"
	StepAdmit       Step = "admit"
	StepStabilize   Step = "stabilize"
	stepCommitted   Step = "committed"
	StepUndo        Step = "undo"
	stepUndone      Step = "undone"
	stepRecorded    Step = "recorded"
	StepEnd         Step = "end"
)

// Event tells an onlooker how a run goes on. Events are for people; nothing
// depends on them. The first of a run, and of its recovery, is StepBegin; the
// last is StepEnd, unless the run is cut off.
type Event struct {
	Run       string // the run's id
	Time      time.Time
	Component string // "" for the run as a whole
	Instance  string // of several; may be empty
	From, To  string // versions of the change that it is a step of; "" for the run as a whole
	Step      Step
	Done      bool   // false: it begins
	Detail    string // what was done, or what went wrong
	Reason    string // with StepUndo, as it begins: why
	Err       error

	Begin    *Header // with StepBegin
	Recovery bool    // with StepBegin: an interrupted run is brought to its end
	Plan     any     // with StepBegin: the request's; nil in a recovery
	End      *Result // with StepEnd
}

// Why an interrupted component was undone; the version is not to blame.
const (
	interruptedBySignal = "interrupted by a signal"
	interruptedByCrash  = "the run was interrupted (crash, kill or power loss)"
	interruptedBetween  = "the run was interrupted before all instances were changed"
	interruptedBefore   = "the run was interrupted before it was touched"
)

// WasInterrupted reports whether the text of an outcome's error says that the run
// was interrupted, so that the version is not to blame.
func WasInterrupted(text string) bool {
	for _, why := range []string{interruptedBySignal, interruptedByCrash, interruptedBetween, interruptedBefore} {
		if strings.HasPrefix(text, why) {
			return true
		}
	}
	return false
}

// arrived reports whether a change of the operation brought its component to
// where it was to go.
func (o *Outcome) arrived(op Operation) bool {
	return o.Status == Upgraded || op == Rollback && o.Status == RolledBack
}

// returned reports whether a change was undone, and the component is whole and
// healthy at the version before.
func (o *Outcome) returned(op Operation) bool {
	if op == Rollback {
		return o.Healthy && (o.Status == Failed || o.Status == RollbackFailed)
	}
	return o.Status == RolledBack
}
