package cli

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

// What a rollback takes away is told in every mode, whoever is asked.
func TestRollbackTellsWhatIsLost(t *testing.T) {
	p := &stack.RollbackPlan{
		Point:   &backup.Point{Timestamp: "20261125_120000"},
		Changes: []run.Change{{Component: "aa", From: component.MustParseVersion("1.1.0"), To: component.MustParseVersion("1.0.0")}},
		Notes:   []string{"aa: what was collected since is lost"},
	}
	for name, tt := range map[string]struct {
		quiet, records, ask, plan bool
	}{
		"asked":          {ask: true, plan: true},
		"not asked":      {plan: true},
		"quiet":          {quiet: true},
		"quiet, asked":   {quiet: true, ask: true, plan: true},
		"records":        {records: true},
		"records, quiet": {records: true, quiet: true},
	} {
		var out strings.Builder
		g := &global{quiet: tt.quiet, records: tt.records, logger: slog.New(slog.NewTextHandler(&out, nil))}
		g.IO = IO{Err: &out, Env: func(string) string { return "" }}
		if err := (&rollbackOptions{global: g}).show(newDisplay(g), p, tt.ask); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), p.Notes[0]) || strings.Contains(out.String(), "Rollback Plan:") != tt.plan {
			t.Errorf("%s:\n%s", name, out.String())
		}
	}
}
