package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	got = strings.ReplaceAll(got, "\r\n", "\n")
	path := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-update writes it): %s", path, diff)
	}
}

func v(s string) component.Version { return component.MustParseVersion(s) }

// noon is when the runs of these tests began, or hours after.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// recorded is a root with what runs leave behind.
type recorded struct {
	t    *testing.T
	root layout.Root
	log  *runlog.Writer
}

func newRecorded(t *testing.T) *recorded {
	t.Helper()
	root := layout.Root(t.TempDir())
	r := &recorded{t: t, root: root, log: runlog.NewWriter(root, slog.New(slog.DiscardHandler))}
	t.Cleanup(r.log.Close)
	return r
}

func (r *recorded) write(path string, content any, mode os.FileMode) {
	r.t.Helper()
	data, ok := content.(string)
	if !ok {
		text, err := json.Marshal(content)
		if err != nil {
			r.t.Fatal(err)
		}
		data = string(text)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(data), mode)); err != nil {
		r.t.Fatal(err)
	}
}

// events logs events of a run; each is at so many milliseconds after its start.
func (r *recorded) events(h run.Header, plan any, list ...run.Event) {
	r.later(h, append([]run.Event{{Step: run.StepBegin, Begin: &h, Plan: plan}}, list...)...)
}

func (r *recorded) later(h run.Header, list ...run.Event) {
	for _, ev := range list {
		ev.Run = h.ID
		if ev.Time.Before(h.StartedAt) {
			ev.Time = h.StartedAt.Add(ev.Time.Sub(time.Time{}))
		}
		r.log.Event(ev)
	}
}

// after is a time of an event relative to its run's start.
func moment(ms int) time.Time { return time.Time{}.Add(time.Duration(ms) * time.Millisecond) }

// did is a step that began and ended.
func did(step run.Step, set string, from, to int, detail string, failure ...string) []run.Event {
	name, instance, _ := strings.Cut(set, "@")
	end := run.Event{Step: step, Component: name, Instance: instance, Time: moment(to), Done: true, Detail: detail}
	if len(failure) > 0 {
		end.Err = errors.New(failure[0])
	}
	return []run.Event{{Step: step, Component: name, Instance: instance, Time: moment(from)}, end}
}

func (r *recorded) result(res run.Result) *run.Result {
	if res.Operation != run.Restart {
		r.write(filepath.Join(r.root.RunsDir(), res.ID, "result.json"), res, 0o644)
	}
	return &res
}

func (r *recorded) rows(list ...history.Upgrade) {
	r.t.Helper()
	db, err := history.Open(r.t.Context(), r.root.History())
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	for _, u := range list {
		if _, err := db.Record(r.t.Context(), u); err != nil {
			r.t.Fatal(err)
		}
		if u.Status == history.RolledBack && u.ErrorMessage == "" {
			if err := db.MarkRolledBack(r.t.Context(), []history.Mark{{ID: u.ID, At: *u.RollbackTimestamp}}); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// called writes an entry into the audit log as a person's command does.
func (r *recorded) called(e audit.Entry) {
	r.t.Helper()
	if err := audit.New(&hostfs.Host{}, r.root.Audit()).Write(e); err != nil {
		r.t.Fatal(err)
	}
	// Who runs this test is none of the golden files' business.
	data, err := os.ReadFile(r.root.Audit())
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		var one audit.Entry
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			r.t.Fatal(err)
		}
		one.User, one.UID, one.PID, one.SudoUser = "root", 0, 4711, "mara"
		text, err := json.Marshal(one)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, string(text))
	}
	r.write(r.root.Audit(), strings.Join(out, "\n")+"\n", 0o640)
}

// backup makes a backup point that looks complete.
func (r *recorded) backup(id string) string {
	dir := filepath.Join(r.root.Backups(), id)
	r.write(filepath.Join(dir, "manifest.json"), "{}", 0o600)
	r.write(filepath.Join(dir, "SHA256SUMS"), "", 0o600)
	return dir
}

// tookBackup makes the backup point of a run, and the events that tell of it.
func (r *recorded) tookBackup(h run.Header) []run.Event {
	return did(run.StepBackup, "", 1, 9, r.backup(h.ID))
}

