package stack

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

const ownRun = "20260102_030405"

// told is what is queued, by event.
type told map[string]struct {
	Subject string      `json:"subject"`
	Body    string      `json:"body"`
	Data    notify.Data `json:"data"`
}

// tellerHere is one with a channel for everything.
func tellerHere(t *testing.T) *Stack {
	t.Helper()
	root := layout.Root(t.TempDir())
	cat, err := catalogue.Load("")
	if err != nil {
		t.Fatal(err)
	}
	const text = `channels: [{name: all, type: webhook, enabled: true, config: {url: "http://127.0.0.1:1/"}, events: [upgrade_available, upgrade_started, upgrade_completed, upgrade_failed, rollback_required, rollback_completed]}]`
	if err := errors.Join(os.MkdirAll(root.Config(), 0o755), os.WriteFile(root.Notifications(), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	conf, err := config.LoadNotifications(root, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	s := &Stack{Options: Options{Root: root, Logger: slog.New(slog.DiscardHandler), Notice: func(msg string) { t.Error(msg) }}, Catalogue: cat, host: &hostfs.Host{}, now: time.Now}
	s.notifyWith(conf)
	return s
}

func queued(t *testing.T, root layout.Root) told {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root.NotifyDir(), "queue", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	out := told{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var probe struct {
			Data struct{ Event string }
		}
		if err := json.Unmarshal(data, &probe); err != nil {
			t.Fatal(err)
		}
		m := out[probe.Data.Event]
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		out[probe.Data.Event] = m
	}
	return out
}

func ver(s string) component.Version {
	v, err := component.ParseVersion(s)
	if err != nil {
		panic(err)
	}
	return v
}

// became is an outcome: what (perhaps @instance), status, error.
func became(what string, st run.ComponentStatus, err string, healthy bool) run.Outcome {
	name, instance, _ := strings.Cut(what, "@")
	return run.Outcome{Name: name, Instance: instance, From: ver("1.0.0"), To: ver("1.1.0"), Status: st, Error: err, Healthy: healthy}
}

func backAgain(what string, st run.ComponentStatus, err string, healthy bool) run.Outcome {
	o := became(what, st, err, healthy)
	o.From, o.To = o.To, o.From
	return o
}

// What is told of how a run ended is so, and what it says to type is of use.
func TestTellsHowARunEnded(t *testing.T) {
	const restored = "System restored to previous state."
	checks := &RefusedError{Check: "pre-flight", Err: &ChecksError{Failed: []component.Check{{Name: "config_syntax", Component: "loki@b", Detail: "is wrong"}}}, Next: "loki -verify-config"}
	for name, c := range map[string]struct {
		op       run.Operation
		status   string
		outcomes []run.Outcome
		warnings []string
		err      error
		noPoint  bool

		event   string
		check   func(notify.Data) string // what is wrong with the data
		has     []string
		hasNot  []string
		subject string
	}{
		"left out, and another upgraded": {
			op: run.Apply, status: run.StatusFailed, outcomes: []run.Outcome{became("grafana", run.Upgraded, "", true), became("loki", run.Failed, "says 1.0.9", false)},
			event: notify.UpgradeFailed,
			check: func(d notify.Data) string {
				if d.BackupTimestamp != "" || d.RollbackCommand != "" || d.Refused || len(d.Kept) != 1 || d.Kept[0].Name != "grafana" || d.Kept[0].CurrentVersion != "1.1.0" {
					return "it goes back from what was not touched, or does not tell what was upgraded"
				}
				return ""
			},
			has: []string{"Failed component: loki\n", "Upgraded all the same:\n- grafana: 1.0.0 → 1.1.0\n", "NOT NEEDED", "1. Check logs: journalctl -u loki.service -n 100\n2. Next: observability-upgrade "}, hasNot: []string{"rollback --to", "DISABLED"},
			subject: "[CRITICAL] Observability Upgrade Failed",
		},
		"an instance arrived, the next was not touched": {
			op: run.Apply, status: run.StatusFailed, outcomes: []run.Outcome{became("loki@a", run.Upgraded, "", true), became("loki@b", run.Failed, "balancer", true), became("grafana", run.NotAttempted, "", true)},
			event: notify.UpgradeFailed,
			has:   []string{"Upgraded all the same:\n- loki@a: 1.0.0 → 1.1.0\n", "rollback --to=" + ownRun + " --component=loki\n"},
		},
		"all went well": {
			op: run.Apply, status: run.StatusSuccess, outcomes: []run.Outcome{became("loki", run.Upgraded, "", true)},
			event: notify.UpgradeCompleted, has: []string{"All health checks passed."}, hasNot: []string{"Not of all", "Warnings"},
		},
		"upgraded without a look at its health": {
			op: run.Apply, status: run.StatusSuccess, outcomes: []run.Outcome{became("loki", run.Upgraded, "", false)}, warnings: []string{"loki runs unchecked"},
			event: notify.UpgradeCompleted, has: []string{"Warnings:\n- loki runs unchecked\n", "Not of all of them the health was checked."}, hasNot: []string{"All health checks"},
		},
		"all is back": {
			op: run.Apply, status: run.StatusRolledBack, outcomes: []run.Outcome{became("loki", run.RolledBack, "not ready", true), became("grafana", run.NotAttempted, "", false)},
			event: notify.RollbackCompleted, has: []string{"back to " + ownRun + ":\n\n- loki: 1.1.0 → 1.0.0\n", restored}, hasNot: []string{"Not rolled back", "Warnings"},
		},
		"another stays upgraded": {
			op: run.Apply, status: run.StatusRolledBack, outcomes: []run.Outcome{became("grafana", run.Upgraded, "", true), became("loki", run.RolledBack, "not ready", true)},
			event: notify.RollbackCompleted, has: []string{"Not rolled back:\n- grafana stays at 1.1.0\n"}, hasNot: []string{restored},
			check: func(d notify.Data) string {
				if len(d.Kept) != 1 || d.Kept[0].Name != "grafana" {
					return "what stays is not in the data"
				}
				return ""
			},
		},
		"an instance runs the new version": {
			op: run.Apply, status: run.StatusRolledBack, outcomes: []run.Outcome{became("loki@a", run.Upgraded, "", true), became("loki@b", run.RolledBack, "not ready", true)},
			warnings: []string{"loki@a goes on running 1.1.0"},
			event:    notify.RollbackCompleted, has: []string{"- loki@b: 1.1.0 → 1.0.0\n", "Not rolled back:\n- loki@a stays at 1.1.0\n", "Warnings:\n- loki@a goes on running 1.1.0\n"}, hasNot: []string{restored},
			check: func(d notify.Data) string { return cmp.Diff([]string{"loki@a goes on running 1.1.0"}, d.Warnings) },
		},
		"a warning alone": {
			op: run.Apply, status: run.StatusRolledBack, outcomes: []run.Outcome{became("loki", run.RolledBack, "not ready", true)}, warnings: []string{"a file was left"},
			event: notify.RollbackCompleted, has: []string{"Warnings:\n- a file was left\n"}, hasNot: []string{restored},
		},
		"a rollback by hand": {
			op: run.Rollback, status: run.StatusSuccess, outcomes: []run.Outcome{backAgain("loki", run.RolledBack, "", true)},
			event: notify.RollbackCompleted, has: []string{"Components rolled back to 20251231_000000:\n\n- loki: 1.1.0 → 1.0.0\n", restored}, hasNot: []string{ownRun},
		},
		"a rollback that was cut off": {
			op: run.Rollback, status: run.StatusInterrupted, outcomes: []run.Outcome{backAgain("loki", run.RolledBack, "", true), backAgain("grafana", run.NotAttempted, "", false)},
			event: notify.RollbackCompleted, has: []string{"Not rolled back:\n- grafana stays at 1.1.0\n"}, hasNot: []string{restored},
		},
		"a rollback that was undone": {
			op: run.Rollback, status: run.StatusRollbackFail, outcomes: []run.Outcome{backAgain("grafana", run.RolledBack, "", true), backAgain("loki", run.RollbackFailed, "not ready; it was undone", true)},
			err:   errors.New("loki: not ready"),
			event: notify.RollbackRequired, has: []string{"a rollback on ", "\n- loki: 1.1.0 → 1.0.0\n", "Others of the run:\n- grafana is at 1.0.0\n", "choose another point: observability-upgrade --root=ROOT rollback --list\n"},
			hasNot: []string{"an upgrade", "recover", "rollback --to", ownRun}, subject: "[CRITICAL] Observability Rollback Required",
			check: func(d notify.Data) string {
				if d.BackupTimestamp != "20251231_000000" || d.RollbackCommand != "" || d.Operation != "rollback" {
					return "it tells of its own point"
				}
				return ""
			},
		},
		"a rollback that did not begin": {
			op: run.Rollback, status: run.StatusFailed, outcomes: []run.Outcome{backAgain("loki", run.Failed, "disk full", true)}, err: errors.New("loki: prepare: disk full"),
			event: notify.RollbackRequired, has: []string{"a rollback on ", "rollback --list\n"}, hasNot: []string{"an upgrade", "recover", "rollback --to", "observability-upgrade plan"},
		},
		"an upgrade whose rollback failed": {
			op: run.Apply, status: run.StatusRollbackFail, outcomes: []run.Outcome{became("grafana", run.Upgraded, "", true), became("loki", run.RollbackFailed, "not ready", false)},
			err:   &run.RollbackError{Component: "loki", Version: "1.0.0", Restored: true, Err: errors.New("not ready")},
			event: notify.RollbackRequired, has: []string{"an upgrade on ", "Others of the run:\n- grafana is at 1.1.0\n", "mend loki, then: observability-upgrade --root=ROOT restart --component=loki\n", "rollback --to=" + ownRun + " --component=loki\n"},
			hasNot: []string{"recover"},
		},
		"refused by a check": {
			op: run.Apply, status: run.StatusFailed, outcomes: []run.Outcome{became("grafana", run.NotAttempted, "", false), became("loki", run.NotAttempted, "", false)}, err: checks, noPoint: true,
			event: notify.UpgradeFailed, has: []string{"Upgrade FAILED at ", ": it was refused, and nothing was touched\n", "Failed component: loki\nError: pre-flight", "Action required:\n1. Next: loki -verify-config\n"},
			hasNot: []string{"DISABLED", "journalctl", "rollback"}, subject: "[CRITICAL] Observability Upgrade Failed: Refused, Nothing Touched",
			check: func(d notify.Data) string {
				if !d.Refused || d.Next != "loki -verify-config" || d.BackupTimestamp != "" || d.RollbackCommand != "" {
					return "it is not told as a refusal"
				}
				return ""
			},
		},
		"refused by the probe": {
			op: run.Apply, status: run.StatusFailed, outcomes: []run.Outcome{became("loki", run.Failed, "says 1.0.9", false)}, noPoint: true,
			err:   &RefusedError{Component: "loki", Check: "version", Err: errors.New("says 1.0.9"), Next: "observability-upgrade hold loki"},
			event: notify.UpgradeFailed, has: []string{": it was refused, and nothing was touched\n", "Failed component: loki\n", "1. Next: observability-upgrade --root=ROOT hold loki\n"}, hasNot: []string{"DISABLED", "rollback"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tellerHere(t)
			begin := run.Event{Step: run.StepBegin, Begin: &run.Header{ID: ownRun, Operation: c.op}}
			if c.op == run.Rollback {
				begin.Plan = rollbackDoc{Operation: run.Rollback, Target: "20251231_000000"}
			}
			if !c.noPoint {
				s.tell.event(begin)
			}
			res := run.Result{ID: ownRun, Operation: c.op, Status: c.status, Components: c.outcomes, Warnings: c.warnings, BackupPath: filepath.Join(s.Root.Backups(), ownRun)}
			if c.noPoint {
				res.BackupPath = ""
			}
			s.tell.ended(res, c.err)
			all := queued(t, s.Root)
			got, ok := all[c.event]
			if !ok || len(all) != 1 {
				t.Fatalf("%+v", all)
			}
			got.Body = strings.ReplaceAll(got.Body, "--root="+string(s.Root), "--root=ROOT")
			for _, text := range c.has {
				if !strings.Contains(got.Body, text) {
					t.Errorf("%q is missing in\n%s", text, got.Body)
				}
			}
			for _, text := range append(c.hasNot, "-u  ", "--to=\n", "\n\n\n\n", "<no value>") {
				if strings.Contains(got.Body, text) {
					t.Errorf("%q is in\n%s", text, got.Body)
				}
			}
			if c.subject != "" && got.Subject != c.subject {
				t.Errorf("subject %q", got.Subject)
			}
			if c.check != nil {
				if wrong := c.check(got.Data); wrong != "" {
					t.Errorf("%s: %+v", wrong, got.Data)
				}
			}
		})
	}
}

// Where a rollback that was cut off is recovered by another process, the point that
// it went back to is known all the same.
func TestTellsWhereARecoveredRollbackWent(t *testing.T) {
	s := tellerHere(t)
	dir := filepath.Join(s.Root.Backups(), ownRun)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "upgrade-plan.json"), []byte(`{"operation":"rollback","target":"20251231_000000","components":[]}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	s.tell.event(run.Event{Step: run.StepBegin, Recovery: true, Begin: &run.Header{ID: ownRun, Operation: run.Rollback}})
	s.tell.ended(run.Result{ID: ownRun, Operation: run.Rollback, Status: run.StatusSuccess, BackupPath: dir, Components: []run.Outcome{backAgain("loki", run.RolledBack, "", true)}}, nil)
	if got := queued(t, s.Root)[notify.RollbackCompleted]; got.Data.BackupTimestamp != "20251231_000000" {
		t.Errorf("%+v", got)
	}
}

// What an undo is told of as it begins: the command takes back what failed alone, and
// a person who ended the run is not told that a version was not healthy.
func TestTellsOfAnUndo(t *testing.T) {
	s := tellerHere(t)
	s.neighbours = []*inventory.Installed{{
		Component: &component.Component{Name: "grafana"}, Service: service.Service{Unit: "grafana-enterprise.service"},
	}}
	s.tell.event(run.Event{Step: run.StepBegin, Begin: &run.Header{ID: ownRun, Operation: run.Apply, Components: []run.Planned{{Name: "loki", From: "1", To: "2"}, {Name: "grafana", From: "1", To: "2"}}}})
	s.tell.event(run.Event{Step: run.StepUndo, Component: "grafana", Reason: "interrupted by a signal"})
	all := queued(t, s.Root)
	failed, required := all[notify.UpgradeFailed], all[notify.RollbackRequired]
	for _, text := range []string{"Automatic rollback: IN PROGRESS", "journalctl -u grafana-enterprise.service -n 100", "rollback --to=" + ownRun + " --component=grafana\n"} {
		if !strings.Contains(failed.Body, text) {
			t.Errorf("%q is missing in\n%s", text, failed.Body)
		}
	}
	if !strings.Contains(required.Body, "being rolled back by itself") || !strings.Contains(required.Body, "interrupted by a signal") || strings.Contains(required.Body, "healthy") || strings.Contains(required.Body, "Action required") {
		t.Error(required.Body)
	}
	if required.Subject != "[CRITICAL] Observability Rollback Required: In Progress" || required.Data.FailedUnit != "grafana-enterprise.service" || !required.Data.AutoRollback {
		t.Errorf("%+v", required)
	}
}

// The unit is that of the host, of the instance, of the definition; not the name.
func TestUnitOfWhatFailed(t *testing.T) {
	s := tellerHere(t)
	web := &component.Component{Name: "web", Instances: component.Instances{List: []component.Instance{{Name: "a", Service: "web@a.service"}, {Name: "b", Service: "web@b.service"}}}}
	s.neighbours = []*inventory.Installed{{Component: web, Copies: []*inventory.Installed{
		{Component: web, Instance: "a", Service: service.Service{Unit: "web@a.service"}},
		{Component: web, Instance: "b", Service: service.Service{Unit: "web@b.service"}},
		{Component: web, Instance: "c", Service: service.Service{Unit: "web@c.service"}, Exec: []string{"ssh", "c"}},
	}}}
	for _, c := range [][2]string{{"web@b", "web@b.service"}, {"web@c", ""}, {"grafana", "grafana-server.service"}, {"nothing", ""}, {"", ""}} {
		name, instance, _ := strings.Cut(c[0], "@")
		if got := s.tell.unit(name, instance); got != c[1] {
			t.Errorf("%s: %q, want %q", c[0], got, c[1])
		}
	}
}

// An unattended run that cannot begin says what to do, and gives no blank commands.
func TestTellsOfARefusedRun(t *testing.T) {
	s := tellerHere(t)
	s.refused(&UpstreamUnknownError{Errs: map[string]error{"loki": errors.New("no route to host")}})
	got := queued(t, s.Root)[notify.UpgradeFailed]
	for _, text := range []string{"Upgrade FAILED at ", ": it was refused, and nothing was touched\n", "\n\nError: no upstream could be asked", "1. Next: check the network, the token and upstream.*.api_url"} {
		if !strings.Contains(got.Body, text) {
			t.Errorf("%q is missing in\n%s", text, got.Body)
		}
	}
	for _, text := range []string{"journalctl", "rollback", "Failed component"} {
		if strings.Contains(got.Body, text) || !got.Data.Refused {
			t.Errorf("%q is in\n%s", text, got.Body)
		}
	}
}
