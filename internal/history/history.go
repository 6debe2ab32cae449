// Package history keeps the upgrade history in SQLite.
package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the pure Go driver, so that the program needs no C library
)

// The statuses of an upgrade.
const (
	Success    = "success"
	Failed     = "failed"
	RolledBack = "rolled_back"
)

const (
	timeLayout    = "2006-01-02T15:04:05Z"
	schemaVersion = 1
)

// Upgrade is one row.
type Upgrade struct {
	ID                int64         `json:"id"`
	Timestamp         time.Time     `json:"timestamp"`
	RunID             string        `json:"run_id"`
	Component         string        `json:"component"`
	OldVersion        string        `json:"old_version"`
	NewVersion        string        `json:"new_version"`
	Status            string        `json:"status"`
	ErrorMessage      string        `json:"error_message"`
	Duration          time.Duration `json:"-"`
	Downtime          time.Duration `json:"-"`
	DurationSeconds   float64       `json:"duration_seconds"`
	DowntimeSeconds   float64       `json:"downtime_seconds"`
	TriggeredBy       string        `json:"triggered_by"`
	BackupPath        string        `json:"backup_path"`
	RollbackTimestamp *time.Time    `json:"rollback_timestamp"`
	HealthCheckPassed *bool         `json:"health_check_passed"`
	NotificationSent  *bool         `json:"notification_sent"`
	Evidence          string        `json:"evidence_path"`
}

// DB is an open history. It is safe for concurrent use.
type DB struct{ sql *sql.DB }

// CorruptError reports a database that cannot be used.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("history database %s cannot be used: %v; `mv %s %s.corrupt` starts a new one", e.Path, e.Err, e.Path, e.Path)
}
func (e *CorruptError) Unwrap() error { return e.Err }

// NewerError reports a database of a newer program.
type NewerError struct {
	Path string
	Have int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("history database %s has schema %d, this program knows up to %d; use the newer observability-upgrade that wrote it", e.Path, e.Have, schemaVersion)
}

// Open opens the history for writing, creating and migrating it.
func Open(ctx context.Context, path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	db, err := open(path, "rwc")
	if err != nil {
		return nil, err
	}
	if err := db.migrate(ctx, path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// OpenReadOnly opens the history for reading; a missing one is empty.
func OpenReadOnly(ctx context.Context, path string) (*DB, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		db, err := sql.Open("sqlite", ":memory:")
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1)
		d := &DB{db}
		return d, d.migrate(ctx, path)
	}
	db, err := open(path, "ro")
	if err != nil {
		return nil, err
	}
	v, err := db.version(ctx)
	switch {
	case err != nil:
		err = &CorruptError{path, err}
	case v > schemaVersion:
		err = &NewerError{path, v}
	default:
		return db, nil
	}
	return nil, errors.Join(err, db.Close())
}

func open(path, mode string) (*DB, error) {
	q := url.Values{"mode": {mode}, "_pragma": {"busy_timeout(10000)", "synchronous(FULL)"}, "_txlock": {"immediate"}}
	if mode != "ro" {
		q.Add("_pragma", "journal_mode(WAL)")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &DB{db}, nil
}

func (d *DB) version(ctx context.Context) (v int, err error) {
	err = d.sql.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v)
	return v, err
}

// schema is that of the specification, section 7.
const schema = `
CREATE TABLE IF NOT EXISTS upgrades (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp DATETIME NOT NULL,
    component VARCHAR(50) NOT NULL,
    old_version VARCHAR(20),
    new_version VARCHAR(20) NOT NULL,
    status VARCHAR(20) NOT NULL,
    error_message TEXT,
    duration_seconds INTEGER,
    triggered_by VARCHAR(50),
    backup_path VARCHAR(255),
    rollback_timestamp DATETIME,
    health_check_passed BOOLEAN,
    notification_sent BOOLEAN,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX IF NOT EXISTS idx_component ON upgrades(component);
CREATE INDEX IF NOT EXISTS idx_timestamp ON upgrades(timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_status ON upgrades(status);`

// own are this program's columns beyond the specification's.
var own = []string{
	"ALTER TABLE upgrades ADD COLUMN run_id TEXT",
	"ALTER TABLE upgrades ADD COLUMN kind TEXT DEFAULT 'upgrade'",
	"ALTER TABLE upgrades ADD COLUMN duration_exact REAL",
	"ALTER TABLE upgrades ADD COLUMN downtime_seconds REAL",
	"ALTER TABLE upgrades ADD COLUMN evidence_path TEXT",
	"CREATE UNIQUE INDEX idx_run ON upgrades(run_id, component, new_version)",
	fmt.Sprintf("PRAGMA user_version = %d", schemaVersion),
}

func (d *DB) migrate(ctx context.Context, path string) error {
	v, err := d.version(ctx)
	switch {
	case err != nil:
		return &CorruptError{path, err}
	case v > schemaVersion:
		return &NewerError{path, v}
	case v == schemaVersion:
		return nil
	}
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil || v == schemaVersion {
		return err // another process was first
	}
	for _, stmt := range append([]string{schema}, own...) {
		if _, err := tx.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("history database %s: %w", path, err)
		}
	}
	return tx.Commit()
}

