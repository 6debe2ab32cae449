package preflight

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// healthy is what the played prober answers for components it is not told of.
var healthy = health.Report{Healthy: true, Checks: []component.Check{{Name: "ready", Status: health.OK}}}

// prober answers with the report of each component.
type prober map[string]health.Report

func (p prober) Once(_ context.Context, t health.Target) health.Report {
	if r, ok := p[t.Component]; ok {
		return r
	}
	return healthy
}

// host is a directory with installed components, all well, and a plan for them.
func host(t *testing.T, names ...string) Input {
	t.Helper()
	root := layout.Root(t.TempDir())
	in := Input{
		Plan: &plan.Plan{Phases: []plan.Phase{{Number: 1, Name: "Data Stores"}}}, Installed: map[string]*inventory.Installed{},
		Root: root, Staging: root.Staging(), HoldsLock: true,
		Prober: prober{}, TryWrite: new(hostfs.Host).TryWrite,
		Target: func(in *inventory.Installed) (health.Target, error) {
			return health.NewTarget(in.Component, in.Service, component.Vars{}, 0), nil
		},
		Tool:    func(context.Context, []string) (string, error) { return "", nil },
		History: func(context.Context) error { return nil },
	}
	for _, name := range names {
		bin, unit := root.Path("usr/local/bin", name), root.Path("etc/systemd/system", name+".service")
		write(t, bin, strings.Repeat("x", 1000), 0o755)
		write(t, unit, "[Service]\n", 0o644)
		write(t, root.Path("etc", name, "config.yml"), "a: 1\n", 0o644)
		in.Installed[name] = &inventory.Installed{
			Component: &component.Component{
				Name: name, Binaries: []component.Binary{{Name: name, Install: "/usr/local/bin/" + name}},
				Config: component.Config{Paths: []string{"/etc/" + name}},
				Data:   component.Data{Path: "/var/lib/" + name},
				Health: component.Health{URL: "http://localhost:9090/-/ready"},
			},
			Version: component.MustParseVersion("1.0.0"), Path: bin, Binaries: map[string]string{name: bin}, RunsPath: true,
			Service: service.Service{Name: name, Unit: name + ".service"},
			Status:  service.Status{Exists: true, Active: true, ExecStart: []string{bin}, FragmentPath: unit},
		}
		in.Plan.Phases[0].Steps = append(in.Plan.Phases[0].Steps, plan.Step{Component: name, DownloadBytes: 1000})
	}
	return in
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode))
	if err != nil {
		t.Fatal(err)
	}
}

// of picks the results of one check.
func of(r Report, name string) []component.Check {
	var out []component.Check
	for _, c := range r.Checks {
		if c.Name == name {
			out = append(out, c)
		}
	}
	return out
}

// expect compares the only result of a check: its status, and words of its
// detail and of the command that follows.
func expect(t *testing.T, r Report, name string, status component.CheckStatus, words ...string) {
	t.Helper()
	got := of(r, name)
	if len(got) != 1 {
		t.Fatalf("%s: %d results: %+v", name, len(got), got)
	}
	expectCheck(t, got[0], status, words...)
}

func expectCheck(t *testing.T, got component.Check, status component.CheckStatus, words ...string) {
	t.Helper()
	if got.Status != status {
		t.Errorf("%s is %s, expected %s: %s", got.Name, got.Status, status, got.Detail)
	}
	for _, w := range words {
		if !strings.Contains(got.Detail+"; next: "+got.Next, w) {
			t.Errorf("%s: %q; next: %q: expected %q", got.Name, got.Detail, got.Next, w)
		}
	}
	if got.Status == component.CheckFail && (got.Next == "" || got.Detail == "") {
		t.Errorf("%s fails and says not what to do: %+v", got.Name, got)
	}
}

var now = time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)
