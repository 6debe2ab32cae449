package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/stack"
	"github.com/observability-upgrade/observability-upgrade/schemas"
)

func newConfigSchema(g *global) *cobra.Command {
	names := schemas.ConfigNames()
	return &cobra.Command{
		Use:   "schema " + strings.Join(names, "|"),
		Short: "Print the JSON Schema of a configuration file, for editors",
		Long: `Print the JSON Schema of a configuration file. Editors that speak to
yaml-language-server complete and check keys with it, when the file begins with

  # yaml-language-server: $schema=./policy.schema.json`,
		Example:   "  observability-upgrade config schema policy > policy.schema.json",
		ValidArgs: names,
		Args:      cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data := schemas.Config(args[0])
			if data == nil {
				return &stack.UsageError{Message: fmt.Sprintf("there is no schema %q; there are %s", args[0], strings.Join(names, ", ")), Hint: "observability-upgrade config schema --help"}
			}
			_, err := g.Out.Write(data)
			return err
		},
	}
}
