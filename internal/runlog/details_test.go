package runlog

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

func show(t *testing.T, root layout.Root, ref string) *Details {
	t.Helper()
	d, err := Show(t.Context(), root, ref, at(60_000))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func rows(t *testing.T, root layout.Root, list ...history.Upgrade) {
	t.Helper()
	db, err := history.Open(t.Context(), root.History())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, u := range list {
		if _, err := db.Record(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
}

func row(runID, name, to string, ms int) history.Upgrade {
	return history.Upgrade{
		Timestamp: at(ms), RunID: runID, Component: name, OldVersion: "1.0.0", NewVersion: to, Status: history.Success, TriggeredBy: "manual",
		Duration: 2 * time.Second, Downtime: time.Second, BackupPath: "/var/backups/observability/" + runID,
	}
}

// The id of a run that was refused leads to what the audit log says of it, also where
// two of one second have the same.
func TestShowRefused(t *testing.T) {
	root := layout.Root(t.TempDir())
	log := audit.New(&hostfs.Host{}, root.Audit())
	for _, why := range []string{"pre-flight: 1 failed", "download: no such file"} {
		if err := log.Write(audit.Entry{Command: "apply", Args: []string{"apply", "--yes"}, RunID: id, Outcome: "error", ExitCode: 4, Detail: why}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Show(t.Context(), root, id, at(0))
	var missing *NotFoundError
	if !errors.As(err, &missing) || len(missing.Asked) != 2 {
		t.Fatal(err)
	}
	for _, want := range []string{"run " + id, "refused", "apply --yes, exit code 4: pre-flight: 1 failed", "download: no such file"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A run is found by its id, by the number of one of its rows, and as the newest.
func TestShowFinds(t *testing.T) {
	root := layout.Root(t.TempDir())
	var missing *NotFoundError
	for ref, want := range map[string]string{
		"last": "no run is recorded yet", "1": "has no row 1", id: `no run "` + id + `"`, "../../etc": "neither a run", "": "neither a run", "-1": "has no row -1",
	} {
		if _, err := Show(t.Context(), root, ref, at(0)); !errors.As(err, &missing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", ref, err, want)
		}
	}
	write(t, root, 7)
	rows(t, root, row(id, "pulse", "1.1.0", 0))
	for _, ref := range []string{id, "1", "last"} {
		if d := show(t, root, ref); d.ID != id || d.Kept != KeptAll || len(d.Components) != 1 || d.Components[0].Row != 1 || len(d.Steps) != 2 || d.Steps[1].Offset != 0.04 {
			t.Errorf("%s: %+v", ref, d)
		}
	}
	// The newest run may be one of which only its row is left, though not by name alone.
	rows(t, root, row("by hand", "pulse", "1.2.0", 1000))
	if d := show(t, root, "last"); d.ID != id {
		t.Errorf("the newest is %s", d.ID)
	}
	rows(t, root, row("20261125_120000_10", "pulse", "1.3.0", 2000))
	d := show(t, root, "last")
	if d.ID != "20261125_120000_10" || d.Kept != KeptRow || d.Status != run.StatusSuccess || d.Components[0].Downtime != 1 || d.Backup.State != "removed" {
		t.Errorf("%+v", d)
	}
}

func TestShowRowOfAnotherProgram(t *testing.T) {
	root := layout.Root(t.TempDir())
	foreign := row("x", "grafana", "nightly", 0)
	foreign.BackupPath = ""
	rows(t, root, foreign)
	db, err := sql.Open("sqlite", root.History())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE upgrades SET run_id = NULL, status = 'odd', triggered_by = NULL`); err != nil {
		t.Fatal(err)
	}
	d := show(t, root, "1")
	if d.ID != "" || d.Kept != KeptRow || d.Status != run.StatusFailed || d.Components[0].To != "nightly" || d.Components[0].Status != "odd" || d.Backup != nil || len(d.Problems) > 0 {
		t.Errorf("%+v", d)
	}
}

// What cannot be read in part is told, and the rest shown.
func TestShowTellsProblems(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(root layout.Root)
		ref   string
		want  []string
		kept  string
	}{
		"log": {func(root layout.Root) {
			put(t, file(root, id), "<html>\n")
			put(t, filepath.Join(root.RunsDir(), id, "result.json"), `{"id":"`+id+`","operation":"apply","status":"success","components":[]}`)
		}, id, []string{"log: read ", "line 1"}, KeptResult},
		"history": {func(root layout.Root) { put(t, root.History(), strings.Repeat("no database ", 100)) }, id, []string{"history: "}, KeptAll},
		"audit":   {func(root layout.Root) { put(t, root.Audit(), "{"+id+"\n") }, id, []string{"who called for it: ", "line 1"}, KeptAll},
		"plan": {func(root layout.Root) {
			data, err := os.ReadFile(file(root, id))
			if err != nil {
				t.Fatal(err)
			}
			put(t, file(root, id), strings.Replace(string(data), `"plan":{"id":"p"}`, `"plan":{"held":7}`, 1))
		}, id, []string{"plan: "}, KeptAll},
		"evidence": {func(root layout.Root) { put(t, filepath.Join(root.RunsDir(), id, "evidence"), "") }, id, []string{"evidence: "}, KeptAll},
	} {
		t.Run(name, func(t *testing.T) {
			root := layout.Root(t.TempDir())
			write(t, root, 7)
			c.spoil(root)
			d := show(t, root, c.ref)
			text := strings.Join(d.Problems, "\n")
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("problems %q, want %q", text, want)
				}
			}
			if d.Kept != c.kept || d.Status != run.StatusSuccess {
				t.Errorf("%+v", d)
			}
			if _, err := json.Marshal(d); err != nil {
				t.Error(err)
			}
		})
	}
	// Of a row there is nothing to show without the history.
	root := layout.Root(t.TempDir())
	put(t, root.History(), strings.Repeat("no database ", 100))
	var corrupt *history.CorruptError
	if _, err := Show(t.Context(), root, "1", at(0)); !errors.As(err, &corrupt) {
		t.Errorf("%v", err)
	}
}

// A restart by an older program left its journal alone.
func TestShowJournal(t *testing.T) {
	root := layout.Root(t.TempDir())
	w, err := journal.Create(&hostfs.Host{}, root.JournalDir(), id, func() time.Time { return at(2500) })
	if err != nil {
		t.Fatal(err)
	}
	head := run.Header{ID: id, Operation: run.Restart, StartedAt: began, Components: []run.Planned{{Name: "pulse", From: "1.0.0", To: "1.0.0"}}}
	if err := w.Append("begin", head); err != nil {
		t.Fatal(err)
	}
	if d := show(t, root, id); !d.Open || d.Status != run.StatusInterrupted || d.Kept != KeptJournal || d.Components[0].Status != StatusUnknown {
		t.Errorf("open: %+v", d)
	}
	outcome := map[string]any{"component": "pulse", "outcome": run.Outcome{Name: "pulse", From: version(t, "1.0.0"), To: version(t, "1.0.0"), Status: run.Upgraded}}
	err = errors.Join(w.Append("recorded", outcome), w.Append("end", map[string]string{"status": "success"}), w.Close(filepath.Join(root.RunsDir(), id, "journal")))
	if err != nil {
		t.Fatal(err)
	}
	d := show(t, root, "last")
	if d.Open || d.Status != run.StatusSuccess || d.Duration != 2.5 || d.Kept != KeptJournal || len(d.Components) != 1 || d.Components[0].Status != "upgraded" || d.Backup != nil {
		t.Errorf("closed: %+v", d)
	}
	put(t, filepath.Join(root.RunsDir(), "20261125_130000", "journal"), "no journal\nat all\n")
	var missing *NotFoundError
	if _, err := Show(t.Context(), root, "20261125_130000", at(0)); !errors.As(err, &missing) {
		t.Errorf("%v", err)
	}
}

// A run that has not ended is at work while somebody holds the lock, cut off where
// nobody does, and over where its journal is closed.
func TestShowOpenRun(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 5)
	if d := show(t, root, id); d.Status != StatusUnknown || d.Open {
		t.Errorf("closed: %+v", d)
	}
	put(t, journalFile(root, id), "")
	if d := show(t, root, id); d.Status != run.StatusInterrupted || !d.Open || d.EndedAt != nil || d.Going(&d.Steps[1]) {
		t.Errorf("cut off: %+v", d)
	}
	l, err := lock.Acquire(root.Lock(), "recover")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	d := show(t, root, id)
	if d.Status != StatusRunning || d.Duration != 60 || d.Going(&d.Steps[0]) || !d.Going(&d.Steps[1]) {
		t.Errorf("at work: %+v", d)
	}
	w := NewWriter(root, slog.New(slog.DiscardHandler))
	defer w.Close()
	w.Event(run.Event{Run: id, Step: run.StepBegin, Time: at(5000), Begin: &run.Header{ID: id}})
	w.Event(run.Event{Run: id, Step: run.StepUndo, Component: "pulse", Time: at(5001)})
	d = show(t, root, id)
	if n := len(d.Steps); n != 3 || d.Going(&d.Steps[1]) || !d.Going(&d.Steps[2]) || len(d.Recoveries) != 1 {
		t.Errorf("in recovery: %+v", d)
	}
}

func TestProgress(t *testing.T) {
	end := at(0)
	step := func(set string, st run.Step, failure ...string) Step {
		name, instance, _ := strings.Cut(set, "@")
		return Step{Component: name, Instance: instance, Step: st, Ended: &end, Error: strings.Join(failure, "")}
	}
	apply := run.Header{Operation: run.Apply, Components: []run.Planned{
		{Name: "a", To: "2"}, {Name: "b", To: "2"}, {Name: "a", To: "3"}, {Name: "c", Instance: "x", To: "2"}, {Name: "c", Instance: "y", To: "2"},
	}}
	for name, c := range map[string]struct {
		head   run.Header
		steps  []Step
		status string
		want   string
	}{
		"nothing": {apply, []Step{step("", run.StepBackup)}, StatusRunning, "waiting waiting waiting waiting waiting"},
		"stepping stone": {apply, []Step{
			step("a", run.StepPlace), step("a", run.StepHealth), step("b", run.StepPlace), step("b", run.StepHealth, "bad"), step("b", run.StepUndo), step("a", run.StepPlace),
		}, StatusRunning, "upgraded rolled_back at_work waiting waiting"},
		"instances": {apply, []Step{
			step("a", run.StepPlace, "no space left"), step("c@x", run.StepPlace), step("c@x", run.StepHealth), step("c@y", run.StepPlace),
		}, run.StatusInterrupted, "failed waiting waiting upgraded cut_off"},
		"rollback": {
			run.Header{Operation: run.Rollback, Components: []run.Planned{{Name: "a"}, {Name: "b"}, {Name: "c"}}},
			[]Step{step("a", run.StepPlace), step("b", run.StepPlace), step("b", run.StepUndo), step("c", run.StepPlace)},
			StatusRunning, "rolled_back rollback_failed at_work",
		},
	} {
		var got []string
		for _, p := range progress(c.head, c.steps, c.status) {
			got = append(got, p.Status)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %s, want %s", name, s, c.want)
		}
	}
}

func TestEvidence(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 4)
	dir := filepath.Join(root.RunsDir(), id, "evidence")
	ev := run.Evidence{Component: "pulse", Reason: "it died", TakenAt: at(90), Status: service.Status{Exists: true, SubState: "failed", Result: "exit status 1"}}
	for i := range 15 {
		ev.Logs = append(ev.Logs, service.LogLine{Priority: -1, Message: fmt.Sprint("line ", i)})
	}
	data, err := json.Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "pulse.json"), string(data))
	put(t, filepath.Join(dir, "spoilt.json"), "{")
	put(t, filepath.Join(dir, ".pulse.json.obsup-tmp"), "{")
	if err := unix.Mkfifo(filepath.Join(dir, "pipe.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := show(t, root, id)
	got := map[string]string{}
	for _, e := range d.Evidence {
		got[e.Component] = e.State
	}
	if diff := cmp.Diff(map[string]string{"pulse": "kept", "spoilt": "unreadable", "pipe": "unreadable"}, got); diff != "" {
		t.Fatal(diff)
	}
	for _, e := range d.Evidence {
		if e.Component == "pulse" && (e.Reason != "it died" || len(e.Logs) != LastLogLines || e.Logs[0].Message != "line 5" || e.Logs[0].Time != nil || e.Unit.Result != "exit status 1") {
			t.Errorf("%+v", e)
		}
	}
}

// Of a process that failed the last words are shown, not those of the one that its
// manager started after it.
func TestEvidenceOfOneThatWasRestarted(t *testing.T) {
	ev := run.Evidence{Status: service.Status{Exists: true, Active: true, Restarts: 1, StartedAt: at(10)}}
	for i := range 20 {
		ev.Logs = append(ev.Logs, service.LogLine{Time: at(i), Message: fmt.Sprint("line ", i)})
	}
	for name, tt := range map[string]struct {
		change func()
		last   string
	}{
		"restarted":     {func() {}, "line 9"},
		"all of it":     {func() { ev.Status.StartedAt = at(0) }, "line 19"},
		"not restarted": {func() { ev.Status.Restarts, ev.Status.StartedAt = 0, at(10) }, "line 19"},
	} {
		before := ev.Status
		tt.change()
		data, err := json.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		e, err := digest(data)
		if err != nil || len(e.Logs) != LastLogLines || e.Logs[LastLogLines-1].Message != tt.last {
			t.Errorf("%s: %v, %v, want the last to be %s", name, e.Logs, err, tt.last)
		}
		ev.Status = before
	}
}

// A plain user sees what everybody may read, and what is kept from him.
func TestShowWithoutRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	root := layout.Root(t.TempDir())
	write(t, root, 7)
	put(t, root.Audit(), "{}\n")
	put(t, filepath.Join(root.RunsDir(), id, "evidence", "pulse.json"), "{}")
	dir := filepath.Join(root.RunsDir(), id, "evidence")
	if err := errors.Join(os.Chmod(root.Audit(), 0), os.Chmod(dir, 0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	d := show(t, root, id)
	if text := strings.Join(d.Problems, "\n"); !strings.Contains(text, "who called for it: ") || !strings.Contains(text, "evidence: ") || !d.AuditUnread() || len(d.Steps) != 2 {
		t.Errorf("%+v", d)
	}
}

func FuzzDigest(f *testing.F) {
	f.Add([]byte(`{"component":"pulse","status":{"Exists":true},"health":{"checks":[{"status":"fail"}]},"logs":[{"Message":"x"}]}`))
	f.Add([]byte(`{"logs":[{},{},{},{},{},{},{},{},{},{},{},{}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := digest(data)
		if err == nil && (len(e.Logs) > LastLogLines || e.Failing == nil || e.Missing == nil) {
			t.Fatalf("%+v", e)
		}
	})
}
