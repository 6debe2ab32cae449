package run_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// told runs an engine and returns the events it told and the records it logged.
func told(t *testing.T, e *Engine, do func(*Engine)) (events []Event, records []map[string]any) {
	t.Helper()
	var log bytes.Buffer
	e.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e.Report = func(ev Event) { events = append(events, ev) }
	do(e)
	for line := range bytes.Lines(log.Bytes()) {
		var rec map[string]any
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatal(err)
		}
		if rec["msg"] == StepMessage {
			records = append(records, rec)
		}
	}
	if len(records) != len(events) {
		t.Errorf("%d events, %d records", len(events), len(records))
	}
	for _, ev := range events {
		if (ev.Component != "") != (ev.From != "" && ev.To != "") {
			t.Errorf("%+v does not say of which change it is", ev)
		}
	}
	return events, records
}

// At info there is one record of each step, and an error where it failed; keys
// that say nothing are not there.
func TestSteps(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Install("am", "0.1.0")
	req := w.Upgrade(map[string]string{"prom": "prom 2.0.0", "am": "am 0.2.0 " + runtest.WordNotReady}, "prom", "am")
	_, records := told(t, w.Engine(nil), func(e *Engine) {
		if res, err := e.Execute(t.Context(), req); err == nil || res.Status != StatusRolledBack {
			t.Fatalf("%s %v", res.Status, err)
		}
	})
	levels := map[string]string{}
	for _, r := range records {
		for _, key := range []string{"component", "instance", "detail", "error", "from", "to", "run"} {
			if v, ok := r[key]; ok && v == "" {
				t.Errorf("%v has an empty %s", r, key)
			}
		}
		if r["level"] == "DEBUG" {
			continue
		}
		component, _ := r["component"].(string)
		key := component + " " + r["step"].(string)
		if levels[key] != "" {
			t.Errorf("%s has two records: %v", key, r)
		}
		levels[key] = r["level"].(string)
	}
	for key, want := range map[string]string{
		" begin": "INFO", " backup": "INFO", " end": "INFO",
		"prom place": "INFO", "prom stop": "INFO", "prom swap": "INFO", "prom start": "INFO", "prom health": "INFO",
		"am place": "INFO", "am stop": "INFO", "am swap": "INFO", "am start": "INFO", "am health": "ERROR", "am undo": "INFO",
	} {
		if levels[key] != want {
			t.Errorf("%s is %q, want %s", key, levels[key], want)
		}
	}
	last := records[len(records)-1]
	if last["status"] != StatusRolledBack || last["operation"] != "apply" || last["duration_seconds"] == nil {
		t.Errorf("%v", last)
	}
}

// A recovery says that it is one.
func TestRecoveryTold(t *testing.T) {
	w, c := crashedWorld(t, scenarios[0], 30)
	if !c.Crashed() {
		t.Fatal("it did not crash")
	}
	events, _ := told(t, w.Engine(nil), func(e *Engine) {
		if _, err := e.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if first := events[0]; first.Step != StepBegin || !first.Recovery || first.Begin == nil {
		t.Errorf("%+v", first)
	}
	if last := events[len(events)-1]; last.Step != StepEnd || last.End == nil {
		t.Errorf("%+v", last)
	}
	for _, ev := range events[1:] {
		if ev.Recovery || ev.Begin != nil {
			t.Errorf("%+v", ev)
		}
	}
}
