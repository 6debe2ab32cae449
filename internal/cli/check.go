package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type checkOptions struct {
	*global
	components []string
	refresh    bool
	exitCode   bool
}

func newCheck(g *global) *cobra.Command {
	o := &checkOptions{global: g}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Tell which components have newer releases",
		Long: `Tell which components have newer releases, and why those that are held back are.

Upstream answers are cached for upstream.cache_ttl (15 minutes); --refresh asks
again. An upstream that cannot be asked is reported as unknown, never as "no
update"; when none can be asked the exit code is 9.`,
		Example: `  observability-upgrade check
  observability-upgrade check --component=prometheus --refresh
  observability-upgrade check --exit-code --quiet      # 3 when there is something to do`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	o.componentFlag(cmd, &o.components, false)
	f.BoolVar(&o.refresh, "refresh", false, "ask upstream even if the last answer is recent")
	f.BoolVar(&o.exitCode, "exit-code", false, "exit with 3 when updates are available")
	return cmd
}

func (o *checkOptions) run(ctx context.Context) error {
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	look := stack.LookOptions{Components: o.components, Target: plan.Latest, Refresh: o.refresh}
	view, err := s.Look(ctx, look)
	var unknown *stack.UpstreamUnknownError
	if err != nil && !errors.As(err, &unknown) {
		return err
	}
	s.Checked(view, look)
	report := plan.Check(view.Input)
	if unknown != nil && !o.json() {
		if perr := plan.WriteCheck(o.Out, report, o.style()); perr != nil {
			return perr
		}
		return err
	}
	doc := struct {
		plan.CheckReport
		Error *errorDocument `json:"error,omitempty"`
	}{CheckReport: report}
	if unknown != nil {
		doc.Error = o.errorOf(ctx, err)
	}
	if perr := o.print(doc, func(w io.Writer) error { return plan.WriteCheck(w, report, o.style()) }); perr != nil {
		return perr
	}
	if unknown != nil {
		return codeError{exitUpstream}
	}
	if o.exitCode {
		for _, c := range report.Components {
			if c.Action == plan.ActionUpgrade {
				return codeError{exitUpdates}
			}
		}
	}
	return nil
}
