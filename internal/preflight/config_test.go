package preflight

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func TestConfigSyntax(t *testing.T) {
	for name, tt := range map[string]struct {
		tool   string // script of the installed promtool; "" for none
		mode   os.FileMode
		check  []string
		status component.CheckStatus
		words  []string
	}{
		"accepted":         {tool: `[ "$1 $2" = "check config" ] && [ -f "$3" ]`, status: component.CheckOK, words: []string{"installed version"}},
		"refused":          {tool: "echo 'line 3: field scrape_confgs not found' >&2; exit 1", status: component.CheckFail, words: []string{"exit status 1", "scrape_confgs", "check config"}},
		"does not know":    {tool: "echo 'flag provided but not defined: -verify-config'; exit 2", status: component.CheckSkipped, words: []string{"before anything stops"}},
		"kingpin":          {tool: "echo 'promtool: error: expected command but got \"config\"'; exit 1", status: component.CheckSkipped},
		"not installed":    {status: component.CheckSkipped, words: []string{"promtool is not installed"}},
		"others can write": {tool: "exit 0", mode: 0o757, status: component.CheckWarn, words: []string{"is not run", "chmod o-w"}},
		"of the system":    {check: []string{"true"}, status: component.CheckOK},
		"nowhere":          {check: []string{"no-such-tool-anywhere"}, status: component.CheckWarn, words: []string{"not found"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := host(t, "prometheus")
			in.Tool = func(ctx context.Context, args []string) (string, error) {
				return artifact.RunTool(ctx, args, time.Minute)
			}
			c := in.Installed["prometheus"].Component
			c.Binaries = append(c.Binaries, component.Binary{Name: "promtool", Install: "/usr/local/bin/promtool"})
			c.Config.Check = [][]string{{"promtool", "check", "config", "{root}/etc/prometheus/config.yml"}}
			if tt.check != nil {
				c.Config.Check = [][]string{tt.check}
			}
			if tt.tool != "" {
				path := in.Root.Path("usr/local/bin/promtool")
				if tt.mode == 0 {
					tt.mode = 0o755
				}
				write(t, path, "#!/bin/sh\n"+tt.tool+"\n", tt.mode)
				in.Installed["prometheus"].Binaries["promtool"] = path
			}
			expect(t, Run(t.Context(), in), ConfigSyntax, tt.status, tt.words...)
		})
	}
}

// A tool of another user would run as us.
func TestForeignToolIsNotRun(t *testing.T) {
	in := host(t, "prometheus")
	in.Installed["prometheus"].Component.Config.Check = [][]string{{"prometheus", "--check"}}
	in.Tool = func(context.Context, []string) (string, error) {
		t.Error("it was run")
		return "", nil
	}
	give(t, in.Installed["prometheus"].Path)
	expect(t, Run(t.Context(), in), ConfigSyntax, component.CheckWarn, "uid 65534", "chown")
}

// All checks of a definition are made, and a slow one is no reason to refuse.
func TestEveryConfigCheckIsMade(t *testing.T) {
	in := host(t, "prometheus")
	in.Installed["prometheus"].Component.Config.Check = [][]string{{"prometheus", "one"}, {"prometheus", "two"}}
	in.Tool = func(_ context.Context, args []string) (string, error) {
		return args[1] + " is bad", errors.New("exit status 1")
	}
	got := of(Run(t.Context(), in), ConfigSyntax)
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	expectCheck(t, got[0], component.CheckFail, "one is bad")
	expectCheck(t, got[1], component.CheckFail, "two is bad")

	in.Deadline = 200 * time.Millisecond
	in.Tool = func(ctx context.Context, _ []string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	expect(t, Run(t.Context(), in), ConfigSyntax, component.CheckWarn, "no answer within 200ms")
}
