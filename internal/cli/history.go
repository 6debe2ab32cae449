package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

// historyFilter is what history and its statistics can be narrowed by.
type historyFilter struct {
	*global
	components   []string
	trigger      string
	since, until string
}

type historyOptions struct {
	historyFilter
	status string
	ofRun  string
	limit  int
}

func newHistory(g *global) *cobra.Command {
	o := &historyOptions{historyFilter: historyFilter{global: g}}
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List past upgrades, newest first; show a run, sum them up",
		Long: `List past upgrades, newest first. The database is
/var/lib/observability/upgrade-history.db, table "upgrades"; the sqlite3 program
reads it too.

A restart and a rollback have no row of their own: a rollback marks what it took
back. "history show" has both.`,
		Example: `  observability-upgrade history
  observability-upgrade history --component=prometheus,loki --status=rolled_back
  observability-upgrade history --since=30d --trigger=scheduled
  observability-upgrade history --since=2026-11-01 --until=2026-11-30 --output=csv
  observability-upgrade history show last`,
		Annotations: printsCSV,
		Args:        historyArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.filterFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.status, "status", "", "only success, failed or rolled_back")
	f.StringVar(&o.ofRun, "run", "", "only this run, such as 20261125_120000")
	f.IntVar(&o.limit, "limit", 50, "at most so many; 0 for all")
	must(cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(historyStatuses, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("run", g.completeRuns))
	cmd.AddCommand(newHistoryShow(g), newHistoryStats(g))
	return cmd
}

// filterFlags adds the flags that a list and statistics share.
func (o *historyFilter) filterFlags(cmd *cobra.Command) {
	o.componentFlag(cmd, &o.components, false)
	f := cmd.Flags()
	f.StringVar(&o.trigger, "trigger", "", "only manual, auto or scheduled")
	f.StringVar(&o.since, "since", "", "only from then on: "+momentForms)
	f.StringVar(&o.until, "until", "", "only up to then, a day or second given included")
	must(cmd.RegisterFlagCompletionFunc("trigger", cobra.FixedCompletions(triggers, cobra.ShellCompDirectiveNoFileComp)))
	for _, flag := range []string{"since", "until"} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions([]string{"24h", "7d", "30d", "52w"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)))
	}
}

var (
	historyStatuses = []string{history.Success, history.Failed, history.RolledBack}
	triggers        = []string{"manual", "auto", "scheduled"}
)

// historyArgs tells who names a run where a subcommand belongs which one.
func historyArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if args[0] == "last" || strings.Trim(args[0], "0123456789_") == "" {
		return fmt.Errorf("unknown command %q for %q; did you mean %q?", args[0], c.CommandPath(), "show "+args[0])
	}
	return unknownCommand(c, args)
}

// filter checks the flags.
func (o *historyFilter) filter(now time.Time, command string) (history.Filter, error) {
	hint := "observability-upgrade " + command + " --help"
	f := history.Filter{Components: o.components, Trigger: o.trigger}
	if o.trigger != "" && !slices.Contains(triggers, o.trigger) {
		return f, &stack.UsageError{Message: "--trigger=" + o.trigger + ": want manual, auto or scheduled", Hint: hint}
	}
	if slices.Contains(o.components, "") {
		return f, &stack.UsageError{Message: "--component names no component", Hint: "observability-upgrade components list"}
	}
	var err error
	f.Since, f.Until, err = period(o.since, o.until, now, hint)
	return f, err
}

func (o *historyOptions) run(ctx context.Context) error {
	f, err := o.filter(time.Now(), "history")
	if err != nil {
		return err
	}
	if o.status != "" && !slices.Contains(historyStatuses, o.status) {
		return &stack.UsageError{Message: "--status=" + o.status + ": want success, failed or rolled_back", Hint: "observability-upgrade history --help"}
	}
	if o.limit < 0 {
		return &stack.UsageError{Message: fmt.Sprintf("--limit=%d is negative", o.limit), Hint: "observability-upgrade history --help"}
	}
	f.Status, f.RunID, f.Limit = o.status, o.ofRun, o.limit
	db, err := history.OpenReadOnly(ctx, layout.Root(o.root).History())
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.List(ctx, f)
	if err != nil {
		return err
	}
	if err := o.known(ctx, db); err != nil {
		return err
	}
	if len(rows) == 0 && o.ofRun != "" {
		if err := o.knownRun(ctx); err != nil {
			return err
		}
	}
	if rows == nil {
		rows = []history.Upgrade{}
	}
	if o.output == "csv" {
		return writeHistoryCSV(o.Out, rows)
	}
	doc := struct {
		Upgrades []history.Upgrade `json:"upgrades"`
	}{Upgrades: rows}
	narrowed := len(o.components) > 0 || o.status != "" || o.ofRun != "" || o.trigger != "" || o.since != "" || o.until != ""
	return o.print(doc, func(w io.Writer) error { return writeHistory(w, rows, narrowed, o.style()) })
}

