package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type holdOptions struct {
	*global
	reason string
	until  string
}

func newHold(g *global) *cobra.Command {
	o := &holdOptions{global: g}
	cmd := &cobra.Command{
		Use:   "hold COMPONENT[@VERSIONS] --reason=TEXT",
		Short: "Keep a component from being upgraded, or from some versions",
		Long: `Keep a component from being upgraded, or from going to some versions: one, or a
range such as 3.x or ">=3.0.0". Versions among which the installed one is keep the
component where it is. check and plan show the hold with its reason. Naming a version with --component=NAME@VERSION goes there all the same.

Holds are kept on this host, in var/lib/observability/holds.json; those that
configuration management sets belong under holds in upgrade-policy.yaml.`,
		Example: `  observability-upgrade hold loki --reason="schema change pending"
  observability-upgrade hold prometheus@3.x --reason="dashboards use 2.x queries" --until=2027-01-31
  observability-upgrade unhold loki`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeComponents,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringVar(&o.reason, "reason", "", "why; shown wherever the hold is (required)")
	cmd.Flags().StringVar(&o.until, "until", "", "when it ends: a date (as that day begins in UTC) or a time such as 2026-12-31T06:00:00Z; never, when left out")
	return cmd
}

// holdDocument is the result of hold and unhold.
type holdDocument struct {
	Component string     `json:"component"`
	Version   string     `json:"version"` // the range held; "" for all
	Reason    string     `json:"reason"`
	Until     *time.Time `json:"until"`
	Held      bool       `json:"held"`
}

func (o *holdOptions) run(ctx context.Context, arg string) error {
	name, versions, _ := strings.Cut(arg, "@")
	if strings.TrimSpace(o.reason) == "" {
		return &stack.UsageError{Message: "--reason is missing: whoever finds the component held will want to know why", Hint: "observability-upgrade hold " + arg + ` --reason="…"`}
	}
	until, err := config.Hold{Until: o.until}.UntilTime()
	if err != nil {
		return &stack.UsageError{Message: fmt.Sprintf("--until: %v", err), Hint: "observability-upgrade hold --help"}
	}
	if !until.IsZero() && !until.After(time.Now()) {
		return &stack.UsageError{Message: fmt.Sprintf("--until=%s is not in the future", o.until), Hint: "observability-upgrade hold --help"}
	}
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	if err := s.Mutate(ctx, "hold", o.args, func(context.Context) (string, error) { return "", s.Hold(name, versions, o.reason, until) }); err != nil {
		return err
	}
	doc := holdDocument{Component: name, Version: versions, Reason: o.reason, Held: true}
	what := name
	if versions != "" {
		what += " " + versions
	}
	end := ""
	if !until.IsZero() {
		doc.Until = &until
		end = " until " + until.UTC().Format("2006-01-02 15:04 MST")
	}
	return o.print(doc, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s is on hold%s: %s\n", what, end, o.reason)
		return err
	})
}

func newUnhold(g *global) *cobra.Command {
	return &cobra.Command{
		Use:               "unhold COMPONENT",
		Short:             "End the holds that `hold` set for a component",
		Long:              "End all holds that `hold` set for a component. One that is written in\nupgrade-policy.yaml stays; the message names its line.",
		Example:           "  observability-upgrade unhold loki",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeComponents,
		RunE:              func(cmd *cobra.Command, args []string) error { return unhold(cmd.Context(), g, args[0]) },
	}
}

func unhold(ctx context.Context, g *global, name string) error {
	s, d, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	n, stays := 0, ""
	err = s.Mutate(ctx, "unhold", g.args, func(context.Context) (string, error) {
		var err error
		n, stays, err = s.Unhold(name)
		return "", err
	})
	if err != nil {
		return err
	}
	return g.print(holdDocument{Component: name, Held: stays != "", Reason: stays}, func(w io.Writer) error {
		msg := name + " is no longer on hold."
		switch {
		case stays != "":
			msg = "What `hold` had set is ended, but " + stays + "; take it out of that file."
		case n == 0:
			msg = name + " was not on hold; nothing was changed."
		}
		_, err := fmt.Fprintln(w, msg)
		return err
	})
}
