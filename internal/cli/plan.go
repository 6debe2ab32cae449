package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type planOptions struct {
	*global
	components []string
	target     string
	force      bool
}

func newPlan(g *global) *cobra.Command {
	o := &planOptions{global: g}
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what an upgrade would do, and run its pre-flight checks",
		Long: `Show what an upgrade would do, in which order, and run its pre-flight checks.
Nothing is changed and nothing is downloaded.`,
		Example: `  observability-upgrade plan
  observability-upgrade plan --target=patch
  observability-upgrade plan --component=prometheus@2.53.3 --component=node_exporter`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.planFlags(cmd)
	return cmd
}

// planFlags are those that plan and apply share.
func (o *planOptions) planFlags(cmd *cobra.Command) {
	o.componentFlag(cmd, &o.components, true)
	cmd.Flags().StringVar(&o.target, "target", "latest", "how far to go: latest, minor or patch")
	must(cmd.RegisterFlagCompletionFunc("target", cobra.FixedCompletions([]string{"latest", "minor", "patch"}, cobra.ShellCompDirectiveNoFileComp)))
}

func (o *planOptions) look() (stack.LookOptions, error) {
	names, pins, err := splitPins(o.components)
	if err != nil {
		return stack.LookOptions{}, err
	}
	target := plan.Target(o.target)
	switch target {
	case plan.Latest, plan.Minor, plan.Patch:
	default:
		return stack.LookOptions{}, &stack.UsageError{Message: "--target=" + o.target + ": want latest, minor or patch", Hint: "observability-upgrade plan --help"}
	}
	return stack.LookOptions{Components: names, Pins: pins, Target: target, Force: o.force}, nil
}

func (o *planOptions) run(ctx context.Context) error {
	look, err := o.look()
	if err != nil {
		return err
	}
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	prop, err := s.Propose(ctx, look, false)
	if err != nil {
		return err
	}
	return o.print(prop.Plan, func(w io.Writer) error { return plan.WritePlan(w, prop.Plan, o.style()) })
}