func writeHistory(w io.Writer, rows []history.Upgrade, narrowed bool, st plan.Style) error {
	if len(rows) == 0 {
		msg := "No upgrades are recorded."
		if narrowed {
			msg = "No upgrades match."
		}
		_, err := fmt.Fprintln(w, msg)
		return err
	}
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, []string{
			strconv.FormatInt(r.ID, 10), r.Timestamp.UTC().Format(time.DateTime), plan.Plain(r.Component), orDash(plan.Plain(r.OldVersion)), plan.Plain(r.NewVersion),
			plan.Plain(r.Status), tenths(r.DurationSeconds), plan.Plain(r.TriggeredBy),
		})
	}
	if err := table(w, []string{"ID", "When (UTC)", "Component", "From", "To", "Status", "Took", "By"}, cells); err != nil {
		return err
	}
	for _, r := range rows {
		if r.ErrorMessage == "" {
			continue
		}
		change := fmt.Sprintf("%d, %s %s → %s: ", r.ID, r.Component, orDash(r.OldVersion), r.NewVersion)
		if _, err := io.WriteString(w, "\n"+st.Paragraph("", "  ", plan.Default, change+r.ErrorMessage)); err != nil {
			return err
		}
	}
	return nil
}

// tenths writes seconds as a duration with tenths.
func tenths(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}

func writeHistoryCSV(w io.Writer, rows []history.Upgrade) error {
	cells := make([][]string, 0, len(rows))
	for _, r := range rows {
		cells = append(cells, []string{
			strconv.FormatInt(r.ID, 10), csvTime(&r.Timestamp), csvText(r.RunID), csvText(r.Component), csvText(r.OldVersion), csvText(r.NewVersion),
			csvText(r.Status), csvText(r.ErrorMessage), csvNumber(r.DurationSeconds), csvNumber(r.DowntimeSeconds), csvText(r.TriggeredBy), csvText(r.BackupPath),
			csvTime(r.RollbackTimestamp), csvBool(r.HealthCheckPassed), csvBool(r.NotificationSent), csvText(r.Evidence),
		})
	}
	return writeCSV(w, []string{
		"id", "timestamp", "run_id", "component", "old_version", "new_version", "status", "error_message", "duration_seconds", "downtime_seconds",
		"triggered_by", "backup_path", "rollback_timestamp", "health_check_passed", "notification_sent", "evidence_path",
	}, cells)
}

// known refuses a component that is neither in the catalogue nor, as one that
// was removed from it is, in the history: a slip of the pen must not look like
// a component that was never upgraded.
func (o *historyFilter) known(ctx context.Context, db *history.DB) error {
	for _, name := range o.components {
		if rows, err := db.List(ctx, history.Filter{Components: []string{name}, Limit: 1}); err != nil || len(rows) > 0 {
			if err != nil {
				return err
			}
			continue
		}
		cat, err := catalogue.Load(layout.Root(o.root).ComponentsDir())
		if err != nil {
			return fmt.Errorf("%w: %w", stack.ErrConfig, err)
		}
		if _, ok := cat.Get(name); !ok {
			return unknownComponent(cat, name)
		}
	}
	return nil
}

// knownRun refuses a run that nothing is known of.
func (o *historyOptions) knownRun(ctx context.Context) error {
	_, err := runlog.Show(ctx, layout.Root(o.root), o.ofRun, time.Now())
	return unknownRun(err)
}

// unknownRun makes the error for a run that is not there one of usage.
func unknownRun(err error) error {
	var missing *runlog.NotFoundError
	if errors.As(err, &missing) {
		return &stack.UsageError{Message: err.Error(), Hint: "observability-upgrade history"}
	}
	return err
}

// completeRuns completes the newest runs.
func (g *global) completeRuns(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	if len(args) > 0 {
		return nil, directive
	}
	root := layout.Root(g.root)
	ids, err := run.IDs(root)
	if err != nil {
		return nil, directive
	}
	var out []string
	for _, id := range ids[:min(len(ids), 30)] {
		about := ""
		if r, err := runlog.Read(root, id); err == nil {
			about = "\t" + string(r.Header.Operation)
			if r.Ended() {
				about += ", " + r.Result.Status
			}
			for i, c := range r.Header.Components {
				about += map[bool]string{true: ": ", false: ", "}[i == 0] + component.SetName(c.Name, c.Instance)
			}
		}
		out = append(out, id+about)
	}
	return out, directive
}
