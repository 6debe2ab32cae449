package script

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const logPage = "../../docs/logs-and-traces.md"

var (
	jsonBlock = regexp.MustCompile("(?s)```json\n(.*?)```")
	quoted    = regexp.MustCompile("`([^`]+)`")
)

// The documentation lists the keys that the schema has, and no others, and shows
// records as they are.
func TestLogRecordsDocumented(t *testing.T) {
	data, err := os.ReadFile(logPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	_, table, ok := strings.Cut(page, "| key | what |\n|---|---|\n")
	table, _, ok2 := strings.Cut(table, "\n\n")
	if !ok || !ok2 {
		t.Fatalf("%s has no table of keys", logPage)
	}
	var listed []string
	for row := range strings.Lines(table) {
		key, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, m := range quoted.FindAllStringSubmatch(key, -1) {
			listed = append(listed, m[1])
		}
	}
	slices.Sort(listed)
	raw, err := os.ReadFile(schemaDir + "/" + logRecord + ".schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct{ Properties map[string]any }
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(schema.Properties)), listed); diff != "" {
		t.Errorf("keys of the schema (-) and of the documentation (+):\n%s", diff)
	}
	schemas, n := loadSchemas(t), 0
	for _, m := range jsonBlock.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(m[1]) {
			n++
			if err := schemas.validate(logRecord, []byte(line)); err != nil {
				t.Errorf("%v\n%s", err, line)
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d records are shown", n)
	}
}
