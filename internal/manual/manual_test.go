package manual

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/schemas"
)

var update = flag.Bool("update", false, "write the golden files")

var release = Options{Version: "1.2.3", Date: time.Unix(1735269000, 0), Exit: []Entry{{"0", "Done."}, {"4", "Refused."}}}

// small is a tree with what pages have to get right: requests at the begin of a
// line, backslashes, literal blocks, hidden commands and flags.
func small() *cobra.Command {
	run := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "tool", Short: "Do things", Long: "Do things, and\n.never take text for a request.\n\nA second paragraph:\n\n  tool do --now\n  'quoted' \\ kept\n\nand one after it.", Run: run}
	root.PersistentFlags().StringP("output", "o", "text", "text or json")
	root.PersistentFlags().Bool("secret", false, "hidden")
	_ = root.PersistentFlags().MarkHidden("secret")
	do := &cobra.Command{Use: "do [THING]", Short: "Do one", Aliases: []string{"make"}, Example: "  tool do it\n  tool do --wait=5s   # ~ and ^ stay", Run: run}
	do.Flags().Duration("wait", 0, "wait `time` for it")
	do.Flags().StringArray("for", nil, "patch_only or any")
	root.AddCommand(do, &cobra.Command{Use: "inner", Hidden: true, Run: run}, &cobra.Command{Use: "undo", Short: "IPv6 is left alone", Run: run})
	return root
}

func TestCommands(t *testing.T) {
	got := Commands(small(), release)
	if len(got) != 3 {
		t.Errorf("%d pages", len(got))
	}
	for name, page := range got {
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(page)); d != "" {
			t.Errorf("%s (-update writes it):\n%s", name, d)
		}
		lint(t, name, page)
	}
}

// Each key of the schemas has its entry, and none is written without end.
func TestConfiguration(t *testing.T) {
	pages, err := Configuration(schemas.Config, release)
	if err != nil {
		t.Fatal(err)
	}
	for page, keys := range map[string][]string{
		"observability-upgrade-policy.5":        {`\fBupstream.github.api_url\fR`, `\fBauto_upgrade.policies.NAME.channel\fR`, `\fBholds[].until\fR`, "patch_only | minor | any | none", `\fBmaintenance_windows[].timezone\fR`},
		"observability-upgrade-matrix.5":        {`\fBpaths.NAME[].from\fR`, `\fBblacklist[].version\fR`},
		"observability-upgrade-notifications.5": {`\fBchannels[].config.smtp_host\fR`},
		"observability-upgrade-component.5":     {`\fBbinaries[].install\fR`, `\fBhealth.settle\fR`},
	} {
		for _, key := range keys {
			if !strings.Contains(string(pages[page]), key) {
				t.Errorf("%s has no %s", page, key)
			}
		}
		if n := len(pages[page]); n > 128<<10 {
			t.Errorf("%s has %d bytes", page, n)
		}
		lint(t, page, pages[page])
	}
	if len(pages) != len(schemas.ConfigNames()) {
		t.Errorf("%d pages for %d schemas", len(pages), len(schemas.ConfigNames()))
	}
	for name, bad := range map[string]string{"none": "", "not JSON": "{", "dangling": `{"properties": {"a": {"$ref": "#/$defs/B"}}}`} {
		if _, err := Configuration(func(string) []byte { return []byte(bad) }, release); err == nil || !strings.Contains(err.Error(), "schema policy") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// lint has the formatters that are here look at a page.
func lint(t *testing.T, name string, page []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, page, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("mandoc"); err == nil {
		// A tool of its own makes the page; what mandoc styles otherwise is no mistake.
		if out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", path).CombinedOutput(); err != nil {
			t.Errorf("mandoc: %v\n%s", err, out)
		}
	} else {
		t.Log("mandoc is not here; as root: apt-get install mandoc")
	}
	if _, err := exec.LookPath("groff"); err == nil {
		out, err := exec.Command("groff", "-man", "-ww", "-z", "-Tutf8", "-Kutf8", path).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("groff: %v\n%s", err, out)
		}
	}
}
