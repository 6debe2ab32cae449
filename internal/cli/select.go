package cli

import (
	"errors"
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
	cmd.Flags().VarP(&nameList{into}, "component", "c", usage)
	must(cmd.RegisterFlagCompletionFunc("component", g.completeComponents))
}

// nameList is a flag that may be given several times or with commas. An empty name
// is refused: what an unset variable of a script leaves would mean everything.
type nameList struct{ into *[]string }

func (l *nameList) String() string { return strings.Join(*l.into, ",") }

// Type is how help names the value.
func (l *nameList) Type() string { return "names" }

// Set adds names.
func (l *nameList) Set(text string) error {
	for _, name := range strings.Split(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return errors.New("an empty name; leave the flag out to mean all components")
		}
		*l.into = append(*l.into, name)
	}
	return nil
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
		if was, twice := pins[name]; twice && pinned && was.String() != strings.TrimPrefix(text, "v") {
			return nil, nil, &stack.UsageError{Message: fmt.Sprintf("%s is asked for at %s and at %s; want one version", name, was, text), Hint: "observability-upgrade check --component=" + name}
		}
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
