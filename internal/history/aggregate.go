package history

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// All of these read the whole table once: SQLite does the sums, and a million
// rows take it about a second. NOT INDEXED keeps it from walking an index and
// looking every row up.

// Count is how many upgrades of a component have a status.
type Count struct {
	Component string
	Status    string // success | failed | rolled_back
	N         uint64
	// Undone is how many of N, with the status rolled_back, had succeeded and were
	// taken back later by a person. Nothing had failed, so they have no error.
	Undone uint64
}

// Counts counts all upgrades by component and status, sorted by these.
func (d *DB) Counts(ctx context.Context) ([]Count, error) {
	var out []Count
	if len(d.columns) == 0 {
		return nil, nil // there is no database, or no table in it
	}
	const q = `SELECT component, status, COUNT(*), SUM(status = 'rolled_back' AND COALESCE(error_message, '') = '')
FROM upgrades NOT INDEXED GROUP BY component, status ORDER BY component, status`
	err := d.each(ctx, "count the upgrades", q, nil, func(rows *sql.Rows) error {
		var c Count
		err := rows.Scan(&c.Component, &c.Status, &c.N, &c.Undone)
		out = append(out, c)
		return err
	})
	return out, err
}

// Downtime is how long the upgrades of a component kept it down, as a histogram.
type Downtime struct {
	Count   uint64   // upgrades whose down time is known
	Sum     float64  // seconds
	Buckets []uint64 // upgrades that took at most as long as the bound of the same index
}

// Downtimes are the down times of all upgrades by component. bounds are in
// seconds, rising. Rows without a down time, as other programs write them, do not
// count; a component that has no other is not in the map.
func (d *DB) Downtimes(ctx context.Context, bounds []float64) (map[string]Downtime, error) {
	if !slices.IsSorted(bounds) {
		return nil, fmt.Errorf("the bounds of a histogram must rise, got %v", bounds)
	}
	out := map[string]Downtime{}
	if !d.columns["downtime_seconds"] {
		return out, nil // the table is another program's
	}
	args := make([]any, len(bounds))
	for i, b := range bounds {
		args[i] = b
	}
	q := `SELECT component, COUNT(*), SUM(downtime_seconds)` + strings.Repeat(", SUM(downtime_seconds <= ?)", len(bounds)) +
		` FROM upgrades NOT INDEXED WHERE downtime_seconds IS NOT NULL GROUP BY component`
	err := d.each(ctx, "sum up the down times", q, args, func(rows *sql.Rows) error {
		var name string
		t := Downtime{Buckets: make([]uint64, len(bounds))}
		into := []any{&name, &t.Count, &t.Sum}
		for i := range t.Buckets {
			into = append(into, &t.Buckets[i])
		}
		err := rows.Scan(into...)
		out[name] = t
		return err
	})
	return out, err
}

// Newest is the newest upgrade of each component, sorted by component; of several
// steps in one run the last.
func (d *DB) Newest(ctx context.Context) ([]Upgrade, error) {
	if len(d.columns) == 0 {
		return nil, nil
	}
	// With MAX, SQLite takes the other columns from the row of the maximum:
	// https://sqlite.org/lang_select.html#bareagg
	all, _ := d.query(Filter{})
	all, _, _ = strings.Cut(all, " ORDER BY ")
	q := all + ` WHERE id IN (SELECT newest FROM
  (SELECT id AS newest, MAX(timestamp || printf('%020d', id)) FROM upgrades NOT INDEXED GROUP BY component)) ORDER BY component`
	var out []Upgrade
	err := d.each(ctx, "find the newest upgrades", q, nil, func(rows *sql.Rows) error {
		u, err := scan(rows)
		out = append(out, u)
		return err
	})
	return out, err
}

// each calls row for each row of a query.
func (d *DB) each(ctx context.Context, what, query string, args []any, row func(*sql.Rows) error) error {
	rows, err := d.sql.QueryContext(ctx, query, args...)
	if err != nil {
		return d.explain(fmt.Errorf("%s: %w", what, err))
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return d.explain(fmt.Errorf("%s: %w", what, err))
		}
	}
	if err := rows.Err(); err != nil {
		return d.explain(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}
