package run_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// configured is a world with a component that has directories of configuration.
func configured(t *testing.T) *runtest.World {
	t.Helper()
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	for path, mode := range map[string]fs.FileMode{"keys/tls.key": 0o600, "rules/a.yml": 0o644, "web.yml": 0o640, "sealed/ca.pem": 0o444} {
		w.Write(w.Root.Path("etc/prom", path), "content of "+path, mode)
	}
	err := errors.Join(
		os.Chmod(w.Root.Path("etc/prom/keys"), 0o700), os.Chmod(w.Root.Path("etc/prom/sealed"), 0o750),
		os.Mkdir(w.Root.Path("etc/prom/conf.d"), 0o755), os.Symlink("rules/a.yml", w.Root.Path("etc/prom/first.yml")),
	)
	if os.Geteuid() == 0 {
		err = errors.Join(err, os.Chown(w.Root.Path("etc/prom/keys"), 1234, 1234), os.Chmod(w.Root.Path("etc/prom/sealed"), 0o550))
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// listed tells of all below a directory but what a run kept aside: mode, owner and
// content.
func listed(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.Contains(d.Name(), ".obsup-") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(data)
		case info.Mode()&fs.ModeSymlink != 0:
			if text, err = os.Readlink(path); err != nil {
				return err
			}
		}
		sys := info.Sys().(*syscall.Stat_t)
		out = append(out, fmt.Sprintf("%s %v %d:%d %q", strings.TrimPrefix(path, dir), info.Mode(), sys.Uid, sys.Gid, text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// A new version, or somebody else, makes of the configuration what it likes, and the
// undo makes it what it was: content, kinds, modes, owners, and directories. What took
// the place of something of another kind is kept beside it.
func TestConfigIsPutBack(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(at func(string) string) error
		told   string
		kept   string // what is put aside, below etc/prom
	}{
		"directories removed": {func(at func(string) string) error {
			return errors.Join(os.RemoveAll(at("keys")), os.Remove(at("conf.d")), os.RemoveAll(at("sealed")))
		}, "etc/prom/keys changed during the run", ""},
		"all removed":    {func(at func(string) string) error { return os.RemoveAll(at("")) }, "etc/prom changed during the run", ""},
		"a mode changed": {func(at func(string) string) error { return os.Chmod(at("web.yml"), 0o666) }, "the mode, owner or attributes of ", ""},
		"a directory opened": {func(at func(string) string) error {
			return os.Chmod(at("keys"), 0o777)
		}, "the mode, owner or attributes of ", ""},
		"content and mode changed": {func(at func(string) string) error {
			return errors.Join(os.Remove(at("web.yml")), os.WriteFile(at("web.yml"), []byte("migrated"), 0o600))
		}, "etc/prom/web.yml changed during the run", ""},
		"a link led elsewhere": {func(at func(string) string) error {
			return errors.Join(os.Remove(at("first.yml")), os.Symlink("web.yml", at("first.yml")))
		}, "etc/prom/first.yml changed during the run", ""},
		"a file became a directory": {func(at func(string) string) error {
			return errors.Join(os.Remove(at("web.yml")), os.Mkdir(at("web.yml"), 0o755), os.WriteFile(at("web.yml/main.yml"), []byte("new"), 0o644))
		}, "web.yml had become of another kind", ".web.yml.obsup-%s.replaced/main.yml"},
		"a directory became a file": {func(at func(string) string) error {
			return errors.Join(os.RemoveAll(at("rules")), os.WriteFile(at("rules"), []byte("new"), 0o644))
		}, "rules had become of another kind", ".rules.obsup-%s.replaced"},
		"a directory became a link": {func(at func(string) string) error {
			return errors.Join(os.Rename(at("rules"), at("../rules")), os.Symlink("../rules", at("rules")))
		}, "rules had become of another kind", ".rules.obsup-%s.replaced"},
		"a name is taken already": {func(at func(string) string) error {
			ids, err := os.ReadDir(filepath.Join(at(""), "../../var/backups/observability"))
			if err != nil {
				return err
			}
			return errors.Join(os.RemoveAll(at("rules")), os.WriteFile(at("rules"), []byte("new"), 0o644),
				os.WriteFile(at(".rules.obsup-"+ids[0].Name()+".replaced"), []byte("mine"), 0o644))
		}, "rules had become of another kind", ".rules.obsup-%s.replaced.2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := configured(t)
			at := func(name string) string { return w.Root.Path("etc/prom", name) }
			before := listed(t, at(""))
			e := w.Engine(nil)
			e.Report = func(ev Event) {
				if ev.Step == StepHealth && !ev.Done && ev.Detail == "" && ev.To == "2.0.0" {
					if err := tt.change(at); err != nil {
						t.Error(err)
					}
				}
			}
			res, err := e.Execute(t.Context(), w.Steps("prom 2.0.0 "+runtest.WordNotReady))
			if err == nil || res.Status != StatusRolledBack || w.Running("prom") != "1.0.0" {
				t.Fatalf("status %s, prom runs %q, %v", res.Status, w.Running("prom"), err)
			}
			if after := listed(t, at("")); after != before {
				t.Errorf("the configuration is\n%s\nwas\n%s", after, before)
			}
			if text := strings.Join(res.Warnings, "\n"); !strings.Contains(text, tt.told) {
				t.Errorf("warnings %q, want %q", text, tt.told)
			}
			if tt.kept != "" {
				if _, err := os.Lstat(at(fmt.Sprintf(tt.kept, res.ID))); err != nil {
					t.Error(err)
				}
			}
			clean(t, w, name)
		})
	}
}

// Killed at any effect, also while it puts the configuration back, the next recovery
// makes it what it was.
func TestConfigIsPutBackKilledAtEveryOperation(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		w := configured(t)
		at := func(name string) string { return w.Root.Path("etc/prom", name) }
		before := listed(t, at(""))
		c := &runtest.CrashAt{N: n}
		e := w.Engine(c.Guard)
		e.Report = func(ev Event) {
			if ev.Step != StepHealth || ev.Done || ev.Detail != "" || ev.To != "2.0.0" {
				return
			}
			if err := errors.Join(os.RemoveAll(at("keys")), os.RemoveAll(at("rules")), os.WriteFile(at("rules"), nil, 0o600),
				os.Chmod(at("sealed"), 0o755), os.Remove(at("web.yml")), os.Mkdir(at("web.yml"), 0o755)); err != nil {
				t.Error(err)
			}
		}
		_, err := e.Execute(t.Context(), w.Steps("prom 2.0.0 "+runtest.WordNotReady))
		if err == nil || errors.Is(err, hostfs.ErrCrashed) != c.Crashed() {
			t.Fatalf("kill at %d (%s): %v", n, c.Op, err)
		}
		what := fmt.Sprintf("killed at effect %d (%s)", n, c.Op)
		if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		clean(t, w, what)
		if after := listed(t, at("")); after != before || w.Running("prom") != "1.0.0" {
			t.Fatalf("%s: prom runs %q, the configuration is\n%s\nwas\n%s", what, w.Running("prom"), after, before)
		}
		if !c.Crashed() {
			if n < 50 {
				t.Errorf("only %d effects", n)
			}
			return
		}
	}
}

// A file of configuration by itself comes back where its directory became a file.
func TestConfigFileIsPutBackWithItsDirectory(t *testing.T) {
	w := runtest.New(t)
	w.Install("prom", "1.0.0")
	dir := w.Root.Path("etc/prom.d")
	w.Write(filepath.Join(dir, "flags"), "old", 0o640)
	req := w.Steps("prom 2.0.0 " + runtest.WordNotReady)
	req.Subjects[0].Configs = append(req.Subjects[0].Configs, filepath.Join(dir, "flags"))
	e := w.Engine(nil)
	e.Report = func(ev Event) {
		if ev.Step == StepHealth && !ev.Done && ev.Detail == "" && ev.To == "2.0.0" {
			if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("new"), 0o644)); err != nil {
				t.Error(err)
			}
		}
	}
	res, err := e.Execute(t.Context(), req)
	if err == nil || res.Status != StatusRolledBack || w.Running("prom") != "1.0.0" {
		t.Fatalf("status %s, %v", res.Status, err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "flags")); err != nil || string(got) != "old" {
		t.Errorf("flags are %q, %v", got, err)
	}
}

