package run_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

func TestDataIsKept(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	w.Keeps("twelve bytes")
	res, err := w.Engine(nil).Execute(t.Context(), w.WithData(w.Steps("prom 2.0.0"), true))
	if err != nil || res.Status != StatusSuccess {
		t.Fatalf("%+v, %v", res, err)
	}
	holds(t, w, "upgraded", "twelve bytes", "2.0.0")
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
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Keeps("twelve bytes")
		req := w.WithData(w.Steps("prom 2.0.0"), true)
		req.Changes[0].Data.Fingerprint[0].HTTP.URL = w.Server.URL + path
		res, err := w.Engine(nil).Execute(t.Context(), req)
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
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			w.Keeps("twelve bytes")
			req := w.WithData(w.Steps("prom 2.0.0 "+runtest.WordForgets), takeBack)
			e := w.Engine(nil)
			e.Report = func(ev Event) {
				if ev.Step == StepHealth && ev.Done && ev.Err == nil {
					// The new version spoils what the old one cannot do without.
					w.Write(filepath.Join(w.Data(runtest.DataUnit), "samples"), "", 0o640)
				}
			}
			if takeBack {
				e.Report = nil
			}
			res, err := e.Execute(t.Context(), req)
			if err == nil || res.Status != StatusRolledBack || !strings.Contains(err.Error(), "samples was 12, is 0") {
				t.Fatalf("%+v, %v", res, err)
			}
			holds(t, w, name, "twelve bytes", "1.0.0")
			if w.Running("prom") != "1.0.0" || takeBack && len(w.Wrong) > 0 {
				t.Fatalf("runs %s, %q", w.Running("prom"), w.Wrong)
			}
		})
	}
}

// Killed at any effect of an upgrade that keeps data, whether it would have failed
// or not, the old version is never started on what the new one wrote.
func TestDataKilledAtEveryOperation(t *testing.T) {
	for _, content := range []string{"prom 2.0.0", "prom 2.0.0 " + runtest.WordNoStart} {
		t.Run(content, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for n := 1; ; n++ {
				w := runtest.New(t)
				w.Install("prom", "1.0.0")
				w.Keeps("twelve bytes")
				c := &runtest.CrashAt{N: n}
				_, err := w.Engine(c.Guard).Execute(t.Context(), w.WithData(w.Steps(content), true))
				if !c.Crashed() {
					break
				}
				if !errors.Is(err, hostfs.ErrCrashed) {
					t.Fatalf("crash at %d (%s): the run went on: %v", n, c.Op, err)
				}
				tried++
				what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
				if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				at := whole(t, w, what, map[string][]string{"prom": {"1.0.0", "2.0.0"}})
				if len(w.Wrong) > 0 {
					t.Fatalf("%s: %q", what, w.Wrong)
				}
				holds(t, w, what, "twelve bytes", at["prom"])
			}
			if tried < 30 {
				t.Fatalf("only %d effects were tried", tried)
			}
			t.Logf("%d kill points", tried)
		})
	}
}

// Killed at any effect of a rollback that puts data back, the component is wholly
// at one version with that version's data.
func TestDataRollbackKilledAtEveryOperation(t *testing.T) {
	t.Parallel()
	upgraded := func() (*runtest.World, string) {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Keeps("twelve bytes")
		res, err := w.Engine(nil).Execute(t.Context(), w.WithData(w.Steps("prom 2.0.0"), true))
		if err != nil {
			t.Fatal(err)
		}
		w.Write(filepath.Join(w.Data(runtest.DataUnit), "samples"), "twelve bytes and more", 0o640)
		return w, res.ID
	}
	w, id := upgraded()
	if res, err := w.Engine(nil).Execute(t.Context(), w.WayBack(id)); err != nil || res.Status != StatusSuccess {
		t.Fatalf("%+v, %v", res, err)
	}
	holds(t, w, "rolled back", "twelve bytes", "1.0.0")
	if len(w.Wrong) > 0 || w.Running("prom") != "1.0.0" {
		t.Fatalf("%q", w.Wrong)
	}
	tried := 0
	for n := 1; ; n++ {
		w, id := upgraded()
		c := &runtest.CrashAt{N: n}
		_, err := w.Engine(c.Guard).Execute(t.Context(), w.WayBack(id))
		if !c.Crashed() {
			break
		}
		tried++
		what := fmt.Sprintf("killed at effect %d (%s): %v", n, c.Op, err)
		if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
			t.Fatalf("%s: recover: %v", what, err)
		}
		if len(w.Wrong) > 0 {
			t.Fatalf("%s: %q", what, w.Wrong)
		}
		switch v := w.Running("prom"); v {
		case "1.0.0":
			holds(t, w, what, "twelve bytes", v)
		case "2.0.0":
			holds(t, w, what, "twelve bytes and more", v)
		default:
			t.Fatalf("%s: it runs %q", what, v)
		}
	}
	if tried < 30 {
		t.Fatalf("only %d effects were tried", tried)
	}
	t.Logf("%d kill points", tried)
}
