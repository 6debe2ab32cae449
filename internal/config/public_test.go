package config

import (
	"os"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// Who asks no upstream needs no token; all else that is wrong stays so.
func TestPublicPolicy(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a token that is not there": {"upstream: {github: {token: \"${SECRET:none}\"}, gitlab: {token: \"${NOT_SET}\"}}\nretention: {backups: 7}\n", ""},
		"another value":             {"service_manager: \"${NOT_SET}\"\n", "NOT_SET is not set"},
		"a range must be known":     {"holds: [{component: a, version: \"${SECRET:none}\", reason: x}]\n", "secret none does not exist"},
		"a mistake beside it":       {"upstream: {github: {token: \"${SECRET:none}\"}}\nretention: {backups: -1}\n", "backups"},
		"no token":                  {"retention: {backups: 7}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := layout.Root(t.TempDir())
			if err := os.MkdirAll(root.Config(), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(root.Policy(), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			p, err := LoadPublicPolicy(root, func(string) string { return "" })
			if c.want == "" {
				if err != nil || p.Retention.Backups != 7 {
					t.Errorf("%+v, %v", p, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "upstream") {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
