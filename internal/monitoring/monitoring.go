// Package monitoring holds what watches the metrics of this program: alert rules
// for Prometheus and a dashboard for Grafana. It places them where these read
// them, and leaves alone what people changed.
package monitoring

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the two files
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

//go:embed upgrade-alerts.yml
var rules []byte

//go:embed dashboard.json
var dashboard []byte

// Rules are the alert rules, a rule file of Prometheus.
func Rules() []byte { return bytes.Clone(rules) }

// Dashboard is the dashboard, in Grafana's JSON.
func Dashboard() []byte { return bytes.Clone(dashboard) }

// The kinds of files.
const (
	KindRules     = "rules"
	KindDashboard = "dashboard"
)

// fileNames are the names of the files in a directory; that of the rules is the
// specification's, section 11.
var fileNames = map[string]string{KindRules: "upgrade-alerts.yml", KindDashboard: "observability-upgrade.json"}

// endings are what a path ends in that is a file's and no directory's.
var endings = map[string][]string{KindRules: {".yml", ".yaml"}, KindDashboard: {".json"}}

// PathIn is the path of a file, given that of a directory or of the file itself.
func PathIn(kind, given string) string {
	if st, err := os.Stat(given); err == nil && st.IsDir() {
		return filepath.Join(given, fileNames[kind])
	}
	for _, e := range endings[kind] {
		if filepath.Ext(given) == e {
			return given
		}
	}
	return filepath.Join(given, fileNames[kind])
}

// File is one file to place.
type File struct {
	Kind string // KindRules | KindDashboard
	Path string // absolute
	Data []byte
}

// Outcome is what became of a file, or would.
type Outcome struct {
	Kind   string `json:"kind"`
	Path   string `json:"path"`
	Action string `json:"action"` // created | updated | unchanged
}

// EditedError says that what is at a path is not what this program put there.
type EditedError struct {
	Kind string
	Path string
	Link bool // it is a symbolic link
}

func (e *EditedError) Error() string {
	what := "was changed since, or is not this program's"
	if e.Link {
		what = "is a symbolic link"
	}
	return fmt.Sprintf("%s %s; it is left alone, and nothing was written", e.Path, what)
}

// installed is what was placed: the SHA-256 of each file by path, so that one that
// people changed is told from one of an older version of this program.
type installed struct {
	Files map[string]string `json:"files"`
}

// Install places files and keeps, in the file named record, what they were. Files
// that hold what they should are not touched, and where one was changed by people
// the error is EditedError and nothing is written, unless force is set. With dryRun
// nothing is written either way. The caller holds the lock.
func Install(h *hostfs.Host, record string, files []File, force, dryRun bool) ([]Outcome, error) {
	known, err := readRecord(record)
	if err != nil {
		return nil, err
	}
	outcomes := []Outcome{}
	for _, f := range files {
		action, err := judge(f, known.Files[f.Path], force)
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, Outcome{Kind: f.Kind, Path: f.Path, Action: action})
	}
	if dryRun {
		return outcomes, nil
	}
	changed := false
	for i, f := range files {
		if outcomes[i].Action != "unchanged" {
			if err := h.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
				return nil, err
			}
			if err := h.WriteFile(f.Path, f.Data, 0o644); err != nil {
				return nil, err
			}
		}
		if sum := digest(f.Data); known.Files[f.Path] != sum {
			known.Files[f.Path], changed = sum, true
		}
	}
	if !changed {
		return outcomes, nil
	}
	data, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := h.MkdirAll(filepath.Dir(record), 0o755); err != nil {
		return nil, err
	}
	return outcomes, h.WriteFile(record, append(data, '\n'), 0o644)
}

// judge says what is to be done with a file that was once placed with a digest.
func judge(f File, placed string, force bool) (string, error) {
	st, err := os.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "created", nil
	case err != nil:
		return "", err
	case st.IsDir():
		return "", fmt.Errorf("%s is a directory, want a file", f.Path)
	case !st.Mode().IsRegular() && !force:
		return "", &EditedError{Kind: f.Kind, Path: f.Path, Link: st.Mode()&fs.ModeSymlink != 0}
	case !st.Mode().IsRegular():
		return "updated", nil
	}
	have, err := os.ReadFile(f.Path)
	switch {
	case err != nil:
		return "", err
	case bytes.Equal(have, f.Data):
		return "unchanged", nil
	case digest(have) != placed && !force:
		return "", &EditedError{Kind: f.Kind, Path: f.Path}
	}
	return "updated", nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func readRecord(path string) (installed, error) {
	known := installed{Files: map[string]string{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil {
		return known, fmt.Errorf("%s, which says what was installed: %w; without it (mv %s %s.old) files that differ are taken for changed ones", path, err, path, path)
	}
	if known.Files == nil {
		known.Files = map[string]string{}
	}
	return known, nil
}
