package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type adoptOptions struct {
	*global
	components []string
	yes        bool
	dryRun     bool
}

func newAdopt(g *global) *cobra.Command {
	o := &adoptOptions{global: g}
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Find installed components and write them into the state file",
		Long: `Find installed components: their binaries (where their unit really starts them
from), versions and units, and write them into the state file. Binaries that a
package owns are refused, with advice. Nothing else is changed.

A component of the state file whose binary is gone stays there until it comes
back or is named: it was removed on purpose, and is forgotten.`,
		Example: `  observability-upgrade adopt --dry-run
  observability-upgrade adopt --yes
  observability-upgrade adopt --component=prometheus`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.componentFlag(cmd, &o.components, false)
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would be written, write nothing")
	return cmd
}

func (o *adoptOptions) run(ctx context.Context) error {
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	doc := struct {
		Components []stack.Adoption `json:"components"`
		Written    bool             `json:"written"`
	}{Components: []stack.Adoption{}}
	if o.dryRun {
		found, err := s.PlanAdopt(ctx, o.components)
		if err != nil {
			return err
		}
		doc.Components = append(doc.Components, found...)
		return o.print(doc, func(w io.Writer) error {
			if err := writeAdoptions(w, found); err != nil {
				return err
			}
			_, err := fmt.Fprintln(w, "\nDry run: nothing was written.")
			return err
		})
	}
	err = s.Mutate(ctx, "adopt", o.args, func(ctx context.Context) (string, error) {
		found, err := s.PlanAdopt(ctx, o.components)
		if err != nil {
			return "", err
		}
		doc.Components = append(doc.Components, found...)
		if !o.yes && o.InTTY && adds(found) {
			if err := writeAdoptions(o.Err, found); err != nil {
				return "", err
			}
			if err := o.confirm(ctx, "\nWrite this into the state file?"); err != nil {
				return "", err
			}
		}
		doc.Written, err = s.Adopt(ctx, found)
		return "", err
	})
	if errors.Is(err, errCancelled) {
		return o.cancelled(ctx, doc, "written")
	}
	if err != nil {
		return err
	}
	return o.print(doc, func(w io.Writer) error {
		if err := writeAdoptions(w, doc.Components); err != nil {
			return err
		}
		msg := "Nothing new: the state file is as it was."
		if doc.Written {
			msg = o.typed("Written. Next: observability-upgrade check")
		}
		_, err := fmt.Fprintln(w, "\n"+msg)
		return err
	})
}

func adds(found []stack.Adoption) bool {
	for _, a := range found {
		if a.Action == "adopt" || a.Action == "update" || a.Action == "forget" {
			return true
		}
	}
	return false
}

func writeAdoptions(w io.Writer, found []stack.Adoption) error {
	if len(found) == 0 {
		_, err := fmt.Fprintln(w, "No component was found. What is looked for: observability-upgrade components list")
		return err
	}
	var rows [][]string
	for _, a := range found {
		rows = append(rows, []string{a.Name, orDash(a.Version), a.Action, a.Path, orDash(a.Service)})
	}
	if err := table(w, []string{"Component", "Version", "Action", "Binary", "Service"}, rows); err != nil {
		return err
	}
	for _, a := range found {
		if a.Reason != "" {
			fmt.Fprintf(w, "\n%s: %s\n", a.Name, a.Reason)
		}
	}
	return nil
}