// show is the text of a run, with the root left out and no line too long.
func (r *recorded) show(ref string, now time.Time) string {
	r.t.Helper()
	d, err := runlog.Show(r.t.Context(), r.root, ref, now)
	if err != nil {
		r.t.Fatal(err)
	}
	p := &runPage{Style: plan.Style{Width: 80}}
	p.run(d)
	text := strings.ReplaceAll(p.String(), string(r.root), "") // it is in lines that are not wrapped
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > 80 {
			r.t.Errorf("%s: a line of %d columns: %s", ref, n, line)
		}
	}
	return text
}

func header(id string, op run.Operation, hours int, root layout.Root, parts ...run.Planned) run.Header {
	return run.Header{
		ID: id, Operation: op, Trigger: "manual", StartedAt: noon.Add(time.Duration(hours) * time.Hour), PID: 4711, ProgramBuild: "v1.4.0",
		BackupPath: filepath.Join(string(root), "/var/backups/observability", id), Components: parts,
	}
}

// An upgrade that went well, with things to know about its plan; one of its
// components was taken back since.
func (r *recorded) success() string {
	const id = "20261125_120000"
	h := header(id, run.Apply, 0, r.root, run.Planned{Name: "node_exporter", From: "1.7.0", To: "1.8.2"}, run.Planned{Name: "prometheus", From: "2.53.3", To: "2.55.1"})
	made := plan.Plan{
		ID: id, Warnings: []string{"prometheus 2.55.1 is the last that reads the data of 2.x and of 3.x; the next step is 3.x"},
		Held: []plan.Held{
			{Component: "grafana", Current: v("11.2.0"), Candidate: v("12.0.1"), Reason: "held until 2026-12-31: angular panels are still in use on the dashboards of the network team"},
			{Component: "loki", Current: v("3.1.0"), Reason: "upstream could not be asked: 403 rate limit exceeded"},
		},
		Checks: []component.Check{
			{Name: "disk_space", Status: component.CheckOK, Detail: "/: needs 512 MB, has 75.4 GB"},
			{Name: "service_health", Component: "node_exporter", Status: component.CheckOK, Detail: "healthy"},
			{Name: "service_health", Component: "prometheus", Status: component.CheckWarn, Detail: "it was restarted twice in the last hour", Next: "journalctl -u prometheus"},
			{Name: "maintenance_window", Status: component.CheckOK, Detail: "02:00-06:00 UTC"},
			{Name: "alert_gate", Status: component.CheckSkipped, Detail: "none is configured"},
		},
	}
	res := r.result(run.Result{
		ID: id, Operation: run.Apply, Trigger: "manual", StartedAt: h.StartedAt, Status: run.StatusSuccess, BackupPath: r.backup(id), Duration: 84.218,
		Components: []run.Outcome{
			{Name: "node_exporter", From: v("1.7.0"), To: v("1.8.2"), Status: run.Upgraded, Downtime: 0.212, Duration: 6.4, Healthy: true},
			{Name: "prometheus", From: v("2.53.3"), To: v("2.55.1"), Status: run.Upgraded, Downtime: 14.9, Duration: 77.5, Healthy: true},
		},
		Warnings: []string{"prometheus.service did not stop within 30s and was killed"},
	})
	var events []run.Event
	for _, s := range [][]run.Event{
		did(run.StepBackup, "", 4, 310, res.BackupPath),
		did(run.StepPlace, "node_exporter", 311, 330, ""), did(run.StepStop, "node_exporter", 331, 352, "stopped in 20ms"), did(run.StepSwap, "node_exporter", 352, 353, ""),
		did(run.StepStart, "node_exporter", 353, 500, ""), did(run.StepHealth, "node_exporter", 501, 6700, "healthy at 1.8.2"),
		did(run.StepPlace, "prometheus", 6702, 7050, ""), did(run.StepFingerprint, "prometheus", 7050, 7312, "3 values: targets, samples, scraped samples"),
		did(run.StepStop, "prometheus", 7313, 37400, "killed after 30s"), did(run.StepSwap, "prometheus", 37400, 37402, ""), did(run.StepStart, "prometheus", 37402, 37602, ""),
		did(run.StepHealth, "prometheus", 37603, 84200, "healthy at 2.55.1"),
		{{Step: run.StepEnd, Time: moment(84218), Done: true, End: res}},
	} {
		events = append(events, s...)
	}
	r.events(h, made, events...)
	r.called(audit.Entry{Time: noon.Add(85 * time.Second), Command: "apply", Args: []string{"apply", "--yes", "--component=prometheus,node_exporter"}, Outcome: "ok", RunID: id})
	back := noon.Add(26 * time.Hour)
	r.rows(
		history.Upgrade{Timestamp: noon, RunID: id, Component: "node_exporter", OldVersion: "1.7.0", NewVersion: "1.8.2", Status: history.Success, TriggeredBy: "manual", Duration: 6400 * time.Millisecond, Downtime: 212 * time.Millisecond, BackupPath: res.BackupPath, HealthCheckPassed: new(true), NotificationSent: new(true)},
		history.Upgrade{Timestamp: noon, RunID: id, Component: "prometheus", OldVersion: "2.53.3", NewVersion: "2.55.1", Status: history.RolledBack, RollbackTimestamp: &back, TriggeredBy: "manual", Duration: 77500 * time.Millisecond, Downtime: 14900 * time.Millisecond, BackupPath: res.BackupPath, HealthCheckPassed: new(true)},
	)
	return id
}

