package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"
)

// Stat is what became of the upgrades of one component. In JSON it is part of
// what `history stats --output json` prints.
type Stat struct {
	Component  string `json:"component"` // "" in the total
	Upgrades   int64  `json:"upgrades"`  // rows, whatever their status
	Success    int64  `json:"success"`
	Failed     int64  `json:"failed"`
	RolledBack int64  `json:"rolled_back"` // by themselves, and later by hand
	// SuccessRate is Success by Upgrades, from 0 to 1; nil without an upgrade.
	SuccessRate *float64 `json:"success_rate"`
	// Duration is that of the upgrades that succeeded and stand; nil without one.
	Duration *Spread `json:"duration"`
	// Downtime is that of the upgrades during which the component was down at all,
	// whatever became of them; nil without one.
	Downtime    *Spread    `json:"downtime"`
	LastSuccess *time.Time `json:"last_success"` // start of the newest run that succeeded
	LastFailure *time.Time `json:"last_failure"` // of the newest that failed or was rolled back
}

// Spread sums up measured times, in seconds.
type Spread struct {
	Count int64   `json:"count"` // of values
	Mean  float64 `json:"mean_seconds"`
	// P95 is the 95th percentile by nearest rank: the smallest value that at least
	// 95 % of all values do not exceed. It is always one that was measured.
	P95   float64 `json:"p95_seconds"`
	Max   float64 `json:"max_seconds"`
	Total float64 `json:"total_seconds"`
}

// measures are the expressions for how long an upgrade took and was down, which
// are NULL where that is not known.
func (d *DB) measures() (duration, downtime string) {
	return d.column("duration_exact", "COALESCE(duration_exact, duration_seconds)", "duration_seconds"), d.column("downtime_seconds", "downtime_seconds", "NULL")
}

// Stats sums up the rows that f matches, whatever its Limit: one Stat per
// component that has any, by name, and after them the total, which is always
// there. All are of one moment. Rows of other programs with a status of their own
// count among Upgrades alone. With a million rows it takes a few seconds.
func (d *DB) Stats(ctx context.Context, f Filter) ([]Stat, error) {
	if len(d.columns) == 0 {
		return []Stat{{}}, nil
	}
	tx, err := d.sql.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, d.explain(fmt.Errorf("sum up the history: %w", err))
	}
	defer tx.Rollback() //nolint:errcheck // it only read
	out, err := d.stats(ctx, tx, f)
	if err != nil {
		return nil, d.explain(fmt.Errorf("sum up the history: %w", err))
	}
	return out, nil
}

func (d *DB) stats(ctx context.Context, tx *sql.Tx, f Filter) ([]Stat, error) {
	out, err := d.perComponent(ctx, tx, f)
	if err != nil {
		return nil, err
	}
	for i := range out {
		one := f
		one.Components = []string{out[i].Component}
		if err := d.addPercentiles(ctx, tx, one, &out[i]); err != nil {
			return nil, err
		}
	}
	total := sum(out)
	if len(out) == 1 {
		if total.Duration != nil {
			total.Duration.P95 = out[0].Duration.P95
		}
		if total.Downtime != nil {
			total.Downtime.P95 = out[0].Downtime.P95
		}
	} else if err := d.addPercentiles(ctx, tx, f, &total); err != nil {
		return nil, err
	}
	out = append(out, total)
	for i := range out {
		out[i].round()
	}
	return out, nil
}

