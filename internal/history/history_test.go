package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func file(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "lib", "upgrade-history.db")
}

func mustOpen(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func upgrade(run, component, from, to string, hours int) Upgrade {
	return Upgrade{
		Timestamp: day.Add(time.Duration(hours) * time.Hour), RunID: run, Component: component, OldVersion: from, NewVersion: to,
		Status: Success, TriggeredBy: "manual", Duration: 1600 * time.Millisecond, Downtime: 250 * time.Millisecond,
	}
}

func record(t *testing.T, db *DB, all ...Upgrade) (ids []int64) {
	t.Helper()
	for _, u := range all {
		id, err := db.Record(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

func list(t *testing.T, db *DB, f Filter) []Upgrade {
	t.Helper()
	rows, err := db.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// names shows rows as "component new-version status".
func names(rows []Upgrade) string {
	var s []string
	for _, r := range rows {
		s = append(s, r.Component+" "+r.NewVersion+" "+r.Status)
	}
	return strings.Join(s, ", ")
}

func TestRoundTrip(t *testing.T) {
	db := mustOpen(t, file(t))
	yes, no, at := true, false, day.Add(time.Minute)
	full := Upgrade{
		Timestamp: day.In(time.FixedZone("x", 7200)), RunID: "r1", Component: "loki", OldVersion: "3.0.0", NewVersion: "3.1.0", Status: RolledBack,
		ErrorMessage: "it's \"unhealthy\"\n", Duration: 2499 * time.Millisecond, Downtime: 1500 * time.Millisecond, TriggeredBy: "auto",
		BackupPath: "/b/r1", RollbackTimestamp: &at, HealthCheckPassed: &no, NotificationSent: &yes, Evidence: "/e",
	}
	bare := Upgrade{Timestamp: day.Add(-time.Hour), RunID: "r0", Component: "x", NewVersion: "1.0.0", Status: Failed, TriggeredBy: "scheduled"}
	ids := record(t, db, full, bare)
	full.ID, bare.ID = ids[0], ids[1]
	full.Timestamp, full.DurationSeconds, full.DowntimeSeconds = day, 2.499, 1.5
	if diff := cmp.Diff([]Upgrade{full, bare}, list(t, db, Filter{})); diff != "" {
		t.Error(diff)
	}
	got, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":1,"timestamp":"2026-03-01T12:00:00Z","run_id":"r1","component":"loki","old_version":"3.0.0","new_version":"3.1.0",` +
		`"status":"rolled_back","error_message":"it's \"unhealthy\"\n","duration_seconds":2.499,"downtime_seconds":1.5,"triggered_by":"auto",` +
		`"backup_path":"/b/r1","rollback_timestamp":"2026-03-01T12:01:00Z","health_check_passed":false,"notification_sent":true,"evidence_path":"/e"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestStoredForms(t *testing.T) {
	db := mustOpen(t, file(t))
	u := upgrade("r1", "loki", "", "3.1.0", 0)
	yes := true
	u.HealthCheckPassed = &yes
	record(t, db, u)
	var got string
	err := db.sql.QueryRow(`SELECT json_array(typeof(timestamp), CAST(timestamp AS TEXT), typeof(duration_seconds), duration_seconds,
		typeof(health_check_passed), health_check_passed+0, typeof(notification_sent), typeof(old_version), kind, typeof(created_at)) FROM upgrades`).Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	want := `["text","2026-03-01T12:00:00Z","integer",2,"integer",1,"null","null","upgrade","text"]`
	if got != want {
		t.Errorf("stored as %s, want %s", got, want)
	}
}

func TestRecordIsIdempotent(t *testing.T) {
	db := mustOpen(t, file(t))
	u := upgrade("r1", "loki", "3.0.0", "3.1.0", 0)
	first := record(t, db, u)
	if err := db.MarkNotified(t.Context(), "r1", true); err != nil {
		t.Fatal(err)
	}
	u.Status, u.ErrorMessage, u.BackupPath, u.Timestamp = Failed, "late", "/b", day.Add(time.Hour)
	second := record(t, db, u, upgrade("r2", "loki", "3.0.0", "3.1.0", 2))
	rows := list(t, db, Filter{RunID: "r1"})
	if len(rows) != 1 || first[0] != second[0] || second[0] == second[1] {
		t.Fatalf("ids %v then %v, rows %+v", first, second, rows)
	}
	if r := rows[0]; r.Status != Failed || r.ErrorMessage != "late" || r.BackupPath != "/b" || !r.Timestamp.Equal(u.Timestamp) {
		t.Errorf("the replay was not taken: %+v", r)
	}
	if n := rows[0].NotificationSent; n == nil || !*n {
		t.Error("the replay forgot the notification")
	}
}

func TestRecordRefuses(t *testing.T) {
	db := mustOpen(t, file(t))
	for want, change := range map[string]func(*Upgrade){
		"without a timestamp": func(u *Upgrade) { u.Timestamp = time.Time{} },
		"needs run":           func(u *Upgrade) { u.RunID = "" },
		"new version":         func(u *Upgrade) { u.NewVersion = "" },
		`status "done"`:       func(u *Upgrade) { u.Status = "done" },
		`triggered by ""`:     func(u *Upgrade) { u.TriggeredBy = "" },
	} {
		u := upgrade("r1", "loki", "", "1.0.0", 0)
		change(&u)
		if _, err := db.Record(t.Context(), u); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if rows := list(t, db, Filter{}); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
}

func TestListFilters(t *testing.T) {
	db := mustOpen(t, file(t))
	bad := upgrade("r2", "loki", "3.0.0", "3.1.0", 2)
	bad.Status = Failed
	record(t, db, upgrade("r3", "prometheus", "2.0.0", "3.0.0", 3), upgrade("r1", "prometheus", "1.0.0", "2.0.0", 1), bad,
		upgrade("r3", "loki", "3.0.0", "3.2.0", 3))
	for want, f := range map[string]Filter{
		"loki 3.2.0 success, prometheus 3.0.0 success, loki 3.1.0 failed, prometheus 2.0.0 success": {},
		"loki 3.2.0 success, loki 3.1.0 failed":                                                     {Components: []string{"loki"}},
		"loki 3.1.0 failed":                                                                         {Components: []string{"loki"}, Status: Failed, RunID: "r2"},
		"loki 3.2.0 success, prometheus 3.0.0 success":                                              {Limit: 2},
		"loki 3.2.0 success, prometheus 3.0.0 success, loki 3.1.0 failed":                           {Since: day.Add(2 * time.Hour)},
		"": {Components: []string{"x' OR 1=1 --"}},
	} {
		if got := names(list(t, db, f)); got != want {
			t.Errorf("%+v: got %s, want %s", f, got, want)
		}
	}
	rows, err := db.SuccessesSince(t.Context(), "loki", day)
	if err != nil || names(rows) != "loki 3.2.0 success" {
		t.Errorf("SuccessesSince: %s, %v", names(rows), err)
	}
}

func TestRollingBackRunByRun(t *testing.T) {
	db := mustOpen(t, file(t))
	failed := upgrade("r3", "tempo", "1.0.0", "2.0.0", 3)
	failed.Status = Failed
	ids := record(t, db, upgrade("r1", "loki", "1.0.0", "2.0.0", 1), upgrade("r2", "loki", "2.0.0", "3.0.0", 2), upgrade("r2", "tempo", "1.0.0", "2.0.0", 2), failed)
	expect := func(id, rows string) {
		t.Helper()
		gotID, got, err := db.LastSuccessfulRun(t.Context())
		if err != nil || gotID != id || names(got) != rows {
			t.Errorf("last successful run %q: %s, %v; want %q: %s", gotID, names(got), err, id, rows)
		}
	}
	mark := func(at time.Time, ids ...int64) {
		t.Helper()
		var marks []Mark
		for _, id := range ids {
			marks = append(marks, Mark{ID: id, By: "b" + at.Format("15"), At: at})
		}
		if err := db.MarkRolledBack(t.Context(), marks); err != nil {
			t.Fatal(err)
		}
	}
	expect("r2", "tempo 2.0.0 success, loki 3.0.0 success")
	mark(day, ids[1])
	expect("r2", "tempo 2.0.0 success") // partly rolled back
	for component, want := range map[string]string{"loki": "r1 loki 2.0.0 success", "tempo": "r2 tempo 2.0.0 success", "none": " "} {
		if id, rows, err := db.LastSuccessfulRun(t.Context(), component); err != nil || id+" "+names(rows) != want {
			t.Errorf("last successful run of %s %q: %s, %v; want %s", component, id, names(rows), err, want)
		}
	}
	mark(day.Add(time.Hour), ids[1], ids[2], 4711)
	expect("r1", "loki 2.0.0 success")
	mark(day, ids[0])
	expect("", "")
	rows := list(t, db, Filter{RunID: "r2", Components: []string{"loki"}})
	if rows[0].Status != RolledBack || rows[0].RollbackTimestamp == nil || !rows[0].RollbackTimestamp.Equal(day) {
		t.Errorf("marked twice: %+v", rows[0])
	}

	// The rollback of r1 is undone: r1 is in force again, what another rollback
	// took back is not, and an upgrade that failed never comes into force.
	back := []Mark{{ID: ids[0], By: rows[0].RolledBackBy, At: day}, {ID: ids[2], By: rows[0].RolledBackBy}, {ID: ids[3]}}
	for range 2 {
		if err := db.MarkInForce(t.Context(), back); err != nil {
			t.Fatal(err)
		}
	}
	expect("r1", "loki 2.0.0 success")
	if rows = list(t, db, Filter{RunID: "r1"}); rows[0].RollbackTimestamp != nil || rows[0].RolledBackBy != "" {
		t.Errorf("in force again: %+v", rows[0])
	}
}

func TestDurations(t *testing.T) {
	db := mustOpen(t, file(t))
	expect := func(want time.Duration) {
		t.Helper()
		if got, err := db.Durations(t.Context(), "loki"); err != nil || got != want {
			t.Errorf("got %v, %v; want %v", got, err, want)
		}
	}
	expect(0)
	for i, seconds := range []int{500, 500, 500, 8, 2, 4, 30, 4, 4, 4, 4, 4, 4} { // the first three are too old
		u := upgrade(fmt.Sprint("r", i), "loki", "", "1.0.0", i)
		u.Duration = time.Duration(seconds) * time.Second
		record(t, db, u)
	}
	expect(4 * time.Second)
	if got := median([]time.Duration{4, 1, 3, 2}); got != 2 {
		t.Errorf("median of an even number is %v", got)
	}
}

func TestCancelledIsNotCorrupt(t *testing.T) {
	path := file(t)
	mustOpen(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var corrupt *CorruptError
	if _, err := Open(ctx, path); !errors.Is(err, context.Canceled) || errors.As(err, &corrupt) {
		t.Errorf("got %v", err)
	}
}

func TestEmptyHistory(t *testing.T) {
	db, err := OpenReadOnly(t.Context(), file(t))
	if err != nil {
		t.Fatal(err)
	}
	if rows := list(t, db, Filter{Components: []string{"x"}, Limit: 1}); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
	id, rows, err := db.LastSuccessfulRun(t.Context())
	if id != "" || rows != nil || err != nil {
		t.Errorf("last successful run %q, %v, %v", id, rows, err)
	}
	if d, err := db.Durations(t.Context(), "x"); d != 0 || err != nil {
		t.Errorf("duration %v, %v", d, err)
	}
	_, recordErr := db.Record(t.Context(), upgrade("r", "x", "", "1", 0))
	for _, err := range []error{recordErr, db.MarkRolledBack(t.Context(), []Mark{{ID: 1}}), db.MarkInForce(t.Context(), nil), db.MarkNotified(t.Context(), "r", true)} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("got %v, want ErrReadOnly", err)
		}
	}
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Error(err)
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-03-01T12:00:00Z", "2026-03-01 12:00:00", "2026-03-01T14:00:00.5+02:00", "", "1735300000", "now"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := parseTime(s)
		if err != nil {
			return
		}
		again, err := parseTime(text(at))
		if err != nil || !cmp.Equal(at.Truncate(time.Second), again, cmpopts.EquateApproxTime(0)) {
			t.Fatalf("%q is %v, then %v, %v", s, at, again, err)
		}
	})
}
