package stack

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/service/process"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// show opens a stack below a root of its own with the definitions given.
func show(t *testing.T, definitions map[string]string) *Stack {
	t.Helper()
	root := layout.Root(t.TempDir())
	if err := os.MkdirAll(root.ComponentsDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range definitions {
		text = fmt.Sprintf("role: exporter\nsource: {type: github, repo: demo/%[1]s, tag: \"v{version}\"}\nasset: \"%[1]s-{version}.tar.gz\"\nbinaries: [{name: %[1]s, path: %[1]s, install: /usr/local/bin/%[1]s}]\nversion: {args: [--version], regexp: 'version (\\S+)'}\n", name) + text
		if err := os.WriteFile(filepath.Join(root.ComponentsDir(), name+".yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root.Policy(), []byte("service_manager: process\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Root: root, Env: func(string) string { return "" }, Needs: Show})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConditions(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ready":
			fmt.Fprintln(w, "ready")
		case "/metrics":
			fmt.Fprintln(w, `x_build_info{version="1.2.3"} 1`)
		case "/busy":
			http.Error(w, "slow down", http.StatusTooManyRequests)
		default:
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	}))
	defer srv.Close()
	gone, bound, err := freeport.Shut()
	if err != nil {
		t.Fatal(err)
	}
	defer bound.Close()
	command := "process: {command: [\"/bin/sleep\", \"100\"]}\n"
	asks := func(path string) string {
		return command + fmt.Sprintf("health: {url: \"%s%s\", metrics_url: \"%[1]s/metrics\", expected_metric: x_build_info}\n", srv.URL, path)
	}
	s := show(t, map[string]string{
		"good": asks("/ready"), "newer": asks("/ready"), "bad": asks("/no"), "busy": asks("/busy"),
		"down":    command + "health: {url: \"http://" + gone + "/ready\"}\n",
		"stopped": asks("/ready"),
		"secret":  asks("/ready") + "client: {bearer: \"${SECRET:none}\"}\n",
		"closed":  asks("/ready") + "client: {ca: /etc/nowhere/ca.pem}\n",
		"silent":  command,
		"several": asks("/ready") + "instances:\n  - {name: a}\n  - {name: b, health: {url: \"" + srv.URL + "/no\"}}\n  - {name: c, health: {url: \"" + srv.URL + "/ready\"}, exec: [ssh, elsewhere]}\n",
		"away":    asks("/ready") + "instances:\n  - {name: c, exec: [ssh, elsewhere]}\n  - {name: d, exec: [ssh, elsewhere]}\n",
		"functional": asks("/ready") + "functional:\n  - {name: never, exec: {command: [touch, " + filepath.Join(t.TempDir(), "ran") + "]}}\n" +
			"  - {name: nor-this, http: {url: \"" + srv.URL + "/no\"}}\n",
	})
	m := process.New(process.Options{Dir: s.Root.ProcessDir(), LogDir: s.Root.LogDir()})
	defer m.Close()
	for _, name := range []string{"good", "newer", "bad", "busy", "down", "secret", "closed", "silent", "several@a", "several@b", "functional"} {
		svc := service.Service{Name: name, Command: []string{"/bin/sleep", "100"}}
		if err := m.Start(t.Context(), svc); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := m.Stop(context.Background(), svc, time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	versions := map[string]string{"newer": "1.3.0", "nobody": "1"}
	for _, name := range s.Catalogue.Names() {
		if versions[name] == "" {
			versions[name] = "1.2.3"
		}
	}
	got := s.Conditions(t.Context(), versions)
	if len(got) != len(versions) {
		t.Errorf("%d answers to %d questions", len(got), len(versions))
	}
	for name, want := range map[string]struct {
		state  State
		detail string
	}{
		"good": {StateHealthy, ""}, "functional": {StateHealthy, ""},
		"newer":   {StateUnhealthy, "the running process reports 1.2.3, expected 1.3.0"},
		"bad":     {StateUnhealthy, `answered 503 "not yet", expected 200`},
		"busy":    {StateUnknown, "asked too often"},
		"down":    {StateUnhealthy, "connection refused"},
		"stopped": {StateStopped, "stopped is dead"},
		"secret":  {StateUnknown, "could not be asked: client.bearer: secret none does not exist"},
		"closed":  {StateUnknown, "its certificates: open " + s.Root.Path("etc/nowhere/ca.pem")},
		"silent":  {StateHealthy, ""}, // its unit runs, and nothing more can be asked
		"several": {StateUnhealthy, `b: ready: `},
		"away":    {StateUnknown, "none of its instances is on this host"},
		"nobody":  {StateUnknown, "no definition"},
	} {
		if c := got[name]; c.State != want.state || !strings.Contains(c.Detail, want.detail) || want.detail == "" && c.Detail != "" {
			t.Errorf("%s: %+v, want %+v", name, c, want)
		}
	}

	// Without a service manager what answers is asked, and what does not is unknown.
	s.Policy.ServiceManager = "systemd"
	if _, err := os.Stat("/run/dbus/system_bus_socket"); err == nil {
		t.Skip("there is a system bus here")
	}
	got = s.Conditions(t.Context(), map[string]string{"good": "1.2.3", "silent": "1", "bad": "1.2.3"})
	if c := got["good"]; c.State != StateHealthy || !strings.Contains(c.Detail, "the state of its unit is not known") {
		t.Errorf("%+v", c)
	}
	if c := got["silent"]; c.State != StateUnknown {
		t.Errorf("%+v", c)
	}
	if c := got["bad"]; c.State != StateUnhealthy {
		t.Errorf("%+v", c)
	}
}

func TestConditionsInTime(t *testing.T) {
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer srv.Close()
	defer close(hang)
	s := show(t, map[string]string{"slow": "process: {command: [\"/bin/true\"]}\nhealth: {url: \"" + srv.URL + "\"}\n"})
	m := process.New(process.Options{Dir: s.Root.ProcessDir(), LogDir: s.Root.LogDir()})
	defer m.Close()
	svc := service.Service{Name: "slow", Command: []string{"/bin/sleep", "100"}}
	if err := m.Start(t.Context(), svc); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := m.Stop(context.Background(), svc, time.Second); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if c := s.Conditions(ctx, map[string]string{"slow": "1"})["slow"]; c.State != StateUnknown || !strings.Contains(c.Detail, "not asked to the end") {
		t.Errorf("%+v", c)
	}
}

func TestHoldFailed(t *testing.T) {
	v := component.MustParseVersion
	at := time.Date(2026, 11, 25, 23, 0, 0, 0, time.UTC)
	failed := []state.FailedVersion{{Version: "nonsense"}, {Version: "1.2.0", Reason: "not ready", FailedAt: at}}
	c := plan.Candidate{Name: "pulse", Current: v("1.1.0"), Latest: v("1.2.0"), Target: v("1.2.0"), Action: plan.ActionUpgrade}
	holdFailed(&c, failed)
	if want := "1.2.0 failed here on 2026-11-25: not ready; name it with --component=pulse@1.2.0 to try again"; c.Action != plan.ActionHold || c.Reason != want || !c.Target.IsZero() {
		t.Errorf("%+v", c)
	}
	newer := plan.Candidate{Name: "pulse", Target: v("1.3.0"), Action: plan.ActionUpgrade}
	holdFailed(&newer, failed)
	if newer.Action != plan.ActionUpgrade || newer.Target.IsZero() {
		t.Errorf("%+v", newer)
	}
}
