package script

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/demo"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

const (
	schemaDir = "../../schemas"
	logRecord = "log-record" // of a line on standard error
)

// schemaSet holds the compiled schemas by their short names.
type schemaSet map[string]*jsonschema.Schema

func loadSchemas(t *testing.T) schemaSet {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(schemaDir, "*.schema.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no schemas in %s: %v", schemaDir, err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	set := schemaSet{}
	for _, f := range files {
		s, err := c.Compile(f)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		set[strings.TrimSuffix(filepath.Base(f), ".schema.json")] = s
	}
	return set
}

// validate insists on exactly one JSON document that the schema allows.
func (set schemaSet) validate(name string, data []byte) error {
	s, ok := set[name]
	if !ok {
		return fmt.Errorf("there is no schema %q in %s", name, schemaDir)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("not one JSON document: %w\n%s", err, data)
	}
	return s.Validate(doc)
}

// TestSchemas plays a day with the program, checks every document it prints and
// every line it logs against its schema, and then takes each required key and each
// value of a fixed set out of the document: a schema that still allows it would
// prove nothing.
func TestSchemas(t *testing.T) {
	schemas := loadSchemas(t)
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	box, err := demo.New(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	server := notifytest.StartHTTP(nil)
	t.Cleanup(server.Close)
	hooks := func(status int) error {
		server.Answer(notifytest.Answer{Status: status})
		text := fmt.Sprintf("channels: [{name: hook, type: webhook, enabled: true, config: {url: %q}, events: [upgrade_failed]}]\n", server.URL)
		return os.WriteFile(box.Root.Notifications(), []byte(text), 0o600)
	}
	play := []struct {
		schema string
		args   string
		code   int
		pre    func() error
	}{
		{schema: "version", args: "version"},
		{schema: "components-list", args: "components list"},
		{schema: "status", args: "status"},
		{schema: "history", args: "history"},
		{schema: "rollback-list", args: "rollback --list"},
		{schema: "run-result", args: "recover"},
		{schema: "verify", args: "verify", code: 1},
		{schema: "restart", args: "restart --component=pulse,beacon"},
		{schema: "adopt", args: "adopt --dry-run"},
		{schema: "adopt", args: "adopt --yes"},
		{schema: "adopt", args: "adopt --yes"},
		{schema: "check", args: "check"},
		{schema: "plan", args: "plan"},
		{schema: "run-result", args: "apply --dry-run"},
		{schema: "run-result", args: "apply --yes"},
		{schema: "plan", args: "plan"},
		{schema: "run-result", args: "apply --yes"},
		{schema: "run-result", args: "apply --yes", code: 5, pre: func() error { return box.Publish("pulse", "1.2.0", true) }},
		{schema: "check", args: "check"},
		{schema: "plan", args: "plan"},
		{schema: "verify", args: "verify"},
		{schema: "rollback-list", args: "rollback --list"},
		{schema: "run-result", args: "rollback --previous --yes"},
		{schema: "status", args: "status"},
		{schema: "history", args: "history"},
		{schema: "history-stats", args: "history stats"},
		{schema: "history-show", args: "history show last"},
		{schema: "history-show", args: "history show 3"},
		{schema: "hold", args: "hold pulse --reason=audit --until=2999-01-01"},
		{schema: "hold", args: "unhold pulse"},
		{schema: "auto-status", args: "auto-enable --policy=minor"},
		{schema: "auto-status", args: "auto-disable"},
		{schema: "config-validate", args: "config validate"},
		{schema: "vulnerabilities", args: "vulnerabilities"},
		{schema: "vulnerabilities", args: "vulnerabilities --refresh", pre: func() error { return knowVulnerabilities(box) }},
		{schema: "check", args: "check"},
		{schema: "status", args: "status"},
		{schema: "config-schema", args: "config schema"},
		{schema: "monitoring-install", args: "monitoring install"},
		{schema: "notify-test", args: "notify test", code: 1, pre: func() error { return hooks(404) }},
		{schema: "notify-deliver", args: "notify deliver", code: 1, pre: func() error { return queueFailure(box) }},
		{schema: "notify-status", args: "notify status"},
		{schema: "notify-test", args: "notify test --event=upgrade_failed", pre: func() error { return hooks(200) }},
		{schema: "notify-retry", args: "notify retry --all"},
		{schema: "notify-deliver", args: "notify deliver --wait=1m"}, // what retry started has ended then
		{schema: "notify-status", args: "notify status"},
		{schema: "serve", args: "serve --listen=127.0.0.1:0"}, // ends when it has told where
		{schema: "error", args: "check --nonsense", code: 2},
		{schema: "error", args: "check --component=puls", code: 2},
	}
	seen := map[string]bool{}
	check := func(name, schema string, data []byte) {
		if err := schemas.validate(schema, data); err != nil {
			t.Errorf("%s: %v\n%s", name, err, data)
			return
		}
		seen[schema] = true
		doc, _ := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		s := schemas[schema]
		spoil(s, doc, schema, func(where string) {
			if s.Validate(doc) == nil {
				t.Errorf("%s: the schema allows the document without or with a wrong %s", name, where)
			}
		})
	}
	for i, p := range play {
		name := fmt.Sprintf("%02d %s", i, p.args)
		if p.pre != nil {
			if err := p.pre(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		var out, logs bytes.Buffer
		args := append([]string{program, "--root=" + string(box.Root), "--output=json", "--log-format=json"}, strings.Fields(p.args)...)
		ctx, end := context.WithCancel(t.Context())
		to := io.Writer(&out)
		if p.schema == "serve" {
			to = &untilWhole{Buffer: &out, whole: end}
		}
		got := cli.Run(ctx, args, cli.IO{In: strings.NewReader(""), Out: to, Err: &logs, Env: func(string) string { return "" }, Program: path})
		end()
		if got != p.code {
			t.Fatalf("%s: exit code %d, want %d\n%s%s", name, got, p.code, out.Bytes(), logs.Bytes())
		}
		check(name, p.schema, out.Bytes())
		for line := range bytes.Lines(logs.Bytes()) {
			check(name+" logs", logRecord, line)
		}
	}
	for i, r := range server.Requests() {
		check(fmt.Sprintf("webhook %d", i), "webhook", r.Body)
	}
	for name := range schemas {
		if !seen[name] {
			t.Errorf("no document was checked against %s.schema.json", name)
		}
	}
}

// queueFailure has a failed upgrade to tell of.
func queueFailure(box *demo.Sandbox) error {
	conf, err := config.LoadNotifications(box.Root, func(string) string { return "" })
	if err != nil {
		return err
	}
	return notify.Open(box.Root, &hostfs.Host{}, conf, slog.New(slog.DiscardHandler)).Send(notify.Sample(notify.UpgradeFailed))
}

// untilWhole calls whole when it has got a JSON document.
type untilWhole struct {
	*bytes.Buffer
	whole func()
}

func (u *untilWhole) Write(p []byte) (int, error) {
	n, err := u.Buffer.Write(p)
	if json.Valid(u.Bytes()) {
		u.whole()
	}
	return n, err
}

// spoil calls try with doc spoilt in one place after the other; each is put
// back before the next.
func spoil(s *jsonschema.Schema, doc any, at string, try func(where string)) {
	switch node := doc.(type) {
	case map[string]any:
		for _, key := range s.Required {
			was := node[key]
			delete(node, key)
			try(at + "." + key)
			node[key] = was
		}
		for key, sub := range s.Properties {
			was, ok := node[key]
			if !ok {
				continue
			}
			node[key] = []any{map[string]any{}, "no such value"}
			try(at + "." + key)
			if sub.Enum != nil {
				node[key] = "no such value"
				try(at + "." + key)
			}
			node[key] = was
			spoil(sub, was, at+"."+key, try)
		}
	case []any:
		items := s.Items2020
		for i, item := range node {
			if items != nil {
				spoil(items, item, fmt.Sprintf("%s.%d", at, i), try)
			}
		}
	}
}

// TestSchemaFiles keeps the schemas what their names say.
func TestSchemaFiles(t *testing.T) {
	schemas := loadSchemas(t)
	for name := range schemas {
		data, err := os.ReadFile(filepath.Join(schemaDir, name+".schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`"$schema": "https://json-schema.org/draft/2020-12/schema"`,
			`/schemas/` + name + `.schema.json"`,
		} {
			if !bytes.Contains(data, []byte(want)) {
				t.Errorf("%s.schema.json does not contain %s", name, want)
			}
		}
		if bytes.Contains(data, []byte(`"additionalProperties"`)) {
			t.Errorf("%s.schema.json: keys may be added, so additionalProperties has no place in it", name)
		}
	}
}

// knowVulnerabilities gives the sandbox a database with a record about pulse.
func knowVulnerabilities(box *demo.Sandbox) error {
	record := `{"id":"GO-2026-9301","modified":"2026-11-24T02:00:00Z","aliases":["CVE-2026-9301"],"summary":"Pulse beats too fast",
		"affected":[{"package":{"ecosystem":"Go","name":"example.com/pulse"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"9.0.0"}]}]}],
		"database_specific":{"url":"https://pkg.go.dev/vuln/GO-2026-9301","review_status":"REVIEWED"}}`
	for name, text := range map[string]string{
		"index/db.json":        `{"modified":"2026-11-24T02:00:00Z"}`,
		"index/modules.json":   `[{"path":"example.com/pulse","vulns":[{"id":"GO-2026-9301","modified":"2026-11-24T02:00:00Z"}]}]`,
		"ID/GO-2026-9301.json": record,
	} {
		path := filepath.Join(box.Dir, "vulndb", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		filepath.Join(box.Root.ComponentsDir(), "pulse.yaml"): "vulnerabilities: [{ecosystem: Go, package: example.com/pulse}]\n",
		box.Root.Policy(): "vulnerabilities: {database: " + filepath.Join(box.Dir, "vulndb") + ", max_age: 876000h}\n",
	} {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteString(text); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
