// Package state reads and writes the version state file: what this program
// installed, where, and what went before (specification, section 7). The file is
// a record for people, scripts and the next run; what is installed is always
// looked up on the host itself.
package state

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

const (
	formatVersion = 1
	maxSize       = 16 << 20 // bytes
	maxRuns       = 100
)

// File is the state file. It is not safe for concurrent use; whoever changes it
// holds the lock of package lock from Load to Save. Top-level keys that this
// program does not know are kept by Load and written back by Save.
type File struct {
	LastUpdated    time.Time            `json:"last_updated"`
	Components     map[string]Component `json:"components"`
	UpgradeHistory []RunSummary         `json:"upgrade_history"` // oldest first
	Format         int                  `json:"format_version"`

	unknown unknownKeys
}

// Component is what the state file holds of one component. Keys that this
// program does not know stay with the value through copying.
type Component struct {
	CurrentVersion  string            `json:"current_version"`
	PreviousVersion string            `json:"previous_version"`
	InstalledAt     time.Time         `json:"installed_at,omitzero"`
	UpgradedAt      time.Time         `json:"upgraded_at,omitzero"`
	Checksum        string            `json:"checksum"`    // SHA-256 of the main binary, hex
	BinaryPath      string            `json:"binary_path"` // of the main binary
	Backups         []Backup          `json:"backups,omitempty"`
	Binaries        map[string]string `json:"binaries,omitempty"`  // installed path by binary name
	Checksums       map[string]string `json:"checksums,omitempty"` // SHA-256, hex, by binary name
	Service         string            `json:"service,omitempty"`
	FailedVersions  []FailedVersion   `json:"failed_versions,omitempty"`
	ReleasedAt      time.Time         `json:"released_at,omitzero"` // of the current version, as upstream says
	Instances       map[string]string `json:"instances,omitempty"`  // version by instance, of a component that has several

	// Archive is the digest of the archive that the current version came out of;
	// "" where it was not installed by this program.
	Archive string `json:"archive,omitempty"`

	// SignatureVerified tells how the newest upgrade was verified by a signature.
	// From then on no release without one is installed, until a person allows it.
	SignatureVerified *SignatureVerified `json:"signature_verified,omitempty"`

	unknown unknownKeys
}

// SignatureVerified is a signature that held.
type SignatureVerified struct {
	Type    string `json:"type"`    // gpg | cosign | minisign
	Key     string `json:"key"`     // fingerprint, public key, or certificate identity and its issuer
	Version string `json:"version"` // what it was made for
}

func (s SignatureVerified) String() string {
	return fmt.Sprintf("%s by a %s signature of %s", s.Version, s.Type, s.Key)
}

// Backup is a backup point that holds an earlier version.
type Backup struct {
	Version   string `json:"version"`
	Timestamp string `json:"timestamp"` // the point's name
	Path      string `json:"path"`
}

// FailedVersion is a version that failed on this host.
type FailedVersion struct {
	Version  string    `json:"version"`
	Reason   string    `json:"reason"`
	FailedAt time.Time `json:"failed_at"`
	RunID    string    `json:"run_id"`
}

// RunSummary is one past run.
type RunSummary struct {
	ID                 string    `json:"id"`
	Timestamp          time.Time `json:"timestamp"` // its start
	ComponentsUpgraded []string  `json:"components_upgraded"`
	Status             string    `json:"status"`
	DurationSeconds    int       `json:"duration_seconds"`
	TriggeredBy        string    `json:"triggered_by"`
	Operation          string    `json:"operation,omitempty"`
}

// CorruptError reports a state file whose content cannot be understood. Callers
// may move it aside (MoveAside) and rebuild it from what is installed.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("state file %s cannot be read: %v", e.Path, e.Err)
}

// Unwrap is the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// NewerError reports a state file of a newer program. It must be neither moved
// aside nor overwritten.
type NewerError struct {
	Path string
	Have int // the file's format_version
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("state file %s has format_version %d, this program knows up to %d: a newer observability-upgrade wrote it; run that one", e.Path, e.Have, formatVersion)
}

