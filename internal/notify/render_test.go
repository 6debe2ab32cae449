package notify

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// The built-in texts say what the specification's samples say, word for word, where
// all that a run changed goes back; only the unit of the logs is a unit.
func TestDefaultsAreTheSamples(t *testing.T) {
	data, err := os.ReadFile("../../docs/specification.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "\ntemplates:\n")
	text, _, _ := strings.Cut(rest, "```")
	var want map[string]config.Template
	if err := yamlfile.Decode("specification.md", []byte(text), &want); err != nil || !ok || len(want) != 5 {
		t.Fatal(len(want), err)
	}
	got := Defaults()
	for event, sample := range want {
		for _, auto := range []bool{true, false} {
			d := Sample(event)
			d.AutoRollback, d.Kept, d.Warnings = auto, nil, nil
			d.RollbackCommand = "observability-upgrade rollback --to=" + d.BackupTimestamp
			d.FailedUnit = d.FailedComponent
			for _, part := range [][2]string{{sample.Subject, got[event].Subject}, {sample.Body, got[event].Body}} {
				said, err := execute("sample", part[0], d)
				says, err2 := execute("built in", part[1], d)
				if d := cmp.Diff(said, says); d != "" || err != nil || err2 != nil {
					t.Errorf("%s (-specification +built in): %v, %v\n%s", event, err, err2, d)
				}
			}
		}
	}
	for _, event := range append(config.Events(), testEvent) {
		if got[event].Subject == "" || got[event].Body == "" {
			t.Errorf("%s has no text", event)
		}
	}
}

// What the samples make of real data.
func TestSamplesRendered(t *testing.T) {
	d := Data{
		RunID: "20241227_030000", Hostname: "mon-1", Timestamp: Time{time.Date(2024, 12, 27, 4, 0, 0, 0, time.FixedZone("CET", 3600))},
		Components:        []Component{{Name: "prometheus", OldVersion: "2.48.1", NewVersion: "2.49.0"}},
		EstimatedDuration: Duration(90 * time.Second), ActualDuration: Duration(61*time.Second + 600*time.Millisecond),
		FailedComponent: "prometheus", FailedUnit: "prometheus2.service", Error: "not ready", BackupTimestamp: "20241227_030001",
		RollbackCommand: "observability-upgrade rollback --to=20241227_030001",
	}
	for event, want := range map[string][]string{
		UpgradeAvailable:  {"[Observability] Updates Available", "\n- prometheus: 2.48.1 → 2.49.0\n"},
		UpgradeStarted:    {"[Observability] Upgrade Started", "started at 2024-12-27 03:00:00 UTC\n", "\n- prometheus: 2.48.1 → 2.49.0\n", "\nExpected duration: 1m30s\n"},
		UpgradeCompleted:  {"[Observability] Upgrade Completed Successfully", "\nDuration: 1m2s\n", "\n- prometheus: 2.48.1 → 2.49.0 ✓\n", "All health checks passed."},
		UpgradeFailed:     {"[CRITICAL] Observability Upgrade Failed", "\nFailed component: prometheus\nError: not ready\n", "Automatic rollback: DISABLED", "journalctl -u prometheus2.service -n 100", "rollback --to=20241227_030001\n"},
		RollbackRequired:  {"[CRITICAL] Observability Rollback Required", "on mon-1", "rollback --to=20241227_030001\n", "\n- prometheus: 2.48.1 → 2.49.0\n"},
		RollbackCompleted: {"[Observability] Rollback Completed", "rolled back to 20241227_030001:", "\n- prometheus: 2.49.0 → 2.48.1\n"},
	} {
		d.Event = event
		w := newWorld(t, "channels: []")
		subject, body := render(w.conf(), w.notifier().fill(d))
		for i, text := range want {
			if i == 0 && subject != text || i > 0 && !strings.Contains(body, text) {
				t.Errorf("%s: %q is not in\n%s\n%s", event, text, subject, body)
			}
		}
		if strings.Contains(subject+body, "<no value>") {
			t.Errorf("%s: %s", event, body)
		}
	}
}

// Every field can be used in every event, and none is empty on sample data.
func TestEveryFieldInEveryEvent(t *testing.T) {
	for _, event := range config.Events() {
		d := Sample(event)
		for _, name := range fields(reflect.TypeFor[Data]()) {
			got, err := execute("x", "{{."+name+"}}", d)
			empty := got == "" && (name != "Status" || event != UpgradeAvailable && event != UpgradeStarted)
			if err != nil || empty {
				t.Errorf("%s: .%s is %q, %v", event, name, got, err)
			}
		}
		for _, name := range fields(reflect.TypeFor[Component]()) {
			got, err := execute("x", "{{range .Components}}{{."+name+"}};{{end}}", d)
			if err != nil || strings.HasPrefix(got, ";") && name != "Instance" {
				t.Errorf("%s: .Components.%s is %q, %v", event, name, got, err)
			}
		}
	}
	got, err := execute("x", `{{range $name, $ids := .Vulnerabilities}}{{$name}}: {{$ids}}{{end}} {{.Timestamp.Format "15:04"}} {{range (index .Components 0).Vulnerabilities}}{{.}} {{end}}`, Sample(UpgradeAvailable))
	if err != nil || got != "prometheus: CVE-2024-0001, CVE-2024-0002 03:00 CVE-2024-0001 CVE-2024-0002 " {
		t.Errorf("%q, %v", got, err)
	}
}

// Which versions follow from which.
func TestVersionsFollow(t *testing.T) {
	for _, c := range []struct {
		event     string
		in        Component
		cur, last string
		old, now  string
		back      string
	}{
		{UpgradeAvailable, Component{CurrentVersion: "1", LatestVersion: "2"}, "1", "2", "1", "2", "1"},
		{UpgradeStarted, Component{OldVersion: "1", NewVersion: "2"}, "1", "2", "1", "2", "1"},
		{UpgradeStarted, Component{OldVersion: "1", NewVersion: "2", LatestVersion: "3"}, "1", "3", "1", "2", "1"},
		{UpgradeCompleted, Component{OldVersion: "1", NewVersion: "2"}, "2", "2", "1", "2", "1"},
		{UpgradeFailed, Component{OldVersion: "1", NewVersion: "2"}, "1", "2", "1", "2", "1"},
		{RollbackRequired, Component{OldVersion: "1", NewVersion: "2"}, "2", "2", "1", "2", "1"},
		{RollbackCompleted, Component{OldVersion: "1", NewVersion: "2"}, "2", "2", "1", "2", "1"},
		{RollbackCompleted, Component{CurrentVersion: "2", RolledBackVersion: "1"}, "2", "2", "1", "2", "1"},
		{RollbackCompleted, Component{}, "", "", "", "", ""},
	} {
		got := complete(c.event, []Component{c.in})[0]
		want := Component{CurrentVersion: c.cur, LatestVersion: c.last, OldVersion: c.old, NewVersion: c.now, RolledBackVersion: c.back}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s of %+v: %s", c.event, c.in, d)
		}
	}
	if got := complete(UpgradeFailed, nil); got == nil {
		t.Error("null in JSON")
	}
}

