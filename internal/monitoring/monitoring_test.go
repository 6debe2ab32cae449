package monitoring

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// place is a directory to install into.
type place struct {
	t   *testing.T
	dir string
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

func (p place) write(name, data string) {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(data), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p place) read(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(p.path(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// install installs rules and a dashboard of some text and returns what was done.
func (p place) install(h *hostfs.Host, text string, force, dry bool) (actions string, err error) {
	files := []File{{KindRules, p.path("rules/a.yml"), []byte(text)}, {KindDashboard, p.path("d/b.json"), []byte(text)}}
	out, err := Install(h, p.path("lib/record.json"), files, force, dry)
	for _, o := range out {
		actions += o.Kind + " " + o.Action + ", "
	}
	return actions, err
}

func (p place) expect(want, text string, force, dry bool) {
	p.t.Helper()
	if got, err := p.install(&hostfs.Host{}, text, force, dry); err != nil || got != want {
		p.t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func (p place) refuses(path string, text string, dry bool) {
	p.t.Helper()
	_, err := p.install(&hostfs.Host{}, text, false, dry)
	var edited *EditedError
	if !errors.As(err, &edited) || edited.Path != p.path(path) {
		p.t.Errorf("got %v, want a refusal of %s", err, path)
	}
}

const (
	bothCreated   = "rules created, dashboard created, "
	bothUpdated   = "rules updated, dashboard updated, "
	bothUnchanged = "rules unchanged, dashboard unchanged, "
)

func TestInstall(t *testing.T) {
	p := place{t, t.TempDir()}
	p.expect(bothCreated, "one", false, true)
	if entries, err := os.ReadDir(p.dir); err != nil || len(entries) > 0 {
		t.Fatalf("a dry run wrote %v, %v", entries, err)
	}
	p.expect(bothCreated, "one", false, false)
	st, err := os.Stat(p.path("rules/a.yml"))
	if err != nil || st.Mode() != 0o644 || p.read("d/b.json") != "one" {
		t.Errorf("%v %v", st.Mode(), err)
	}
	before, err := os.Stat(p.path("lib/record.json"))
	if err != nil {
		t.Fatal(err)
	}
	p.expect(bothUnchanged, "one", false, false)
	for name, was := range map[string]os.FileInfo{"rules/a.yml": st, "lib/record.json": before} {
		if now, err := os.Stat(p.path(name)); err != nil || !os.SameFile(was, now) {
			t.Errorf("%s was written again: %v", name, err)
		}
	}
	p.expect(bothUpdated, "two", false, false) // a newer version of the program
	p.expect(bothUnchanged, "two", true, false)
}

// What people changed is left alone, and then nothing is written at all.
func TestEdited(t *testing.T) {
	p := place{t, t.TempDir()}
	p.expect(bothCreated, "one", false, false)
	p.write("d/b.json", "mine")
	for _, dry := range []bool{true, false} {
		p.refuses("d/b.json", "one", dry)
		p.refuses("d/b.json", "two", dry)
	}
	if p.read("rules/a.yml") != "one" || p.read("d/b.json") != "mine" {
		t.Error("something was written")
	}
	p.expect("rules updated, dashboard updated, ", "two", true, false)
	p.expect(bothUnchanged, "two", false, false)
	// A file that somebody else put there, though by chance it is the same, is ours.
	if err := os.RemoveAll(p.path("lib")); err != nil {
		t.Fatal(err)
	}
	p.expect(bothUnchanged, "two", false, false)
	p.expect(bothUpdated, "three", false, false)
	if err := os.RemoveAll(p.path("lib")); err != nil {
		t.Fatal(err)
	}
	p.refuses("rules/a.yml", "four", false)
	// A link is somebody's arrangement.
	p = place{t, t.TempDir()}
	p.write("elsewhere.yml", "one")
	if err := errors.Join(os.Mkdir(p.path("rules"), 0o755), os.Symlink("../elsewhere.yml", p.path("rules/a.yml"))); err != nil {
		t.Fatal(err)
	}
	p.refuses("rules/a.yml", "one", false)
	p.expect("rules updated, dashboard created, ", "one", true, false)
	if st, err := os.Lstat(p.path("rules/a.yml")); err != nil || !st.Mode().IsRegular() || p.read("elsewhere.yml") != "one" {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

func TestInstallFails(t *testing.T) {
	p := place{t, t.TempDir()}
	if err := os.MkdirAll(p.path("rules/a.yml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := p.install(&hostfs.Host{}, "one", true, false); err == nil {
		t.Error("a directory was written over")
	}
	p = place{t, t.TempDir()}
	full := errors.New("disk full")
	for _, op := range []string{"mkdir", "write", "write.rename"} {
		h := &hostfs.Host{Guard: func(o, _ string) error {
			if o == op {
				return full
			}
			return nil
		}}
		if _, err := p.install(h, "one", false, false); !errors.Is(err, full) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if err := os.MkdirAll(p.path("lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.write("lib/record.json", "{")
	if _, err := p.install(&hostfs.Host{}, "one", false, false); err == nil {
		t.Error("a record that cannot be read was taken")
	}
	p.write("lib/record.json", "{}")
	p.expect(bothCreated, "one", false, false)
}

// A crash between the files and the record of them leaves files that are taken
// for this program's the next time.
func TestInstallIsCutOff(t *testing.T) {
	p := place{t, t.TempDir()}
	h := &hostfs.Host{Guard: func(_, path string) error {
		if path == p.path("lib/record.json") {
			return hostfs.ErrCrashed
		}
		return nil
	}}
	if _, err := p.install(h, "one", false, false); !errors.Is(err, hostfs.ErrCrashed) {
		t.Errorf("got %v", err)
	}
	p.expect(bothUnchanged, "one", false, false)
	p.expect(bothUpdated, "two", false, false)
}

func TestPathIn(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "odd.yml")
	if err := os.Mkdir(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, given := range []string{"/r", "/r/x.yml", "/r/x.yaml", "/r/x.json", odd} {
		got[given] = PathIn(KindRules, given)
	}
	want := map[string]string{
		"/r": "/r/upgrade-alerts.yml", "/r/x.yml": "/r/x.yml", "/r/x.yaml": "/r/x.yaml",
		"/r/x.json": "/r/x.json/upgrade-alerts.yml", odd: odd + "/upgrade-alerts.yml",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := PathIn(KindDashboard, "/d"); got != "/d/observability-upgrade.json" {
		t.Error(got)
	}
}