// A unit file that is put back is told to the service manager, also by the recovery
// that follows an undo which was cut off in between.
func TestUnitThatIsPutBackIsReadAgain(t *testing.T) {
	for n := 0; ; n++ {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		unit := w.Root.Path("etc/systemd/system/prom.service")
		w.Write(unit, "old", 0o644)
		loaded := "old"
		w.Refuse = func(op, _ string) error {
			if op == "daemon-reload" {
				data, err := os.ReadFile(unit)
				loaded = string(data)
				return err
			}
			return nil
		}
		req := w.Steps("prom 2.0.0 " + runtest.WordNotReady)
		req.Subjects[0].Units = []string{unit}
		c := &runtest.CrashAt{N: n}
		e := w.Engine(c.Guard)
		e.Report = func(ev Event) {
			if ev.Step == StepHealth && !ev.Done && ev.Detail == "" && ev.To == "2.0.0" {
				w.Write(unit, "new", 0o644) // by configuration management, which
				loaded = "new"              // has it read
			}
		}
		if _, err := e.Execute(t.Context(), req); err == nil || errors.Is(err, hostfs.ErrCrashed) != c.Crashed() {
			t.Fatalf("kill at %d (%s): %v", n, c.Op, err)
		}
		if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(unit); err != nil || string(data) != "old" || loaded != "old" {
			t.Fatalf("killed at effect %d (%s): the unit file is %q, and %q is loaded; %v", n, c.Op, data, loaded, err)
		}
		if n > 0 && !c.Crashed() {
			return
		}
	}
}

