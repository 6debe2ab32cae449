package runlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// The statuses of a run besides those of its result. A run that was cut off and
// is not recovered yet has run.StatusInterrupted, and is open.
const (
	StatusRunning = "running"
	StatusUnknown = "unknown" // it is over, and nothing says how it ended
)

// What a component of a run that has not ended may be besides what it may be in a
// result.
const (
	AtWork  = "at_work"
	CutOff  = "cut_off" // as AtWork, of a run that was cut off
	Waiting = "waiting"
)

// What is kept of a run.
const (
	KeptAll     = "all"
	KeptResult  = "result"  // no steps and no plan, as of a run of an older program
	KeptJournal = "journal" // only that: so much as its header and its end
	KeptRow     = "row"     // only rows of the history: the rest was removed
)

// Details is all that is known of one run. It is the document of `history show`.
type Details struct {
	ID        string        `json:"id"` // "" of a row of another program
	Operation run.Operation `json:"operation"`
	Trigger   string        `json:"triggered_by"`
	Status    string        `json:"status"`
	// Open: the run's journal is; the run is at work, or recovery has something to do.
	Open       bool          `json:"open"`
	Kept       string        `json:"kept"`
	StartedAt  time.Time     `json:"started_at"`
	EndedAt    *time.Time    `json:"ended_at"`         // nil: it has not ended, or nobody knows
	Duration   float64       `json:"duration_seconds"` // so far, while it is at work
	PID        int           `json:"pid"`              // 0: not known
	Program    string        `json:"program"`          // build of the program; "" not known
	Audit      []audit.Entry `json:"audit"`            // who called for it; none while it is at work
	Target     string        `json:"target,omitempty"` // of a rollback: the backup point it went back to
	Components []Component   `json:"components"`
	Warnings   []string      `json:"warnings"`
	Evidence   []Evidence    `json:"evidence"`
	Steps      []TimedStep   `json:"steps"` // in the order they began
	Recoveries []time.Time   `json:"recoveries"`
	Held       []plan.Held   `json:"held"` // what the plan left where it was, and why
	// Checks are the pre-flight checks of the plan.
	Checks []component.Check `json:"checks"`
	Backup *Backup           `json:"backup"` // nil: it took none
	// Notified says whether a notification went out; nil: none was tried.
	Notified *bool    `json:"notification_sent"`
	Problems []string `json:"problems"` // what could not be read, and why

	auditUnread bool
}

// AuditUnread reports whether the audit log may hold more than could be read.
func (d *Details) AuditUnread() bool { return d.auditUnread }

// Component is one component of a run, or one instance of it.
type Component struct {
	Name     string  `json:"name"`
	Instance string  `json:"instance,omitempty"`
	From     string  `json:"from"`
	To       string  `json:"to"`
	Status   string  `json:"status"`
	Error    string  `json:"error"`
	Downtime float64 `json:"downtime_seconds"`
	Duration float64 `json:"duration_seconds"`
	Healthy  bool    `json:"healthy"`
	Evidence string  `json:"evidence,omitempty"`
	Row      int64   `json:"row,omitempty"` // its number in the history
	// RolledBackAt is when a later run took back what this one did.
	RolledBackAt *time.Time `json:"rolled_back_at,omitempty"`
}

// TimedStep is a step with its place in the run.
type TimedStep struct {
	Step
	Offset float64 `json:"offset_seconds"` // from the start of the run
}

// Backup is the backup point of a run.
type Backup struct {
	Path  string `json:"path"`
	State string `json:"state"` // complete | incomplete | removed | not_taken | unknown
}

