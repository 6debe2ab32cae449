package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

// host is a host to show: an overview, and files below a root that belong to it.
type host struct {
	t    testing.TB
	root layout.Root

	mu  sync.Mutex
	now time.Time
	o   overview.Overview
	err error
}

// Overview is what was set, with the run that the files tell of.
func (h *host) Overview(context.Context) (*overview.Overview, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return nil, h.err
	}
	o := h.o
	o.ReadAt = time.Now()
	id, err := overview.OpenRun(h.root)
	if err != nil {
		return nil, err
	}
	var open *runlog.Record
	if id != "" {
		if open, err = runlog.Read(h.root, id); err != nil {
			open = &runlog.Record{ID: id}
		}
	}
	pid, held := lock.Holder(h.root.Lock())
	switch overview.PhaseOf(open, held) {
	case overview.Preparing:
		o.Preparing = &overview.Process{PID: pid}
	case overview.Running:
		o.Running = open
	case overview.Interrupted:
		o.Interrupted = open
	}
	return &o, nil
}

func version(s string) component.Version {
	if s == "" {
		return component.Version{}
	}
	return component.MustParseVersion(s)
}

// candidate is what a check said.
func candidate(name, current, latest string, action plan.Action, reason string, behind int) *plan.Candidate {
	c := &plan.Candidate{
		Name: name, Current: version(current), Latest: version(latest), Action: action, Reason: reason, VersionsBehind: behind,
		Type: component.BumpUnknown, NotesURL: "https://example.org/" + name + "/releases",
	}
	if latest != "" {
		c.Type = component.BumpBetween(c.Current, c.Latest)
	}
	if action == plan.ActionUpgrade {
		c.Target = c.Latest
	}
	return c
}

// newHost is a host as many are: most is well, some is held, one is not healthy.
func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t, root: layout.Root(t.TempDir()), now: time.Now().UTC().Truncate(time.Second)}
	ago := func(d time.Duration) time.Time { return h.now.Add(-d) }
	const day = 24 * time.Hour
	h.o = overview.Overview{
		Host: "mon-1.example.org", Build: "1.4.0",
		Components: []overview.Component{
			{
				Name: "alertmanager", Role: component.RoleAlerting, Version: "0.27.0", Previous: "0.26.0", InstalledAt: ago(400 * day), UpgradedAt: ago(3 * day),
				Service: "alertmanager.service", Candidate: candidate("alertmanager", "0.27.0", "0.28.1", plan.ActionHold, "0.28.1 is on hold until 2027-01-10: wait for the new templates", 2),
			},
			{
				Name: "grafana", Role: component.RoleUI, Version: "11.2.0", Previous: "11.1.4", InstalledAt: ago(300 * day), UpgradedAt: ago(40 * day),
				Service: "grafana-server.service", Candidate: candidate("grafana", "11.2.0", "12.0.1", plan.ActionBlocked, "12.0.1 needs prometheus >=2.55.0, and 2.53.3 is installed", 5),
			},
			{
				Name: "loki", Role: component.RoleDatastore, Version: "2.9.8", InstalledAt: ago(200 * day), Service: "loki.service",
				Candidate: candidate("loki", "2.9.8", "", plan.ActionSkip, "upstream could not be asked: GET https://api.github.com/repos/grafana/loki/releases: 403 rate limited until 12:40 UTC", 0),
			},
			{
				Name: "node_exporter", Role: component.RoleExporter, Version: "1.9.1", Previous: "1.8.2", InstalledAt: ago(400 * day), UpgradedAt: ago(3 * day),
				Service: "node_exporter.service", Candidate: candidate("node_exporter", "1.9.1", "1.9.1", plan.ActionSkip, "up to date", 0),
			},
			{
				Name: "prometheus", Role: component.RoleDatastore, Version: "2.53.3", Previous: "2.52.0", InstalledAt: ago(400 * day), UpgradedAt: ago(3 * day),
				Service: "prometheus.service", Candidate: candidate("prometheus", "2.53.3", "2.55.1", plan.ActionUpgrade, "", 3),
			},
		},
		Runs: []state.RunSummary{
			{ID: "20261122_020011", Timestamp: ago(3 * day), Status: "success", ComponentsUpgraded: []string{"node_exporter", "prometheus", "alertmanager"}, DurationSeconds: 63, TriggeredBy: "scheduled", Operation: "apply"},
			{ID: "20261115_020007", Timestamp: ago(10 * day), Status: "rolled_back", DurationSeconds: 41, TriggeredBy: "scheduled", Operation: "apply"},
			{ID: "20261101_093510", Timestamp: ago(24 * day), Status: "success", ComponentsUpgraded: []string{"grafana"}, DurationSeconds: 22, TriggeredBy: "manual", Operation: "rollback"},
		},
		Holds:   []plan.Hold{{Component: "alertmanager", Reason: "wait for the new templates", Until: h.now.Add(40 * day)}},
		Windows: overview.Windows{List: []string{"saturday 02:00-06:00 UTC", "sunday 02:00-06:00 UTC"}, Next: h.now.Add(53 * time.Hour)},
		Auto:    overview.Auto{Enabled: true, Policy: "patch_only", Schedule: "Sat,Sun *-*-* 02:00:00"},
		Backups: []overview.Backup{
			{Timestamp: "20261122_020011", Path: "/var/backups/observability/20261122_020011", Complete: true, Bytes: 412_000_000, Components: map[string]string{"prometheus": "2.52.0", "alertmanager": "0.26.0", "node_exporter": "1.8.2"}},
			{Timestamp: "20261115_020007", Path: "/var/backups/observability/20261115_020007", Complete: true, Bytes: 98_000_000, Components: map[string]string{"loki": "2.9.8"}},
			{Timestamp: "20261101_093510", Path: "/var/backups/observability/20261101_093510", Bytes: 11_000_000, Components: map[string]string{"grafana": "11.2.0"}},
		},
	}
	h.o.Check = &plan.CheckReport{CheckedAt: ago(5 * time.Hour), Errors: []plan.ComponentError{{Component: "loki", Error: "403 rate limited until 12:40 UTC"}}}
	for _, c := range h.o.Components {
		h.o.Check.Components = append(h.o.Check.Components, *c.Candidate)
	}
	h.fillHistory()
	h.pastRun()
	h.failedRun()
	return h
}

