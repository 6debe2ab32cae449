package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

func newStatus(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what is installed, how it is, and how the last run ended",
		Example: `  observability-upgrade status
  observability-upgrade status --output=json | jq .interrupted_run`,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.status(cmd.Context()) },
	}
}

func (g *global) status(ctx context.Context) error {
	s, d, err := g.openFor(ctx, stack.Little)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	doc, err := s.Status(ctx)
	if doc == nil {
		return err
	}
	full := struct {
		*stack.Status
		Error *errorDocument `json:"error,omitempty"` // why it is not known whether a run was cut off
	}{Status: doc}
	if err != nil {
		full.Error = g.errorOf(ctx, err)
		err = &resultError{err: err}
	}
	return errors.Join(err, g.print(full, func(w io.Writer) error {
		var rows [][]string
		for _, c := range doc.Components {
			upgraded := "-"
			if c.UpgradedAt != nil {
				upgraded = c.UpgradedAt.Format("2006-01-02 15:04")
			}
			units := orDash(c.Service)
			if len(c.Instances) > 0 {
				units = "" // each has its own
			}
			rows = append(rows, []string{c.Name, orDash(c.Current), orDash(c.Previous), condition(c.Active, c.Healthy, c.Unknown), units, upgraded})
			for _, i := range c.Instances {
				rows = append(rows, []string{"  " + i.Name, orDash(i.Current), "", condition(i.Active, i.Healthy, i.Unknown), orDash(i.Service), ""})
			}
		}
		if len(rows) == 0 {
			fmt.Fprintln(w, "No component was found on this host: observability-upgrade components list")
		} else if err := table(w, []string{"Component", "Current", "Previous", "State", "Service", "Upgraded"}, rows); err != nil {
			return err
		}
		for _, c := range doc.Components {
			if c.Detail != "" {
				fmt.Fprintf(w, "\n%s: %s\n", c.Name, c.Detail)
			}
		}
		for _, c := range doc.Components {
			if c.Vulnerable != nil && *c.Vulnerable {
				fmt.Fprintf(w, "\n%s has known vulnerabilities: observability-upgrade vulnerabilities --component=%s\n", c.Name, c.Name)
			}
		}
		if doc.LastRun != nil {
			fmt.Fprintf(w, "\nLast run: %s, %s\n", doc.LastRun.ID, doc.LastRun.Status)
		}
		if doc.RunningPID != 0 {
			fmt.Fprintf(w, "\nA run is going on now, in process %d.\n", doc.RunningPID)
		}
		if in := doc.InterruptedRun; in != nil {
			fmt.Fprintf(w, "\nINTERRUPTED: run %s (%s) stopped at step %q of %s.\nnext:  %s\n", in.ID, in.Operation, in.Step, orDash(in.Component), g.typed("observability-upgrade recover"))
		}
		return nil
	}))
}

// condition is how a component or an instance of it is, in a word.
func condition(active, healthy, unknown bool) string {
	switch {
	case healthy:
		return "healthy"
	case unknown:
		return "NOT KNOWN"
	case active:
		return "UNHEALTHY"
	}
	return "NOT RUNNING"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
