// Package state reads and writes the version state file.
package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

const (
	formatVersion = 1
	maxSize       = 16 << 20
	maxRuns       = 100
)

// File is the state file.
type File struct {
	LastUpdated    time.Time            `json:"last_updated"`
	Components     map[string]Component `json:"components"`
	UpgradeHistory []RunSummary         `json:"upgrade_history"`
	Format         int                  `json:"format_version"`

	unknown map[string]json.RawMessage
}

// Component is what the state file holds of one component.
type Component struct {
	CurrentVersion  string            `json:"current_version"`
	PreviousVersion string            `json:"previous_version"`
	InstalledAt     time.Time         `json:"installed_at,omitzero"`
	UpgradedAt      time.Time         `json:"upgraded_at,omitzero"`
	Checksum        string            `json:"checksum"`
	BinaryPath      string            `json:"binary_path"`
	Backups         []Backup          `json:"backups,omitempty"`
	Binaries        map[string]string `json:"binaries,omitempty"`
	Checksums       map[string]string `json:"checksums,omitempty"`
	Service         string            `json:"service,omitempty"`
	FailedVersions  []FailedVersion   `json:"failed_versions,omitempty"`
	ReleasedAt      time.Time         `json:"released_at,omitzero"`
}

// Backup is a backup point that holds an earlier version.
type Backup struct {
	Version   string `json:"version"`
	Timestamp string `json:"timestamp"`
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
	Timestamp          time.Time `json:"timestamp"`
	ComponentsUpgraded []string  `json:"components_upgraded"`
	Status             string    `json:"status"`
	DurationSeconds    int       `json:"duration_seconds"`
	TriggeredBy        string    `json:"triggered_by"`
	Operation          string    `json:"operation,omitempty"`
}

// CorruptError reports a state file that cannot be read.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("state file %s cannot be read: %v", e.Path, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }

// NewerError reports a state file of a newer program.
type NewerError struct {
	Path string
	Have int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("state file %s has format %d, this program knows up to %d: it was written by a newer observability-upgrade; use that one", e.Path, e.Have, formatVersion)
}

// New returns an empty state.
func New() *File {
	return &File{Components: map[string]Component{}, UpgradeHistory: []RunSummary{}, Format: formatVersion}
}

// Load reads the state file.
func Load(path string) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxSize {
		return nil, &CorruptError{path, fmt.Errorf("it has %d bytes, more than %d", st.Size(), maxSize)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := decode(data)
	if err != nil {
		return nil, &CorruptError{path, err}
	}
	if f.Format > formatVersion {
		return nil, &NewerError{path, f.Format}
	}
	return f, nil
}

func decode(data []byte) (*File, error) {
	f := New()
	if err := json.Unmarshal(data, f); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &f.unknown); err != nil {
		return nil, err
	}
	for _, k := range []string{"last_updated", "components", "upgrade_history", "format_version"} {
		delete(f.unknown, k)
	}
	if f.Components == nil {
		f.Components = map[string]Component{}
	}
	if f.Format == 0 {
		f.Format = formatVersion
	}
	return f, nil
}

func (f *File) encode() ([]byte, error) {
	data, err := json.Marshal(f)
	if err != nil || len(f.unknown) == 0 {
		return indent(data), err
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	for k, v := range f.unknown {
		all[k] = v
	}
	data, err = json.Marshal(all)
	return indent(data), err
}

func indent(data []byte) []byte {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", "  "); err != nil {
		return data
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// Save writes the state file durably; one that differs only in its time of
// writing is left alone.
func Save(h *hostfs.Host, path string, f *File) error {
	if f.UpgradeHistory == nil {
		f.UpgradeHistory = []RunSummary{}
	}
	f.Format = formatVersion
	if old, err := Load(path); err == nil {
		keep := f.LastUpdated
		f.LastUpdated = old.LastUpdated
		a, errA := f.encode()
		b, errB := old.encode()
		f.LastUpdated = keep
		if errA == nil && errB == nil && bytes.Equal(a, b) {
			return nil
		}
	}
	data, err := f.encode()
	if err != nil {
		return err
	}
	if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return h.WriteFile(path, data, 0o644)
}

// MoveAside renames an unreadable state file to PATH.corrupt, or .corrupt.2 …
func MoveAside(h *hostfs.Host, path string) (string, error) {
	to := path + ".corrupt"
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return to, h.Rename(path, to)
		}
		to = fmt.Sprintf("%s.corrupt.%d", path, n)
	}
}

// AddBackup notes a backup point, newest last; noting it again changes nothing.
func (c *Component) AddBackup(b Backup) {
	if !slices.Contains(c.Backups, b) {
		c.Backups = append(c.Backups, b)
	}
}

// MarkFailed remembers a failed version, replacing what was known of it.
func (c *Component) MarkFailed(v FailedVersion) {
	c.ClearFailed(v.Version)
	c.FailedVersions = append(c.FailedVersions, v)
}

// ClearFailed forgets that a version failed.
func (c *Component) ClearFailed(version string) {
	c.FailedVersions = slices.DeleteFunc(c.FailedVersions, func(f FailedVersion) bool { return f.Version == version })
}

// AddRun notes a run, replacing one of the same id; the newest 100 are kept.
func (f *File) AddRun(r RunSummary) {
	f.UpgradeHistory = slices.DeleteFunc(f.UpgradeHistory, func(o RunSummary) bool { return o.ID == r.ID })
	f.UpgradeHistory = append(f.UpgradeHistory, r)
	if n := len(f.UpgradeHistory); n > maxRuns {
		f.UpgradeHistory = f.UpgradeHistory[n-maxRuns:]
	}
}

// DropBackups forgets backup points that were removed.
func (f *File) DropBackups(paths []string) {
	for name, c := range f.Components {
		c.Backups = slices.DeleteFunc(c.Backups, func(b Backup) bool { return slices.Contains(paths, b.Path) })
		f.Components[name] = c
	}
}

// Newest is the newest of some runs.
func Newest(runs []RunSummary) RunSummary {
	return slices.MaxFunc(runs, func(a, b RunSummary) int { return a.Timestamp.Compare(b.Timestamp) })
}
