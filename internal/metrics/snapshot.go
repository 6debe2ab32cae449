package metrics

import (
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

// snapshot is a prometheus.Collector of one overview.
type snapshot struct {
	*overview.Overview
	live bool // for a scrape, not for a file
}

// Describe names all metrics.
func (s snapshot) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range all {
		ch <- f.desc
	}
}

// Collect makes all metrics of the overview.
func (s snapshot) Collect(ch chan<- prometheus.Metric) {
	e := emitter{ch: ch, live: s.live, problems: len(s.Problems)}
	e.set(programInfo, 1, s.Build, runtime.Version())
	s.components(e)
	s.holds(e)
	s.upgrades(&e)
	s.totals(e)
	s.check(e)
	s.runs(&e)
	s.windows(e)
	s.backups(&e)
	e.set(problems, float64(e.problems))
}

func (s snapshot) components(e emitter) {
	if d := s.VulnerabilityData; d != nil && d.Modified != nil {
		e.time(vulnerabilityTime, *d.Modified)
	}
	for _, c := range s.Components {
		if c.Version != "" {
			e.set(versionInfo, 1, c.Name, c.Version)
		}
		if v := c.Candidate; v != nil && !v.Latest.IsZero() && !v.Current.IsZero() {
			e.set(versionsBehind, float64(v.VersionsBehind), c.Name)
		}
		e.flag(autoEnabled, s.Auto.Enabled && c.Unattended(), c.Name)
		e.time(lastUpgrade, c.UpgradedAt, c.Name)
		e.flag(rollbackFailed, slices.Contains(s.Broken, c.Name), c.Name)
		list := known(c)
		e.state(vulnerabilityData, dataStates, stateOf(list), c.Name)
		for id, severity := range worst(list) {
			e.set(vulnerable, 1, c.Name, id, severity)
		}
	}
}

func (s snapshot) holds(e emitter) {
	until := map[string]time.Time{}
	endless := map[string]bool{}
	var held []string
	for _, h := range s.Holds {
		if !slices.Contains(held, h.Component) {
			held = append(held, h.Component)
		}
		endless[h.Component] = endless[h.Component] || h.Until.IsZero()
		if h.Until.After(until[h.Component]) {
			until[h.Component] = h.Until
		}
	}
	for _, c := range s.Components {
		if !slices.Contains(held, c.Name) {
			e.set(heldBack, 0, c.Name)
		}
	}
	for _, name := range held {
		e.set(heldBack, 1, name)
		if !endless[name] {
			e.time(holdUntil, until[name], name)
		}
	}
}

// upgrades tells of the last upgrade of each component that is still here: what
// became of one that is gone alarms nobody.
func (s snapshot) upgrades(e *emitter) {
	for _, u := range s.Totals.Newest {
		if s.Component(u.Component) == nil {
			continue
		}
		if !slices.Contains(upgradeStatuses, u.Status) {
			e.problems++ // another program's word
			continue
		}
		e.state(upgradeStatus, upgradeStatuses, u.Status, u.Component)
		if arrived := u.Status == history.Success || u.Undone(); !arrived || u.HealthCheckPassed != nil {
			e.flag(lastUpgradeSuccess, arrived, u.Component)
		}
		e.set(upgradeDuration, u.Duration.Seconds(), u.Component)
		e.set(lastUpgradeDowntime, u.Downtime.Seconds(), u.Component)
	}
}

