// Package history keeps the upgrade history in SQLite, in the schema of the
// specification (section 7) with columns of this program's own. Times are stored
// as UTC text, so that they sort and the sqlite3 program prints them readably.
package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The statuses of an upgrade.
const (
	Success    = "success"
	Failed     = "failed"
	RolledBack = "rolled_back"
)

const timeLayout = "2006-01-02T15:04:05Z"

// ErrReadOnly is returned by methods that change a history opened for reading.
var ErrReadOnly = errors.New("the history was opened for reading only")

// Upgrade is one row. In JSON it is what `history --output json` prints.
type Upgrade struct {
	ID                int64         `json:"id"`
	Timestamp         time.Time     `json:"timestamp"` // the run's start
	RunID             string        `json:"run_id"`
	Component         string        `json:"component"`
	OldVersion        string        `json:"old_version"`
	NewVersion        string        `json:"new_version"`
	Status            string        `json:"status"` // success | failed | rolled_back
	ErrorMessage      string        `json:"error_message"`
	Duration          time.Duration `json:"-"`
	Downtime          time.Duration `json:"-"`
	DurationSeconds   float64       `json:"duration_seconds"` // Duration, filled in by reading
	DowntimeSeconds   float64       `json:"downtime_seconds"` // Downtime, filled in by reading
	TriggeredBy       string        `json:"triggered_by"`     // manual | auto | scheduled
	BackupPath        string        `json:"backup_path"`
	RollbackTimestamp *time.Time    `json:"rollback_timestamp"`
	HealthCheckPassed *bool         `json:"health_check_passed"` // nil: none was made
	NotificationSent  *bool         `json:"notification_sent"`   // nil: none was tried
	Evidence          string        `json:"evidence_path"`
	RolledBackBy      string        `json:"rolled_back_by,omitempty"` // run of the rollback by hand; "" for none
}

// Undone reports whether the upgrade had succeeded and a person took it back
// later.
func (u Upgrade) Undone() bool { return u.Status == RolledBack && u.ErrorMessage == "" }

func (u Upgrade) validate() error {
	switch {
	case u.Timestamp.IsZero():
		return errors.New("history: an upgrade without a timestamp")
	case u.RunID == "" || u.Component == "" || u.NewVersion == "":
		return fmt.Errorf("history: an upgrade needs run, component and new version, got %q, %q and %q", u.RunID, u.Component, u.NewVersion)
	case !slices.Contains([]string{Success, Failed, RolledBack}, u.Status):
		return fmt.Errorf("history: %s: status %q, want success, failed or rolled_back", u.Component, u.Status)
	case !slices.Contains([]string{"manual", "auto", "scheduled"}, u.TriggeredBy):
		return fmt.Errorf("history: %s: triggered by %q, want manual, auto or scheduled", u.Component, u.TriggeredBy)
	}
	return nil
}

// Record writes a row and tells its id. A row of the same run, component and
// new version is updated instead, so that writing twice is writing once; a
// notification_sent that is set stays where the new value is nil.
func (d *DB) Record(ctx context.Context, u Upgrade) (id int64, err error) {
	if !d.writable {
		return 0, ErrReadOnly
	}
	if err := u.validate(); err != nil {
		return 0, err
	}
	err = d.sql.QueryRowContext(ctx, `
INSERT INTO upgrades (timestamp, run_id, kind, component, old_version, new_version, status, error_message, duration_seconds,
  duration_exact, downtime_seconds, triggered_by, backup_path, rollback_timestamp, health_check_passed, notification_sent, evidence_path)
VALUES (?,?,'upgrade',?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT(run_id, component, new_version) DO UPDATE SET timestamp=excluded.timestamp, old_version=excluded.old_version,
  status=excluded.status, error_message=excluded.error_message, duration_seconds=excluded.duration_seconds,
  duration_exact=excluded.duration_exact, downtime_seconds=excluded.downtime_seconds, triggered_by=excluded.triggered_by,
  backup_path=excluded.backup_path, rollback_timestamp=excluded.rollback_timestamp, health_check_passed=excluded.health_check_passed,
  notification_sent=COALESCE(excluded.notification_sent, notification_sent), evidence_path=excluded.evidence_path
RETURNING id`,
		text(u.Timestamp), u.RunID, u.Component, null(u.OldVersion), u.NewVersion, u.Status, null(u.ErrorMessage),
		int64(math.Round(u.Duration.Seconds())), u.Duration.Seconds(), u.Downtime.Seconds(), u.TriggeredBy, null(u.BackupPath),
		nullTime(u.RollbackTimestamp), u.HealthCheckPassed, u.NotificationSent, null(u.Evidence)).Scan(&id)
	if err != nil {
		return 0, d.explain(fmt.Errorf("record the upgrade of %s: %w", u.Component, err))
	}
	return id, nil
}

// Mark is a row that a rollback by hand took back: by which run, and when.
type Mark struct {
	ID int64     `json:"id"`
	By string    `json:"by"`
	At time.Time `json:"at"`
}

