package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/window"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

var update = flag.Bool("update", false, "write the golden files anew")

// newRoot is a root directory with secrets in it.
func newRoot(t testing.TB) layout.Root {
	t.Helper()
	r := layout.Root(t.TempDir())
	if err := os.MkdirAll(r.SecretsDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"github-token": "ghp_secret\n", "empty": "\n", "slack-webhook": "https://hooks.example.com/T0/B0", "webhook-token": "wt"} {
		write(t, filepath.Join(r.SecretsDir(), name), text, 0o600)
	}
	return r
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func environment(extra ...string) func(string) string {
	m := map[string]string{"GITLAB_TOKEN": "glpat", "NOT_A_URL": "hunter2", "SMTP_HOST": "mail.example.com", "SMTP_PORT": "25"}
	for i := 0; i < len(extra); i += 2 {
		m[extra[i]] = extra[i+1]
	}
	return func(k string) string { return m[k] }
}

// TestFiles loads every file of testdata: good ones load, bad ones give exactly
// the errors in the golden file beside them.
func TestFiles(t *testing.T) {
	kinds := map[string]struct {
		path func(layout.Root) string
		load func(layout.Root) (any, error)
	}{
		"policy":        {layout.Root.Policy, func(r layout.Root) (any, error) { return LoadPolicy(r, environment()) }},
		"matrix":        {layout.Root.Matrix, func(r layout.Root) (any, error) { return LoadMatrix(r) }},
		"notifications": {layout.Root.Notifications, func(r layout.Root) (any, error) { return LoadNotifications(r, environment()) }},
	}
	for kind, k := range kinds {
		files, err := filepath.Glob(filepath.Join("testdata", kind, "*.yaml"))
		if err != nil || len(files) < 3 {
			t.Fatalf("%s: %d files, %v", kind, len(files), err)
		}
		for _, file := range files {
			t.Run(kind+"/"+filepath.Base(file), func(t *testing.T) {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				r := newRoot(t)
				write(t, k.path(r), string(data), 0o644)
				_, err = k.load(r)
				if strings.HasSuffix(file, ".good.yaml") {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				if err == nil {
					t.Fatal("no error")
				}
				got := strings.ReplaceAll(err.Error(), string(r), "") + "\n"
				for _, secret := range []string{"hunter2", "ghp_secret", "s3cret"} {
					if strings.Contains(got, secret) {
						t.Errorf("%s is shown", secret)
					}
				}
				golden := strings.TrimSuffix(file, ".yaml") + ".golden"
				if *update {
					write(t, golden, got, 0o644)
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got); d != "" {
					t.Errorf("-want +got\n%s", d)
				}
			})
		}
	}
}

func policy(t *testing.T, name string, env func(string) string) (*Policy, layout.Root) {
	t.Helper()
	r := newRoot(t)
	if name != "" {
		data, err := os.ReadFile(filepath.Join("testdata/policy", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, r.Policy(), string(data), 0o644)
	}
	p, err := LoadPolicy(r, env)
	if err != nil {
		t.Fatal(err)
	}
	return p, r
}

func TestPolicyDefaults(t *testing.T) {
	none, _ := policy(t, "", environment())
	comments, _ := policy(t, "comments.good.yaml", environment())
	contract, _ := policy(t, "contract.good.yaml", environment())
	if string(contract.Upstream.GitHub.Token) != "ghp_secret" {
		t.Errorf("token %q", string(contract.Upstream.GitHub.Token))
	}
	contract.Upstream.GitHub.Token = ""
	ignore := cmpopts.IgnoreFields(Policy{}, "File", "Root")
	if d := cmp.Diff(none, contract, ignore); d != "" {
		t.Errorf("the contract's sample holds the defaults: %s", d)
	}
	if d := cmp.Diff(none, comments, ignore); d != "" {
		t.Error(d)
	}
	if none.Timeouts.Download.Std() != 10*time.Minute || none.Retention != (Retention{Backups: 5, Runs: 200, CacheMiB: 2048}) || none.Upstream.CacheTTL.Std() != 15*time.Minute {
		t.Errorf("got %+v", none)
	}
}

func TestPolicyEverything(t *testing.T) {
	p, _ := policy(t, "everything.good.yaml", environment())
	three, thirty, zero := 3, 30, 0
	want := defaults()
	want.Upstream = Upstream{
		GitHub: Forge{"http://127.0.0.1:8080", "a${b"}, GitLab: Forge{"http://127.0.0.1:8081/api/v4", "glpat"}, Grafana: Forge{"http://127.0.0.1:8082", ""}, Concurrency: 2,
	}
	want.Verification = Verification{"if_available", "required", []string{"loki", "grafana"}}
	want.ServiceManager, want.OnFailure, want.Retention, want.Paths.Staging = "process", "continue", Retention{Backups: 1, Runs: 20, CacheMiB: 2048}, "/srv/staging"
	want.Holds = []Hold{{"grafana", ">=12.0.0", "angular panels", "2026-12-31"}, {Component: "loki", Until: "2026-12-31T06:00:00Z"}}
	want.AutoUpgrade = &AutoUpgrade{"patch_only", &three, "any", map[string]AutoPolicy{"prometheus": {"minor", &thirty, &zero, "none", ""}, "grafana": {Policy: "none"}}}
	want.Vulnerabilities = Vulnerabilities{
		Enabled: false, Database: "/srv/vulndb", OSV: []string{"https://mirror.example.com/osv/Go/all.zip", "/srv/advisories"}, MaxAge: component.Duration(720 * time.Hour),
		Ignore: []Ignored{{"GO-2024-3240", "grafana", "no invites here", "2027-01-31"}, {ID: "CVE-2026-1", Reason: "not reachable"}},
	}
	want.MaintenanceWindows = []Window{{"Saturday", "22:00", "06:00", "Europe/Berlin"}, {Start: "02:00", End: "04:00"}}
	want.AlertGate = &AlertGate{"http://localhost:9090", []string{`ALERTS{alertstate="firing",severity="critical"}`, `up{job="api"} == 0`}, "warn"}
	// Secret formats itself as [redacted]; compare the values.
	if p.Upstream != want.Upstream {
		t.Errorf("upstream differs: %q %q", string(p.Upstream.GitHub.Token), string(p.Upstream.GitLab.Token))
	}
	if d := cmp.Diff(want, p, cmpopts.IgnoreFields(Policy{}, "File", "Root")); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	until, err := p.Holds[0].UntilTime()
	if err != nil || !until.Equal(time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("until %v, %v", until, err)
	}
}

func TestAlertGateDefaults(t *testing.T) {
	p, _ := policy(t, "alertgate.good.yaml", environment())
	if d := cmp.Diff(&AlertGate{"http://localhost:9090", []string{firingCritical}, "fail"}, p.AlertGate); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestPolicyEnvironment(t *testing.T) {
	env := environment("OBSERVABILITY_UPGRADE_GITHUB_API_URL", "http://127.0.0.1:1/", "OBSERVABILITY_UPGRADE_GITLAB_API_URL", "http://127.0.0.1:2/api/v4", "GITHUB_TOKEN", "from-env")
	r := newRoot(t)
	// A secret that is not used need not exist.
	write(t, r.Policy(), `upstream: {github: {api_url: "https://x.example", token: "${SECRET:missing}"}}`, 0o644)
	p, err := LoadPolicy(r, env)
	if err != nil {
		t.Fatal(err)
	}
	if p.Upstream.GitHub != (Forge{"http://127.0.0.1:1", "from-env"}) || p.Upstream.GitLab.APIURL != "http://127.0.0.1:2/api/v4" {
		t.Errorf("got %+v", p.Upstream)
	}
	_, err = LoadPolicy(r, environment("OBSERVABILITY_UPGRADE_GITLAB_API_URL", "nowhere", "GITHUB_TOKEN", "x"))
	if want := `environment variable OBSERVABILITY_UPGRADE_GITLAB_API_URL: "nowhere" is not an http or https address`; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestInsecurePolicy(t *testing.T) {
	r := newRoot(t)
	write(t, r.Policy(), "on_failure: abort\n", 0o666)
	_, err := LoadPolicy(r, environment())
	var insecure *yamlfile.InsecureError
	if !errors.As(err, &insecure) || insecure.Fix != "chmod go-w "+r.Policy() {
		t.Errorf("got %v", err)
	}
}

func TestSecrets(t *testing.T) {
	r := newRoot(t)
	credentials := t.TempDir()
	write(t, filepath.Join(credentials, "both"), "credential", 0o440)
	write(t, filepath.Join(r.SecretsDir(), "both"), "file", 0o600)
	write(t, filepath.Join(r.SecretsDir(), "old"), "x\r\n", 0o400)
	env := environment("CREDENTIALS_DIRECTORY", credentials)
	for name, want := range map[string]string{"both": "credential", "old": "x", "github-token": "ghp_secret"} {
		if got, err := readSecret(r, env, name); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o606, 0o700, 0o660} {
		path := filepath.Join(r.SecretsDir(), "open")
		write(t, path, "x", mode)
		if _, err := readSecret(r, env, "open"); err == nil || !strings.Contains(err.Error(), "chmod 0600 "+path) {
			t.Errorf("%o: %v", mode, err)
		}
	}
	for _, name := range []string{"", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a b"} {
		if _, err := readSecret(r, env, name); err == nil || !strings.Contains(err.Error(), "plain name") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := os.Mkdir(filepath.Join(r.SecretsDir(), "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := readSecret(r, env, "dir"); err == nil {
		t.Error("a directory is no secret")
	}
	if os.Geteuid() == 0 {
		path := filepath.Join(r.SecretsDir(), "alien")
		write(t, path, "x", 0o600)
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := readSecret(r, env, "alien"); err == nil || !strings.Contains(err.Error(), "chown root: "+path) {
			t.Errorf("got %v", err)
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	s := Secret("hunter2")
	forge := Forge{"http://x", s}
	var out strings.Builder
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%X", "%d", "%10s", "%.3s"} {
		fmt.Fprintf(&out, verb+"\n"+verb+"\n", s, forge)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "f", forge)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "f", forge)
	for _, encode := range []func(any) ([]byte, error){json.Marshal, func(v any) ([]byte, error) { return yaml.Marshal(v) }} {
		b, err := encode(map[string]any{"s": s, "f": forge})
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	text := out.String()
	for _, bad := range []string{"hunter2", "hun", "68756e", "68756E", "104 117"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q is shown in\n%s", bad, text)
		}
	}
	if strings.Count(text, redacted) < 20 {
		t.Errorf("got\n%s", text)
	}
}

func TestRange(t *testing.T) {
	for text, cases := range map[string]struct{ in, out string }{
		"2.49.x":          {"2.49.0 2.49.7 2.49.1+ds1 2.49.0-rc.1", "2.48.9 2.50.0 3.49.0"},
		"3.x.x":           {"3.0.0 3.99.1 3.0.0-beta.1", "2.9.9 4.0.0"},
		">=0.26.0":        {"0.26.0 0.26.0+ds 1.0.0", "0.25.9"},
		"2.48.0":          {"2.48.0 2.48.0+ds", "2.48.1 2.47.0"},
		"<11.0.0":         {"10.4.2 1.0.0", "11.0.0 11.0.0-rc.1 12.0.0"},
		">=1.0.0 <2.0.0":  {"1.0.0 1.9.9", "2.0.0 0.9.0 2.0.0-rc.1"},
		">=1.0.0, <2.0.0": {"1.0.0 1.9.9", "2.0.0"},
		"~1.4.0 || ^3.1":  {"1.4.9 3.2.0", "1.5.0 3.0.0 4.0.0"},
		">=3.0.0-rc.1":    {"3.0.0-rc.1 3.0.0-rc.2 3.0.0", "3.0.0-beta.9 2.9.9"},
		"1.2 - 1.4":       {"1.2.0 1.3.0", "1.5.0 1.1.9"},
		"*":               {"0.0.1 99.0.0", ""},
	} {
		r, err := ParseRange(" " + text + " ")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if r.String() != text {
			t.Errorf("%s: String is %q", text, r)
		}
		for _, v := range strings.Fields(cases.in) {
			if !r.Contains(component.MustParseVersion(v)) {
				t.Errorf("%s does not contain %s", text, v)
			}
		}
		for _, v := range strings.Fields(cases.out) {
			if r.Contains(component.MustParseVersion(v)) {
				t.Errorf("%s contains %s", text, v)
			}
		}
		if r.Contains(component.Version{}) {
			t.Errorf("%s contains the unknown version", text)
		}
	}
	for _, text := range []string{"", "  ", "new", "2.49.y", "x-y", "3.x-rc.1", ">= ", "> >", "1.2.3.4.5", strings.Repeat("1", 300)} {
		if r, err := ParseRange(text); err == nil {
			t.Errorf("%q is read as %v", text, r)
		}
	}
	if (Range{}).Contains(component.MustParseVersion("1.0.0")) {
		t.Error("the zero range is empty")
	}
}

func TestMatrix(t *testing.T) {
	r := newRoot(t)
	data, err := os.ReadFile("testdata/matrix/spec.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.Matrix(), string(data), 0o644)
	m, err := LoadMatrix(r)
	if err != nil {
		t.Fatal(err)
	}
	if m.Compatibility["loki"]["3.x.x"]["promtail"].Needs != "3.x.x" || len(m.Blacklist) != 2 || m.Blacklist[0].Version != "2.48.0" ||
		m.AutoUpgrade.Policies["grafana"].MaxAgeDays != nil || *m.AutoUpgrade.Policies["prometheus"].MaxAgeDays != 30 ||
		!slices.Equal(m.MaintenanceWindows, []Window{{"saturday", "02:00", "06:00", "UTC"}, {"sunday", "02:00", "06:00", "UTC"}}) {
		t.Errorf("got %+v", m)
	}
	p, pr := policy(t, "everything.good.yaml", environment())
	err = CheckConflicts(p, m)
	if err == nil {
		t.Fatal("both files define both keys")
	}
	for _, want := range []string{"auto_upgrade: is defined", "maintenance_windows: is defined", pr.Policy(), r.Matrix()} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if err := CheckConflicts(p, &Matrix{}); err != nil {
		t.Error(err)
	}
}

func TestNotifications(t *testing.T) {
	r := newRoot(t)
	n, err := LoadNotifications(r, environment())
	if err != nil || len(n.Channels) != 0 {
		t.Fatal(n, err)
	}
	data, err := os.ReadFile("testdata/notifications/spec.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.Notifications(), string(data), 0o644)
	if n, err = LoadNotifications(r, environment()); err != nil {
		t.Fatal(err)
	}
	if len(n.Channels) != 3 || len(n.Templates) != 5 || !strings.Contains(n.Templates["upgrade_failed"].Body, "{{.FailedComponent}}") {
		t.Errorf("got %+v", n)
	}
	email, slack, webhook := n.Channels[0], n.Channels[1], n.Channels[2]
	if !email.Enabled || email.Email.SMTPHost != "mail.example.com" || email.Email.SMTPPort != "25" || len(email.Email.To) != 2 || len(email.Events) != 6 {
		t.Errorf("got %+v", email.Email)
	}
	if string(slack.Slack.WebhookURL) != "https://hooks.example.com/T0/B0" || slack.Slack.Channel != "#ops-alerts" || slack.Email != nil {
		t.Errorf("got %+v", slack.Slack)
	}
	// It is not enabled, so its secret is not looked for.
	if webhook.Enabled || string(webhook.Webhook.Headers["Authorization"]) != "Bearer ${SECRET:webhook-token}" {
		t.Errorf("got %+v", webhook.Webhook)
	}
}

// Names are free where a type is given, and what is left out is filled in.
func TestNotificationTypes(t *testing.T) {
	r := newRoot(t)
	data, err := os.ReadFile("testdata/notifications/types.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, r.Notifications(), string(data), 0o644)
	n, err := LoadNotifications(r, environment())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, ch := range n.Channels {
		got = append(got, ch.Name+" "+ch.Type)
	}
	if want := []string{"email email", "local-mail email", "on-call shoutrrr", "tickets webhook", "chat slack"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	mail, local, phone, hook, off := n.Channels[0].Email, n.Channels[1].Email, n.Channels[2].Shoutrrr, n.Channels[3].Webhook, n.Channels[4].Slack
	if mail.TLS != ImplicitTLS || mail.Timeout.Std() != 10*time.Second || local.TLS != Opportunistic || local.Timeout.Std() != 30*time.Second {
		t.Errorf("%+v, %+v", mail, local)
	}
	if string(phone.URL) != "ntfy://ntfy.example.com/wt" || hook.Method != "POST" || string(hook.Headers["Authorization"]) != "Bearer wt" || string(hook.HMACSecret) != "wt" {
		t.Errorf("%s, %+v", string(phone.URL), hook)
	}
	if off.Timeout != 0 || string(off.WebhookURL) != "${SECRET:missing}" {
		t.Errorf("a channel that is off is as written: %+v", off)
	}
	if len(n.Secrets) != 4 || string(n.Secrets[0]) != "wt" {
		t.Errorf("%d secrets", len(n.Secrets))
	}
	if !n.Channels[0].Wants("upgrade_failed") || n.Channels[0].Wants("upgrade_started") || n.Channels[4].Wants("upgrade_failed") {
		t.Error("wrong events")
	}
	if _, ok := n.Channel("on-call"); !ok {
		t.Error("a channel is not found")
	}
	shown, err := yaml.Marshal(n)
	if err != nil || strings.Contains(string(shown), "wt") || !strings.Contains(string(shown), "  type: shoutrrr\n") || !strings.Contains(string(shown), "  config:\n") {
		t.Errorf("%v\n%s", err, shown)
	}
	// What is shown is read again as what it was, secrets aside.
	var again Notifications
	if err := yamlfile.Decode("shown", shown, &again); err != nil || len(again.Channels) != 5 || again.Channels[1].Email.SMTPHost != "localhost" {
		t.Errorf("%v\n%s", err, shown)
	}
	for password, want := range map[string]string{"": Opportunistic, "username: u, password: p,": StartTLS} {
		write(t, r.Notifications(), "channels: [{name: email, enabled: true, config: {to: [a@b], from: a@b, smtp_host: h, "+password+" smtp_port: 587}, events: [upgrade_failed]}]", 0o644)
		if n, err := LoadNotifications(r, environment()); err != nil || n.Channels[0].Email.TLS != want {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"2.49.x", ">=0.26.0", "3.x.x", "^1", "1 - 2", "~1.4.0 || ^3.1", ">=3.0.0-rc.1", "!=1", "=>1", "v1.2", "1.2.3+ds1", "x", "", "99999999999999999999"} {
		f.Add(s)
	}
	versions := []component.Version{{}, component.MustParseVersion("1.2.3"), component.MustParseVersion("3.0.0-rc.1"), component.MustParseVersion("2.42.0+ds-5")}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			return
		}
		again, err := ParseRange(r.String())
		if err != nil {
			t.Fatalf("%q: its own text is not read: %v", s, err)
		}
		for _, v := range versions {
			if r.Contains(v) != again.Contains(v) || v.IsZero() && r.Contains(v) {
				t.Fatalf("%q and %s", s, v)
			}
		}
	})
}

func FuzzWindows(f *testing.F) {
	for _, s := range []string{`["02:00-04:00"]`, `[{day: saturday, start: "02:00", end: "06:00", timezone: UTC}]`, `[x]`, `[{}]`, `[-]`, `[[]]`, `{}`, `[{timezone: ../x}]`, `["00:00-24:00"]`, `[{day: Sat, start: "24:00", end: "24:00"}]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := yamlfile.Parse("f", []byte("maintenance_windows: "+s))
		if err != nil {
			return
		}
		m := &Matrix{}
		errs := decode(n, m)
		errs = errs.Beside(m.validate(n))
		if len(errs) > 0 {
			return
		}
		for _, w := range m.MaintenanceWindows {
			if _, err := window.New(w.Day, w.Start, w.End, w.Timezone); err != nil {
				t.Fatalf("%q: %v", s, err)
			}
		}
	})
}

// A matrix that is accepted can be planned with: every range in it can be read.
func FuzzMatrix(f *testing.F) {
	files, err := filepath.Glob("testdata/matrix/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`compatibility: {loki: {"3.x.x": {promtail: {needs: "3.x.x", reason: r, reference: "https://h"}}}}`))
	f.Add([]byte("a: &a {b: 1}\ncompatibility: {loki: *a}\nblacklist: [*a]\n"))
	f.Add([]byte("channels: {loki: {lts: {versions: 2.x}}, grafana: {}}\npaths: {loki: [{}]}\none_way: {loki: [{from: , to: , reversible: no}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := yamlfile.Parse("f", data)
		m := &Matrix{File: "f"}
		errs := decode(n, m).Beside(m.validate(n))
		if err != nil || len(errs) > 0 {
			for _, e := range errs {
				if e.File == "" || e.Message == "" {
					t.Fatalf("%q: %#v", data, e)
				}
			}
			return
		}
		m.Add(Knowledge())
		var ranges []string
		for _, rules := range m.Compatibility {
			for when, needs := range rules {
				ranges = append(ranges, when)
				for _, need := range needs {
					ranges = append(ranges, need.Needs)
				}
			}
		}
		for _, b := range m.Blacklist {
			ranges = append(ranges, b.Version)
		}
		for _, list := range m.Paths {
			for _, p := range list {
				ranges = append(ranges, p.From, p.To)
			}
		}
		for _, list := range m.OneWay {
			for _, e := range list {
				ranges = append(ranges, e.From, e.To)
			}
		}
		for name, lines := range m.Channels {
			for line := range lines {
				if _, err := m.Channel(name, line); err != nil {
					t.Fatalf("%q: %v", data, err)
				}
			}
		}
		for _, r := range ranges {
			if _, err := ParseRange(r); err != nil {
				t.Fatalf("%q: %v", data, err)
			}
		}
	})
}

func FuzzPolicy(f *testing.F) {
	files, err := filepath.Glob("testdata/policy/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	r := newRoot(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(r.Policy(), data, 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := LoadPolicy(r, environment())
		if p == nil && err == nil {
			t.Fatal("neither a policy nor an error")
		}
		if err != nil && strings.Contains(err.Error(), "ghp_secret") {
			t.Fatalf("the secret is shown: %v", err)
		}
		if err == nil && (p.Retention.Backups < 1 || p.Retention.Runs < 1 || p.Timeouts.Stop <= 0 || p.Upstream.GitHub.APIURL == "") {
			t.Fatalf("%+v", p)
		}
	})
}