// Close closes the database.
func (d *DB) Close() error { return d.sql.Close() }

// Record writes a row; one of the same run, component and version is replaced.
func (d *DB) Record(ctx context.Context, u Upgrade) (id int64, err error) {
	err = d.sql.QueryRowContext(ctx, `
INSERT INTO upgrades (timestamp, run_id, component, old_version, new_version, status, error_message, duration_seconds, duration_exact,
  downtime_seconds, triggered_by, backup_path, rollback_timestamp, health_check_passed, notification_sent, evidence_path)
VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT(run_id, component, new_version) DO UPDATE SET status=excluded.status, error_message=excluded.error_message,
  duration_seconds=excluded.duration_seconds, duration_exact=excluded.duration_exact, downtime_seconds=excluded.downtime_seconds,
  rollback_timestamp=excluded.rollback_timestamp, health_check_passed=excluded.health_check_passed, evidence_path=excluded.evidence_path
RETURNING id`,
		u.Timestamp.UTC().Format(timeLayout), u.RunID, u.Component, null(u.OldVersion), u.NewVersion, u.Status, null(u.ErrorMessage),
		int64(u.Duration.Round(time.Second)/time.Second), u.Duration.Seconds(), u.Downtime.Seconds(), u.TriggeredBy, null(u.BackupPath),
		nullTime(u.RollbackTimestamp), u.HealthCheckPassed, u.NotificationSent, null(u.Evidence)).Scan(&id)
	return id, err
}

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
	return t.UTC().Format(timeLayout)
}

// Filter narrows a list; zero fields match everything, Limit 0 has no limit.
type Filter struct {
	Component, Status, RunID string
	Limit                    int
}

// List returns rows, newest first.
func (d *DB) List(ctx context.Context, f Filter) ([]Upgrade, error) {
	q := `SELECT id, timestamp, COALESCE(run_id,''), component, COALESCE(old_version,''), new_version, status, COALESCE(error_message,''),
  COALESCE(duration_exact, duration_seconds, 0), COALESCE(downtime_seconds,0), COALESCE(triggered_by,''), COALESCE(backup_path,''),
  COALESCE(rollback_timestamp,''), health_check_passed, notification_sent, COALESCE(evidence_path,'') FROM upgrades`
	var where []string
	var args []any
	for col, v := range map[string]string{"component": f.Component, "status": f.Status, "run_id": f.RunID} {
		if v != "" {
			where, args = append(where, col+" = ?"), append(args, v)
		}
	}
	if len(where) > 0 {
		q += " WHERE " + strings.Join(where, " AND ")
	}
	q += " ORDER BY timestamp DESC, id DESC"
	if f.Limit > 0 {
		q += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	rows, err := d.sql.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Upgrade
	for rows.Next() {
		u, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, rows.Err()
}

func scan(rows *sql.Rows) (Upgrade, error) {
	var u Upgrade
	var at, rolled string
	err := rows.Scan(&u.ID, &at, &u.RunID, &u.Component, &u.OldVersion, &u.NewVersion, &u.Status, &u.ErrorMessage,
		&u.DurationSeconds, &u.DowntimeSeconds, &u.TriggeredBy, &u.BackupPath, &rolled, &u.HealthCheckPassed, &u.NotificationSent, &u.Evidence)
	if err != nil {
		return u, err
	}
	u.Duration = time.Duration(u.DurationSeconds * float64(time.Second))
	u.Downtime = time.Duration(u.DowntimeSeconds * float64(time.Second))
	if u.Timestamp, err = parseTime(at); err != nil {
		return u, err
	}
	if rolled != "" {
		t, err := parseTime(rolled)
		if err != nil {
			return u, err
		}
		u.RollbackTimestamp = &t
	}
	return u, nil
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{timeLayout, time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04:05 +0000 UTC"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("history: time %q has an unknown form", s)
}

// LastSuccessfulRun returns the newest run that has rows with status success.
func (d *DB) LastSuccessfulRun(ctx context.Context) (string, []Upgrade, error) {
	var id string
	err := d.sql.QueryRowContext(ctx, `SELECT run_id FROM upgrades WHERE status = 'success' AND run_id IS NOT NULL ORDER BY timestamp DESC, id DESC LIMIT 1`).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	rows, err := d.List(ctx, Filter{RunID: id, Status: Success})
	return id, rows, err
}

// MarkRolledBack marks rows as rolled back at a time.
func (d *DB) MarkRolledBack(ctx context.Context, ids []int64, at time.Time) error {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	for _, id := range ids {
		if _, err := tx.ExecContext(ctx, `UPDATE upgrades SET status = 'rolled_back', rollback_timestamp = ? WHERE id = ?`, at.UTC().Format(timeLayout), id); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Durations is the median duration of a component's last ten successes; 0 when
// there are none.
func (d *DB) Durations(ctx context.Context, component string) (time.Duration, error) {
	rows, err := d.List(ctx, Filter{Component: component, Status: Success, Limit: 10})
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	durations := make([]time.Duration, len(rows))
	for i, r := range rows {
		durations[i] = r.Duration
	}
	return median(durations), nil
}
