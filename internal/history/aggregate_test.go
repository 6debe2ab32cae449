package history

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var bounds = []float64{0.1, 1, 10}

// aggregates reads all that adds up.
func aggregates(t *testing.T, db *DB) ([]Count, map[string]Downtime, []Upgrade) {
	t.Helper()
	counts, err1 := db.Counts(t.Context())
	downtimes, err2 := db.Downtimes(t.Context(), bounds)
	newest, err3 := db.Newest(t.Context())
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return counts, downtimes, newest
}

func TestAggregates(t *testing.T) {
	db := mustOpen(t, file(t))
	down := func(u Upgrade, status, why string, d time.Duration) Upgrade {
		u.Status, u.ErrorMessage, u.Downtime = status, why, d
		return u
	}
	ids := record(
		t, db,
		down(upgrade("r1", "loki", "1.0.0", "2.0.0", 1), Success, "", 100*time.Millisecond),
		down(upgrade("r1", "loki", "2.0.0", "3.0.0", 1), Success, "", 110*time.Millisecond), // the second step of the run
		down(upgrade("r2", "loki", "3.0.0", "3.1.0", 2), RolledBack, "not ready", 12*time.Second),
		down(upgrade("r0", "mimir", "1.0.0", "2.0.0", 9), Failed, "disk full", 0),
		down(upgrade("r3", "tempo", "1.0.0", "1.1.0", 3), Success, "", time.Second),
	)
	check := func(counts []Count, newest string) {
		t.Helper()
		gotCounts, gotDown, gotNewest := aggregates(t, db)
		if diff := cmp.Diff(counts, gotCounts); diff != "" {
			t.Errorf("counts: %s", diff)
		}
		if got := names(gotNewest); got != newest {
			t.Errorf("newest: %s, want %s", got, newest)
		}
		want := map[string]Downtime{
			"loki":  {3, 12.21, []uint64{1, 2, 2}},
			"mimir": {1, 0, []uint64{1, 1, 1}},
			"tempo": {1, 1, []uint64{0, 1, 1}},
		}
		for name, d := range gotDown {
			d.Sum = float64(int(d.Sum*1000+0.5)) / 1000
			gotDown[name] = d
		}
		if diff := cmp.Diff(want, gotDown); diff != "" {
			t.Errorf("down times: %s", diff)
		}
	}
	check(
		[]Count{{"loki", RolledBack, 1, 0}, {"loki", Success, 2, 0}, {"mimir", Failed, 1, 0}, {"tempo", Success, 1, 0}},
		"loki 3.1.0 rolled_back, mimir 2.0.0 failed, tempo 1.1.0 success",
	)

	// What a person takes back had succeeded all the same.
	if err := db.MarkRolledBack(t.Context(), []Mark{{ID: ids[1], At: day}, {ID: ids[4], At: day}}); err != nil {
		t.Fatal(err)
	}
	check(
		[]Count{{"loki", RolledBack, 2, 1}, {"loki", Success, 1, 0}, {"mimir", Failed, 1, 0}, {"tempo", RolledBack, 1, 1}},
		"loki 3.1.0 rolled_back, mimir 2.0.0 failed, tempo 1.1.0 rolled_back",
	)
}

// Of the rows of one second the one written last is the newest, also where ids
// differ in length.
func TestNewestOfOneSecond(t *testing.T) {
	db := mustOpen(t, file(t))
	for i := range 12 {
		record(t, db, upgrade("r1", "loki", "", fmt.Sprintf("1.%d.0", i), 1))
	}
	if _, _, newest := aggregates(t, db); names(newest) != "loki 1.11.0 success" {
		t.Errorf("newest: %s", names(newest))
	}
}

// The specification's table, as a script fills it, has no down times.
func TestAggregatesOfAScript(t *testing.T) {
	path := file(t)
	script(t, path, specTable, `INSERT INTO upgrades (timestamp, component, new_version, status) VALUES
  ('2026-03-01 12:00:00', 'loki', '3.0.0', 'success'), ('2026-03-02 12:00:00', 'loki', '3.1.0', 'rolled_back')`)
	db, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	counts, downtimes, newest := aggregates(t, db)
	if diff := cmp.Diff([]Count{{"loki", RolledBack, 1, 1}, {"loki", Success, 1, 0}}, counts); diff != "" {
		t.Error(diff)
	}
	if len(downtimes) != 0 || names(newest) != "loki 3.1.0 rolled_back" {
		t.Errorf("%v, %s", downtimes, names(newest))
	}
}

func TestAggregatesOfNothing(t *testing.T) {
	db, err := OpenReadOnly(t.Context(), file(t))
	if err != nil {
		t.Fatal(err)
	}
	if counts, downtimes, newest := aggregates(t, db); len(counts)+len(downtimes)+len(newest) != 0 {
		t.Errorf("%v, %v, %v", counts, downtimes, newest)
	}
	if counts, downtimes, newest := aggregates(t, mustOpen(t, file(t))); len(counts)+len(downtimes)+len(newest) != 0 {
		t.Errorf("%v, %v, %v", counts, downtimes, newest)
	}
}

func TestAggregatesEndWithTheirContext(t *testing.T) {
	db := mustOpen(t, file(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err1 := db.Counts(ctx)
	_, err2 := db.Downtimes(ctx, bounds)
	_, err3 := db.Newest(ctx)
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := db.Downtimes(t.Context(), []float64{1, 0.5}); err == nil {
		t.Error("falling bounds were taken")
	}
}
