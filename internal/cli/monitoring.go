package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/monitoring"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

func newMonitoring(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "monitoring",
		Short:   "Alert rules for Prometheus and a dashboard for Grafana",
		Example: "  observability-upgrade monitoring install\n  observability-upgrade monitoring show rules",
	}
	cmd.AddCommand(newMonitoringShow(g), newMonitoringInstall(g))
	return cmd
}

func newMonitoringShow(g *global) *cobra.Command {
	kinds := []string{monitoring.KindRules, monitoring.KindDashboard}
	return &cobra.Command{
		Use:       "show rules|dashboard",
		Short:     "Print the alert rules, or the dashboard",
		Example:   "  observability-upgrade monitoring show rules | promtool check rules /dev/stdin\n  observability-upgrade monitoring show dashboard > dashboard.json   # to import by hand",
		ValidArgs: kinds,
		Args:      cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data := monitoring.Rules()
			switch args[0] {
			case monitoring.KindRules:
			case monitoring.KindDashboard:
				data = monitoring.Dashboard()
			default:
				return &stack.UsageError{Message: fmt.Sprintf("there is no %q; there are rules and dashboard", args[0]), Hint: "observability-upgrade monitoring show --help"}
			}
			_, err := g.Out.Write(data)
			return err
		},
	}
}

type monitoringOptions struct {
	*global
	stack.MonitoringOptions
}

func newMonitoringInstall(g *global) *cobra.Command {
	o := &monitoringOptions{global: g}
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Put the alert rules where Prometheus reads them, and the dashboard where Grafana does",
		Long: `Put the alert rules into a directory that Prometheus reads rules from, and, with
--dashboard, the dashboard into one that Grafana provisions dashboards from. The
rules are checked with promtool first, where it is installed. What is there
already is not written again; a file that people changed is left alone, unless
--force is given. After an upgrade of this program, do it again.

Prometheus loads the rules when its rule_files name them and it is told to
reload; the command says what is missing. docs/monitoring.md tells what each
alert means.`,
		Example: `  observability-upgrade monitoring install --dry-run
  observability-upgrade monitoring install
  observability-upgrade monitoring install --rules=none --dashboard=/var/lib/grafana/dashboards`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Rules, "rules", "", "directory or file (.yml) for the alert rules, or none; etc/prometheus/rules below the root, when left out")
	f.StringVar(&o.Dashboard, "dashboard", "", "directory or file (.json) for the dashboard; none, when left out")
	f.BoolVar(&o.Force, "force", false, "write over files that people changed")
	f.BoolVar(&o.DryRun, "dry-run", false, "show what would be done, change nothing")
	must(cmd.MarkFlagDirname("dashboard"))
	must(cmd.MarkFlagDirname("rules"))
	return cmd
}

func (o *monitoringOptions) run(ctx context.Context) error {
	switch o.Rules {
	case "":
		o.Rules = layout.Root(o.root).Path("etc/prometheus/rules")
	case "none":
		o.Rules = ""
		if o.Dashboard == "" {
			return &stack.UsageError{Message: "--rules=none without --dashboard leaves nothing to install", Hint: "observability-upgrade monitoring install --help"}
		}
	}
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	var doc *stack.Monitoring
	install := func(ctx context.Context) (string, error) {
		var err error
		doc, err = s.InstallMonitoring(ctx, o.MonitoringOptions)
		return "", err
	}
	if o.DryRun {
		_, err = install(ctx)
	} else {
		err = s.Mutate(ctx, "monitoring install", o.args, install)
	}
	if err != nil {
		return err
	}
	return o.print(doc, func(w io.Writer) error { return writeMonitoring(w, doc) })
}

func writeMonitoring(w io.Writer, doc *stack.Monitoring) error {
	for _, f := range doc.Files {
		action := f.Action
		if doc.DryRun && f.Action != "unchanged" {
			action = "would be " + f.Action
		}
		fmt.Fprintf(w, "%-10s %s: %s\n", f.Kind, f.Path, action)
	}
	for _, f := range doc.Files {
		switch f.Kind {
		case monitoring.KindRules:
			writeLoading(w, doc, f)
		case monitoring.KindDashboard:
			if f.Action == "created" {
				fmt.Fprintf(w, `
Grafana reads it from there with a provider in its provisioning/dashboards:
  apiVersion: 1
  providers:
    - {name: observability-upgrade, type: file, options: {path: %s}}
`, filepath.Dir(f.Path))
			}
		}
	}
	if doc.DryRun {
		fmt.Fprintln(w, "\nDry run: nothing was changed.")
	}
	return nil
}

// writeLoading says what makes Prometheus load the rules.
func writeLoading(w io.Writer, doc *stack.Monitoring, f monitoring.Outcome) {
	if doc.Checked == "" {
		fmt.Fprintln(w, "\npromtool is not installed here, so the rules were not checked with it.")
	} else {
		fmt.Fprintf(w, "\n%s finds no fault in the rules.\n", doc.Checked)
	}
	lines := "  rule_files:\n    - " + filepath.Join(filepath.Dir(f.Path), "*"+filepath.Ext(f.Path))
	switch {
	case doc.Loaded == nil:
		fmt.Fprintf(w, "Prometheus needs this in its configuration, if it is not there:\n%s\n", lines)
	case !*doc.Loaded:
		fmt.Fprintf(w, "Prometheus does not load them yet. Its configuration needs:\n%s\n", lines)
	case f.Action == "unchanged":
		return
	}
	fmt.Fprintln(w, "To have it read them:\n  observability-upgrade restart --component=prometheus --strategy=reload")
}
