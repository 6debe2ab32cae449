package runlog

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

const id = "20261125_120000"

var began = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }

func version(t *testing.T, s string) component.Version {
	t.Helper()
	v, err := component.ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// write logs a run of one component up to its first so many events.
func write(t *testing.T, root layout.Root, n int) {
	t.Helper()
	res := &run.Result{ID: id, Operation: run.Apply, Status: run.StatusSuccess, StartedAt: began, Components: []run.Outcome{
		{Name: "pulse", From: version(t, "1.0.0"), To: version(t, "1.1.0"), Status: run.Upgraded},
	}}
	events := []run.Event{
		{Step: run.StepBegin, Begin: &run.Header{ID: id, Operation: run.Apply, StartedAt: began, PID: 7}, Plan: map[string]string{"id": "p"}},
		{Step: run.StepStop, Component: "pulse", Time: at(10)},
		{Step: run.StepStop, Component: "pulse", Time: at(35), Done: true, Detail: "ended by itself"},
		{Step: run.StepHealth, Component: "pulse", Time: at(40)},
		{Step: run.StepHealth, Component: "pulse", Time: at(60), Detail: "replaying 1 of 2"},
		{Step: run.StepHealth, Component: "pulse", Time: at(90), Done: true, Err: errors.New("not ready")},
		{Step: run.StepEnd, Time: at(100), Done: true, End: res},
	}
	w := NewWriter(root, slog.New(slog.DiscardHandler))
	defer w.Close()
	for _, ev := range events[:n] {
		ev.Run = id
		w.Event(ev)
	}
}

func TestRead(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 7)
	r, err := Read(root, id)
	if err != nil {
		t.Fatal(err)
	}
	if r.Header.PID != 7 || string(r.Plan) != `{"id":"p"}` || !r.Ended() || r.Result.Status != run.StatusSuccess || len(r.Result.Components) != 1 {
		t.Errorf("%+v", r)
	}
	if len(r.Steps) != 2 {
		t.Fatalf("steps: %+v", r.Steps)
	}
	if s := r.Steps[0]; s.Step != run.StepStop || s.Seconds != 0.025 || s.Detail != "ended by itself" || s.Error != "" {
		t.Errorf("%+v", s)
	}
	if s := r.Steps[1]; s.Step != run.StepHealth || s.Seconds != 0.05 || s.Detail != "replaying 1 of 2" || s.Error != "not ready" {
		t.Errorf("%+v", s)
	}
}

func TestRunAtWork(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 5)
	r, err := Read(root, id)
	if err != nil {
		t.Fatal(err)
	}
	if r.Ended() || len(r.Steps) != 2 || r.Steps[1].Ended != nil || r.Steps[1].Detail != "replaying 1 of 2" {
		t.Errorf("%+v", r)
	}
}

// A recovery does not go on with a step that was cut off, and its end is the
// run's.
func TestRecovery(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 4)
	w := NewWriter(root, slog.New(slog.DiscardHandler))
	for _, ev := range []run.Event{
		{Step: run.StepBegin, Time: at(5000), Begin: &run.Header{ID: id}},
		{Step: run.StepHealth, Component: "pulse", Time: at(5010)},
		{Step: run.StepHealth, Component: "pulse", Time: at(5020), Done: true},
		{Step: run.StepEnd, Time: at(5030), End: &run.Result{ID: id, Status: run.StatusInterrupted}},
	} {
		ev.Run = id
		w.Event(ev)
	}
	r, err := Read(root, id)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Recoveries) != 1 || !r.Recoveries[0].Equal(at(5000)) || r.Header.PID != 7 || r.Result.Status != run.StatusInterrupted {
		t.Errorf("%+v", r)
	}
	if len(r.Steps) != 3 || r.Steps[1].Ended != nil || r.Steps[2].Seconds != 0.01 {
		t.Errorf("%+v", r.Steps)
	}
}

func TestDamage(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 7)
	path := file(root, id)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for name, c := range map[string]struct {
		data  string
		steps int
		err   string
	}{
		"torn":       {string(whole[:len(whole)-20]), 2, ""},
		"zeros":      {lines[0] + strings.Repeat("\x00", 100) + "\n" + strings.Join(lines[1:], ""), 2, ""},
		"a bad line": {lines[0] + "{{{\n" + strings.Join(lines[3:], ""), 1, ""},
		"no log":     {"<html>\n", 0, "line 1"},
	} {
		if err := os.WriteFile(path, []byte(c.data), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Read(root, id)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", name, err)
			}
		case err != nil || len(r.Steps) != c.steps:
			t.Errorf("%s: %v %+v", name, err, r)
		}
	}
}

func TestIDs(t *testing.T) {
	root := layout.Root(t.TempDir())
	for _, name := range []string{"20261125_120000_2", "20261125_120000", "20261125_120000_10", "20261124_235959", "lost+found", "2026"} {
		if err := os.MkdirAll(filepath.Join(root.RunsDir(), name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ids, err := IDs(root)
	if want := "20261125_120000_10 20261125_120000_2 20261125_120000 20261124_235959"; err != nil || strings.Join(ids, " ") != want {
		t.Errorf("%v %v", ids, err)
	}
	var missing *NotFoundError
	for _, name := range []string{"20200101_000000", "../../etc", ""} {
		if _, err := Read(root, name); !errors.As(err, &missing) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A log that cannot be written fails nothing.
func TestUnwritable(t *testing.T) {
	root := layout.Root(t.TempDir())
	if err := os.MkdirAll(root.Lib(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root.RunsDir(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, root, 7)
	if st, err := os.Stat(root.RunsDir()); err != nil || st.Size() != 0 {
		t.Errorf("%v %v", st, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-25T12:00:00Z","step":"begin","begin":{"id":"20261125_120000"}}` + "\n"))
	f.Add([]byte(`{"step":"health","done":true}` + "\n" + `{"step":"end"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(id, data)
		if (r == nil) == (err == nil) {
			t.Fatalf("%v %v", r, err)
		}
	})
}
