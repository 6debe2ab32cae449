package notify

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

var (
	block       = regexp.MustCompile("(?s)```([a-z]+)\n(.*?)```")
	secretRef   = regexp.MustCompile(`\$\{SECRET:([a-z-]+)\}`)
	fieldOfData = regexp.MustCompile("`\\.([A-Z][A-Za-z]+)`")
)

func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// examples returns the blocks of docs/notifications.md in one language.
func examples(t *testing.T, language string) []string {
	t.Helper()
	var out []string
	for _, m := range block.FindAllStringSubmatch(page(t), -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	if len(out) == 0 {
		t.Fatalf("docs/notifications.md has no %s", language)
	}
	return out
}

// Every configuration that the page shows is valid, and every type is shown.
func TestDocumentedConfigurations(t *testing.T) {
	cert, err := notifytest.NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, text := range examples(t, "yaml") {
		w := newWorld(t, "%s", text)
		for _, m := range secretRef.FindAllStringSubmatch(text, -1) {
			value := "secret"
			switch m[1] {
			case "slack-webhook":
				value = "https://hooks.slack.com/services/T0/B0/x"
			case "discord-url":
				value = "discord://token@1"
			}
			w.write(filepath.Join(w.root.SecretsDir(), m[1]), value, 0o600)
		}
		w.write(w.root.Path("etc/observability/keys/internal-ca.pem"), string(cert.PEM), 0o644)
		conf := w.conf()
		if errs := Check(w.root, conf); len(errs) > 0 {
			t.Errorf("%v\n%s", errs, text)
		}
		for _, ch := range conf.Channels {
			shown[ch.Type] = true
		}
		for event := range conf.Templates {
			shown["templates"] = true
			d := Sample(event)
			if subject, body := render(conf, d); subject == "" || strings.Contains(body, "built-in text") {
				t.Errorf("%s: %s\n%s", event, subject, body)
			}
		}
	}
	for _, want := range append(config.ChannelTypes(), "templates") {
		if !shown[want] {
			t.Errorf("no example of %s", want)
		}
	}
}

// The document of the page is what is sent, key by key.
func TestDocumentedWebhook(t *testing.T) {
	var got Document
	dec := json.NewDecoder(strings.NewReader(examples(t, "json")[0]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&got); err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent(got, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	one := func(s []byte) string { // lists of one element on one line, as the page has them
		return regexp.MustCompile(`\[\n\s+("[^"]*")\n\s+\]`).ReplaceAllString(string(s), "[$1]")
	}
	if d := cmp.Diff(examples(t, "json")[0], one(data)+"\n"); d != "" {
		t.Errorf("-page +sent\n%s", d)
	}
}

// The verification of the page takes what is signed here, and nothing else.
func TestDocumentedVerification(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	s := httpServer(t)
	w := newWorld(t, webhookConfig, s.URL, `hmac_secret: "${SECRET:planted}"`)
	w.send(UpgradeFailed)
	if r := w.deliver(); r != (Report{Sent: 1}) {
		t.Fatalf("%+v", r)
	}
	r := s.Requests()[0]
	script := examples(t, "python")[0] + `
import sys
print(verify(sys.argv[1].encode(), sys.stdin.buffer.read(), sys.argv[2])["event"])
`
	run := func(key string, body []byte) (string, error) {
		cmd := exec.CommandContext(t.Context(), python, "-c", script, key, r.Header.Get(signatureHeader))
		cmd.Stdin = bytes.NewReader(body)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := run(planted, r.Body); err != nil || out != "upgrade_failed" {
		t.Errorf("%s, %v", out, err)
	}
	if out, err := run("another", r.Body); err == nil || !strings.Contains(out, "not signed with our key") {
		t.Errorf("another key: %s, %v", out, err)
	}
	if out, err := run(planted, bytes.Replace(r.Body, []byte("failed"), []byte("passed"), 1)); err == nil || !strings.Contains(out, "not signed") {
		t.Errorf("another body: %s, %v", out, err)
	}
}

// The tables of fields have all there are, and no others; so has the list of
// services, and the table of events.
func TestDocumentedNames(t *testing.T) {
	text := page(t)
	_, texts, _ := strings.Cut(text, "\n## Texts of your own\n")
	data, components, _ := strings.Cut(texts, "\n| field of a component | |\n")
	_, data, _ = strings.Cut(data, "\n| field | |\n")
	components, _, _ = strings.Cut(components, "\n\n")
	for _, c := range []struct {
		text string
		typ  reflect.Type
	}{{data, reflect.TypeFor[Data]()}, {components, reflect.TypeFor[Component]()}} {
		var got []string
		for _, m := range fieldOfData.FindAllStringSubmatch(c.text, -1) {
			got = append(got, m[1])
		}
		want := fields(c.typ)
		slices.Sort(got)
		slices.Sort(want)
		if d := cmp.Diff(want, slices.Compact(got)); d != "" {
			t.Errorf("%s\n%s", c.typ, d)
		}
	}
	var events []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(text[:strings.Index(text, "\n## Channels\n")], -1) {
		events = append(events, m[1])
	}
	want := config.Events()
	slices.Sort(events)
	slices.Sort(want)
	if d := cmp.Diff(want, events); d != "" {
		t.Errorf("events\n%s", d)
	}
	_, list, _ := strings.Cut(text, "\nThere are `bark`")
	list, _, _ = strings.Cut("`bark`"+list, "\n")
	var have []string
	for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(list, -1) {
		have = append(have, m[1])
	}
	if d := cmp.Diff(slices.DeleteFunc(services(), func(s string) bool { return s == "hangouts" }), have); d != "" {
		t.Errorf("services\n%s", d)
	}
}
