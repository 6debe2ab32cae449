package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

func newComponents(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "components",
		Short: "List and show component definitions",
		Long: `List and show component definitions: those built in, and those that
/etc/observability/components.d adds or overrides. Without a word more it is
"components list".`,
		Example: `  observability-upgrade components list
  observability-upgrade components show prometheus`,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.listComponents(cmd.Context()) },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List all components and whether they are installed here",
			Example: "  observability-upgrade components list --output=json",
			RunE:    func(cmd *cobra.Command, _ []string) error { return g.listComponents(cmd.Context()) },
		},
		&cobra.Command{
			Use: "show NAME", Short: "Print a component's definition as it is in force",
			Example:           "  observability-upgrade components show prometheus > /etc/observability/components.d/prometheus.yaml",
			Args:              cobra.ExactArgs(1),
			ValidArgsFunction: g.completeComponents,
			RunE:              func(cmd *cobra.Command, args []string) error { return g.showComponent(args[0]) },
		},
	)
	return cmd
}

type componentEntry struct {
	Name        string `json:"name"`
	Role        string `json:"role"`
	Source      string `json:"source"`
	Installed   bool   `json:"installed"`
	Version     string `json:"version"`
	Origin      string `json:"origin"`
	Description string `json:"description"`
	Problem     string `json:"problem,omitempty"` // what is wrong with what is installed
}

func (g *global) listComponents(ctx context.Context) error {
	s, d, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	found, err := s.Inventory(ctx, s.Catalogue.All())
	if err != nil {
		return err
	}
	version, gone := map[string]string{}, map[string]string{}
	for _, in := range found {
		if in.Gone != "" {
			gone[in.Component.Name] = in.Problem
			continue
		}
		version[in.Component.Name] = orDash(in.Version.String())
	}
	doc := struct {
		Components []componentEntry `json:"components"`
	}{}
	for _, c := range s.Catalogue.All() {
		v, installed := version[c.Name]
		source := string(c.Source.Type)
		for _, more := range []string{c.Source.Repo, c.Source.Path, c.Source.URL} {
			if more != "" {
				source += ":" + more
			}
		}
		doc.Components = append(doc.Components, componentEntry{
			Name: c.Name, Role: string(c.Role), Source: source, Installed: installed, Version: v,
			Origin: s.Catalogue.Origin(c.Name), Description: c.Description, Problem: gone[c.Name],
		})
	}
	return g.print(doc, func(w io.Writer) error {
		var rows [][]string
		for _, c := range doc.Components {
			installed := orDash(c.Version)
			if c.Problem != "" {
				installed = "missing"
			}
			rows = append(rows, []string{c.Name, c.Role, installed, c.Source})
		}
		return table(w, []string{"Component", "Role", "Installed", "Source"}, rows)
	})
}

func (g *global) showComponent(name string) error {
	cat, err := catalogue.Load(layout.Root(g.root).ComponentsDir())
	if err != nil {
		return fmt.Errorf("%w: %w", stack.ErrConfig, err)
	}
	c, ok := cat.Get(name)
	if !ok {
		return unknownComponent(cat, name)
	}
	return g.print(c, func(w io.Writer) error {
		data, err := yaml.Marshal(c)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "# %s, %s\n%s", c.Name, cat.Origin(name), data)
		return err
	})
}

func unknownComponent(cat *catalogue.Catalogue, name string) error {
	msg := fmt.Sprintf("unknown component %q", name)
	if near := cat.Suggest(name); near != "" {
		msg += fmt.Sprintf("; did you mean %q?", near)
	}
	return &stack.UsageError{Message: msg, Hint: "observability-upgrade components list"}
}
