package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/health"
)

func newVerify(g *global) *cobra.Command {
	var components []string
	var integration bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Test the health of what is installed, and the links between",
		Long: `Test the health of what is installed: the unit, readiness, the expected metric and
version, what each definition asks for (functional), the log of this start, and
the use of processors and memory over a second. With --integration also the links
between components: whether Prometheus reaches its Alertmanagers, whether logs
arrive in Loki, whether Grafana can query its data sources. What could not be
tested is listed as skipped, with the reason.

The exit code is 1 when anything is unhealthy. "inconclusive" is not: nothing
shows that the component is broken, but something it depends on did not answer.`,
		Example: `  observability-upgrade verify
  observability-upgrade verify --integration
  observability-upgrade verify --component=prometheus --output=json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.verify(cmd.Context(), components, integration) },
	}
	g.componentFlag(cmd, &components, false)
	cmd.Flags().BoolVar(&integration, "integration", false, "test the links between components too")
	return cmd
}

func (g *global) verify(ctx context.Context, components []string, integration bool) error {
	s, d, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	v, err := s.Verify(ctx, components, integration)
	if err != nil {
		return err
	}
	err = g.print(v, func(w io.Writer) error {
		for _, r := range v.Components {
			if err := writeReport(w, r); err != nil {
				return err
			}
		}
		return writeIntegration(w, v.Integration)
	})
	if err == nil && v.Unhealthy() {
		return codeError{exitError}
	}
	return err
}

func writeReport(w io.Writer, r health.Report) error {
	name, verdict := r.Name, string(r.Verdict)
	if r.Instance != "" {
		name += "@" + r.Instance
	}
	if !r.Healthy {
		verdict = "UNHEALTHY"
	}
	fmt.Fprintf(w, "%s: %s\n", name, verdict)
	return writeChecks(w, r.Checks)
}

func writeIntegration(w io.Writer, checks []health.Check) error {
	if len(checks) == 0 {
		return nil
	}
	fmt.Fprintln(w, "links:")
	return writeChecks(w, checks)
}

func writeChecks(w io.Writer, checks []health.Check) error {
	width := 10
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	for _, c := range checks {
		if _, err := fmt.Fprintf(w, "  %-7s %-*s  %s\n", c.Status, width, c.Name, c.Detail); err != nil {
			return err
		}
	}
	return nil
}