// Show gathers all that is known of a run: by its id, by the number of a row of
// the history, or of the newest by "last". It needs no rights beyond reading, and
// of what it may not read it tells in Problems. A run that nothing is known of is
// a NotFoundError.
func Show(ctx context.Context, root layout.Root, ref string, now time.Time) (*Details, error) {
	id, rows, dbErr, err := find(ctx, root, ref)
	if err != nil {
		return nil, err
	}
	d := &Details{
		ID: id, Audit: []audit.Entry{}, Components: []Component{}, Warnings: []string{}, Evidence: []Evidence{}, Steps: []TimedStep{},
		Recoveries: []time.Time{}, Held: []plan.Held{}, Checks: []component.Check{}, Problems: []string{},
	}
	d.problem("history", dbErr)
	rec := d.read(root)
	if rec == nil && len(rows) == 0 {
		missing := &NotFoundError{ID: ref}
		if at, ok := backup.StampTime(id); ok {
			missing.Asked, _ = audit.Find(root.Audit(), id, at) // what cannot be read tells nothing
		}
		return nil, missing
	}
	if rec != nil {
		d.fill(root, rec, now)
	} else {
		d.fillFromRows(rows)
	}
	d.addRows(rows)
	if id != "" {
		d.Audit, err = audit.Find(root.Audit(), id, d.StartedAt)
		d.problem("who called for it", err)
		d.auditUnread = err != nil
		if d.Audit == nil {
			d.Audit = []audit.Entry{}
		}
	}
	d.addBackup(root)
	d.addEvidence(root)
	return d, ctx.Err()
}

func (d *Details) problem(what string, err error) {
	if err != nil {
		d.Problems = append(d.Problems, fmt.Sprintf("%s: %v", what, err))
	}
}

// find finds the run that a person means and its rows in the history. dbErr is why
// that could not be read.
func find(ctx context.Context, root layout.Root, ref string) (id string, rows []history.Upgrade, dbErr, err error) {
	dbErr = history.Look(ctx, root.History(), func(db *history.DB) error {
		if id, rows, err = resolve(ctx, root, db, nil, ref); err != nil || id == "" {
			return nil
		}
		var listErr error
		rows, listErr = db.List(ctx, history.Filter{RunID: id})
		return listErr
	})
	if dbErr != nil {
		id, rows, err = resolve(ctx, root, nil, dbErr, ref)
	}
	return id, rows, dbErr, err
}

// resolve finds the run that a person means; a row of another program has no run,
// and comes as it is.
func resolve(ctx context.Context, root layout.Root, db *history.DB, dbErr error, ref string) (id string, rows []history.Upgrade, err error) {
	if ref == "last" {
		ids, err := run.IDs(root)
		if err != nil {
			return "", nil, err
		}
		if dbErr == nil {
			if rows, err = db.List(ctx, history.Filter{Limit: 1}); err != nil {
				return "", nil, err
			}
		}
		if len(rows) > 0 && (len(ids) == 0 || backup.IsStamp(rows[0].RunID) && backup.CompareStamps(rows[0].RunID, ids[0]) > 0) {
			return rows[0].RunID, rows, nil
		}
		if len(ids) == 0 {
			return "", nil, &NotFoundError{ID: ref}
		}
		return ids[0], nil, nil
	}
	number, err := strconv.ParseInt(ref, 10, 64)
	if err != nil || number < 1 {
		return ref, nil, nil
	}
	if dbErr != nil {
		return "", nil, dbErr
	}
	if rows, err = db.List(ctx, history.Filter{ID: number}); err != nil {
		return "", nil, err
	}
	if len(rows) == 0 {
		return "", nil, &NotFoundError{ID: ref}
	}
	return rows[0].RunID, rows, nil
}

// read reads what is kept of the run, as much as can be read; nil where nothing
// is.
func (d *Details) read(root layout.Root) *Record {
	rec, err := Read(root, d.ID)
	var missing *NotFoundError
	switch {
	case err == nil:
		d.Kept = KeptAll
		if len(rec.Steps) == 0 && len(rec.Plan) == 0 && rec.Ended() {
			d.Kept = KeptResult
		}
		return rec
	case errors.As(err, &missing):
	default:
		d.problem("log", err)
		if res, err := run.ReadResult(root, d.ID); err == nil {
			d.Kept = KeptResult
			rec = &Record{ID: d.ID, Result: res}
			rec.fill(*res)
			return rec
		}
	}
	rec, err = fromJournal(root, d.ID)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.problem("journal", err)
		}
		return nil
	}
	d.Kept = KeptJournal
	return rec
}

