package history

import (
	"context"
	"database/sql"
	"fmt"
)

// schemaVersion is the PRAGMA user_version of what migrate makes.
const schemaVersion = 2

// specTable and specIndexes are the specification's, section 7.
const (
	specTable = `CREATE TABLE upgrades (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp DATETIME NOT NULL,
    component VARCHAR(50) NOT NULL,
    old_version VARCHAR(20),
    new_version VARCHAR(20) NOT NULL,
    status VARCHAR(20) NOT NULL, -- success, failed, rolled_back
    error_message TEXT,
    duration_seconds INTEGER,
    triggered_by VARCHAR(50), -- manual, auto, scheduled
    backup_path VARCHAR(255),
    rollback_timestamp DATETIME,
    health_check_passed BOOLEAN,
    notification_sent BOOLEAN,
    created_at DATETIME DEFAULT CURRENT_TIMESTAMP
)`
	specIndexes = `
CREATE INDEX IF NOT EXISTS idx_component ON upgrades(component);
CREATE INDEX IF NOT EXISTS idx_timestamp ON upgrades(timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_status ON upgrades(status);`
)

var specColumns = []string{
	"id", "timestamp", "component", "old_version", "new_version", "status", "error_message", "duration_seconds",
	"triggered_by", "backup_path", "rollback_timestamp", "health_check_passed", "notification_sent", "created_at",
}

// ownColumns are this program's beyond the specification's. duration_exact has
// the fraction that duration_seconds, an INTEGER, cannot hold; rolled_back_by is
// the run of the rollback by hand, since schema 2.
var ownColumns = []struct{ name, definition string }{
	{"run_id", "TEXT"},
	{"kind", "TEXT DEFAULT 'upgrade'"},
	{"duration_exact", "REAL"},
	{"downtime_seconds", "REAL"},
	{"evidence_path", "TEXT"},
	{"rolled_back_by", "TEXT"},
}

// ownIndexes: idx_run lets a run be recorded again without a second row; rows of
// other programs have no run_id and never collide. The others, of schema 2, are
// for long histories: the newest rows of a component or a status are found
// without sorting all that it has, and what is counted or measured over all rows
// is read from idx_measures alone, a fraction of the table.
const ownIndexes = `
CREATE UNIQUE INDEX IF NOT EXISTS idx_run ON upgrades(run_id, component, new_version);
CREATE INDEX IF NOT EXISTS idx_component_time ON upgrades(component, timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_status_time ON upgrades(status, timestamp DESC);
CREATE INDEX IF NOT EXISTS idx_measures ON upgrades(component, status, timestamp DESC, duration_exact, duration_seconds, downtime_seconds);`

// sortableTimes brings times written by CURRENT_TIMESTAMP into this program's
// form, as rows of both kinds would not sort.
const sortableTimes = `UPDATE upgrades SET timestamp = strftime('%Y-%m-%dT%H:%M:%SZ', timestamp)
WHERE timestamp GLOB '????-??-?? *' AND strftime('%Y-%m-%dT%H:%M:%SZ', timestamp) IS NOT NULL`

// migrate brings the database to schemaVersion in one transaction. It starts
// from nothing, or from the specification's table as somebody's script made it.
func (d *DB) migrate(ctx context.Context) error {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit there is nothing to roll back
	var have int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have == schemaVersion {
		return nil // another process was first
	}
	columns, err := columnsOf(ctx, tx)
	if err != nil {
		return err
	}
	var steps []string
	if len(columns) == 0 {
		steps = append(steps, specTable)
	} else {
		for _, c := range specColumns {
			if !columns[c] {
				return &CorruptError{d.path, fmt.Errorf(`its table "upgrades" has no column %q`, c)}
			}
		}
		steps = append(steps, sortableTimes)
	}
	steps = append(steps, specIndexes)
	for _, c := range ownColumns {
		if !columns[c.name] {
			steps = append(steps, fmt.Sprintf("ALTER TABLE upgrades ADD COLUMN %s %s", c.name, c.definition))
		}
	}
	steps = append(steps, ownIndexes, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
	for _, s := range steps {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return tx.Commit()
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// columnsOf lists the columns of the table; none where there is no table.
func columnsOf(ctx context.Context, q querier) (map[string]bool, error) {
	rows, err := q.QueryContext(ctx, "SELECT name FROM pragma_table_info('upgrades')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		columns[name] = true
	}
	return columns, rows.Err()
}