// What was damaged in the backup point replaces nothing, the rest comes back, and the
// old version is started.
func TestDamagedConfigIsNotPutBack(t *testing.T) {
	for name, damage := range map[string]func(stored string) error{
		"content": func(stored string) error {
			return os.WriteFile(filepath.Join(stored, "config.yml"), []byte("\x00"), 0o755)
		},
		"removed": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			w := configured(t)
			flags := w.Root.Path("etc/default/prom")
			w.Write(flags, "old", 0o644)
			config := w.Root.Path("etc/prom/config.yml")
			req := w.Steps("prom 2.0.0 " + runtest.WordNotReady)
			req.Subjects[0].Configs = append(req.Subjects[0].Configs, flags)
			e := w.Engine(nil)
			e.Report = func(ev Event) {
				if ev.Step == StepHealth && !ev.Done && ev.Detail == "" && ev.To == "2.0.0" {
					w.Write(config, "migrated", 0o755)
					w.Write(flags, "new", 0o644)
					if err := damage(filepath.Join(w.Root.Backups(), ev.Run, "config/prom/prom")); err != nil {
						t.Error(err)
					}
				}
			}
			res, err := e.Execute(t.Context(), req)
			if err == nil || res.Status != StatusRolledBack || w.Running("prom") != "1.0.0" {
				t.Fatalf("status %s, prom runs %q, %v", res.Status, w.Running("prom"), err)
			}
			for path, want := range map[string]string{config: "migrated", flags: "old"} {
				if got, err := os.ReadFile(path); err != nil || string(got) != want {
					t.Errorf("%s is %q, want %q (%v)", path, got, want, err)
				}
			}
			want := "prom: whether " + filepath.Dir(config) + " changed during the run is not known, and nothing of it is put back: backup " + res.ID + " is damaged: config/prom/prom"
			if text := strings.Join(res.Warnings, "\n"); !strings.Contains(text, want) {
				t.Errorf("warnings %q, want %q", text, want)
			}
		})
	}
}

// A rollback that is undone leaves alone what another component went back to in the
// same run, though it lies in a directory of this one's.
func TestConfigOfAnotherIsLeft(t *testing.T) {
	for _, killed := range []bool{false, true} {
		w := runtest.New(t)
		w.Install("prom", "1.0.0")
		w.Install("am", "0.1.0")
		if _, err := w.Engine(nil).Execute(t.Context(), w.Steps("am 0.2.0", "prom 2.0.0")); err != nil {
			t.Fatal(err)
		}
		path, stored := w.Root.Path("etc/prom/am.yml"), w.Root.Path("etc/stored/am.yml")
		w.Write(path, "of am 0.2.0", 0o644)
		w.Write(stored, "of am 0.1.0", 0o644)
		was, err := hostfs.Digest(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hostfs.Digest(stored)
		if err != nil {
			t.Fatal(err)
		}
		req := w.Back()
		if req.Changes[0].Component != "am" {
			slices.Reverse(req.Changes)
		}
		req.Changes[0].Swaps = append(req.Changes[0].Swaps, Swap{
			Kind: backup.Config, Name: "am", Path: path, Source: stored, Beside: hostfs.Beside(path, "new"), Old: was, New: want,
		})
		failed, dead := false, false
		w.Refuse = func(op, unit string) error {
			if op != "start" || unit != "prom.service" || failed {
				return nil
			}
			failed = true
			if killed {
				dead = true
				return hostfs.ErrCrashed
			}
			return errors.New("it does not start")
		}
		e := w.Engine(func(string, string) error {
			if dead {
				return hostfs.ErrCrashed
			}
			return nil
		})
		if _, err := e.Execute(t.Context(), req); err == nil || !failed {
			t.Fatalf("killed %v: %v", killed, err)
		}
		if killed {
			if _, err := w.Engine(nil).Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if w.Running("am") != "0.1.0" || w.Running("prom") != "2.0.0" {
			t.Errorf("killed %v: am runs %q, prom %q", killed, w.Running("am"), w.Running("prom"))
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != "of am 0.1.0" {
			t.Errorf("killed %v: the configuration of am is %q, %v", killed, data, err)
		}
	}
}