// fill takes over what a record says.
func (d *Details) fill(root layout.Root, r *Record, now time.Time) {
	h := r.Header
	d.Operation, d.Trigger, d.StartedAt, d.PID, d.Program = h.Operation, h.Trigger, h.StartedAt, h.PID, h.ProgramBuild
	if d.StartedAt.IsZero() { // the log lost its beginning
		d.StartedAt, _ = time.Parse(backup.StampLayout, d.ID[:len(backup.StampLayout)])
	}
	d.Recoveries = append(d.Recoveries, r.Recoveries...)
	for _, s := range r.Steps {
		d.Steps = append(d.Steps, TimedStep{Step: s, Offset: seconds(s.Began.Sub(d.StartedAt))})
	}
	d.fillPlan(r.Plan)
	_, err := os.Lstat(journalFile(root, d.ID))
	d.Open = err == nil
	if d.Operation != run.Restart && h.BackupPath != "" {
		d.Backup = &Backup{Path: h.BackupPath}
	}
	if r.Ended() {
		d.fillResult(*r.Result)
		return
	}
	_, held := lock.Holder(root.Lock())
	switch {
	case !d.Open:
		d.Status = StatusUnknown
	case held:
		d.Status, d.Duration = StatusRunning, seconds(now.Sub(d.StartedAt))
	default:
		d.Status = run.StatusInterrupted
	}
	d.Components = progress(h, r.Steps, d.Status)
	if d.Kept == KeptJournal {
		for i := range d.Components {
			d.Components[i].Status = StatusUnknown
		}
	}
}

func (d *Details) fillResult(res run.Result) {
	end := d.StartedAt.Add(time.Duration(res.Duration * float64(time.Second)))
	d.Status, d.EndedAt, d.Duration = res.Status, &end, res.Duration
	d.Warnings = append(d.Warnings, res.Warnings...)
	if res.BackupPath == "" {
		d.Backup = nil
	}
	for _, o := range res.Components {
		d.Components = append(d.Components, Component{
			Name: o.Name, Instance: o.Instance, From: o.From.String(), To: o.To.String(), Status: string(o.Status), Error: o.Error,
			Downtime: o.Downtime, Duration: o.Duration, Healthy: o.Healthy, Evidence: o.Evidence,
		})
	}
}

