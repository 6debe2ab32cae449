package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type historyOptions struct {
	*global
	component string
	status    string
	limit     int
}

func newHistory(g *global) *cobra.Command {
	o := &historyOptions{global: g}
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List past upgrades, newest first",
		Long: `List past upgrades, newest first. The database is
/var/lib/observability/upgrade-history.db, table "upgrades"; the sqlite3 program
reads it too.`,
		Example: `  observability-upgrade history
  observability-upgrade history --component=prometheus --status=rolled_back
  observability-upgrade history --limit=5 --output=json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.component, "component", "c", "", "only this component")
	f.StringVar(&o.status, "status", "", "only success, failed or rolled_back")
	f.IntVar(&o.limit, "limit", 50, "at most so many; 0 for all")
	must(cmd.RegisterFlagCompletionFunc("component", g.completeComponents))
	must(cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(historyStatuses, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

var historyStatuses = []string{history.Success, history.Failed, history.RolledBack}

func (o *historyOptions) run(ctx context.Context) error {
	if o.status != "" && !slices.Contains(historyStatuses, o.status) {
		return &stack.UsageError{Message: "--status=" + o.status + ": want success, failed or rolled_back", Hint: "observability-upgrade history --help"}
	}
	if o.limit < 0 {
		return &stack.UsageError{Message: fmt.Sprintf("--limit=%d is negative", o.limit), Hint: "observability-upgrade history --help"}
	}
	db, err := history.OpenReadOnly(ctx, layout.Root(o.root).History())
	if err != nil {
		return err
	}
	defer db.Close()
	rows, err := db.List(ctx, history.Filter{Components: []string{o.component}, Status: o.status, Limit: o.limit})
	if err != nil {
		return err
	}
	if len(rows) == 0 && o.component != "" {
		if err := o.known(ctx, db); err != nil {
			return err
		}
	}
	doc := struct {
		Upgrades []history.Upgrade `json:"upgrades"`
	}{Upgrades: rows}
	if rows == nil {
		doc.Upgrades = []history.Upgrade{}
	}
	return o.print(doc, func(w io.Writer) error {
		if len(rows) == 0 {
			_, err := fmt.Fprintln(w, "No upgrades are recorded.")
			return err
		}
		var cells [][]string
		for _, r := range rows {
			cells = append(cells, []string{
				r.Timestamp.UTC().Format("2006-01-02 15:04:05"), r.Component, orDash(r.OldVersion), r.NewVersion, r.Status,
				r.Duration.Round(100 * time.Millisecond).String(), r.TriggeredBy,
			})
		}
		if err := table(w, []string{"When (UTC)", "Component", "From", "To", "Status", "Took", "By"}, cells); err != nil {
			return err
		}
		for _, r := range rows {
			if r.ErrorMessage != "" {
				fmt.Fprintf(w, "\n%s %s → %s: %s\n", r.Component, r.OldVersion, r.NewVersion, r.ErrorMessage)
			}
		}
		return nil
	})
}

// known refuses a component that is neither in the catalogue nor, as one that
// was removed from it is, in the history: a slip of the pen must not look like
// a component that was never upgraded.
func (o *historyOptions) known(ctx context.Context, db *history.DB) error {
	cat, err := catalogue.Load(layout.Root(o.root).ComponentsDir())
	if err != nil {
		return fmt.Errorf("%w: %w", stack.ErrConfig, err)
	}
	if _, ok := cat.Get(o.component); ok {
		return nil
	}
	if rows, err := db.List(ctx, history.Filter{Components: []string{o.component}, Limit: 1}); err != nil || len(rows) > 0 {
		return err
	}
	return unknownComponent(cat, o.component)
}