// New returns an empty state.
func New() *File {
	return &File{Components: map[string]Component{}, UpgradeHistory: []RunSummary{}, Format: formatVersion}
}

// SetVersion notes that a component is at version since at; the version before
// becomes the previous one. A component already at version is left as it is.
func (f *File) SetVersion(name, version string, at time.Time) {
	c := f.Components[name]
	if c.CurrentVersion == version {
		return
	}
	at = at.UTC().Truncate(time.Second)
	if c.CurrentVersion != "" {
		c.PreviousVersion, c.UpgradedAt = c.CurrentVersion, at
	}
	if c.InstalledAt.IsZero() {
		c.InstalledAt = at
	}
	c.CurrentVersion = version
	if f.Components == nil {
		f.Components = map[string]Component{}
	}
	f.Components[name] = c
}

// AddBackup notes a backup point, newest last; noting it again changes nothing.
// Of several steps in one run the first counts: the point holds what was there
// before all of them.
func (c *Component) AddBackup(b Backup) {
	if !c.HasBackup(b.Timestamp) {
		c.Backups = append(slices.Clip(c.Backups), b)
	}
}

// HasBackup reports whether a backup point is noted.
func (c *Component) HasBackup(timestamp string) bool {
	return slices.ContainsFunc(c.Backups, func(b Backup) bool { return b.Timestamp == timestamp })
}

// MarkFailed remembers a failed version, replacing what was known of it.
func (c *Component) MarkFailed(v FailedVersion) {
	c.ClearFailed(v.Version)
	c.FailedVersions = append(c.FailedVersions, v)
}

// ClearFailed forgets that a version failed.
func (c *Component) ClearFailed(version string) {
	c.FailedVersions = without(c.FailedVersions, func(f FailedVersion) bool { return f.Version == version })
}

// Failed tells whether and how a version failed on this host.
func (c Component) Failed(version string) (FailedVersion, bool) {
	i := slices.IndexFunc(c.FailedVersions, func(f FailedVersion) bool { return f.Version == version })
	if i < 0 {
		return FailedVersion{}, false
	}
	return c.FailedVersions[i], true
}

// AddRun notes a run, replacing one of the same id. Runs are kept in the order
// of their start, the newest 100 of them.
func (f *File) AddRun(r RunSummary) {
	if r.ComponentsUpgraded == nil {
		r.ComponentsUpgraded = []string{}
	}
	f.UpgradeHistory = append(without(f.UpgradeHistory, func(o RunSummary) bool { return o.ID == r.ID }), r)
	slices.SortStableFunc(f.UpgradeHistory, compareRuns)
	if n := len(f.UpgradeHistory); n > maxRuns {
		f.UpgradeHistory = slices.Clone(f.UpgradeHistory[n-maxRuns:])
	}
}

// DropBackups forgets backup points that were removed, named by their paths.
func (f *File) DropBackups(paths []string) {
	for name, c := range f.Components {
		c.Backups = without(c.Backups, func(b Backup) bool { return slices.Contains(paths, b.Path) })
		f.Components[name] = c
	}
}

// compareRuns sorts runs by their start; those of one second by the number in their
// name, which is how runs made after the clock was set back are told apart.
func compareRuns(a, b RunSummary) int {
	return cmp.Or(a.Timestamp.Truncate(time.Second).Compare(b.Timestamp.Truncate(time.Second)), cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID))
}

// Newest is the run among runs that started last; the zero RunSummary when
// there are none.
func Newest(runs []RunSummary) RunSummary {
	if len(runs) == 0 {
		return RunSummary{}
	}
	return slices.MaxFunc(runs, compareRuns)
}

// without returns a new slice of what drop does not choose. Components are
// copied by value, so their slices must never be changed in place.
func without[T any](all []T, drop func(T) bool) []T {
	var kept []T
	for _, v := range all {
		if !drop(v) {
			kept = append(kept, v)
		}
	}
	return kept
}