// An upgrade that was rolled back, with evidence.
func (r *recorded) rolledBack() string {
	const id = "20261125_130000"
	h := header(id, run.Apply, 1, r.root, run.Planned{Name: "alertmanager", From: "0.27.0", To: "0.28.1"}, run.Planned{Name: "grafana", From: "11.2.0", To: "11.3.0"})
	h.Trigger = "scheduled"
	why := "alertmanager 0.28.1 is not healthy: readiness: http://localhost:9093/-/ready answers 503 Service Unavailable, expected 200, for 60s"
	evidence := filepath.Join(r.root.RunsDir(), id, "evidence/alertmanager.json")
	ev := run.Evidence{
		Component: "alertmanager", From: "0.27.0", To: "0.28.1", TakenAt: h.StartedAt.Add(61400 * time.Millisecond), Reason: why,
		Status:    service.Status{Exists: true, Active: true, SubState: "running", MainPID: 5120, Result: "success", Restarts: 2},
		Readiness: "Waiting for the cluster to settle\x1b[31m",
		Report: health.Report{Checks: []health.Check{
			{Name: "service", Status: health.OK, Detail: "alertmanager.service runs"},
			{Name: "readiness", Status: health.Fail, Detail: "http://localhost:9093/-/ready answers 503 Service Unavailable, expected 200"},
		}},
		Missing: []string{"/usr/local/bin/amtool: permission denied"},
	}
	for i := range 12 {
		ev.Logs = append(ev.Logs, service.LogLine{Time: h.StartedAt.Add(time.Duration(50+i) * time.Second), Priority: 4, Message: fmt.Sprintf("ts=%d level=warn component=cluster msg=\"gossip not settled\" polls=%d elapsed=%ds", i, i, 2*i)})
	}
	r.write(evidence, ev, 0o640)
	res := r.result(run.Result{
		ID: id, Operation: run.Apply, Trigger: "scheduled", StartedAt: h.StartedAt, Status: run.StatusRolledBack, BackupPath: h.BackupPath, Duration: 65.1,
		Components: []run.Outcome{
			{Name: "alertmanager", From: v("0.27.0"), To: v("0.28.1"), Status: run.RolledBack, Error: why, Downtime: 63.9, Duration: 64.8, Evidence: evidence},
			{Name: "grafana", From: v("11.2.0"), To: v("11.3.0"), Status: run.NotAttempted},
		},
	})
	var events []run.Event
	for _, s := range [][]run.Event{
		did(run.StepBackup, "", 1, 200, res.BackupPath), did(run.StepPlace, "alertmanager", 201, 230, ""), did(run.StepStop, "alertmanager", 231, 900, "stopped in 668ms"),
		did(run.StepSwap, "alertmanager", 900, 901, ""), did(run.StepStart, "alertmanager", 901, 1320, ""), did(run.StepHealth, "alertmanager", 1321, 61390, "", why),
		did(run.StepUndo, "alertmanager", 61420, 65020, "back at 0.27.0"),
		{{Step: run.StepEnd, Time: moment(65100), Done: true, End: res}},
	} {
		events = append(events, s...)
	}
	r.events(h, nil, events...)
	at := h.StartedAt.Add(64800 * time.Millisecond)
	r.rows(history.Upgrade{
		Timestamp: h.StartedAt, RunID: id, Component: "alertmanager", OldVersion: "0.27.0", NewVersion: "0.28.1", Status: history.RolledBack, ErrorMessage: why,
		RollbackTimestamp: &at, TriggeredBy: "scheduled", Duration: 64800 * time.Millisecond, Downtime: 63900 * time.Millisecond, HealthCheckPassed: new(false),
		BackupPath: h.BackupPath, Evidence: evidence, NotificationSent: new(false),
	})
	return id
}

