// Package backup takes, lists, verifies and prunes backup points: directories
// that hold everything a rollback needs, so that it never needs the network.
//
//	TIMESTAMP/bin/NAME             binaries (or trees) as installed
//	TIMESTAMP/config/COMPONENT/    configuration
//	TIMESTAMP/systemd/             unit files and drop-ins
//	TIMESTAMP/state/versions.state the state file
//	TIMESTAMP/upgrade-plan.json    what the run was about to do
//	TIMESTAMP/manifest.json        which stored file came from where
//	TIMESTAMP/data/NAME/           what a component has collected, where that was asked for
//	TIMESTAMP/SHA256SUMS           written last: a point without it is not complete
//
// The marker that is written last is teleport-update's idea.
package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/custody"
)

const (
	sumsFile     = "SHA256SUMS"
	manifestFile = "manifest.json"
	planFile     = "upgrade-plan.json"
	// StampLayout is the form of a backup point's name, in UTC.
	StampLayout = "20060102_150405"
)

// Kind says what a stored item is.
type Kind string

// The kinds of item.
const (
	Binary Kind = "binary"
	Config Kind = "config"
	Unit   Kind = "unit"
)

// Item is one file or directory tree that a backup point holds.
type Item struct {
	Kind   Kind   `json:"kind"`
	Name   string `json:"name"`   // binary's name, or base name of the path
	Path   string `json:"path"`   // where it belongs on the host
	Stored string `json:"stored"` // where it lies, relative to the point
	Digest string `json:"digest"` // hostfs.Digest of the original
	Tree   bool   `json:"tree,omitempty"`
	Owners []int  `json:"owners,omitempty"` // users other than root who own files of it
}

// Component is what a point holds of one component.
type Component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Items   []Item `json:"items"`
	// Links are the paths of configuration and units that links lead away from, and
	// where to: the items have that only. Older points have none.
	Links map[string]string `json:"links,omitempty"`
}

// Manifest describes a point.
type Manifest struct {
	Format     int         `json:"format"`
	Timestamp  string      `json:"timestamp"`
	RunID      string      `json:"run_id"`
	Operation  string      `json:"operation"` // apply | rollback
	TakenAt    time.Time   `json:"taken_at"`
	Components []Component `json:"components"`
}

// Point is one backup point on disk.
type Point struct {
	Timestamp string
	Path      string
	Complete  bool  // its marker and its manifest are there; Verify proves the content
	Damage    error // why a point that was completed cannot be used; nil where it can, or never was
	Bytes     int64 // size of all its files; only List tells
	SizeErr   error // why Bytes is not all of it; nil where it is
	Manifest  Manifest
}

// Component returns what the point holds of a component.
func (p *Point) Component(name string) (Component, bool) {
	for _, c := range p.Manifest.Components {
		if c.Name == name {
			return c, true
		}
	}
	return Component{}, false
}

// File is the absolute path of a stored item.
func (p *Point) File(it Item) string { return filepath.Join(p.Path, it.Stored) }

// NotFoundError reports a timestamp without a backup point.
type NotFoundError struct {
	Timestamp string
	Dir       string
	Have      []string
}

func (e *NotFoundError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("no backup point %s: there are none in %s", e.Timestamp, e.Dir)
	}
	return fmt.Sprintf("no backup point %s in %s; there are %s", e.Timestamp, e.Dir, strings.Join(e.Have, ", "))
}

// DamagedError reports a backup point that must not be restored from.
type DamagedError struct {
	Path     string
	File     string
	Problem  string
	Expected string
	Found    string
}

func (e *DamagedError) Error() string {
	msg := fmt.Sprintf("backup %s is damaged: %s: %s", filepath.Base(e.Path), e.File, e.Problem)
	if e.Expected != "" {
		msg += fmt.Sprintf(" (sha256 expected %s, found %s)", e.Expected, e.Found)
	}
	return msg
}

// StateFile is where the point keeps the state file as it was, if there was one.
func (p *Point) StateFile() string { return stateFile(p.Path) }

func stateFile(point string) string { return filepath.Join(point, "state", "versions.state") }