// conditions are those of a host with one component that is not well.
func (h *host) conditions(context.Context, map[string]string) map[string]Condition {
	return map[string]Condition{
		"alertmanager":  {Health: Healthy},
		"grafana":       {Health: Unhealthy, Detail: "ready: http://localhost:3000/api/health answered 503 \"database is locked\", expected 200"},
		"loki":          {Health: Healthy},
		"node_exporter": {Health: Healthy},
		"prometheus":    {Health: Healthy},
	}
}

func (h *host) options() Options {
	return Options{Source: h, Root: h.root, Conditions: h.conditions, Logger: slog.New(slog.DiscardHandler)}
}

// serve answers on a port of this machine until the test ends.
func (h *host) serve(o Options) (*Handler, string) {
	h.t.Helper()
	handler := New(o)
	srv := httptest.NewServer(handler)
	h.t.Cleanup(func() {
		handler.Close()
		srv.Close()
	})
	return handler, srv.URL
}

func (h *host) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// fillHistory writes two years of upgrades.
func (h *host) fillHistory() {
	h.t.Helper()
	ctx := context.Background()
	db, err := history.Open(ctx, h.root.History())
	h.check(err)
	defer db.Close()
	add := func(at time.Duration, component, from, to, status, message string, took, down float64) {
		h.t.Helper()
		when := h.now.Add(-at)
		_, err := db.Record(ctx, history.Upgrade{
			Timestamp: when, RunID: when.Format("20060102_150405"), Component: component, OldVersion: from, NewVersion: to, Status: status, ErrorMessage: message,
			Duration: time.Duration(took * float64(time.Second)), Downtime: time.Duration(down * float64(time.Second)), TriggeredBy: "scheduled",
		})
		h.check(err)
	}
	const day = 24 * time.Hour
	for i := range 18 {
		at := time.Duration(40*(18-i)) * day
		add(at, "prometheus", fmt.Sprintf("2.%d.0", 34+i), fmt.Sprintf("2.%d.0", 35+i), history.Success, "", 24+float64(i%5)*3+float64(i)*0.8, 1.6+float64(i%4)*0.4)
		if i%2 == 0 {
			add(at+time.Minute, "node_exporter", fmt.Sprintf("1.%d.0", i/2), fmt.Sprintf("1.%d.0", i/2+1), history.Success, "", 4+float64(i%3), 0.18+float64(i%5)*0.03)
		}
		if i%3 == 0 {
			add(at+2*time.Minute, "alertmanager", fmt.Sprintf("0.%d.0", 20+i/3), fmt.Sprintf("0.%d.0", 21+i/3), history.Success, "", 9+float64(i%4), 0.5)
		}
	}
	add(10*day, "loki", "2.9.8", "3.0.0", history.RolledBack, "ready: http://localhost:3100/ready answered 503 \"Ingester not ready\", expected 200", 41, 38)
	add(95*day, "grafana", "11.1.4", "11.2.0", history.Success, "", 17, 6.2)
	add(130*day, "grafana", "11.1.3", "11.1.4", history.Failed, "config check: unknown key [auth.jwt] enabled", 2.5, 0)
	add(160*day, "grafana", "11.1.0", "11.1.3", history.Success, "", 15, 5.1)
}

