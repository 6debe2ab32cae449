package history

import (
	"strings"
	"testing"
	"time"
)

// fill adds n rows of twenty components, one a minute, of which one in twenty
// went wrong.
func fill(tb testing.TB, db *DB, n int) {
	tb.Helper()
	_, err := db.sql.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
INSERT INTO upgrades (timestamp, run_id, kind, component, old_version, new_version, status, error_message, duration_seconds,
  duration_exact, downtime_seconds, triggered_by, backup_path, health_check_passed)
SELECT strftime('%Y-%m-%dT%H:%M:%SZ', 1714000000 + i*60, 'unixepoch'), 'r' || (i/4), 'upgrade', 'component_' || (i*7%20), '1.0.' || i, '1.0.' || (i+1),
  CASE WHEN i % 100 < 95 THEN 'success' WHEN i % 100 < 98 THEN 'rolled_back' ELSE 'failed' END,
  CASE WHEN i % 100 < 95 THEN NULL ELSE 'component is not healthy: it answers 503' END,
  i*7919 % 60, (i*7919 % 60000)/1000.0, (i*104729 % 5000)/1000.0, CASE WHEN i % 1000 = 0 THEN 'manual' ELSE 'scheduled' END,
  '/var/backups/observability/20260301_120000', 1 FROM n`, n)
	if err != nil {
		tb.Fatal(err)
	}
}

// What is asked often reads an index and sorts none but rows of one second: a
// long history is as fast as a short one.
func TestQueryPlans(t *testing.T) {
	db := mustOpen(t, file(t))
	fill(t, db, 5000)
	plan := func(query string, args ...any) string {
		rows, err := db.sql.Query("EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var a, b, c any
			var line string
			if err := rows.Scan(&a, &b, &c, &line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, "\n")
	}
	for want, f := range map[string]Filter{
		"SCAN upgrades USING COVERING INDEX idx_timestamp":                    {Limit: 50},
		"SEARCH upgrades USING COVERING INDEX idx_component_time (component=": {Limit: 50, Components: []string{"component_3"}},
		"SEARCH upgrades USING COVERING INDEX idx_status_time (status=":       {Limit: 50, Status: Success},
		"SEARCH upgrades USING COVERING INDEX idx_measures (component=? AND":  {Limit: 50, Status: Success, Components: []string{"component_3"}},
		"SEARCH upgrades USING COVERING INDEX idx_timestamp (timestamp>":      {Limit: 50, Since: day},
	} {
		query, args := db.query(f)
		got := plan(query, args...)
		_, inner, ok := strings.Cut(got, "LIST SUBQUERY")
		if !ok || !strings.Contains(inner, want) || !strings.Contains(inner, "USE TEMP B-TREE FOR LAST TERM OF ORDER BY") {
			t.Errorf("%+v:\n%s\nwant %s, sorted by its last term alone", f, got, want)
		}
	}
	const last = `SELECT run_id FROM upgrades WHERE status = 'success' AND run_id <> '' AND kind = 'upgrade' ORDER BY timestamp DESC, id DESC LIMIT 1`
	if got := plan(last); !strings.Contains(got, "USING INDEX idx_status_time") || !strings.Contains(got, "FOR LAST TERM") {
		t.Errorf("the last successful run:\n%s", got)
	}
	for what, query := range map[string]string{
		"counts":         "SELECT component, status, COUNT(*) FROM upgrades GROUP BY component, status ORDER BY component, status",
		"down times":     "SELECT component, COUNT(*), SUM(downtime_seconds) FROM upgrades WHERE downtime_seconds > 0 GROUP BY component ORDER BY component",
		"all percentile": "SELECT COALESCE(duration_exact, duration_seconds) FROM upgrades WHERE +status = 'success' ORDER BY 1 DESC LIMIT 1 OFFSET 10",
	} {
		if got := plan(query); !strings.Contains(got, "USING COVERING INDEX idx_measures") || strings.Contains(got, "GROUP BY") {
			t.Errorf("%s:\n%s", what, got)
		}
	}
}

// A history of schema 1 gets the indexes when it is next written.
func TestMigrateFromSchema1(t *testing.T) {
	path := file(t)
	db := mustOpen(t, path)
	record(t, db, upgrade("r1", "loki", "", "1.0.0", 0))
	if _, err := db.sql.Exec("DROP INDEX idx_component_time; DROP INDEX idx_status_time; DROP INDEX idx_measures; PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ro, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if got := stats(t, ro, Filter{}); len(got) != 2 || got[0].Success != 1 {
		t.Errorf("before: %+v", got)
	}
	if err := ro.Close(); err != nil {
		t.Fatal(err)
	}
	db = mustOpen(t, path)
	var version, indexes int
	if err := db.sql.QueryRow("SELECT user_version, (SELECT COUNT(*) FROM pragma_index_list('upgrades')) FROM pragma_user_version").Scan(&version, &indexes); err != nil {
		t.Fatal(err)
	}
	if version != 2 || indexes != 7 {
		t.Errorf("schema %d with %d indexes, want 2 with 7", version, indexes)
	}
	if got := names(list(t, db, Filter{})); got != "loki 1.0.0 success" {
		t.Errorf("rows %s", got)
	}
}

// BenchmarkMillion asks a history of a million rows.
func BenchmarkMillion(b *testing.B) {
	db, err := Open(b.Context(), b.TempDir()+"/h.db")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	fill(b, db, 1_000_000)
	lists := []struct {
		name string
		Filter
	}{
		{"list", Filter{Limit: 50}},
		{"list of a component", Filter{Limit: 50, Components: []string{"component_3"}}},
		{"list of two components", Filter{Limit: 50, Components: []string{"component_3", "component_4"}}},
		{"list of successes", Filter{Limit: 50, Status: Success}},
		{"list of failures", Filter{Limit: 50, Status: Failed}},
		{"list by hand", Filter{Limit: 50, Trigger: "manual"}},
		{"list of a month", Filter{Limit: 50, Since: day.Add(-30 * 24 * time.Hour), Until: day}},
	}
	for _, l := range lists {
		b.Run(l.name, func(b *testing.B) {
			for b.Loop() {
				if rows, err := db.List(b.Context(), l.Filter); err != nil || len(rows) != 50 {
					b.Fatal(len(rows), err)
				}
			}
		})
	}
	for name, f := range map[string]Filter{"stats": {}, "stats of a component": {Components: []string{"component_3"}}, "stats of a month": {Since: day.Add(-30 * 24 * time.Hour), Until: day}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if got, err := db.Stats(b.Context(), f); err != nil || got[len(got)-1].Upgrades == 0 {
					b.Fatal(got, err)
				}
			}
		})
	}
	b.Run("counts", func(b *testing.B) {
		for b.Loop() {
			if got, err := db.Counts(b.Context()); err != nil || len(got) == 0 {
				b.Fatal(got, err)
			}
		}
	})
	b.Run("down times", func(b *testing.B) {
		for b.Loop() {
			if got, err := db.Downtimes(b.Context(), []float64{0.1, 0.5, 1, 2, 5, 10, 30, 60}); err != nil || len(got) != 20 {
				b.Fatal(got, err)
			}
		}
	})
}