// The user's words, part by part; what fails falls back and says so.
func TestOwnTemplates(t *testing.T) {
	w := newWorld(t, `channels: []
templates:
  upgrade_started: {subject: "{{.Hostname}}\n begins", body: ""}
  upgrade_completed: {body: "{{.Nonsense}}"}
  upgrade_failed: {subject: "{{index .Components 7}}", body: "own"}
  rollback_completed: {body: "{{range .Components}}{{range $.Components}}{{printf \"%%9999999d\" 1}}{{end}}{{end}}"}
`)
	conf := w.conf()
	std := Defaults()
	for _, c := range []struct{ event, subject, body, note string }{
		{UpgradeStarted, "host.example.com begins", "Upgrade started at", ""},
		{UpgradeCompleted, std[UpgradeCompleted].Subject, "All health checks passed.", "The template upgrade_completed.body in " + conf.File + " failed, so this is the built-in text: "},
		{UpgradeFailed, "[CRITICAL] Observability Upgrade Failed", "own", "The template upgrade_failed.subject in"},
		{RollbackCompleted, std[RollbackCompleted].Subject, "Rollback completed at", "it writes more than 64 KiB"},
	} {
		subject, body := render(conf, Sample(c.event))
		if subject != c.subject || !strings.Contains(body, c.body) || !strings.Contains(body, c.note) || (c.note == "") == strings.Contains(body, "The template") {
			t.Errorf("%s: %q\n%s", c.event, subject, body)
		}
	}
}

