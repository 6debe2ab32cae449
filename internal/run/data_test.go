package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

const dataUnit = "prom.service"

// keeps gives prom data, and a change of it a fingerprint and a copy.
func (w *world) keeps(samples string) {
	w.t.Helper()
	w.write(filepath.Join(w.data(dataUnit), "samples"), samples, 0o640)
	w.write(filepath.Join(w.data(dataUnit), "format"), "1.0.0", 0o644)
	w.write(filepath.Join(w.data(dataUnit), "lock"), "not data", 0o644)
}

func (w *world) withData(req Request, takeBack bool) Request {
	for i := range req.Changes {
		req.Changes[i].TakeBack = takeBack
		req.Changes[i].Data = &Data{
			Path: w.data(dataUnit), Copy: true, Exclude: []string{"lock"},
			Fingerprint: []component.Test{{Name: "samples", HTTP: &component.HTTPTest{URL: w.server.URL + "/prom/samples", Match: `samples (\d+)`}}},
		}
	}
	return req
}

// holds asserts what the data directory holds, and nothing beside.
func (w *world) holds(what, samples, format string) {
	w.t.Helper()
	for name, want := range map[string]string{"samples": samples, "format": format, "lock": "not data"} {
		got, err := os.ReadFile(filepath.Join(w.data(dataUnit), name))
		if err != nil || string(got) != want {
			w.t.Fatalf("%s: %s is %q, want %q (%v)", what, name, got, want, err)
		}
	}
	entries, err := os.ReadDir(w.data(dataUnit))
	if err != nil || len(entries) != 3 {
		w.t.Fatalf("%s: the data directory holds %v (%v)", what, entries, err)
	}
}

func TestDataIsKept(t *testing.T) {
	w := newWorld(t)
	w.install("prom", "1.0.0")
	w.keeps("twelve bytes")
	res, err := w.engine(nil).Execute(t.Context(), w.withData(w.steps("prom 2.0.0"), true))
	if err != nil || res.Status != StatusSuccess {
		t.Fatalf("%+v, %v", res, err)
	}
	w.holds("upgraded", "twelve bytes", "2.0.0")
	kept, err := os.ReadFile(filepath.Join(res.BackupPath, "data/prom/format"))
	if err != nil || string(kept) != "1.0.0" {
		t.Fatalf("the copy holds %q (%v)", kept, err)
	}
	if _, err := os.Stat(filepath.Join(res.BackupPath, "data/prom/lock")); err == nil {
		t.Error("what is excluded was copied")
	}
}

// Where not one question has an answer, the run says so.
func TestBlindFingerprintIsTold(t *testing.T) {
	for path, want := range map[string]bool{"/prom/samples": false, "/nowhere": true} {
		w := newWorld(t)
		w.install("prom", "1.0.0")
		w.keeps("twelve bytes")
		req := w.withData(w.steps("prom 2.0.0"), true)
		req.Changes[0].Data.Fingerprint[0].HTTP.URL = w.server.URL + path
		res, err := w.engine(nil).Execute(t.Context(), req)
		if err != nil || res.Status != StatusSuccess {
			t.Fatalf("%s: %+v, %v", path, res, err)
		}
		if got := strings.Contains(strings.Join(res.Warnings, "\n"), "nothing can tell whether its data is still there"); got != want {
			t.Errorf("%s: warnings %q", path, res.Warnings)
		}
	}
}

// A version that is ready and forgets is found out, and the old one comes back
// with its data: at once where it must not see the new one's, else when it does
// not answer as before either.
func TestForgottenDataComesBack(t *testing.T) {
	for name, takeBack := range map[string]bool{"at once": true, "when the old one forgets too": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.install("prom", "1.0.0")
			w.keeps("twelve bytes")
			req := w.withData(w.steps("prom 2.0.0 "+wordForgets), takeBack)
			e := w.engine(nil)
			e.Report = func(ev Event) {
				if ev.Step == StepHealth && ev.Done && ev.Err == nil {
					// The new version spoils what the old one cannot do without.
					w.write(filepath.Join(w.data(dataUnit), "samples"), "", 0o640)
				}
			}
			if takeBack {
				e.Report = nil
			}
			res, err := e.Execute(t.Context(), req)
			if err == nil || res.Status != StatusRolledBack || !strings.Contains(err.Error(), "samples was 12, is 0") {
				t.Fatalf("%+v, %v", res, err)
			}
			w.holds(name, "twelve bytes", "1.0.0")
			if w.runningVersion("prom") != "1.0.0" || takeBack && len(w.wrong) > 0 {
				t.Fatalf("runs %s, %q", w.runningVersion("prom"), w.wrong)
			}
		})
	}
}