// List returns the points below dir, newest first, with their sizes. What cannot be
// read of one does not hide the others.
func List(dir string) ([]*Point, error) {
	stamps, err := stamps(dir)
	if err != nil {
		return nil, err
	}
	var points []*Point
	for _, stamp := range stamps {
		p := load(filepath.Join(dir, stamp))
		p.measure()
		points = append(points, p)
	}
	return points, nil
}

// stamps names the points below dir, newest first.
func stamps(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && IsStamp(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return CompareStamps(b, a) })
	return names, nil
}

// Open returns the point of a timestamp. It looks at no other: a recovery must not
// depend on what became of an older one.
func Open(dir, timestamp string) (*Point, error) {
	have, err := stamps(dir)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(have, timestamp) {
		if path := filepath.Join(dir, timestamp); IsStamp(timestamp) {
			if err := custody.Dir(path); err != nil { // it is there, and a link or a file
				return nil, err
			}
		}
		return nil, &NotFoundError{Timestamp: timestamp, Dir: dir, Have: have}
	}
	return load(filepath.Join(dir, timestamp)), nil
}

// load reads what can be read of a point. One without a marker was never completed,
// or is being removed; one whose marker cannot be looked for may have one.
func load(path string) *Point {
	p := &Point{Timestamp: filepath.Base(path), Path: path}
	damaged := func(file string, err error) {
		if p.Damage == nil {
			p.Damage = &DamagedError{Path: path, File: file, Problem: "cannot be read: " + err.Error()}
		}
	}
	_, err := os.Lstat(filepath.Join(path, sumsFile))
	unmarked := errors.Is(err, fs.ErrNotExist)
	if err != nil && !unmarked {
		damaged(sumsFile, err)
	}
	data, err := os.ReadFile(filepath.Join(path, manifestFile))
	if err == nil {
		err = json.Unmarshal(data, &p.Manifest)
	}
	if err != nil && !unmarked {
		damaged(manifestFile, err)
		p.Manifest = Manifest{}
	}
	p.Complete = !unmarked && p.Damage == nil
	return p
}

// measure sums up the sizes of all files of a point that can be reached.
func (p *Point) measure() {
	lost := func(err error) {
		if p.SizeErr == nil {
			p.SizeErr = fmt.Errorf("backup %s: its size is not known: %w", p.Timestamp, err)
		}
	}
	_ = filepath.WalkDir(p.Path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			lost(err)
			return nil
		}
		switch info, err := d.Info(); {
		case err != nil:
			lost(err)
		case info.Mode().IsRegular():
			p.Bytes += info.Size()
		}
		return nil
	})
}

// StampTime is the second that a point's name tells; ok is false for what is no
// such name.
func StampTime(name string) (at time.Time, ok bool) {
	if !IsStamp(name) {
		return time.Time{}, false
	}
	at, err := time.Parse(StampLayout, name[:len(StampLayout)])
	return at, err == nil
}

// IsStamp reports whether a name is that of a point, or of a run: YYYYMMDD_HHMMSS
// or, where several fell into one second, YYYYMMDD_HHMMSS_2 and up.
func IsStamp(name string) bool {
	if len(name) < len(StampLayout) {
		return false
	}
	if _, err := time.Parse(StampLayout, name[:len(StampLayout)]); err != nil {
		return false
	}
	rest := name[len(StampLayout):]
	if rest == "" {
		return true
	}
	return len(rest) > 1 && rest[0] == '_' && strings.Trim(rest[1:], "0123456789") == ""
}

// splitStamp takes a name that IsStamp accepts apart: its second, and which of
// that second it is, from 1.
func splitStamp(name string) (stamp string, n int) {
	stamp, rest := name[:len(StampLayout)], name[len(StampLayout):]
	if n, err := strconv.Atoi(strings.TrimPrefix(rest, "_")); err == nil {
		return stamp, n
	}
	return stamp, 1
}

// Before reports whether a point was taken before another, by their names. What
// is no point's name comes before every point.
func Before(a, b string) bool {
	if !IsStamp(a) || !IsStamp(b) {
		return IsStamp(b) && !IsStamp(a)
	}
	return CompareStamps(a, b) < 0
}

// CompareStamps sorts names that IsStamp accepts by time; of one second, _10
// comes after _9.
func CompareStamps(a, b string) int {
	n := len(StampLayout)
	return cmp.Or(cmp.Compare(a[:n], b[:n]), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