// perComponent reads everything but the percentiles.
func (d *DB) perComponent(ctx context.Context, tx *sql.Tx, f Filter) ([]Stat, error) {
	duration, downtime := d.measures()
	took := "CASE WHEN status = 'success' THEN " + duration + " END"
	down := "CASE WHEN " + downtime + " > 0 THEN " + downtime + " END"
	where, args := d.where(f)
	//nolint:gosec // took, down and where are made of constants; what was asked for is in args
	rows, err := tx.QueryContext(ctx, `SELECT component, COUNT(*), SUM(status = 'success'), SUM(status = 'failed'), SUM(status = 'rolled_back'),
  COUNT(`+took+`), SUM(`+took+`), MAX(`+took+`), COUNT(`+down+`), SUM(`+down+`), MAX(`+down+`),
  CAST(MAX(timestamp) FILTER (WHERE status = 'success') AS TEXT), CAST(MAX(timestamp) FILTER (WHERE status <> 'success') AS TEXT)
FROM upgrades`+where+` GROUP BY component ORDER BY component`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Stat
	for rows.Next() {
		var s Stat
		var durations, outages int64
		var took, longest, down, worst sql.NullFloat64
		var success, failure sql.NullString
		if err := rows.Scan(&s.Component, &s.Upgrades, &s.Success, &s.Failed, &s.RolledBack,
			&durations, &took, &longest, &outages, &down, &worst, &success, &failure); err != nil {
			return nil, err
		}
		s.Duration, s.Downtime = spread(durations, took, longest), spread(outages, down, worst)
		if s.LastSuccess, err = readTime(success); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Component, err)
		}
		if s.LastFailure, err = readTime(failure); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Component, err)
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func spread(n int64, total, longest sql.NullFloat64) *Spread {
	if n == 0 {
		return nil
	}
	return &Spread{Count: n, Mean: total.Float64 / float64(n), Max: longest.Float64, Total: total.Float64}
}

func readTime(s sql.NullString) (*time.Time, error) {
	if !s.Valid {
		return nil, nil
	}
	t, err := parseTime(s.String)
	return &t, err
}

// addPercentiles reads the percentiles of the rows that f matches, which s sums
// up. They are the values that so many others exceed, so only the highest
// twentieth is sorted.
func (d *DB) addPercentiles(ctx context.Context, tx *sql.Tx, f Filter, s *Stat) error {
	duration, downtime := d.measures()
	read := func(into *Spread, value, condition string) error {
		if into == nil {
			return nil
		}
		where, args := d.where(f, condition)
		err := tx.QueryRowContext(ctx, "SELECT "+value+" FROM upgrades"+where+" ORDER BY 1 DESC LIMIT 1 OFFSET ?", append(args, above(into.Count))...).Scan(&into.P95)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("there are fewer than %d values of %s", into.Count, value)
		}
		return err
	}
	// The + keeps the query from an index that has the rows and not the values.
	return errors.Join(
		read(s.Duration, duration, "+status = 'success' AND "+duration+" IS NOT NULL"),
		read(s.Downtime, downtime, downtime+" > 0"),
	)
}

// above is how many of n values exceed the 95th percentile by nearest rank.
func above(n int64) int64 { return n - (95*n+99)/100 }

// sum is the total of all but the percentiles.
func sum(all []Stat) Stat {
	var t Stat
	for _, s := range all {
		t.Upgrades += s.Upgrades
		t.Success += s.Success
		t.Failed += s.Failed
		t.RolledBack += s.RolledBack
		t.Duration, t.Downtime = t.Duration.plus(s.Duration), t.Downtime.plus(s.Downtime)
		t.LastSuccess, t.LastFailure = later(t.LastSuccess, s.LastSuccess), later(t.LastFailure, s.LastFailure)
	}
	return t
}

func (s *Spread) plus(o *Spread) *Spread {
	if o == nil {
		return s
	}
	if s == nil {
		s = &Spread{}
	}
	n := s.Count + o.Count
	return &Spread{Count: n, Mean: (s.Total + o.Total) / float64(n), Max: max(s.Max, o.Max), Total: s.Total + o.Total}
}

func later(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.After(*a) {
		return b
	}
	return a
}

// round brings seconds to the millisecond that they were measured to.
func (s *Stat) round() {
	for _, sp := range []*Spread{s.Duration, s.Downtime} {
		if sp != nil {
			for _, v := range []*float64{&sp.Mean, &sp.P95, &sp.Max, &sp.Total} {
				*v = math.Round(*v*1000) / 1000
			}
		}
	}
	if s.Upgrades > 0 {
		rate := float64(s.Success) / float64(s.Upgrades)
		s.SuccessRate = &rate
	}
}