// Mistakes in templates are told with the place in the file.
func TestCheckTemplates(t *testing.T) {
	w := newWorld(t, `channels: []
templates:
  upgrade_failed:
    subject: "{{.FailedComponnent}}"
    body: |
      one
        {{range .Components}}{{.Names}}{{end}}
  upgrade_started:
    body: |-

      {{if .AutoRollback}}fine{{else}}{{.Eror}}{{end}}
  rollback_required:
    body: "{{if .Refused}}{{.Nextt}}{{end}}"
  upgrade_completed: {subject: "fine {{.Status}}", body: "{{index .Components 5}}"}
  upgrade_available: {body: "{{.Timestamp.Foo}}"}
  rollback_completed:
    body: >
      folded {{.Zzzzzzzzzzzzz}}
`)
	var got []string
	for _, e := range CheckTemplates(w.conf()) {
		got = append(got, strings.TrimPrefix(e.Error(), w.root.Notifications()))
	}
	want := []string{
		`:17:11: templates.rollback_completed.body: line 1 of the text: there is no field .Zzzzzzzzzzzzz; there are .Event, .Hostname, .RunID, .Status, .Timestamp, .Components, .EstimatedDuration, .ActualDuration, .FailedComponent, .Error, .AutoRollback, .BackupTimestamp, .Operation, .FailedUnit, .Refused, .Unchecked, .Next, .RollbackCommand, .Kept, .Warnings, .Vulnerabilities, .Actions`,
		`:13:11: templates.rollback_required.body: there is no field .Nextt; did you mean .Next?`,
		`:15:29: templates.upgrade_available.body: executing "body" at <.Timestamp.Foo>: can't evaluate field Foo in type notify.Time`,
		`:14:58: templates.upgrade_completed.body: executing "body" at <index .Components 5>: error calling index: reflect: slice index out of range`,
		`:7:32: templates.upgrade_failed.body: there is no field .Names; did you mean .Name?`,
		`:4:14: templates.upgrade_failed.subject: there is no field .FailedComponnent; did you mean .FailedComponent?`,
		`:11:41: templates.upgrade_started.body: there is no field .Eror; did you mean .Error?`,
	}
	slices.Sort(got)
	slices.Sort(want)
	index := regexp.MustCompile(`error calling index: .*`) // the words are Go's
	for i := range got {
		got[i] = index.ReplaceAllString(got[i], "error calling index: reflect: slice index out of range")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	w.configure("channels: []\ntemplates: {upgrade_failed: {subject: \"{{.Hostname}}\"}}")
	if errs := Check(w.root, w.conf()); len(errs) != 0 {
		t.Errorf("%v", errs)
	}
}

func TestClip(t *testing.T) {
	if got := clip("äääää", 100); got != "äääää" {
		t.Errorf("%q", got)
	}
	if got := clip(strings.Repeat("ä", 50), 40); len(got) > 40 || !strings.HasSuffix(got, " … (cut off)") || strings.Contains(got, "\uFFFD") {
		t.Errorf("%q", got)
	}
}