// Killed at any effect of an upgrade that keeps data, whether it would have failed
// or not, the old version is never started on what the new one wrote.
func TestDataKilledAtEveryOperation(t *testing.T) {
	for _, content := range []string{"prom 2.0.0", "prom 2.0.0 " + wordNoStart} {
		t.Run(content, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for n := 1; ; n++ {
				w := newWorld(t)
				w.install("prom", "1.0.0")
				w.keeps("twelve bytes")
				c := &crashAt{n: n}
				_, err := w.engine(c.guard).Execute(t.Context(), w.withData(w.steps(content), true))
				if !c.crashed() {
					break
				}
				if !errors.Is(err, hostfs.ErrCrashed) {
					t.Fatalf("crash at %d (%s): the run went on: %v", n, c.op, err)
				}
				tried++
				what := fmt.Sprintf("killed at effect %d (%s)", n, c.op)
				if _, err := w.engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				at := w.whole(what, map[string][]string{"prom": {"1.0.0", "2.0.0"}})
				if len(w.wrong) > 0 {
					t.Fatalf("%s: %q", what, w.wrong)
				}
				w.holds(what, "twelve bytes", at["prom"])
			}
			if tried < 30 {
				t.Fatalf("only %d effects were tried", tried)
			}
			t.Logf("%d kill points", tried)
		})
	}
}

// wayBack makes the request of a rollback with the data of a backup point.
func (w *world) wayBack(from string) Request {
	req := w.withData(w.steps("prom 1.0.0"), true)
	req.Operation = Rollback
	req.Changes[0].Data.From = from
	return req
}

// Killed at any effect of a rollback that puts data back, the component is wholly
// at one version with that version's data.
func TestDataRollbackKilledAtEveryOperation(t *testing.T) {
	t.Parallel()
	upgraded := func() (*world, string) {
		w := newWorld(t)
		w.install("prom", "1.0.0")
		w.keeps("twelve bytes")
		res, err := w.engine(nil).Execute(t.Context(), w.withData(w.steps("prom 2.0.0"), true))
		if err != nil {
			t.Fatal(err)
		}
		w.write(filepath.Join(w.data(dataUnit), "samples"), "twelve bytes and more", 0o640)
		return w, res.ID
	}
	w, id := upgraded()
	if res, err := w.engine(nil).Execute(t.Context(), w.wayBack(id)); err != nil || res.Status != StatusSuccess {
		t.Fatalf("%+v, %v", res, err)
	}
	w.holds("rolled back", "twelve bytes", "1.0.0")
	if len(w.wrong) > 0 || w.runningVersion("prom") != "1.0.0" {
		t.Fatalf("%q", w.wrong)
	}
	tried := 0
	for n := 1; ; n++ {
		w, id := upgraded()
		c := &crashAt{n: n}
		_, err := w.engine(c.guard).Execute(t.Context(), w.wayBack(id))
		if !c.crashed() {
			break
		}
		tried++
		what := fmt.Sprintf("killed at effect %d (%s): %v", n, c.op, err)
		if _, err := w.engine(nil).Recover(t.Context()); err != nil {
			t.Fatalf("%s: recover: %v", what, err)
		}
		if len(w.wrong) > 0 {
			t.Fatalf("%s: %q", what, w.wrong)
		}
		switch v := w.runningVersion("prom"); v {
		case "1.0.0":
			w.holds(what, "twelve bytes", v)
		case "2.0.0":
			w.holds(what, "twelve bytes and more", v)
		default:
			t.Fatalf("%s: it runs %q", what, v)
		}
	}
	if tried < 30 {
		t.Fatalf("only %d effects were tried", tried)
	}
	t.Logf("%d kill points", tried)
}
