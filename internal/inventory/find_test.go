package inventory

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

type units map[string]service.Status

func (u units) Status(_ context.Context, s service.Service) (service.Status, error) {
	return u[s.Unit], nil
}

// host is a root with the given files and links ("-> target"), and a finder on it.
func host(t *testing.T, files map[string]string, u units) *Finder {
	t.Helper()
	root := layout.Root(t.TempDir())
	for path, content := range files {
		path = root.Path(path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(content, "-> "); link {
			err = os.Symlink(root.Path(to), path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return &Finder{
		Root: root, Services: u, Logger: slog.New(slog.DiscardHandler),
		Probe: func(_ context.Context, path string, _ component.VersionProbe) (component.Version, error) {
			data, err := os.ReadFile(path)
			if err != nil {
				return component.Version{}, err
			}
			return component.ParseVersion(string(data))
		},
		Owners: func(context.Context, layout.Root, []string) (map[string]string, error) { return nil, nil },
	}
}

func prometheus() *component.Component {
	return &component.Component{
		Name: "prometheus", Service: "prometheus.service",
		Binaries: []component.Binary{{Name: "prometheus", Install: "/usr/local/bin/prometheus"}, {Name: "promtool", Install: "/usr/local/bin/promtool"}},
	}
}

// Of links to a directory per version, what they lead to now counts, whatever the
// state file remembers.
func TestLinksToADirectoryPerVersion(t *testing.T) {
	f := host(t, map[string]string{
		"opt/prometheus-2.53/prometheus": "2.53.0", "opt/prometheus-2.53/promtool": "2.53.0",
		"opt/prometheus-3.0/prometheus": "3.0.0", "opt/prometheus-3.0/promtool": "3.0.0",
		"usr/local/bin/prometheus": "-> opt/prometheus-3.0/prometheus", "usr/local/bin/promtool": "-> opt/prometheus-3.0/promtool",
	}, units{})
	old := f.Root.Path("opt/prometheus-2.53")
	u := service.Status{Exists: true, ExecStart: []string{f.Root.Path("usr/local/bin/prometheus")}, ExecPath: f.Root.Path("opt/prometheus-3.0/prometheus")}
	f.Services = units{"prometheus.service": u}
	known := map[string]state.Component{"prometheus": {
		CurrentVersion: "2.53.0", BinaryPath: filepath.Join(old, "prometheus"),
		Binaries: map[string]string{"prometheus": filepath.Join(old, "prometheus"), "promtool": filepath.Join(old, "promtool")},
	}}
	found, err := f.Find(t.Context(), []*component.Component{prometheus()}, known)
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	in := found[0]
	for name, path := range in.Binaries {
		if path != f.Root.Path("opt/prometheus-3.0", name) {
			t.Errorf("%s is %s", name, path)
		}
	}
	if in.Version.String() != "3.0.0" || !in.RunsPath || len(in.Binaries) != 2 {
		t.Errorf("%+v", in)
	}
}

// A component whose instances cannot be looked up says so, and has no instance that
// could be acted on; also when nothing of its plain form is here.
func TestInstancesThatCannotBeLookedUp(t *testing.T) {
	away := errors.New("no answer within 10s")
	for name, tt := range map[string]struct {
		files map[string]string
		known map[string]state.Component
		want  bool
	}{
		"installed":          {files: map[string]string{"usr/local/bin/prometheus": "2.53.0"}, want: true},
		"known":              {known: map[string]state.Component{"prometheus": {CurrentVersion: "2.53.0"}}, want: true},
		"nothing of it here": {},
	} {
		f := host(t, tt.files, units{"prometheus.service": {Exists: true, Active: true}})
		f.Instances = func(context.Context, *component.Component) ([]component.Instance, error) { return nil, away }
		c := prometheus()
		c.Instances = component.Instances{Type: "consul", Address: "http://127.0.0.1:9", Service: "prometheus"}
		found, err := f.Find(t.Context(), []*component.Component{c}, tt.known)
		if err != nil || (len(found) == 1) != tt.want {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		if tt.want && (found[0].Unlisted != away.Error() || len(found[0].Local()) > 0 || !strings.Contains(found[0].Problem, away.Error())) {
			t.Errorf("%s: %+v", name, found[0])
		}
	}
}

// TestStartsPath proves that what a unit starts is told from what runs now.
func TestStartsPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, link := filepath.Join(dir, "alpha"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		status service.Status
		path   string
		want   bool
	}{
		"as it was started":   {service.Status{ExecPath: file, ExecStart: []string{file}}, file, true},
		"through a wrapper":   {service.Status{ExecPath: file, ExecStart: []string{"/usr/bin/env", "alpha"}}, file, true},
		"moved away since":    {service.Status{ExecPath: file + ".old", ExecStart: []string{file, "-x"}}, file, true},
		"and a link is named": {service.Status{ExecPath: file + ".old", ExecStart: []string{link}}, file, true},
		"another program":     {service.Status{ExecPath: "/opt/alpha", ExecStart: []string{"/opt/alpha"}}, file, false},
		"no program":          {service.Status{}, "", false},
	} {
		if got := startsPath(tt.status, tt.path); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// A component that the state file knows does not vanish with its binary: what it was
// and where it should be is told, and nobody who has never had it hears of it.
func TestBinaryThatIsGone(t *testing.T) {
	known := map[string]state.Component{"prometheus": {CurrentVersion: "2.53.0"}}
	for name, tt := range map[string]struct {
		files map[string]string
		known map[string]state.Component
		gone  bool
		none  bool
	}{
		"there":                       {files: map[string]string{"usr/local/bin/prometheus": "2.53.0"}, known: known},
		"moved away":                  {known: known, gone: true},
		"a link to nowhere":           {files: map[string]string{"usr/local/bin/prometheus": "-> opt/prometheus"}, known: known, gone: true},
		"a directory in its place":    {files: map[string]string{"usr/local/bin/prometheus/x": "2.53.0"}, known: known, gone: true},
		"never installed":             {none: true},
		"gone, and nothing was noted": {files: map[string]string{"usr/local/bin/promtool": "2.53.0"}, none: true},
	} {
		f := host(t, tt.files, units{"prometheus.service": {Exists: true, Active: true}})
		found, err := f.Find(t.Context(), []*component.Component{prometheus()}, tt.known)
		if err != nil || (len(found) == 0) != tt.none {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		if tt.none {
			continue
		}
		in, at := found[0], f.Root.Path("usr/local/bin/prometheus")
		if (in.Gone == at) != tt.gone || (in.Path == at) == tt.gone || in.Version.IsZero() != tt.gone || !in.Known {
			t.Errorf("%s: %+v", name, in)
		}
		if want := "binary missing: " + at + "; the state file says 2.53.0"; tt.gone && in.Problem != want {
			t.Errorf("%s: %q, want %q", name, in.Problem, want)
		}
	}
}

// Instances share their binary, and are gone together; they stay instances.
func TestBinaryOfInstancesThatIsGone(t *testing.T) {
	f := host(t, nil, units{})
	c := prometheus()
	c.Instances = component.Instances{List: []component.Instance{{Name: "a"}, {Name: "b"}}}
	found, err := f.Find(t.Context(), []*component.Component{c}, map[string]state.Component{"prometheus": {CurrentVersion: "2.53.0"}})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if in := found[0]; in.Gone == "" || len(in.Copies) != 2 || in.Copies[1].Gone == "" || !strings.HasPrefix(in.Problem, "binary missing: ") {
		t.Errorf("%+v", in)
	}
}