// A rolling upgrade that was killed, and recovered.
func (r *recorded) recovered() string {
	const id = "20261125_140000"
	h := header(id, run.Apply, 2, r.root, run.Planned{Name: "prometheus", Instance: "a", From: "3.4.0", To: "3.5.0"}, run.Planned{Name: "prometheus", Instance: "b", From: "3.4.0", To: "3.5.0"})
	h.Trigger = "auto"
	r.events(h, nil, append(append(append(did(run.StepBackup, "", 1, 90, h.BackupPath), did(run.StepDrain, "prometheus@a", 100, 400, "drained")...),
		did(run.StepStop, "prometheus@a", 401, 600, "stopped in 199ms")...),
		run.Event{Step: run.StepStart, Component: "prometheus", Instance: "a", Time: moment(605)})...)
	res := r.result(run.Result{
		ID: id, Operation: run.Apply, Trigger: "auto", StartedAt: h.StartedAt, Status: run.StatusInterrupted, BackupPath: h.BackupPath, Duration: 4000,
		Components: []run.Outcome{
			{Name: "prometheus", Instance: "a", From: v("3.4.0"), To: v("3.5.0"), Status: run.RolledBack, Error: "the run was interrupted (crash, kill or power loss)", Downtime: 3999.1, Duration: 3999.5, Healthy: true},
			{Name: "prometheus", Instance: "b", From: v("3.4.0"), To: v("3.5.0"), Status: run.NotAttempted},
		},
	})
	r.later(h, append(append([]run.Event{{Step: run.StepBegin, Time: moment(3_980_000), Begin: &h}}, did(run.StepUndo, "prometheus@a", 3_990_000, 3_999_600, "back at 3.4.0")...), run.Event{Step: run.StepEnd, Time: moment(4_000_000), Done: true, End: res})...)
	r.called(audit.Entry{Time: h.StartedAt.Add(4000 * time.Second), Command: "recover", Args: []string{"recover"}, Outcome: "ok", RunID: id})
	return id
}