// fillPlan takes over what there is to know of the plan, or of what a rollback
// went back to.
func (d *Details) fillPlan(raw json.RawMessage) {
	if len(raw) == 0 {
		return
	}
	var doc struct {
		Held     []plan.Held       `json:"held"`
		Checks   []component.Check `json:"checks"`
		Warnings []string          `json:"warnings"`
		Target   string            `json:"target"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		d.problem("plan", err)
		return
	}
	d.Held, d.Checks = append(d.Held, doc.Held...), append(d.Checks, doc.Checks...)
	d.Warnings, d.Target = append(d.Warnings, doc.Warnings...), doc.Target
}

// progress is how far the components of a run came that has not ended, as its
// steps tell. A component comes as often as the run has steps of it, through
// stepping stones; each begins with its place.
func progress(h run.Header, steps []Step, status string) []Component {
	type set struct{ name, instance string }
	parts := map[set][][]Step{}
	var last set
	for _, s := range steps {
		if s.Component == "" {
			continue
		}
		at := set{s.Component, s.Instance}
		last = at
		if n := len(parts[at]); n == 0 || s.Step == run.StepPlace {
			parts[at] = append(parts[at], []Step{s})
		} else {
			parts[at][n-1] = append(parts[at][n-1], s)
		}
	}
	out := []Component{}
	seen := map[set]int{}
	for _, p := range h.Components {
		at := set{p.Name, p.Instance}
		n := seen[at]
		seen[at]++
		c := Component{Name: p.Name, Instance: p.Instance, From: p.From, To: p.To, Status: Waiting}
		switch {
		case n >= len(parts[at]):
		case at == last && n == len(parts[at])-1 && status == StatusRunning:
			c.Status = AtWork
		case at == last && n == len(parts[at])-1:
			c.Status = CutOff
		default:
			c.Status, c.Error = outcome(h.Operation, parts[at][n])
		}
		out = append(out, c)
	}
	return out
}

// outcome is what steps say of a change that is over.
func outcome(op run.Operation, steps []Step) (status, failure string) {
	undone := false
	for _, s := range steps {
		undone = undone || s.Step == run.StepUndo
		if failure == "" {
			failure = s.Error
		}
	}
	switch {
	case undone && op == run.Rollback:
		return string(run.RollbackFailed), failure
	case undone:
		return string(run.RolledBack), failure
	case failure != "":
		return string(run.Failed), failure
	case op == run.Rollback:
		return string(run.RolledBack), ""
	}
	return string(run.Upgraded), ""
}

// fillFromRows takes over what the history says of a run that nothing else is
// kept of.
func (d *Details) fillFromRows(rows []history.Upgrade) {
	d.Kept, d.Operation = KeptRow, run.Apply
	d.Trigger, d.StartedAt = rows[0].TriggeredBy, rows[0].Timestamp
	d.Status = run.StatusSuccess
	words := map[string]run.ComponentStatus{history.Success: run.Upgraded, history.RolledBack: run.RolledBack, history.Failed: run.Failed}
	for _, r := range slices.Backward(rows) {
		status, known := words[r.Status]
		if !known {
			status = run.ComponentStatus(r.Status)
		}
		switch {
		case status == run.Failed || !known:
			d.Status = run.StatusFailed
		case status == run.RolledBack && d.Status == run.StatusSuccess:
			d.Status = run.StatusRolledBack
		}
		d.Components = append(d.Components, Component{
			Name: r.Component, From: r.OldVersion, To: r.NewVersion, Status: string(status), Error: r.ErrorMessage, Downtime: r.DowntimeSeconds,
			Duration: r.DurationSeconds, Healthy: r.HealthCheckPassed != nil && *r.HealthCheckPassed, Evidence: r.Evidence,
		})
		if r.BackupPath != "" {
			d.Backup = &Backup{Path: r.BackupPath}
		}
	}
}

// addRows says which rows of the history are of the run, and what became of them
// later.
func (d *Details) addRows(rows []history.Upgrade) {
	for _, r := range rows {
		if d.Notified == nil {
			d.Notified = r.NotificationSent
		}
		for i := range d.Components {
			c := &d.Components[i]
			if c.Name != r.Component || c.To != r.NewVersion {
				continue
			}
			c.Row = r.ID
			if r.Status == history.RolledBack && c.Status == string(run.Upgraded) {
				c.RolledBackAt = r.RollbackTimestamp
			}
		}
	}
}

// addBackup looks whether the backup point is still there.
func (d *Details) addBackup(root layout.Root) {
	if d.Backup == nil {
		return
	}
	p, err := backup.Open(root.Backups(), filepath.Base(d.Backup.Path))
	var missing *backup.NotFoundError
	switch {
	case errors.As(err, &missing):
		d.Backup.State = "removed"
		if d.Kept == KeptAll && !slices.ContainsFunc(d.Steps, func(s TimedStep) bool { return s.Step.Step == run.StepBackup && s.Ended != nil && s.Error == "" }) {
			d.Backup.State = "not_taken"
		}
	case err != nil:
		d.Backup.State = "unknown"
		d.problem("backup point", err)
	case p.Complete:
		d.Backup.State = "complete"
	default:
		d.Backup.State = "incomplete"
	}
}

// Going reports whether a step is at work: it has not ended, nor was it cut off.
func (d *Details) Going(s *TimedStep) bool {
	if s.Ended != nil || d.Status != StatusRunning {
		return false
	}
	n := len(d.Recoveries)
	return n == 0 || !s.Began.Before(d.Recoveries[n-1])
}
