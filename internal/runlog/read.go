package runlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// maxLog bounds what is read of one log.
const maxLog = 32 << 20

// Record is one run as it was logged.
type Record struct {
	ID     string          `json:"id"`
	Header run.Header      `json:"run"`
	Plan   json.RawMessage `json:"plan"`   // null where none was logged
	Steps  []Step          `json:"steps"`  // in the order they began
	Result *run.Result     `json:"result"` // nil while the run goes on, and after one that was cut off
	// Recoveries are the moments when recovery of the run began.
	Recoveries []time.Time `json:"recoveries,omitempty"`
}

// Step is one step of a run with its timing.
type Step struct {
	Component string     `json:"component"`
	Instance  string     `json:"instance,omitempty"`
	Step      run.Step   `json:"step"`
	Began     time.Time  `json:"began"`
	Ended     *time.Time `json:"ended"` // nil: it goes on, or was cut off
	Seconds   float64    `json:"seconds"`
	Detail    string     `json:"detail"`           // what was done; while it goes on, how far it is
	Reason    string     `json:"reason,omitempty"` // of an undo: why
	Error     string     `json:"error"`
}

// Ended reports whether the run has come to an end, good or bad.
func (r *Record) Ended() bool { return r.Result != nil }

// NotFoundError says that nothing is recorded of a run.
type NotFoundError struct {
	ID string // as it was asked for: an id, the number of a row of the history, or "last"
	// Asked is what the audit log has of that id: of a run that was refused, or had
	// nothing to do, nothing else is kept. Of two in one second both are here.
	Asked []audit.Entry
}

func (e *NotFoundError) Error() string {
	switch _, err := strconv.ParseInt(e.ID, 10, 64); {
	case e.ID == "last":
		return "no run is recorded yet"
	case err == nil:
		return fmt.Sprintf("the history has no row %s", e.ID)
	case !backup.IsStamp(e.ID):
		return fmt.Sprintf("%q is neither a run, such as 20261125_120000, nor the number of a row of the history, nor \"last\"", e.ID)
	}
	if len(e.Asked) == 0 {
		return fmt.Sprintf("no run %q is recorded", e.ID)
	}
	msg := fmt.Sprintf("run %s has no records: it was refused or had nothing to do, unless they were removed since; the audit log has of it:", e.ID)
	for _, a := range e.Asked {
		msg += fmt.Sprintf("\n  %s, %s: %s, exit code %d", a.Time.UTC().Format(time.DateTime), a.User, strings.TrimSpace(strings.Join(a.Args, " ")), a.ExitCode)
		if a.Detail != "" {
			msg += ": " + a.Detail
		}
	}
	return msg
}

// IDs lists the runs that are recorded, newest first.
func IDs(root layout.Root) ([]string, error) { return run.IDs(root) }

// Read reads what is recorded of a run; NotFoundError where nothing is. The
// result is that of result.json, which was synced, where there is one.
func Read(root layout.Root, id string) (*Record, error) {
	if !backup.IsStamp(id) {
		return nil, &NotFoundError{ID: id}
	}
	data, err := readFile(file(root, id))
	logged := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the log of run %s: %w", id, err)
	}
	r, err := decode(id, data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file(root, id), err)
	}
	res, err := run.ReadResult(root, id)
	switch {
	case err == nil:
		if r.Result == nil || r.Result.Status == res.Status {
			warnings := res.Warnings
			if r.Result != nil {
				warnings = r.Result.Warnings // told after result.json was written, some of them
			}
			r.Result = res
			r.Result.Warnings = warnings
		}
		r.fill(*res)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read the result of run %s: %w", id, err)
	case !logged:
		return nil, &NotFoundError{ID: id}
	}
	return r, nil
}

// fill takes from the result what a run without a log, such as one of an older
// program, says of itself.
func (r *Record) fill(res run.Result) {
	if r.Header.ID != "" {
		return
	}
	r.Header = run.Header{ID: res.ID, Operation: res.Operation, Trigger: res.Trigger, StartedAt: res.StartedAt, BackupPath: res.BackupPath}
	for _, o := range res.Components {
		r.Header.Components = append(r.Header.Components, run.Planned{Name: o.Name, Instance: o.Instance, From: o.From.String(), To: o.To.String()})
	}
}

func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", filepath.Base(path))
	}
	if st.Size() > maxLog {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", filepath.Base(path), st.Size(), maxLog)
	}
	return os.ReadFile(path)
}

// decode reads the lines of a log. A last line without an end was cut off by a
// crash and is dropped; so is a line before a later one that cannot be read, as
// zeros that a power cut left, since nothing depends on it.
func decode(id string, data []byte) (*Record, error) {
	r := &Record{ID: id, Steps: []Step{}}
	good, bad := 0, error(nil)
	for n, rest := 1, data; len(rest) > 0; n++ {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		rest = after
		if !ended {
			break
		}
		line = bytes.Trim(line, "\x00")
		if len(line) == 0 {
			continue
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			if bad == nil {
				bad = fmt.Errorf("line %d: %w", n, err)
			}
			continue
		}
		good++
		r.add(e)
	}
	if good == 0 && bad != nil {
		return nil, bad // it is no log at all
	}
	return r, nil
}

// add takes in one line and returns the step that it is of; -1 for the begin and
// the end of the run.
func (r *Record) add(e Entry) int {
	switch e.Step {
	case run.StepBegin:
		if e.Begin == nil {
			return -1
		}
		if r.Header.ID == "" {
			r.Header = *e.Begin
			r.Plan = e.Plan
			return -1
		}
		r.Recoveries = append(r.Recoveries, e.Time)
		r.Result = nil
		return -1
	case run.StepEnd:
		r.Result = e.Result
		return -1
	}
	if at := r.open(e); at >= 0 {
		s := &r.Steps[at]
		if e.Detail != "" {
			s.Detail = e.Detail
		}
		s.Error = e.Error
		if e.Done {
			s.Ended = &e.Time
			s.Seconds = seconds(e.Time.Sub(s.Began))
		}
		return at
	}
	s := Step{Component: e.Component, Instance: e.Instance, Step: e.Step, Began: e.Time, Detail: e.Detail, Reason: e.Reason, Error: e.Error}
	if e.Done {
		s.Ended = &e.Time
	}
	r.Steps = append(r.Steps, s)
	return len(r.Steps) - 1
}

// open is the step that an event goes on with; -1 for none. A step that the end
// of the program cut off is not gone on with by the recovery after it.
func (r *Record) open(e Entry) int {
	for i := len(r.Steps) - 1; i >= 0; i-- {
		s := &r.Steps[i]
		if s.Ended != nil || s.Step != e.Step || s.Component != e.Component || s.Instance != e.Instance {
			continue
		}
		if n := len(r.Recoveries); n > 0 && s.Began.Before(r.Recoveries[n-1]) {
			return -1
		}
		return i
	}
	return -1
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond)) / float64(time.Second)
}
