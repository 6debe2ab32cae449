package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type planOptions struct {
	*global
	components []string
	target     string
	force      bool
	auto       bool
	policy     string
	dataBackup bool
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
  observability-upgrade plan --auto            # what an unattended run would do
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
	cmd.Flags().BoolVar(&o.dataBackup, "backup-data", false, "keep a copy of the data of every component that is upgraded (a way back that needs one always keeps it)")
	cmd.Flags().BoolVar(&o.auto, "auto", false, "as an unattended run: obey auto_upgrade's policies")
	cmd.Flags().StringVar(&o.policy, "policy", "", "with --auto, the policy of components that auto_upgrade.policies does not name: "+strings.Join(levels, ", "))
	must(cmd.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(levels, cobra.ShellCompDirectiveNoFileComp)))
}

// levels are what an unattended run's policy may be.
var levels = []string{string(plan.PatchOnly), string(plan.MinorLevel), string(plan.Any), string(plan.None)}

// unattended refuses what only a person may decide.
func (o *planOptions) unattended(pins int) error {
	refuse := func(format string, args ...any) error {
		return &stack.UsageError{Message: fmt.Sprintf(format, args...), Hint: "observability-upgrade plan --help"}
	}
	switch {
	case o.policy != "" && !o.auto:
		return refuse("--policy is for unattended runs; give --auto as well")
	case o.policy != "" && !slices.Contains(levels, o.policy):
		return refuse("--policy=%s: want %s", o.policy, strings.Join(levels, ", "))
	case o.auto && o.force:
		return refuse("--force is for a person to give: an unattended run goes through no one-way door and overrides nothing")
	case o.auto && pins > 0:
		return refuse("a version (NAME@VERSION) is for a person to name; an unattended run obeys holds and policies")
	}
	return nil
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
	if err := o.unattended(len(pins)); err != nil {
		return stack.LookOptions{}, err
	}
	return stack.LookOptions{Components: names, Pins: pins, Target: target, Force: o.force, Auto: o.auto, Policy: o.policy, DataBackup: o.dataBackup}, nil
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
