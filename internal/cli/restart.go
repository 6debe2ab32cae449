package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type restartOptions struct {
	*global
	components []string
	all        bool
	strategy   string
}

func newRestart(g *global) *cobra.Command {
	o := &restartOptions{global: g}
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Restart components, or start those that are not running, and prove them healthy",
		Long: `Restart components one at a time and prove each healthy before the next. A
component that is not running is started. reload makes a component read its
configuration again where it can, and restarts it gracefully where it cannot.`,
		Example: `  observability-upgrade restart --component=prometheus
  observability-upgrade restart --component=prometheus --strategy=reload
  observability-upgrade restart --all`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.componentFlag(cmd, &o.components, false)
	cmd.Flags().BoolVar(&o.all, "all", false, "all that are installed: data stores, shippers, exporters, alerting, UI, proxy")
	cmd.Flags().StringVar(&o.strategy, "strategy", string(stack.Graceful), "graceful, fast or reload")
	must(cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions([]string{"graceful", "fast", "reload"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *restartOptions) run(ctx context.Context) error {
	strategy := stack.Strategy(o.strategy)
	switch strategy {
	case stack.Graceful, stack.Fast, stack.Reload:
	default:
		return &stack.UsageError{Message: "--strategy=" + o.strategy + ": want graceful, fast or reload", Hint: "observability-upgrade restart --help"}
	}
	if o.all == (len(o.components) > 0) {
		return &stack.UsageError{Message: "give either --component=NAME or --all", Hint: "observability-upgrade restart --help"}
	}
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	doc := struct {
		Components []health.Report `json:"components"`
	}{Components: []health.Report{}}
	err = s.Mutate(ctx, "restart", o.args, func(ctx context.Context) (string, error) {
		names := o.components
		if o.all {
			var err error
			if names, err = s.RestartOrder(ctx); err != nil {
				return "", err
			}
		}
		for _, name := range names {
			d.line("%-20s restart   %s", name, strategy)
			r, err := s.Restart(ctx, name, strategy)
			if err != nil {
				return "", err
			}
			doc.Components = append(doc.Components, r)
			if !r.Healthy {
				return "", fmt.Errorf("%s is not healthy after the restart: %s", name, r.Failures())
			}
			d.line("%-20s healthy   pid %d", name, r.PID)
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	return o.print(doc, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d restarted, all healthy.\n", len(doc.Components))
		return err
	})
}
