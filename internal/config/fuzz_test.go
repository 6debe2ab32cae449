package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// References to secrets and variables are replaced or refused; the name of a secret
// never leads out of its directory.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"a ${SECRET:token} b", "${HOME}", "$${HOME}", "${SECRET:../../etc/passwd}", "${SECRET:a/b}", "${SECRET:}", "${", "${SECRET:x", "$$${X}", "${SECRET:.}", "${SECRET:token}${SECRET:token}"} {
		f.Add(s)
	}
	root := layout.Root(f.TempDir())
	if err := os.MkdirAll(filepath.Join(root.SecretsDir(), "sub"), 0o700); err != nil {
		f.Fatal(err)
	}
	for name, text := range map[string]string{"etc/observability/secrets/token": "s3cret\n", "etc/observability/outside": "OUTSIDE", "etc/observability/secrets/sub/x": "OUTSIDE"} {
		if err := os.WriteFile(filepath.Join(string(root), name), []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	expand := Expander(root, func(name string) string {
		return map[string]string{"HOME": "/root", "X": "${SECRET:token}"}[name]
	})
	f.Fuzz(func(t *testing.T, text string) {
		out, err := expand(text)
		if strings.Contains(out, "OUTSIDE") && !strings.Contains(text, "OUTSIDE") {
			t.Fatalf("%q leads out of the directory of secrets: %q", text, out)
		}
		if err == nil && !strings.Contains(text, "${") && out != text {
			t.Fatalf("%q became %q", text, out)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Fatalf("the error tells a secret: %v", err)
		}
	})
}

// The file of notifications is read or refused with places.
func FuzzNotifications(f *testing.F) {
	for _, s := range []string{
		"channels:\n- {name: slack, enabled: true, config: {webhook_url: \"https://hooks.slack.com/x\"}, events: [upgrade_failed]}\n",
		"channels:\n- {name: x, type: webhook, enabled: true, config: {url: \"http://127.0.0.1/\", headers: {A: b}, hmac_secret: c}, events: [upgrade_available]}\n",
		"channels:\n- {name: email, enabled: false, config: {to: [a@b], smtp_host: h, smtp_port: 25}}\ntemplates: {upgrade_failed: {subject: \"{{.Event}}\", body: \"{{range .Components}}{{.Name}}{{end}}\"}}\n",
		"channels: {}\n", "channels: [1]\n", "templates: {x: y}\n", "channels: &a [*a]\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		root := layout.Root(t.TempDir())
		if err := os.MkdirAll(filepath.Dir(root.Notifications()), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root.Notifications(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := LoadNotifications(root, func(string) string { return "" })
		if err == nil && n == nil {
			t.Fatal("neither notifications nor an error")
		}
		if err != nil && !strings.Contains(err.Error(), "notifications.yaml") {
			t.Fatalf("the error names no file: %v", err)
		}
	})
}