func TestShowGolden(t *testing.T) {
	now := noon.Add(100 * 24 * time.Hour)
	for name, c := range map[string]func(r *recorded) string{
		"success":     (*recorded).success,
		"rolled_back": (*recorded).rolledBack,
		"recovered":   (*recorded).recovered,
		"rollback": func(r *recorded) string {
			h := header("20261126_140000", run.Rollback, 26, r.root, run.Planned{Name: "prometheus", From: "2.55.1", To: "2.53.3"})
			res := r.result(run.Result{
				ID: h.ID, Operation: run.Rollback, Trigger: "manual", StartedAt: h.StartedAt, Status: run.StatusSuccess, BackupPath: r.backup(h.ID), Duration: 9.3,
				Components: []run.Outcome{{Name: "prometheus", From: v("2.55.1"), To: v("2.53.3"), Status: run.RolledBack, Downtime: 3, Duration: 8.2, Healthy: true}},
			})
			r.events(h, map[string]string{"operation": "rollback", "target": "20261125_120000"}, append(did(run.StepData, "prometheus", 900, 2000, "its data is put back as the backup point has it"),
				run.Event{Step: run.StepEnd, Time: moment(9300), Done: true, End: res})...)
			r.called(audit.Entry{Time: h.StartedAt.Add(10 * time.Second), Command: "rollback", Args: []string{"--root=/srv/a b", "rollback", "--previous", "--yes"}, Outcome: "ok", RunID: h.ID})
			return "last"
		},
		"restart": func(r *recorded) string {
			h := header("20261125_150000", run.Restart, 3, r.root, run.Planned{Name: "loki", From: "3.1.0", To: "3.1.0"}, run.Planned{Name: "tempo", From: "2.6.0", To: "2.6.0"})
			res := r.result(run.Result{
				ID: h.ID, Operation: run.Restart, Trigger: "manual", StartedAt: h.StartedAt, Status: run.StatusFailed, Duration: 9.3,
				Components: []run.Outcome{
					{Name: "loki", From: v("3.1.0"), To: v("3.1.0"), Status: run.Upgraded, Downtime: 3, Duration: 8.2, Healthy: true},
					{Name: "tempo", From: v("2.6.0"), To: v("2.6.0"), Status: run.Failed, Error: "main process exited, code=exited, status=2"},
				},
			})
			r.events(h, nil, append(append(did(run.StepStop, "loki", 10, 20, "stopped in 10ms"), did(run.StepStart, "tempo", 8300, 9200, "", "main process exited, code=exited, status=2")...),
				run.Event{Step: run.StepEnd, Time: moment(9300), Done: true, End: res})...)
			return h.ID
		},
		"running": func(r *recorded) string {
			l, err := lock.Acquire(r.root.Lock(), "apply")
			if err != nil {
				r.t.Fatal(err)
			}
			r.t.Cleanup(func() { _ = l.Release() })
			h := header("20270305_115950", run.Apply, 0, r.root, run.Planned{Name: "loki", From: "3.1.0", To: "3.2.0"}, run.Planned{Name: "tempo", From: "2.6.0", To: "2.7.0"}, run.Planned{Name: "tempo", From: "2.7.0", To: "2.8.0"})
			h.StartedAt = now.Add(-10 * time.Second)
			r.write(filepath.Join(r.root.JournalDir(), h.ID+".journal"), "", 0o600)
			r.events(h, nil, append(append(append(append(r.tookBackup(h), did(run.StepPlace, "loki", 10, 20, "")...), did(run.StepHealth, "loki", 300, 4200, "healthy at 3.2.0")...), did(run.StepPlace, "tempo", 4300, 4400, "")...),
				run.Event{Step: run.StepHealth, Component: "tempo", Time: moment(5000)}, run.Event{Step: run.StepHealth, Component: "tempo", Time: moment(9000), Detail: "replaying segment 12 of 40"})...)
			return "last"
		},
		"interrupted": func(r *recorded) string {
			h := header("20261125_160000", run.Apply, 4, r.root, run.Planned{Name: "loki", From: "3.1.0", To: "3.2.0"}, run.Planned{Name: "tempo", From: "2.6.0", To: "2.7.0"})
			r.write(filepath.Join(r.root.JournalDir(), h.ID+".journal"), "", 0o600)
			r.events(h, nil, append(append(r.tookBackup(h), did(run.StepPlace, "loki", 10, 20, "")...), run.Event{Step: run.StepStop, Component: "loki", Time: moment(300)})...)
			return h.ID
		},
		"rollback_failed": func(r *recorded) string {
			h := header("20261125_170000", run.Apply, 5, r.root, run.Planned{Name: "loki", From: "3.1.0", To: "3.2.0"})
			r.write(filepath.Join(r.root.JournalDir(), h.ID+".journal"), "", 0o600)
			res := run.Result{
				ID: h.ID, Operation: run.Apply, Trigger: "manual", StartedAt: h.StartedAt, Status: run.StatusRollbackFail, BackupPath: h.BackupPath, Duration: 3700,
				Components: []run.Outcome{{Name: "loki", From: v("3.1.0"), To: v("3.2.0"), Status: run.RollbackFailed, Error: "loki 3.2.0 is not healthy; /usr/local/bin/loki: read-only file system", Evidence: "/var/lib/observability/runs/20261125_170000/evidence/loki.json"}},
			}
			r.events(h, nil, append(append(r.tookBackup(h), did(run.StepUndo, "loki", 3_600_000, 3_660_000, "", "/usr/local/bin/loki: read-only file system")...), run.Event{Step: run.StepEnd, Time: moment(3_700_000), Done: true, End: &res})...)
			return h.ID
		},
		"result_only": func(r *recorded) string {
			r.result(run.Result{
				ID: "20250101_000000", Operation: run.Apply, Trigger: "manual", StartedAt: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), Status: run.StatusSuccess, BackupPath: "/var/backups/observability/20250101_000000", Duration: 12,
				Components: []run.Outcome{{Name: "loki", From: v("2.9.0"), To: v("3.0.0"), Status: run.Upgraded, Downtime: 2, Duration: 11, Healthy: true}},
			})
			return "20250101_000000"
		},
		"row_only": func(r *recorded) string {
			r.rows(history.Upgrade{
				Timestamp: noon, RunID: "20261125_120000", Component: "loki", OldVersion: "3.0.0", NewVersion: "3.1.0", Status: history.RolledBack, ErrorMessage: "loki 3.1.0 is not healthy", RollbackTimestamp: new(noon.Add(time.Minute)),
				TriggeredBy: "auto", Duration: time.Minute, Downtime: 50 * time.Second, BackupPath: "/var/backups/observability/20261125_120000", Evidence: "/var/lib/observability/runs/20261125_120000/evidence/loki.json",
			})
			return "1"
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorded(t)
			golden(t, "show/"+name+".golden", r.show(c(r), now))
		})
	}
}

