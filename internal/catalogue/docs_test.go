package catalogue

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var example = regexp.MustCompile("(?s)```yaml\n(# /etc/observability/components\\.d/([a-z_]+\\.yaml)\n.*?)```")

// Every definition that the documentation shows is a valid one.
func TestDocumentedDefinitions(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range example.FindAllSubmatch(data, -1) {
			n++
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, string(m[2])), m[1], 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); err != nil {
				t.Errorf("%s: %v\n%s", filepath.Base(page), err, m[1])
			}
		}
	}
	if n < 12 {
		t.Errorf("only %d examples were found", n)
	}
}
