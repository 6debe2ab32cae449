package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/stack"
	"github.com/observability-upgrade/observability-upgrade/schemas"
)

// allSchemas stands for every schema in one document.
const allSchemas = "all"

// schemaFiles says which file each schema is of.
var schemaFiles = map[string]string{
	"policy":        "etc/observability/upgrade-policy.yaml",
	"matrix":        "etc/observability/compatibility-matrix.yaml",
	"notifications": "etc/observability/notifications.yaml",
	"component":     "etc/observability/components.d/NAME.yaml",
}

func newConfigSchema(g *global) *cobra.Command {
	names := schemas.ConfigNames()
	var all bool
	cmd := &cobra.Command{
		Use:   "schema [" + strings.Join(append(names, allSchemas), "|") + "]",
		Short: "Print the JSON Schema of a configuration file, for editors",
		Long: `Print the JSON Schema of a configuration file; without a name, list which
there are; with "all", all of them as one JSON object by name. Editors that speak
to yaml-language-server complete and check keys with one, when the file begins
with
  # yaml-language-server: $schema=./policy.schema.json`,
		Example: `  observability-upgrade config schema
  observability-upgrade config schema policy > policy.schema.json
  observability-upgrade config schema all`,
		ValidArgs: append(names, allSchemas),
		Args:      cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case all || len(args) == 1 && args[0] == allSchemas:
				return g.printAllSchemas(names)
			case len(args) == 0:
				return g.listSchemas(names)
			}
			data := schemas.Config(args[0])
			if data == nil {
				return &stack.UsageError{Message: fmt.Sprintf("there is no schema %q; there are %s", args[0], strings.Join(names, ", ")), Hint: "observability-upgrade config schema"}
			}
			_, err := g.Out.Write(data)
			return err
		},
	}
	cmd.Flags().BoolVar(&all, allSchemas, false, "print all of them as one JSON object by name")
	return cmd
}

// listSchemas prints a line for each schema.
func (g *global) listSchemas(names []string) error {
	type schema struct {
		Name string `json:"name"`
		File string `json:"file"`
	}
	doc := struct {
		Schemas []schema `json:"schemas"`
	}{}
	rows := [][]string{}
	for _, n := range names {
		doc.Schemas = append(doc.Schemas, schema{n, schemaFiles[n]})
		rows = append(rows, []string{n, schemaFiles[n]})
	}
	return g.print(doc, func(w io.Writer) error {
		if err := table(w, []string{"Schema", "File"}, rows); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "\nobservability-upgrade config schema NAME prints one, config schema all prints all.")
		return err
	})
}

func (g *global) printAllSchemas(names []string) error {
	doc := map[string]json.RawMessage{}
	for _, n := range names {
		doc[n] = schemas.Config(n)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := g.Out.Write(out.Bytes())
	return err
}
