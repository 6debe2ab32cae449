package notify

import (
	"strings"
	"testing"
	"unicode"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
)

// A user's template makes a text that fits a message, or the built-in one does.
func FuzzTemplate(f *testing.F) {
	f.Add("{{.Event}} on {{.Host}}", "{{range .Components}}{{.Name}} {{.From}} -> {{.To}}\n{{end}}")
	f.Add("a\r\nBcc: evil@example.org", "{{printf \"%0100000d\" 1}}")
	f.Add("{{define \"x\"}}{{template \"x\"}}{{end}}{{template \"x\"}}", "{{.Nothing}}")
	f.Add("{{", "{{call .Event}}")
	f.Add("\x00\xff{{/* c */}}", "{{html .Event}}{{js .Event}}{{index .Components 0}}")
	f.Fuzz(func(t *testing.T, subject, body string) {
		// The administrator's own: a count to a billion is theirs to wait for.
		if strings.Contains(subject+body, "range") || strings.Contains(subject+body, "printf") {
			t.Skip("may take long by its own wish")
		}
		event := "upgrade_failed"
		conf := &config.Notifications{File: "notifications.yaml", Templates: map[string]config.Template{event: {Subject: subject, Body: body}}}
		gotSubject, gotBody := render(conf, Data{Event: event})
		if strings.ContainsFunc(gotSubject, unicode.IsControl) || len(gotSubject) > 2100 {
			t.Fatalf("subject %q", gotSubject)
		}
		if len(gotBody) > 2*maxText+len(subject)+len(body)+4096 {
			t.Fatalf("a body of %d bytes", len(gotBody))
		}
	})
}