// writeLog writes the events of a run.
func (h *host) writeLog(id string, events ...run.Event) {
	h.t.Helper()
	w := runlog.NewWriter(h.root, slog.New(slog.DiscardHandler))
	defer w.Close()
	for _, ev := range events {
		ev.Run = id
		w.Event(ev)
	}
}

const (
	pastID   = "20261122_020011"
	failedID = "20261115_020007"
)

// steps logs one component from place to admit, in so many milliseconds each.
func steps(at time.Time, component string, ms map[run.Step]int, detail map[run.Step]string) (events []run.Event, end time.Time) {
	for _, s := range []run.Step{run.StepPlace, run.StepFingerprint, run.StepStop, run.StepSwap, run.StepStart, run.StepHealth} {
		if ms[s] == 0 {
			continue
		}
		events = append(events, run.Event{Time: at, Component: component, Step: s})
		at = at.Add(time.Duration(ms[s]) * time.Millisecond)
		events = append(events, run.Event{Time: at, Component: component, Step: s, Done: true, Detail: detail[s]})
	}
	return events, at
}

// pastRun is one that went well.
func (h *host) pastRun() {
	start := h.now.Add(-3 * 24 * time.Hour)
	comps := []run.Planned{
		{Name: "node_exporter", From: "1.8.2", To: "1.9.1"}, {Name: "prometheus", From: "2.52.0", To: "2.53.3"}, {Name: "alertmanager", From: "0.26.0", To: "0.27.0"},
	}
	p := plan.Plan{
		Checks: []component.Check{
			{Name: "disk space", Status: component.CheckOK, Detail: "81 GB free, 1.2 GB needed"},
			{Name: "service health", Component: "prometheus", Status: component.CheckOK, Detail: "ready, reports 2.52.0"},
			{Name: "config check", Component: "alertmanager", Status: component.CheckWarn, Detail: "route has no receiver for team=web", Next: "amtool check-config /etc/alertmanager/alertmanager.yml"},
		},
		Held: []plan.Held{{Component: "grafana", Current: version("11.2.0"), Candidate: version("12.0.1"), Reason: "12.0.1 needs prometheus >=2.55.0, and 2.53.3 is to be installed"}},
	}
	events := []run.Event{
		{Time: start, Step: run.StepBegin, Plan: p, Begin: &run.Header{ID: pastID, Operation: run.Apply, Trigger: "scheduled", StartedAt: start, PID: 4711, BackupPath: "/var/backups/observability/" + pastID, Components: comps, ProgramBuild: "1.4.0"}},
		{Time: start.Add(40 * time.Millisecond), Step: run.StepBackup, Detail: "/var/backups/observability/" + pastID},
		{Time: start.Add(8100 * time.Millisecond), Step: run.StepBackup, Done: true, Detail: "/var/backups/observability/" + pastID},
	}
	at := start.Add(8200 * time.Millisecond)
	res := run.Result{ID: pastID, Operation: run.Apply, Trigger: "scheduled", StartedAt: start, Status: run.StatusSuccess, BackupPath: "/var/backups/observability/" + pastID, Warnings: []string{"alertmanager: its definition names no reload address; it was restarted"}}
	for i, c := range comps {
		ms := map[run.Step]int{run.StepPlace: 310, run.StepStop: 120, run.StepSwap: 3, run.StepStart: 90, run.StepHealth: 5200}
		detail := map[run.Step]string{run.StepStop: "ended by itself", run.StepHealth: "ready, reports " + c.To}
		if c.Name == "prometheus" {
			ms[run.StepFingerprint], ms[run.StepStop], ms[run.StepHealth] = 640, 1900, 21400
			detail[run.StepHealth] = "replaying the log, 118 of 118; ready, reports 2.53.3"
		}
		more, end := steps(at, c.Name, ms, detail)
		events = append(events, more...)
		res.Components = append(res.Components, run.Outcome{Name: c.Name, From: version(c.From), To: version(c.To), Status: run.Upgraded, Healthy: true, Duration: end.Sub(at).Seconds(), Downtime: []float64{0.21, 3.1, 0.4}[i]})
		at = end.Add(60 * time.Millisecond)
	}
	res.Duration = at.Sub(start).Seconds()
	events = append(events, run.Event{Time: at, Step: run.StepEnd, Done: true, End: &res})
	h.writeLog(pastID, events...)
}