// run is the program on the root; its output has the root left out.
func (r *recorded) run(code int, args ...string) string {
	r.t.Helper()
	var out, logs bytes.Buffer
	got := Run(r.t.Context(), append([]string{"observability-upgrade", "--root=" + string(r.root)}, args...), IO{In: strings.NewReader(""), Out: &out, Err: &logs, Env: func(string) string { return "" }})
	if got != code {
		r.t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, code, out.Bytes(), logs.Bytes())
	}
	if code != 0 {
		return strings.ReplaceAll(logs.String(), string(r.root), "")
	}
	return strings.ReplaceAll(out.String(), string(r.root), "")
}

func TestStatsGolden(t *testing.T) {
	r := newRecorded(t)
	golden(t, "stats/empty.golden", r.run(0, "history", "stats"))
	r.success()
	r.rolledBack()
	for i, seconds := range []int{4, 5, 6, 7, 65, 4000} {
		r.rows(history.Upgrade{
			Timestamp: noon.Add(time.Duration(24*i) * time.Hour), RunID: fmt.Sprint("more", i), Component: "loki", OldVersion: "3.0.0", NewVersion: fmt.Sprintf("3.%d.0", i),
			Status: history.Success, TriggeredBy: "auto", Duration: time.Duration(seconds) * time.Second, Downtime: time.Duration(seconds) * 100 * time.Millisecond,
		})
	}
	golden(t, "stats/text.golden", r.run(0, "history", "stats"))
	golden(t, "stats/csv.golden", r.run(0, "history", "stats", "--output=csv"))
	golden(t, "stats/json.golden", r.run(0, "history", "stats", "--output=json"))
	golden(t, "stats/narrowed.golden", r.run(0, "history", "stats", "--since=2026-11-26", "--until=2026-11-27T12:00:00Z", "--component=loki,prometheus"))
	golden(t, "list/text.golden", r.run(0, "history"))
	golden(t, "list/csv.golden", r.run(0, "history", "--output=csv"))
}

// What a spreadsheet takes for a formula is no formula, whatever wrote the row;
// and what a CSV reader reads is what was written.
func TestCSV(t *testing.T) {
	r := newRecorded(t)
	nasty := "=HYPERLINK(\"http://evil\",\"x\"),\r\n\"quoted\" ; and, commas"
	r.rows(history.Upgrade{Timestamp: noon, RunID: "-1+1", Component: "@loki", NewVersion: "+1.0.0", Status: history.Failed, ErrorMessage: nasty, TriggeredBy: "manual", Duration: time.Second})
	text := r.run(0, "history", "--output=csv")
	if !strings.HasSuffix(text, "\r\n") || strings.Count(text, "id,timestamp") != 1 {
		t.Errorf("not as RFC 4180 has it: %q", text)
	}
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 2 || len(rows[0]) != 16 {
		t.Fatalf("%v %v", rows, err)
	}
	got := map[string]string{}
	for i, name := range rows[0] {
		got[name] = rows[1][i]
	}
	for name, want := range map[string]string{
		"run_id": "'-1+1", "component": "'@loki", "new_version": "'+1.0.0", "error_message": "'" + strings.ReplaceAll(nasty, "\r\n", "\n"), "old_version": "",
		"timestamp": "2026-11-25T12:00:00Z", "duration_seconds": "1", "health_check_passed": "", "rollback_timestamp": "",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// Text from elsewhere does not steer the terminal.
func TestHistoryIsPlain(t *testing.T) {
	r := newRecorded(t)
	r.rows(history.Upgrade{Timestamp: noon, RunID: "r", Component: "lo\x1b[2Jki", OldVersion: "\x07", NewVersion: "1.0.0", Status: history.Failed, ErrorMessage: "\x1b]0;title\x07bad", TriggeredBy: "manual", Evidence: "/\x1b[31m"})
	for _, args := range [][]string{{"history"}, {"history", "stats"}, {"history", "show", "1"}} {
		if text := r.run(0, args...); strings.ContainsAny(text, "\x1b\x07") {
			t.Errorf("%v: %q", args, text)
		}
	}
}
