package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type restartOptions struct {
	*global
	components []string
	all        bool
	strategy   string
	pause      time.Duration
}

func newRestart(g *global) *cobra.Command {
	o := &restartOptions{global: g}
	cmd := &cobra.Command{
		Use:   "restart",
		Short: "Restart components, or start those that are not running, and prove them healthy",
		Long: `Restart components one at a time and prove each healthy before the next. A
component that is not running is started. graceful stops it, waits for the end
and starts it; fast leaves both to the service manager; reload makes it read its
configuration again where it can, proves that it did, and restarts it gracefully
where it cannot.

With --all the order is data stores, shippers, exporters, alerting, UI, proxy,
with a pause in between, and at the end the links between the components are
tested (as verify --integration does). Of several instances one is restarted at
a time, out of the balancer.`,
		Example: `  observability-upgrade restart --component=prometheus
  observability-upgrade restart --component=prometheus --strategy=reload
  observability-upgrade restart --all
  observability-upgrade restart --all --pause=30s`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.componentFlag(cmd, &o.components, false)
	cmd.Flags().BoolVar(&o.all, "all", false, "all that are installed: data stores, shippers, exporters, alerting, UI, proxy")
	cmd.Flags().StringVar(&o.strategy, "strategy", string(run.Graceful), "graceful, fast or reload")
	cmd.Flags().DurationVar(&o.pause, "pause", 5*time.Second, "with --all: how long to wait between one component and the next")
	must(cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions([]string{"graceful", "fast", "reload"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *restartOptions) run(ctx context.Context) error {
	strategy := run.Strategy(o.strategy)
	switch strategy {
	case run.Graceful, run.Fast, run.Reload:
	default:
		return &stack.UsageError{Message: "--strategy=" + o.strategy + ": want graceful, fast or reload", Hint: "observability-upgrade restart --help"}
	}
	if o.pause < 0 {
		return &stack.UsageError{Message: fmt.Sprintf("--pause=%s: want a duration such as 5s", o.pause), Hint: "observability-upgrade restart --help"}
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
	var doc stack.Restarted
	err = s.Mutate(ctx, "restart", o.args, func(ctx context.Context) (string, error) {
		opts := stack.RestartOptions{Components: o.components, Strategy: strategy}
		if o.all {
			opts.Pause = o.pause
		}
		var err error
		doc, err = s.Restart(ctx, opts)
		return doc.ID, err
	})
	if err != nil {
		return err
	}
	return o.print(doc, func(w io.Writer) error {
		if len(doc.Integration) > 0 {
			if err := writeIntegration(w, doc.Integration); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(w, "%d restarted, all healthy.\n", len(doc.Components))
		return err
	})
}
