package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/metrics"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

func newMetrics(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print the Prometheus metrics once",
		Long: `Print the metrics that 'serve' has at /metrics, once, in Prometheus's text form.
They are made from files alone; nothing is asked and nothing is changed.

For node_exporter's textfile collector there is no need to call this from cron:
with 'metrics: {textfile: FILE.prom}' in upgrade-policy.yaml each command that
changes or finds out anything writes the file. docs/monitoring.md lists the
metrics.`,
		Example: `  observability-upgrade metrics
  observability-upgrade metrics | promtool check metrics`,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.metrics(cmd.Context()) },
	}
}

func (g *global) metrics(ctx context.Context) error {
	if g.json() {
		return &stack.UsageError{Message: "metrics have one form, which is not JSON", Hint: "observability-upgrade metrics; as JSON there is: observability-upgrade status --output=json"}
	}
	s, d, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	o, err := s.Overview(ctx)
	if err != nil {
		return err
	}
	for _, p := range o.Problems {
		d.notice(fmt.Sprintf("%s; metrics made from it are absent", p))
	}
	return metrics.Write(g.Out, o)
}
