package script

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/doctest"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

// docs/reference.md has the commands, flags and exit codes that there are.
func TestReference(t *testing.T) {
	const page = "docs/reference.md"
	text, err := doctest.Read(repository, page)
	if err != nil {
		t.Fatal(err)
	}
	got := text
	for name, content := range map[string]string{"commands": commandReference(), "exit codes": exitCodeReference()} {
		begin, end := "<!-- "+name+": written by `go test ./test/script -run TestReference -update` -->\n", "<!-- end of "+name+" -->"
		before, rest, ok := strings.Cut(got, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no %q", page, begin)
		}
		got = before + begin + content + end + after
	}
	if *update {
		if err := os.WriteFile(filepath.Join(repository, page), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(text, got); d != "" {
		t.Errorf("%s is not what the commands are (-update writes it anew):\n%s", page, d)
	}
}

func commandReference() string {
	root := cli.Commands()
	var b strings.Builder
	fmt.Fprintf(&b, "Flags of all commands:\n\n%s", flagTable(root.PersistentFlags()))
	describe(&b, root)
	return b.String()
}

// describe writes what is below a command, in the order of the help.
func describe(b *strings.Builder, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "help" || parent.Name() == "completion" {
			continue
		}
		path := strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ")
		use := strings.TrimSuffix(strings.TrimPrefix(c.UseLine(), c.Root().Name()+" "), " [flags]")
		if c.Name() == "completion" {
			use += " bash|zsh|fish|powershell"
		}
		fmt.Fprintf(b, "\n### %s\n\n", path)
		short := c.Short + "."
		if len(c.Aliases) > 0 {
			short += " Also `" + strings.Join(c.Aliases, "`, `") + "`."
		}
		if use != path {
			fmt.Fprintf(b, "`%s`: ", use)
		}
		fmt.Fprintf(b, "%s\n", short)
		if table := flagTable(c.LocalNonPersistentFlags()); table != "" {
			fmt.Fprintf(b, "\n%s", table)
		}
		describe(b, c)
	}
}

// flagTable is a row for each flag, "" without flags.
func flagTable(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if b.Len() == 0 {
			b.WriteString("| flag | |\n|---|---|\n")
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if kind != "" {
			name += " " + strings.TrimSuffix(strings.TrimSuffix(kind, "Array"), "Slice")
		}
		switch f.DefValue {
		case "", "[]", "false", "0", "0s":
		default:
			usage += " (default: " + f.DefValue + ")"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, strings.ReplaceAll(usage, "|", `\|`))
	})
	return b.String()
}

func exitCodeReference() string {
	var b strings.Builder
	b.WriteString("| code | |\n|---|---|\n")
	for _, c := range cli.ExitCodes() {
		fmt.Fprintf(&b, "| %d | %s |\n", c.Code, strings.ReplaceAll(c.Meaning, "|", `\|`))
	}
	return b.String()
}

var (
	documentedShape = regexp.MustCompile("(?m)^\\* \\*\\*(.+?)\\*\\*.*?: `(\\{.*\\})`")
	documentedKey   = regexp.MustCompile(`"([a-z0-9_]+)"[:,}\]]`)
)

// docs/reference.md names the keys of the documents that their schemas have, and no
// others. Those that are "as" another one's are named there.
func TestReferenceOfDocuments(t *testing.T) {
	schemas := map[string]string{
		"apply, rollback, recover": "run-result", "rollback --list": "rollback-list", "history show": "history-show", "history stats": "history-stats",
		"components list": "components-list", "auto-status, auto-enable, auto-disable": "auto-status", "config validate": "config-validate", "hold, unhold": "hold",
	}
	text, err := doctest.Read(repository, "docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	shapes := documentedShape.FindAllStringSubmatch(text, -1)
	if len(shapes) < 14 {
		t.Errorf("only %d documents were found", len(shapes))
	}
	for _, m := range shapes {
		schema := schemas[m[1]]
		if schema == "" {
			schema = m[1]
		}
		data, err := os.ReadFile(filepath.Join(schemaDir, schema+".schema.json"))
		if err != nil {
			t.Error(err)
			continue
		}
		var doc any
		if err := json.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		want, got := map[string]bool{}, map[string]bool{}
		properties(doc, want)
		for _, k := range documentedKey.FindAllStringSubmatch(m[2], -1) {
			got[k[1]] = true
		}
		for k := range want {
			if !got[k] && !strings.Contains(m[2], "[…as") {
				t.Errorf("%s: %q is in the schema and not in the reference", m[1], k)
			}
		}
		for k := range got {
			if !want[k] {
				t.Errorf("%s: %q is in the reference and not in the schema", m[1], k)
			}
		}
	}
}

// properties collects the names of all properties of a schema.
func properties(schema any, out map[string]bool) {
	switch s := schema.(type) {
	case map[string]any:
		if p, ok := s["properties"].(map[string]any); ok {
			for k := range p {
				out[k] = true
			}
		}
		for _, v := range s {
			properties(v, out)
		}
	case []any:
		for _, v := range s {
			properties(v, out)
		}
	}
}
