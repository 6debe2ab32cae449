package script

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// records is `records FILE COUNT [KEY=REGEXP]...`: every line of FILE is a log
// record that the schema allows, and COUNT of them (+: one or more) have a value
// at each KEY that matches as a whole; KEY= is a key that is not there.
func records(ts *testscript.TestScript, neg bool, args []string, schemas schemaSet) {
	need(ts, neg, len(args) >= 2, "records FILE COUNT [KEY=REGEXP]...")
	got := 0
	lines := []byte(ts.ReadFile(args[0]))
	for line := range bytes.Lines(lines) {
		ts.Check(schemas.validate(logRecord, line))
		var rec map[string]any
		ts.Check(json.Unmarshal(line, &rec))
		if matches(ts, rec, args[2:]) {
			got++
		}
	}
	if args[1] == "+" {
		if got == 0 {
			ts.Fatalf("no record matches %v:\n%s", args[2:], lines)
		}
		return
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	if got != want {
		ts.Fatalf("%d records match %v, want %d:\n%s", got, args[2:], want, lines)
	}
}

func matches(ts *testscript.TestScript, rec map[string]any, want []string) bool {
	for _, pair := range want {
		key, pattern, _ := strings.Cut(pair, "=")
		value, there := rec[key]
		if pattern == "" {
			if there {
				return false
			}
			continue
		}
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		ts.Check(err)
		if !there || !re.MatchString(fmt.Sprint(value)) {
			return false
		}
	}
	return true
}