// totals are counters, so they may never fall: an upgrade that a person takes
// back stays counted as the success that it was.
func (s snapshot) totals(e emitter) {
	sums := map[string]map[string]uint64{}
	for _, c := range s.Totals.Counts {
		sum := sums[c.Component]
		if sum == nil {
			sum = map[string]uint64{}
			sums[c.Component] = sum
		}
		sum[c.Status] += c.N - c.Undone
		sum[history.Success] += c.Undone
		if c.Status == history.RolledBack {
			sum["rollbacks"] += c.N
		}
	}
	for name, sum := range sums {
		for _, status := range upgradeStatuses {
			e.count(upgrades, sum[status], name, status)
		}
		e.count(rollbacks, sum["rollbacks"], name)
	}
	bounds := overview.DowntimeBounds()
	for name, d := range s.Totals.Downtimes {
		buckets := map[float64]uint64{}
		for i, n := range d.Buckets {
			buckets[bounds[i]] = n
		}
		e.ch <- prometheus.MustNewConstHistogram(downtime.desc, d.Count, d.Sum, buckets, clean(name))
	}
}

func (s snapshot) check(e emitter) {
	if s.Check == nil {
		return
	}
	e.time(lastCheck, s.Check.CheckedAt)
	e.flag(lastCheckSuccess, len(s.Check.Errors) == 0)
	for _, c := range s.Components {
		if c.Candidate != nil || c.CheckError != "" {
			e.flag(checkErrors, c.CheckError != "", c.Name)
		}
	}
}

func (s snapshot) runs(e *emitter) {
	e.flag(interrupted, s.Interrupted != nil)
	e.flag(inProgress, s.Running != nil)
	e.flag(lockHeld, s.Running != nil || s.Preparing != nil)
	if len(s.Runs) == 0 {
		return
	}
	last := s.Runs[0]
	e.time(lastRun, last.Timestamp)
	e.set(lastRunDuration, float64(last.DurationSeconds))
	if !slices.Contains(runStatuses, last.Status) {
		e.problems++
		return
	}
	e.state(lastRunStatus, runStatuses, last.Status)
}

func (s snapshot) windows(e emitter) {
	e.flag(windowOpen, s.Windows.Open)
	e.time(windowNext, s.Windows.Next)
}

func (s snapshot) backups(e *emitter) {
	bytes, complete, incomplete := int64(0), 0, 0
	var newest time.Time
	for _, b := range s.Backups {
		bytes += b.Bytes
		if !b.Complete {
			incomplete++
			continue
		}
		complete++
		stamp := b.Timestamp[:min(len(b.Timestamp), len(backup.StampLayout))]
		at, err := time.Parse(backup.StampLayout, stamp)
		if err != nil {
			e.problems++
		} else if at.After(newest) {
			newest = at
		}
	}
	e.set(backupBytes, float64(bytes))
	e.set(backupPoints, float64(complete), "complete")
	e.set(backupPoints, float64(incomplete), "incomplete")
	e.time(backupNewest, newest)
}

// emitter hands metrics on.
type emitter struct {
	ch       chan<- prometheus.Metric
	live     bool
	problems int
}

func (e emitter) emit(f *Family, kind prometheus.ValueType, v float64, labels []string) {
	if f.Live && !e.live {
		return
	}
	for i := range labels {
		labels[i] = clean(labels[i])
	}
	e.ch <- prometheus.MustNewConstMetric(f.desc, kind, v, labels...) // it panics on a wrong number of labels only
}

func (e emitter) set(f *Family, v float64, labels ...string) {
	e.emit(f, prometheus.GaugeValue, v, labels)
}

func (e emitter) count(f *Family, n uint64, labels ...string) {
	e.emit(f, prometheus.CounterValue, float64(n), labels)
}

func (e emitter) flag(f *Family, on bool, labels ...string) {
	v := 0.0
	if on {
		v = 1
	}
	e.set(f, v, labels...)
}

// time is left out where there is none.
func (e emitter) time(f *Family, t time.Time, labels ...string) {
	if !t.IsZero() {
		e.set(f, float64(t.Unix()), labels...)
	}
}

// state gives each state a series, of which exactly one is 1. Its label is the
// last.
func (e emitter) state(f *Family, states []string, now string, labels ...string) {
	for _, s := range states {
		e.flag(f, s == now, append(slices.Clone(labels), s)...)
	}
}

// clean makes a label value of what a file or an upstream said.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
