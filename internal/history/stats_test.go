package history

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func at(hours int) *time.Time {
	t := day.Add(time.Duration(hours) * time.Hour)
	return &t
}

func rate(f float64) *float64 { return &f }

func stats(t *testing.T, db *DB, f Filter) []Stat {
	t.Helper()
	out, err := db.Stats(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// outcome is an upgrade with what Stats looks at.
func outcome(run, component string, hours int, status string, took, down time.Duration) Upgrade {
	u := upgrade(run, component, "1.0.0", "1."+run[1:]+".0", hours)
	u.Status, u.Duration, u.Downtime = status, took, down
	return u
}

func TestStats(t *testing.T) {
	db := mustOpen(t, file(t))
	record(t, db,
		outcome("r1", "loki", 1, Success, 10*time.Second, 2*time.Second),
		outcome("r2", "loki", 2, Success, 30*time.Second, 0), // no outage
		outcome("r3", "loki", 3, RolledBack, 99*time.Second, 8*time.Second),
		outcome("r4", "loki", 4, Failed, 50*time.Second, 0),
		outcome("r5", "tempo", 5, Success, 1500*time.Millisecond, 250*time.Millisecond),
		outcome("r6", "mimir", 6, Failed, time.Second, 0),
	)
	loki := Stat{
		Component: "loki", Upgrades: 4, Success: 2, Failed: 1, RolledBack: 1, SuccessRate: rate(0.5),
		Duration:    &Spread{Count: 2, Mean: 20, P95: 30, Max: 30, Total: 40},
		Downtime:    &Spread{Count: 2, Mean: 5, P95: 8, Max: 8, Total: 10},
		LastSuccess: at(2), LastFailure: at(4),
	}
	mimir := Stat{Component: "mimir", Upgrades: 1, Failed: 1, SuccessRate: rate(0), LastFailure: at(6)}
	tempo := Stat{
		Component: "tempo", Upgrades: 1, Success: 1, SuccessRate: rate(1),
		Duration:    &Spread{Count: 1, Mean: 1.5, P95: 1.5, Max: 1.5, Total: 1.5},
		Downtime:    &Spread{Count: 1, Mean: 0.25, P95: 0.25, Max: 0.25, Total: 0.25},
		LastSuccess: at(5),
	}
	total := Stat{
		Upgrades: 6, Success: 3, Failed: 2, RolledBack: 1, SuccessRate: rate(0.5),
		Duration:    &Spread{Count: 3, Mean: 13.833, P95: 30, Max: 30, Total: 41.5},
		Downtime:    &Spread{Count: 3, Mean: 3.417, P95: 8, Max: 8, Total: 10.25},
		LastSuccess: at(5), LastFailure: at(6),
	}
	if diff := cmp.Diff([]Stat{loki, mimir, tempo, total}, stats(t, db, Filter{Limit: 1})); diff != "" {
		t.Error(diff)
	}
	alone := tempo
	alone.Component = ""
	if diff := cmp.Diff([]Stat{tempo, alone}, stats(t, db, Filter{Components: []string{"tempo"}})); diff != "" {
		t.Error(diff)
	}
	since := stats(t, db, Filter{Components: []string{"loki", "mimir"}, Since: *at(3), Until: *at(5)})
	if len(since) != 2 || since[0].Component != "loki" || since[0].Upgrades != 2 || since[1].Upgrades != 2 || since[0].Duration != nil || since[0].LastSuccess != nil {
		t.Errorf("%+v", since)
	}
	if diff := cmp.Diff([]Stat{{}}, stats(t, db, Filter{Components: []string{"nope"}})); diff != "" {
		t.Error(diff)
	}
}

// Percentiles and sums are those that a plain program works out.
func TestStatsOfRandomRows(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 11))
	for round := range 30 {
		db := mustOpen(t, file(t))
		took, down := map[string][]float64{}, map[string][]float64{}
		for i := range rnd.IntN(60) {
			name := []string{"a", "b", "c"}[rnd.IntN(3)]
			u := outcome(fmt.Sprintf("r%d", i), name, i, []string{Success, Success, Success, Failed, RolledBack}[rnd.IntN(5)],
				time.Duration(rnd.IntN(5000))*time.Millisecond, time.Duration(max(0, rnd.IntN(900)-100))*time.Millisecond)
			record(t, db, u)
			for _, key := range []string{name, ""} {
				if u.Status == Success {
					took[key] = append(took[key], u.Duration.Seconds())
				}
				if u.Downtime > 0 {
					down[key] = append(down[key], u.Downtime.Seconds())
				}
			}
		}
		for _, s := range stats(t, db, Filter{}) {
			for what, c := range map[string]struct {
				got    *Spread
				values []float64
			}{"duration": {s.Duration, took[s.Component]}, "downtime": {s.Downtime, down[s.Component]}} {
				if diff := cmp.Diff(plainly(c.values), c.got); diff != "" {
					t.Errorf("round %d: %s of %q: %s", round, what, s.Component, diff)
				}
			}
		}
	}
}

func plainly(values []float64) *Spread {
	if len(values) == 0 {
		return nil
	}
	slices.Sort(values)
	s := Spread{Count: int64(len(values)), Max: values[len(values)-1]}
	for _, v := range values {
		s.Total += v
	}
	s.Mean = s.Total / float64(len(values))
	s.P95 = values[int(math.Ceil(0.95*float64(len(values))))-1]
	all := Stat{Duration: &s}
	all.round()
	return &s
}

// The rank is a whole number: rounding errors of 0.95 must not move it.
func TestNearestRank(t *testing.T) {
	for n, rank := range map[int64]int64{1: 1, 2: 2, 19: 19, 20: 19, 21: 20, 40: 38, 100: 95, 1000: 950, 1_000_000: 950_000} {
		if got := n - above(n); got != rank {
			t.Errorf("of %d values it is number %d, want %d", n, got, rank)
		}
	}
}

// A table of another program lacks columns until something is written; an empty
// history has none at all.
func TestStatsWithoutOwnColumns(t *testing.T) {
	path := file(t)
	script(t, path, specTable, scriptRow)
	db, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	got := stats(t, db, Filter{})
	if len(got) != 2 || got[0].Component != "grafana" || got[0].Duration == nil || got[0].Duration.P95 != 45 || got[0].Downtime != nil {
		t.Errorf("%+v", got)
	}
	empty, err := OpenReadOnly(t.Context(), file(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Stat{{}}, stats(t, empty, Filter{})); diff != "" {
		t.Error(diff)
	}
}

// A foreign status and a time that cannot be read are told, not guessed at.
func TestStatsOfForeignRows(t *testing.T) {
	path := file(t)
	db := mustOpen(t, path)
	record(t, db, outcome("r1", "loki", 1, Success, time.Second, 0))
	script(t, path, `INSERT INTO upgrades (timestamp, component, new_version, status) VALUES ('2026-03-02 00:00:00', 'loki', '2', 'odd')`)
	got := stats(t, db, Filter{})
	if got[0].Upgrades != 2 || got[0].Success != 1 || got[0].Failed+got[0].RolledBack != 0 || got[0].Duration.Count != 1 {
		t.Errorf("%+v", got[0])
	}
	script(t, path, `UPDATE upgrades SET timestamp = 'last week' WHERE status = 'odd'`)
	if _, err := db.Stats(t.Context(), Filter{}); err == nil {
		t.Error("no error for a time that cannot be read")
	}
}
