package runlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// LastLogLines is how many lines of a unit's log a digest of evidence has.
const LastLogLines = 10

// Evidence is a digest of what was found of a component before it was rolled
// back; the file has the rest.
type Evidence struct {
	Component string            `json:"component"`
	Instance  string            `json:"instance,omitempty"` // of several
	Path      string            `json:"path"`
	State     string            `json:"state"`             // kept | removed | unreadable
	Problem   string            `json:"problem,omitempty"` // why it is unreadable
	TakenAt   *time.Time        `json:"taken_at"`
	Reason    string            `json:"reason"`
	Unit      *Unit             `json:"unit"` // nil: it has none, or nothing is known
	Failing   []component.Check `json:"failing_checks"`
	Answer    string            `json:"readiness_answer"`
	Logs      []LogLine         `json:"logs"`    // the last, oldest first
	Missing   []string          `json:"missing"` // what could not be had, and why
}

// Unit is the state of a service when evidence was taken.
type Unit struct {
	Active   bool   `json:"active"`
	SubState string `json:"sub_state"` // the service manager's word
	Result   string `json:"result"`    // how it ended
	PID      int    `json:"pid"`       // 0: no process of it ran
	Restarts int    `json:"restarts"`  // that nobody asked for
}

// LogLine is a line that a service logged.
type LogLine struct {
	Time     *time.Time `json:"time"`     // nil: not known
	Priority int        `json:"priority"` // syslog's 0 to 7; -1 not known
	Message  string     `json:"message"`
}

// addEvidence digests the files of evidence that components name, and those that
// lie there besides, as of a run that was cut off.
func (d *Details) addEvidence(root layout.Root) {
	dir := filepath.Join(root.RunsDir(), d.ID, "evidence")
	var paths []string // as they were recorded
	for _, c := range d.Components {
		if c.Evidence != "" && !slices.Contains(paths, c.Evidence) {
			paths = append(paths, c.Evidence)
		}
	}
	ours := backup.IsStamp(d.ID)
	if ours {
		entries, err := os.ReadDir(dir)
		if !errors.Is(err, fs.ErrNotExist) {
			d.problem("evidence", err)
		}
		for _, e := range entries {
			named := func(path string) bool { return filepath.Base(path) == e.Name() }
			if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") && !slices.ContainsFunc(paths, named) {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	for _, path := range paths {
		// A root that was copied elsewhere has its files below itself.
		if here := filepath.Join(dir, filepath.Base(path)); ours && exists(here) {
			path = here
		}
		d.Evidence = append(d.Evidence, readEvidence(path))
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// readEvidence digests one file.
func readEvidence(path string) Evidence {
	data, err := readFile(path)
	if err == nil {
		var e Evidence
		if e, err = digest(data); err == nil {
			e.Path, e.State = path, "kept"
			return e
		}
	}
	e := Evidence{Path: path, State: "unreadable", Component: strings.TrimSuffix(filepath.Base(path), ".json")}
	if set, err := url.PathUnescape(e.Component); err == nil {
		e.Component, e.Instance, _ = strings.Cut(set, "@")
	}
	e.Failing, e.Logs, e.Missing = []component.Check{}, []LogLine{}, []string{}
	if errors.Is(err, fs.ErrNotExist) {
		e.State = "removed"
		return e
	}
	e.Problem = err.Error()
	return e
}

// digest takes from evidence what a person looks at first.
func digest(data []byte) (Evidence, error) {
	var ev run.Evidence
	if err := json.Unmarshal(data, &ev); err != nil {
		return Evidence{}, fmt.Errorf("it is no evidence: %w", err)
	}
	e := Evidence{
		Component: ev.Component, Instance: ev.Instance, TakenAt: known(ev.TakenAt), Reason: ev.Reason, Answer: ev.Readiness,
		Failing: []component.Check{}, Logs: []LogLine{}, Missing: append([]string{}, ev.Missing...),
	}
	if s := ev.Status; s.Exists {
		e.Unit = &Unit{Active: s.Active, SubState: s.SubState, Result: s.Result, PID: s.MainPID, Restarts: s.Restarts}
	}
	for _, c := range ev.Report.Checks {
		if c.Status == component.CheckFail || c.Status == component.CheckWarn {
			e.Failing = append(e.Failing, c)
		}
	}
	logs := failedLogs(ev)
	for _, l := range logs[max(0, len(logs)-LastLogLines):] {
		e.Logs = append(e.Logs, logLine(l))
	}
	return e, nil
}

// failedLogs leaves out what a process says that its manager started after one failed:
// that one's last words are what tells why.
func failedLogs(ev run.Evidence) []service.LogLine {
	if ev.Status.Restarts > 0 && ev.Status.Active {
		i := slices.IndexFunc(ev.Logs, func(l service.LogLine) bool { return !l.Time.Before(ev.Status.StartedAt) })
		if i > 0 {
			return ev.Logs[:i]
		}
	}
	return ev.Logs
}

func logLine(l service.LogLine) LogLine {
	return LogLine{Time: known(l.Time), Priority: l.Priority, Message: l.Message}
}

// known is nil for a time that is not known.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
