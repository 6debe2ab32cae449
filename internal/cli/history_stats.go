package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// statsDocument is the document of `history stats`.
type statsDocument struct {
	Since      *time.Time     `json:"since"`
	Until      *time.Time     `json:"until"`
	Components []history.Stat `json:"components"`
	Total      history.Stat   `json:"total"`
}

func newHistoryStats(g *global) *cobra.Command {
	o := &historyFilter{global: g}
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Sum up past upgrades: how many went well, how long they took, how long it was down",
		Long: `Sum up past upgrades, per component and in total. What was taken back later, by
hand, counts as rolled back. How long an upgrade took is told of those that
succeeded and stand; down time of all during which the component was down, also
of those that failed. p95 is the 95th percentile by nearest rank: 95 % took no
longer.`,
		Example: `  observability-upgrade history stats
  observability-upgrade history stats --since=30d --component=prometheus
  observability-upgrade history stats --output=json | jq .total.success_rate
  observability-upgrade history stats --output=csv > stats.csv`,
		Annotations: printsCSV,
		RunE:        func(cmd *cobra.Command, _ []string) error { return o.stats(cmd.Context()) },
	}
	o.filterFlags(cmd)
	return cmd
}

func (o *historyFilter) stats(ctx context.Context) error {
	f, err := o.filter(time.Now(), "history stats")
	if err != nil {
		return err
	}
	db, err := history.OpenReadOnly(ctx, layout.Root(o.root).History())
	if err != nil {
		return err
	}
	defer db.Close()
	all, err := db.Stats(ctx, f)
	if err != nil {
		return err
	}
	if err := o.known(ctx, db); err != nil {
		return err
	}
	last := len(all) - 1
	doc := statsDocument{Since: given(f.Since), Until: given(f.Until), Components: all[:last], Total: all[last]}
	if o.output == "csv" {
		return writeStatsCSV(o.Out, doc)
	}
	return o.print(doc, func(w io.Writer) error { return writeStats(w, doc) })
}

func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// rows are the components and, named so, the total.
func (d *statsDocument) rows() []history.Stat {
	total := d.Total
	total.Component = "(total)"
	return append(append([]history.Stat{}, d.Components...), total)
}

func writeStats(w io.Writer, d statsDocument) error {
	title := "Upgrades"
	for _, end := range []struct {
		word string
		at   *time.Time
	}{{" since ", d.Since}, {" until ", d.Until}} {
		if end.at != nil {
			title += end.word + end.at.Format(time.DateTime)
		}
	}
	if title != "Upgrades" {
		title += " UTC"
	}
	if d.Total.Upgrades == 0 {
		_, err := fmt.Fprintln(w, title+": none are recorded.")
		return err
	}
	fmt.Fprintf(w, "%s\n\n", title)
	var became, took [][]string
	for _, s := range d.rows() {
		name := plan.Plain(s.Component)
		became = append(became, []string{
			name, strconv.FormatInt(s.Upgrades, 10), strconv.FormatInt(s.Success, 10), strconv.FormatInt(s.Failed, 10), strconv.FormatInt(s.RolledBack, 10),
			percent(s.SuccessRate), dayOf(s.LastSuccess), dayOf(s.LastFailure),
		})
		row := append([]string{name}, spreadCells(s.Duration)...)
		outages, total := "0", "-"
		if s.Downtime != nil {
			outages, total = strconv.FormatInt(s.Downtime.Count, 10), tenths(s.Downtime.Total)
		}
		took = append(took, append(append(append(row, outages), spreadCells(s.Downtime)...), total))
	}
	if err := table(w, []string{"Component", "Total", "Success", "Failed", "Undone", "Rate", "Last good", "Last bad"}, became); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return table(w, []string{"Component", "Took", "p95", "Max", "Outages", "Down", "p95", "Max", "In all"}, took)
}

// spreadCells are mean, 95th percentile and maximum.
func spreadCells(s *history.Spread) []string {
	if s == nil {
		return []string{"-", "-", "-"}
	}
	return []string{tenths(s.Mean), tenths(s.P95), tenths(s.Max)}
}

func percent(rate *float64) string {
	if rate == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", *rate*100)
}

func dayOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.DateOnly)
}

func writeStatsCSV(w io.Writer, d statsDocument) error {
	header := []string{
		"component", "upgrades", "success", "failed", "rolled_back", "success_rate", "duration_count", "duration_mean_seconds", "duration_p95_seconds",
		"duration_max_seconds", "duration_total_seconds", "downtime_count", "downtime_mean_seconds", "downtime_p95_seconds", "downtime_max_seconds",
		"downtime_total_seconds", "last_success", "last_failure",
	}
	var rows [][]string
	for _, s := range d.rows() {
		row := []string{
			csvText(s.Component), strconv.FormatInt(s.Upgrades, 10), strconv.FormatInt(s.Success, 10), strconv.FormatInt(s.Failed, 10), strconv.FormatInt(s.RolledBack, 10), "",
		}
		if s.SuccessRate != nil {
			row[len(row)-1] = csvNumber(*s.SuccessRate)
		}
		for _, sp := range []*history.Spread{s.Duration, s.Downtime} {
			if sp == nil {
				row = append(row, "0", "", "", "", "")
				continue
			}
			row = append(row, strconv.FormatInt(sp.Count, 10), csvNumber(sp.Mean), csvNumber(sp.P95), csvNumber(sp.Max), csvNumber(sp.Total))
		}
		rows = append(rows, append(row, csvTime(s.LastSuccess), csvTime(s.LastFailure)))
	}
	return writeCSV(w, header, rows)
}