// failedRun is one that was rolled back, with evidence.
func (h *host) failedRun() {
	start := h.now.Add(-10 * 24 * time.Hour)
	evidence := filepath.Join(h.root.RunsDir(), failedID, "evidence", "loki.json")
	why := "not ready within 30s: http://localhost:3100/ready answered 503 \"Ingester not ready\", expected 200"
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	res := run.Result{
		ID: failedID, Operation: run.Apply, Trigger: "scheduled", StartedAt: start, Status: run.StatusRolledBack, Duration: 41.2,
		Components: []run.Outcome{{Name: "loki", From: version("2.9.8"), To: version("3.0.0"), Status: run.RolledBack, Error: why, Downtime: 38, Duration: 41, Evidence: evidence}},
	}
	h.writeLog(failedID,
		run.Event{Time: start, Step: run.StepBegin, Begin: &run.Header{ID: failedID, Operation: run.Apply, Trigger: "scheduled", StartedAt: start, Components: []run.Planned{{Name: "loki", From: "2.9.8", To: "3.0.0"}}}},
		run.Event{Time: at(100), Component: "loki", Step: run.StepStop}, run.Event{Time: at(1600), Component: "loki", Step: run.StepStop, Done: true},
		run.Event{Time: at(1700), Component: "loki", Step: run.StepHealth}, run.Event{Time: at(31700), Component: "loki", Step: run.StepHealth, Done: true, Err: errors.New(why)},
		run.Event{Time: at(32000), Component: "loki", Step: run.StepUndo, Detail: "back to 2.9.8"}, run.Event{Time: at(41000), Component: "loki", Step: run.StepUndo, Done: true, Detail: "back at 2.9.8"},
		run.Event{Time: at(41200), Step: run.StepEnd, Done: true, End: &res},
	)
	doc := map[string]any{
		"component": "loki", "reason": why, "taken_at": at(31800), "readiness_answer": "Ingester not ready: PLANTED-ANSWER",
		"status": map[string]any{"Exists": true, "SubState": "running"}, "logs": []map[string]any{{"Message": "PLANTED-LOG"}},
		"health": map[string]any{"checks": []map[string]any{{"name": "ready", "status": "fail", "detail": "answered 503"}, {"name": "metric", "status": "ok", "detail": "present"}}},
	}
	data, err := json.Marshal(doc)
	h.check(err)
	h.check(os.MkdirAll(filepath.Dir(evidence), 0o755))
	h.check(os.WriteFile(evidence, data, 0o644))
}

// liveRun is a run that goes on as the test says.
type liveRun struct {
	h    *host
	id   string
	lock *lock.Lock
	log  *runlog.Writer
	head run.Header
}

// begin begins a run of three components: it holds the lock and has an open
// journal, as a real one.
func (h *host) begin() *liveRun {
	h.t.Helper()
	return h.beginAt(time.Now())
}

