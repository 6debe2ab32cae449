package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type autoOptions struct {
	*global
	policy   string
	schedule []string
	delay    time.Duration
}

func newAutoEnable(g *global) *cobra.Command {
	o := &autoOptions{global: g}
	cmd := &cobra.Command{
		Use:   "auto-enable --policy=patch_only|minor|any",
		Short: "Let a systemd timer upgrade unattended",
		Long: `Let a systemd timer run 'apply --auto': it obeys the policies of auto_upgrade and
begins only inside a maintenance window. --policy is what goes for components
that auto_upgrade.policies does not name; for them auto_upgrade.default_policy
does not count.

Without --schedule the timer fires at the start of each maintenance window, and
without windows every day at 03:00. The units are observability-upgrade.timer
and .service in /etc/systemd/system; changes of yours belong into drop-ins
("systemctl edit"), which are left alone. The unit that finishes an interrupted
run at boot is enabled too. Doing it again changes nothing, unless the
maintenance windows are others: then the timer fires as they begin now. What
${VARIABLE} stands for in the configuration is /etc/observability/environment's
to say, not the shell's.`,
		Example: `  observability-upgrade auto-enable --policy=patch_only
  observability-upgrade auto-enable --policy=minor --schedule="Sat *-*-* 02:30:00 Europe/Berlin"
  observability-upgrade auto-status`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.enable(cmd.Context()) },
	}
	allowed := levels[:3] // none would be a timer that does nothing
	f := cmd.Flags()
	f.StringVar(&o.policy, "policy", "", "how far to go: "+strings.Join(allowed, ", ")+" (required)")
	f.StringArrayVar(&o.schedule, "schedule", nil, "when, as a calendar expression of systemd.time(7) (may be given several times)")
	f.DurationVar(&o.delay, "randomized-delay", stack.DefaultDelay, "wait up to so much, at random, so that not all hosts begin at once; at most half of the shortest maintenance window")
	must(cmd.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *autoOptions) enable(ctx context.Context) error {
	usage := func(format string, args ...any) error {
		return &stack.UsageError{Message: fmt.Sprintf(format, args...), Hint: "observability-upgrade auto-enable --help"}
	}
	switch {
	case !slices.Contains(levels[:3], o.policy):
		return usage("--policy=%s: want %s", o.policy, strings.Join(levels[:3], ", "))
	case o.delay < 0:
		return usage("--randomized-delay=%s is negative", o.delay)
	}
	for _, s := range o.schedule {
		if err := checkCalendar(ctx, s); err != nil {
			return usage("--schedule=%q: %v", s, err)
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	var changed []string
	err = s.Mutate(ctx, "auto-enable", o.args, func(ctx context.Context) (string, error) {
		var err error
		changed, err = s.AutoEnable(ctx, stack.AutoOptions{Policy: o.policy, Schedule: o.schedule, Delay: o.delay, Program: program})
		return "", err
	})
	if err != nil {
		return err
	}
	first := "Unattended upgrades are enabled."
	if len(changed) == 0 {
		first = "Unattended upgrades were enabled so already; nothing was changed."
	}
	return o.autoStatus(ctx, s, first)
}

// checkCalendar asks systemd about a calendar expression, where it is there to
// be asked.
func checkCalendar(ctx context.Context, s string) error {
	if strings.TrimSpace(s) == "" || strings.ContainsAny(s, "\n\r") {
		return fmt.Errorf("want a calendar expression such as \"Sat *-*-* 02:00:00\"")
	}
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "calendar", "--", s).CombinedOutput()
	if err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("systemd says: %s", first)
	}
	return nil
}

func newAutoDisable(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "auto-disable",
		Short:   "End unattended upgrades",
		Long:    "Stop and remove the timer and its service. Drop-ins of yours stay, and so does\nthe unit that finishes an interrupted run at boot.",
		Example: "  observability-upgrade auto-disable",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			s, d, err := g.open(ctx)
			if err != nil {
				return err
			}
			defer s.Close()
			defer d.close()
			was := false
			err = s.Mutate(ctx, "auto-disable", g.args, func(ctx context.Context) (string, error) {
				var err error
				was, err = s.AutoDisable(ctx)
				return "", err
			})
			if err != nil {
				return err
			}
			first := "Unattended upgrades are disabled."
			if !was {
				first = "Unattended upgrades were not enabled; nothing was changed."
			}
			return g.autoStatus(ctx, s, first)
		},
	}
}

func newAutoStatus(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "auto-status",
		Short:   "Show whether and when upgrades run unattended",
		Example: "  observability-upgrade auto-status\n  observability-upgrade auto-status --output=json | jq .next_run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, d, err := g.open(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			defer d.close()
			return g.autoStatus(cmd.Context(), s, "")
		},
	}
}

func (g *global) autoStatus(ctx context.Context, s *stack.Stack, first string) error {
	doc, err := s.AutoStatus(ctx)
	if err != nil {
		return err
	}
	return g.print(doc, func(w io.Writer) error {
		if first != "" {
			fmt.Fprintln(w, first)
		} else if doc.Enabled {
			fmt.Fprintln(w, "Unattended upgrades are enabled.")
		} else {
			fmt.Fprintln(w, "Unattended upgrades are not enabled.")
		}
		at := func(t *time.Time) string {
			if t == nil {
				return "-"
			}
			return t.Local().Format("Mon 2006-01-02 15:04:05 MST")
		}
		windows := "none: any time"
		if len(doc.Windows) > 0 {
			windows = strings.Join(doc.Windows, ", ")
		}
		_, err := fmt.Fprintf(w, "  policy    %s\n  schedule  %s\n  next run  %s\n  last run  %s\n  windows   %s\n",
			orDash(doc.Policy), orDash(doc.Schedule), at(doc.NextRun), at(doc.LastRun), windows)
		for _, warning := range doc.Warnings {
			fmt.Fprintf(w, "\nwarning: %s\n", warning)
		}
		return err
	})
}
