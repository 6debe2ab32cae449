package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type configShowOptions struct {
	*global
	origin bool
}

func newConfigShow(g *global) *cobra.Command {
	o := &configShowOptions{global: g}
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the configuration in force, defaults and built-in knowledge included",
		Long: `Show the configuration in force: the policy with its defaults, the matrix with
what is built in below it, and the notifications. Secrets are not shown. With
--origin each value says where it comes from: a file and line, an environment
variable, a default, or what is built in.`,
		Example: `  observability-upgrade config show
  observability-upgrade config show --origin
  observability-upgrade config show --output=json | jq .policy.timeouts`,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	cmd.Flags().BoolVar(&o.origin, "origin", false, "add where each value comes from")
	return cmd
}

func (o *configShowOptions) run() error {
	e, err := stack.EffectiveConfig(layout.Root(o.root), o.Env)
	if err != nil {
		return err
	}
	return o.print(e.Document(), func(w io.Writer) error {
		for _, section := range e.Sections {
			fmt.Fprintf(w, "# %s\n", section.File)
			if err := writeYAML(w, section, o.origin); err != nil {
				return err
			}
			fmt.Fprintln(w)
		}
		return nil
	})
}

// writeYAML writes a section as YAML, with the origin of each value as a comment
// behind it.
func writeYAML(w io.Writer, s stack.Section, origin bool) error {
	return emit(w, yaml.MapSlice{{Key: s.Name, Value: s.Value}}, nil, "", func(path []any) string {
		if !origin || len(path) < 2 {
			return ""
		}
		return "  # " + s.Origin(path[1:])
	})
}

func emit(w io.Writer, v any, path []any, indent string, comment func([]any) string) error {
	switch x := v.(type) {
	case yaml.MapSlice:
		for _, item := range x {
			if err := emitEntry(w, fmt.Sprint(scalar(item.Key))+":", item.Value, append(path[:len(path):len(path)], item.Key), indent, comment); err != nil {
				return err
			}
		}
	case []any:
		for i, item := range x {
			if err := emitEntry(w, "-", item, append(path[:len(path):len(path)], i), indent, comment); err != nil {
				return err
			}
		}
	}
	return nil
}

func emitEntry(w io.Writer, lead string, v any, path []any, indent string, comment func([]any) string) error {
	empty := false
	switch x := v.(type) {
	case yaml.MapSlice:
		empty = len(x) == 0
	case []any:
		empty = len(x) == 0
	default:
		_, err := fmt.Fprintf(w, "%s%s %s%s\n", indent, lead, scalar(v), comment(path))
		return err
	}
	if empty {
		_, err := fmt.Fprintf(w, "%s%s %s%s\n", indent, lead, scalar(v), comment(path))
		return err
	}
	if _, err := fmt.Fprintf(w, "%s%s\n", indent, lead); err != nil {
		return err
	}
	return emit(w, v, path, indent+"  ", comment)
}

// scalar writes one value as YAML has it.
func scalar(v any) string {
	switch x := v.(type) {
	case yaml.MapSlice:
		return "{}"
	case []any:
		return "[]"
	case string:
		if strings.ContainsAny(x, "\n\r") {
			quoted, err := json.Marshal(x)
			if err == nil {
				return string(quoted)
			}
		}
	}
	data, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%q", fmt.Sprint(v))
	}
	return strings.TrimSpace(string(data))
}
