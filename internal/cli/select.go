package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

// componentFlag adds --component, which may be given several times or with
// commas, and completes component names.
func (g *global) componentFlag(cmd *cobra.Command, into *[]string, withVersion bool) {
	usage := "only this component (may be given several times)"
	if withVersion {
		usage = "only this component, or NAME@VERSION for that very version (may be given several times)"
	}
	cmd.Flags().StringSliceVarP(into, "component", "c", nil, usage)
	must(cmd.RegisterFlagCompletionFunc("component", g.completeComponents))
}

func (g *global) completeComponents(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	cat, err := catalogue.Load(layout.Root(g.root).ComponentsDir())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range cat.All() {
		names = append(names, c.Name+"\t"+c.Description)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (g *global) completeBackups(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	points, err := backup.List(layout.Root(g.root).Backups())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range points {
		var parts []string
		for _, c := range p.Manifest.Components {
			parts = append(parts, c.Name+" "+c.Version)
		}
		out = append(out, p.Timestamp+"\t"+strings.Join(parts, ", "))
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// splitPins separates NAME@VERSION from plain names.
func splitPins(args []string) (names []string, pins map[string]component.Version, err error) {
	pins = map[string]component.Version{}
	for _, a := range args {
		name, text, pinned := strings.Cut(a, "@")
		if name == "" {
			return nil, nil, &stack.UsageError{Message: fmt.Sprintf("--component=%s names no component", a), Hint: "observability-upgrade components list"}
		}
		names = append(names, name)
		if !pinned {
			continue
		}
		v, err := component.ParseVersion(text)
		if err != nil {
			return nil, nil, &stack.UsageError{Message: fmt.Sprintf("--component=%s: %v", a, err), Hint: "observability-upgrade check --component=" + name}
		}
		pins[name] = v
	}
	return names, pins, nil
}