// MarkRolledBack marks rows as rolled back. A row that is marked already keeps
// its first mark, and an id that is not there is no error: the database may have
// been moved aside since the id was noted.
func (d *DB) MarkRolledBack(ctx context.Context, marks []Mark) error {
	return d.mark(ctx, marks, func(m Mark) (string, []any) {
		return `UPDATE upgrades SET status = 'rolled_back', rollback_timestamp = ?, rolled_back_by = ? WHERE id = ? AND status <> 'rolled_back'`,
			[]any{text(m.At), m.By, m.ID}
	})
}

// MarkInForce takes marks of MarkRolledBack back, as the rollback that made them
// was itself undone: the upgrades are successes again. A row that does not bear
// the mark is left as it is.
func (d *DB) MarkInForce(ctx context.Context, marks []Mark) error {
	return d.mark(ctx, marks, func(m Mark) (string, []any) {
		return `UPDATE upgrades SET status = 'success', rollback_timestamp = NULL, rolled_back_by = NULL WHERE id = ? AND status = 'rolled_back' AND rolled_back_by = ?`,
			[]any{m.ID, m.By}
	})
}

func (d *DB) mark(ctx context.Context, marks []Mark, statement func(Mark) (string, []any)) error {
	if !d.writable {
		return ErrReadOnly
	}
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return d.explain(fmt.Errorf("mark upgrades: %w", err))
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	for _, m := range marks {
		q, args := statement(m)
		if _, err := tx.ExecContext(ctx, q, args...); err != nil {
			return d.explain(fmt.Errorf("mark upgrade %d, rolled back by run %s: %w", m.ID, m.By, err))
		}
	}
	return d.explain(tx.Commit())
}

// MarkNotified notes, on all rows of a run, whether its notification went out.
func (d *DB) MarkNotified(ctx context.Context, runID string, sent bool) error {
	if !d.writable {
		return ErrReadOnly
	}
	_, err := d.sql.ExecContext(ctx, `UPDATE upgrades SET notification_sent = ? WHERE run_id = ?`, sent, runID)
	if err != nil {
		return d.explain(fmt.Errorf("note the notification of run %s: %w", runID, err))
	}
	return nil
}

// Filter narrows what is read; zero fields match everything.
type Filter struct {
	ID         int64    // of a row
	Components []string // any of these
	Status     string
	RunID      string
	Trigger    string    // manual | auto | scheduled
	Since      time.Time // rows of this second and later
	Until      time.Time // rows of this second and earlier
	Limit      int       // of a list; 0 has none
	Offset     int       // of a list with a limit: so many of the newest are left out
}

// List returns rows, newest first.
func (d *DB) List(ctx context.Context, f Filter) ([]Upgrade, error) {
	if len(d.columns) == 0 {
		return nil, nil // there is no database, or no table in it
	}
	query, args := d.query(f)
	rows, err := d.sql.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, d.explain(fmt.Errorf("read the history: %w", err))
	}
	defer rows.Close()
	var out []Upgrade
	for rows.Next() {
		u, err := scan(rows)
		if err != nil {
			return nil, d.explain(fmt.Errorf("read the history: %w", err))
		}
		out = append(out, u)
	}
	if err := rows.Err(); err != nil {
		return nil, d.explain(fmt.Errorf("read the history: %w", err))
	}
	return out, nil
}

func (d *DB) query(f Filter) (string, []any) {
	cols := make([]string, 0, len(readColumns))
	for _, c := range readColumns {
		cols = append(cols, d.column(c.name, c.expr, c.missing))
	}
	where, args := d.where(f)
	const newest = " ORDER BY timestamp DESC, id DESC"
	if f.Limit <= 0 {
		return "SELECT " + strings.Join(cols, ", ") + " FROM upgrades" + where + newest, args
	}
	// Which rows is found in an index where there is one: of whole rows, all that
	// match would have to be read to sort them.
	q := "SELECT " + strings.Join(cols, ", ") + " FROM upgrades WHERE id IN (SELECT id FROM upgrades" + where + newest + " LIMIT ? OFFSET ?)" + newest
	return q, append(args, f.Limit, f.Offset)
}

// where is the condition of a filter, with a space before it; "" where all rows
// match.
func (d *DB) where(f Filter, more ...string) (string, []any) {
	var args []any
	for _, c := range []struct{ column, value string }{{"status", f.Status}, {"run_id", f.RunID}, {"triggered_by", f.Trigger}} {
		if c.value != "" {
			more, args = append(more, d.column(c.column, c.column, "NULL")+" = ?"), append(args, c.value)
		}
	}
	if f.ID != 0 {
		more, args = append(more, "id = ?"), append(args, f.ID)
	}
	if len(f.Components) > 0 {
		more = append(more, "component IN (?"+strings.Repeat(", ?", len(f.Components)-1)+")")
		for _, name := range f.Components {
			args = append(args, name)
		}
	}
	if !f.Since.IsZero() {
		more, args = append(more, "timestamp >= ?"), append(args, text(f.Since))
	}
	if !f.Until.IsZero() {
		more, args = append(more, "timestamp <= ?"), append(args, text(f.Until))
	}
	if len(more) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(more, " AND "), args
}

