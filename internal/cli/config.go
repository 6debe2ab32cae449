package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

func newConfig(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Check and show the configuration",
		Example: "  observability-upgrade config validate\n  observability-upgrade config show --origin",
	}
	cmd.AddCommand(newConfigValidate(g), newConfigShow(g), newConfigSchema(g))
	return cmd
}

func newConfigValidate(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Read every file of the configuration and tell everything that is wrong",
		Long: `Read the policy, the compatibility matrix, the notifications and all of
components.d, with the secrets they name and what they say of each other, and
tell everything that is wrong: file, line, column, key, and the nearest known
key. Exit code 2 when anything is.`,
		Example: `  observability-upgrade config validate
  observability-upgrade config validate --root=/srv/staged --output=json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.configValidate(cmd.Context()) },
	}
}

func (g *global) configValidate(ctx context.Context) error {
	r := stack.CheckConfig(ctx, layout.Root(g.root), g.Env)
	err := g.print(r, func(w io.Writer) error {
		for _, f := range r.Files {
			state := "ok"
			switch {
			case !f.OK:
				state = "WRONG"
			case !f.Present:
				state = "not present: defaults"
			}
			fmt.Fprintf(w, "%s: %s\n", f.Path, state)
		}
		for _, e := range r.Errors {
			fmt.Fprintf(w, "\nerror: %s\n", e)
		}
		for _, e := range r.Warnings {
			fmt.Fprintf(w, "\nwarning: %s\n", e)
		}
		return nil
	})
	if err == nil && len(r.Errors) > 0 {
		return codeError{exitUsage}
	}
	return err
}
