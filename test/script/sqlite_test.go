package script

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/demo"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
)

// specQueries are the examples of specification section 7, word for word, by the
// comment above each.
func specQueries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/specification.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "-- Query examples:\n")
	block, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/specification.md has no query examples in section 7")
	}
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?s)-- ([^\n]*):\n(SELECT .*?;)\n`).FindAllStringSubmatch(block, -1) {
		out[m[1]] = m[2]
	}
	return out
}

// TestSpecificationQueries asks the database that real runs wrote with the sqlite3
// program, in the words of the specification.
func TestSpecificationQueries(t *testing.T) {
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("the sqlite3 program is not installed: scripts/deps, as root, or apt-get install sqlite3")
	}
	queries := specQueries(t)
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
	call := func(code int, args ...string) []byte {
		t.Helper()
		var out, logs bytes.Buffer
		args = append([]string{program, "--root=" + string(box.Root), "--output=json"}, args...)
		if got := cli.Run(t.Context(), args, cli.IO{In: strings.NewReader(""), Out: &out, Err: &logs, Env: func(string) string { return "" }}); got != code {
			t.Fatalf("%v: exit code %d, want %d\n%s%s", args, got, code, out.Bytes(), logs.Bytes())
		}
		return out.Bytes()
	}
	call(0, "restart", "--component=pulse,beacon")
	call(0, "adopt", "--yes")
	call(0, "apply", "--yes", "--component=pulse")
	call(0, "apply", "--yes")
	for _, v := range []string{"1.2.0", "1.3.0"} {
		if err := box.Publish("beacon", v, false); err != nil {
			t.Fatal(err)
		}
		call(0, "apply", "--yes")
	}
	if err := box.Publish("pulse", "1.2.0", true); err != nil {
		t.Fatal(err)
	}
	call(5, "apply", "--yes") // rolled back
	// One whose rollback fails, too: somebody broke the file of the version that runs.
	if err := box.Publish("pulse", "1.3.0", true); err != nil {
		t.Fatal(err)
	}
	broken := "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'pulse, version 1.1.0'; exit 0; fi\nexit 1\n"
	if err := os.WriteFile(box.Root.Path("usr/local/bin/pulse"), []byte(broken), 0o755); err != nil {
		t.Fatal(err)
	}
	call(6, "apply", "--yes")

	ask := func(name string) []map[string]any {
		t.Helper()
		query, ok := queries[name]
		if !ok {
			t.Fatalf("the specification has no query %q, only %v", name, queries)
		}
		cmd := exec.CommandContext(t.Context(), shell, "-json", box.Root.History())
		cmd.Stdin = strings.NewReader(query + "\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", query, err, out)
		}
		var rows []map[string]any
		if len(bytes.TrimSpace(out)) > 0 {
			if err := json.Unmarshal(out, &rows); err != nil {
				t.Fatalf("%s: %v\n%s", query, err, out)
			}
		}
		return rows
	}
	var doc struct{ Upgrades []history.Upgrade }
	if err := json.Unmarshal(call(0, "history", "--limit=0"), &doc); err != nil {
		t.Fatal(err)
	}
	all := doc.Upgrades
	brief := func(timestamp, component, from, to, status any) string {
		return fmt.Sprint(timestamp, " ", component, " ", from, " → ", to, " ", status)
	}
	listed := func(status string) (out []string) {
		for _, u := range all {
			if status == "" || u.Status == status {
				out = append(out, brief(u.Timestamp.Format("2006-01-02T15:04:05Z"), u.Component, u.OldVersion, u.NewVersion, u.Status))
			}
		}
		return out
	}
	asked := func(name string) (out []string) {
		for _, r := range ask(name) {
			out = append(out, brief(r["timestamp"], r["component"], r["old_version"], r["new_version"], r["status"]))
		}
		return out
	}
	if len(all) < 5 {
		t.Fatalf("too few rows to prove anything: %v", listed(""))
	}
	if diff := cmp.Diff(listed(""), asked("Recent upgrades")); diff != "" {
		t.Errorf("recent upgrades: %s", diff)
	}
	if diff := cmp.Diff(listed(history.Failed), asked("Failed upgrades")); diff != "" {
		t.Errorf("failed upgrades: %s", diff)
	}
	want := map[string]string{}
	count, seconds := map[string]int{}, map[string]float64{}
	for _, u := range all {
		if u.Status == history.Success {
			count[u.Component]++
			seconds[u.Component] += float64(int64(u.DurationSeconds + 0.5)) // the column is a whole number
			want[u.Component] = fmt.Sprintf("%d of %.3f", count[u.Component], seconds[u.Component]/float64(count[u.Component]))
		}
	}
	got := map[string]string{}
	for _, r := range ask("Upgrade frequency per component") {
		n, _ := strconv.Atoi(fmt.Sprint(r["upgrade_count"]))
		got[fmt.Sprint(r["component"])] = fmt.Sprintf("%d of %.3f", n, r["avg_duration"])
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) != 2 {
		t.Errorf("frequency: %s", diff)
	}
}