// readColumns are what scan expects, in its order. Casting keeps the driver from
// guessing at times.
var readColumns = []struct{ name, expr, missing string }{
	{"id", "id", ""},
	{"timestamp", "CAST(timestamp AS TEXT)", ""},
	{"run_id", "COALESCE(run_id, '')", "''"},
	{"component", "component", ""},
	{"old_version", "COALESCE(old_version, '')", ""},
	{"new_version", "new_version", ""},
	{"status", "status", ""},
	{"error_message", "COALESCE(error_message, '')", ""},
	{"duration_exact", "COALESCE(duration_exact, duration_seconds, 0)", "COALESCE(duration_seconds, 0)"},
	{"downtime_seconds", "COALESCE(downtime_seconds, 0)", "0"},
	{"triggered_by", "COALESCE(triggered_by, '')", ""},
	{"backup_path", "COALESCE(backup_path, '')", ""},
	{"rollback_timestamp", "COALESCE(CAST(rollback_timestamp AS TEXT), '')", ""},
	{"health_check_passed", "health_check_passed", ""},
	{"notification_sent", "notification_sent", ""},
	{"evidence_path", "COALESCE(evidence_path, '')", "''"},
	{"rolled_back_by", "COALESCE(rolled_back_by, '')", "''"},
}

// column is expr, or missing where the table lacks the column because it was
// made by another program and has not been migrated.
func (d *DB) column(name, expr, missing string) string {
	if d.columns[name] || missing == "" {
		return expr
	}
	return missing
}

func scan(rows *sql.Rows) (Upgrade, error) {
	var u Upgrade
	var at, rolled string
	err := rows.Scan(&u.ID, &at, &u.RunID, &u.Component, &u.OldVersion, &u.NewVersion, &u.Status, &u.ErrorMessage,
		&u.DurationSeconds, &u.DowntimeSeconds, &u.TriggeredBy, &u.BackupPath, &rolled, &u.HealthCheckPassed, &u.NotificationSent, &u.Evidence,
		&u.RolledBackBy)
	if err != nil {
		return u, fmt.Errorf("row %d: %w", u.ID, err)
	}
	u.Duration, u.DurationSeconds = milliseconds(u.DurationSeconds)
	u.Downtime, u.DowntimeSeconds = milliseconds(u.DowntimeSeconds)
	if u.Timestamp, err = parseTime(at); err != nil {
		return u, fmt.Errorf("row %d: timestamp: %w", u.ID, err)
	}
	if rolled != "" {
		t, err := parseTime(rolled)
		if err != nil {
			return u, fmt.Errorf("row %d: rollback_timestamp: %w", u.ID, err)
		}
		u.RollbackTimestamp = &t
	}
	return u, nil
}

// milliseconds rounds what is stored in seconds: beyond that it is noise of the
// binary fraction.
func milliseconds(seconds float64) (time.Duration, float64) {
	ms := math.Round(seconds * 1000)
	return time.Duration(ms) * time.Millisecond, ms / 1000
}

// LastSuccessfulRun returns the newest run that still has rows with status success,
// of any of the components (of all where none is named), and those rows; "" and none
// where there is no such run.
func (d *DB) LastSuccessfulRun(ctx context.Context, components ...string) (runID string, rows []Upgrade, err error) {
	if !d.columns["run_id"] || !d.columns["kind"] {
		return "", nil, nil
	}
	f := Filter{Components: components, Status: Success}
	where, args := d.where(f, "run_id <> ''", "kind = 'upgrade'")
	err = d.sql.QueryRowContext(ctx, "SELECT run_id FROM upgrades"+where+" ORDER BY timestamp DESC, id DESC LIMIT 1", args...).Scan(&runID)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, d.explain(fmt.Errorf("find the last successful run: %w", err))
	}
	f.RunID = runID
	rows, err = d.List(ctx, f)
	return runID, rows, err
}

// SuccessesSince returns the upgrades of a component that succeeded in runs
// started at t or later and were not rolled back, newest first.
func (d *DB) SuccessesSince(ctx context.Context, component string, t time.Time) ([]Upgrade, error) {
	return d.List(ctx, Filter{Components: []string{component}, Status: Success, Since: t})
}

// Durations is the median duration of a component's last ten successes; 0 when
// there are none.
func (d *DB) Durations(ctx context.Context, component string) (time.Duration, error) {
	rows, err := d.List(ctx, Filter{Components: []string{component}, Status: Success, Limit: 10})
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	durations := make([]time.Duration, len(rows))
	for i, r := range rows {
		durations[i] = r.Duration
	}
	return median(durations), nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	mid := len(d) / 2
	if len(d)%2 == 1 {
		return d[mid]
	}
	return (d[mid-1] + d[mid]) / 2
}

func text(t time.Time) string { return t.UTC().Format(timeLayout) }

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func nullTime(t *time.Time) any {
	if t == nil {
		return nil
	}
	return text(*t)
}

// parseTime reads the forms found in such databases: this program's, that of
// CURRENT_TIMESTAMP, and RFC 3339.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{timeLayout, time.RFC3339Nano, time.DateTime, "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time, expected a form such as %s", s, timeLayout)
}