// beginAt begins one that began at another time.
func (h *host) beginAt(now time.Time) *liveRun {
	h.t.Helper()
	r := &liveRun{h: h, id: now.UTC().Format("20060102_150405"), log: runlog.NewWriter(h.root, slog.New(slog.DiscardHandler))}
	var err error
	r.lock, err = lock.Acquire(h.root.Lock(), "observability-upgrade apply")
	h.check(err)
	h.t.Cleanup(func() { r.log.Close(); r.lock.Release() })
	h.check(os.MkdirAll(h.root.JournalDir(), 0o755))
	h.check(os.WriteFile(r.journal(), []byte("x\n"), 0o600))
	r.head = run.Header{
		ID: r.id, Operation: run.Apply, Trigger: "manual", StartedAt: now, PID: os.Getpid(), BackupPath: "/var/backups/observability/" + r.id, ProgramBuild: "1.4.0",
		Components: []run.Planned{{Name: "node_exporter", From: "1.9.1", To: "1.9.2"}, {Name: "prometheus", From: "2.53.3", To: "2.55.1"}, {Name: "grafana", From: "11.2.0", To: "11.3.0"}},
	}
	r.event(run.Event{Time: now, Step: run.StepBegin, Begin: &r.head})
	return r
}

func (r *liveRun) journal() string { return filepath.Join(r.h.root.JournalDir(), r.id+".journal") }

func (r *liveRun) event(ev run.Event) {
	ev.Run = r.id
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	r.log.Event(ev)
}

// step logs a step from its begin to its end.
func (r *liveRun) step(component string, s run.Step, detail string) {
	r.event(run.Event{Component: component, Step: s})
	r.event(run.Event{Component: component, Step: s, Done: true, Detail: detail})
}

// end ends the run well.
func (r *liveRun) end() {
	r.h.t.Helper()
	res := &run.Result{ID: r.id, Operation: run.Apply, Trigger: "manual", StartedAt: r.head.StartedAt, Status: run.StatusSuccess, Duration: time.Since(r.head.StartedAt).Seconds()}
	for _, c := range r.head.Components {
		res.Components = append(res.Components, run.Outcome{Name: c.Name, From: version(c.From), To: version(c.To), Status: run.Upgraded, Healthy: true, Duration: 3, Downtime: 0.4})
	}
	r.h.mu.Lock()
	r.h.o.Runs = append([]state.RunSummary{{
		ID: r.id, Timestamp: r.head.StartedAt, Status: "success", ComponentsUpgraded: []string{"node_exporter", "prometheus", "grafana"}, DurationSeconds: 4, TriggeredBy: "manual", Operation: "apply",
	}}, r.h.o.Runs...)
	for i := range r.h.o.Components {
		if r.h.o.Components[i].Name == "prometheus" {
			r.h.o.Components[i].Version, r.h.o.Components[i].Previous, r.h.o.Components[i].UpgradedAt = "2.55.1", "2.53.3", time.Now()
		}
	}
	r.h.mu.Unlock()
	r.h.check(os.Remove(r.journal()))
	r.event(run.Event{Step: run.StepEnd, Done: true, End: res})
	r.h.check(r.lock.Release())
}

// kill ends it as a kill does: the kernel frees the lock, the journal stays open.
func (r *liveRun) kill() {
	r.h.t.Helper()
	r.log.Close()
	r.h.check(r.lock.Release())
}

// textLogger writes to a builder; one goroutine at a time may use it.
func textLogger(to *strings.Builder) *slog.Logger { return slog.New(slog.NewTextHandler(to, nil)) }

// truncate cuts a run's log to its first bytes.
func truncate(root layout.Root, id string) error {
	return os.Truncate(filepath.Join(root.RunsDir(), id, "events.jsonl"), 5)
}

// assess is what is known of vulnerabilities: of those given, and of no other
// component. A nil list is none known.
func (h *host) assess(modified time.Time, stale bool, known map[string][]vulnerability.Finding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.o.VulnerabilityData = &vulnerability.Info{Source: "https://vuln.go.dev", Modified: &modified, Stale: stale}
	for i := range h.o.Components {
		c := &h.o.Components[i]
		list, ok := known[c.Name]
		c.Vulnerability = &vulnerability.Result{Name: c.Name, State: vulnerability.Unknown, Reason: "no database has records of it"}
		switch {
		case len(list) > 0:
			c.Vulnerability = &vulnerability.Result{Name: c.Name, State: vulnerability.Affected, Vulnerabilities: list}
		case ok:
			c.Vulnerability = &vulnerability.Result{Name: c.Name, State: vulnerability.None}
		}
	}
}
