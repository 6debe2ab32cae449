package stack

import (
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// What a rebuilt state file remembers of a component, by its history and the
// backup points.
func TestRecall(t *testing.T) {
	at := time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	later := at.Add(time.Hour)
	worked := history.Upgrade{Timestamp: at, RunID: "r1", OldVersion: "1.0.0", NewVersion: "1.1.0", Status: history.Success, Duration: 1500 * time.Millisecond}
	back := worked
	back.Status, back.RolledBackBy, back.RollbackTimestamp = history.RolledBack, "r9", &later
	failed := history.Upgrade{Timestamp: later, RunID: "r2", OldVersion: "1.1.0", NewVersion: "1.2.0", Status: history.RolledBack, ErrorMessage: "ready: 503", Evidence: "e.json"}
	cut := failed
	cut.ErrorMessage = "interrupted by a signal"
	unprepared := failed
	unprepared.Status, unprepared.Evidence = history.Failed, ""
	idle := failed
	idle.RunID = "r7"
	mended := history.Upgrade{Timestamp: later.Add(time.Hour), RunID: "r3", OldVersion: "1.1.0", NewVersion: "1.2.0", Status: history.Success}
	for name, tt := range map[string]struct {
		rows                      []history.Upgrade
		current, previous, failed string
		upgraded                  time.Time
	}{
		"nothing":                     {current: "1.0.0"},
		"upgraded":                    {rows: []history.Upgrade{worked}, current: "1.1.0", previous: "1.0.0", upgraded: at.Add(time.Second)},
		"rolled back by hand":         {rows: []history.Upgrade{back}, current: "1.0.0", previous: "1.1.0", upgraded: later},
		"failed":                      {rows: []history.Upgrade{worked, failed}, current: "1.1.0", previous: "1.0.0", upgraded: at.Add(time.Second), failed: "1.2.0 ready: 503 r2"},
		"a signal is not its fault":   {rows: []history.Upgrade{worked, cut}, current: "1.1.0", previous: "1.0.0", upgraded: at.Add(time.Second)},
		"it was never started":        {rows: []history.Upgrade{worked, idle}, current: "1.1.0", previous: "1.0.0", upgraded: at.Add(time.Second)},
		"it never ran":                {rows: []history.Upgrade{worked, unprepared}, current: "1.1.0", previous: "1.0.0", upgraded: at.Add(time.Second)},
		"failed, then worked":         {rows: []history.Upgrade{worked, failed, mended}, current: "1.2.0", previous: "1.1.0", upgraded: mended.Timestamp},
		"failed, changed by a person": {rows: []history.Upgrade{worked, failed}, current: "1.2.0"},
	} {
		t.Run(name, func(t *testing.T) {
			m := memory{upgrades: map[string][]history.Upgrade{"pulse": tt.rows}, idle: map[attempt]bool{{"r7", "pulse", "1.2.0"}: true}}
			e := state.Component{CurrentVersion: tt.current}
			m.recall("pulse", &e)
			var failed []string
			for _, f := range e.FailedVersions {
				failed = append(failed, f.Version+" "+f.Reason+" "+f.RunID)
			}
			if e.PreviousVersion != tt.previous || !e.UpgradedAt.Equal(tt.upgraded) || strings.Join(failed, ", ") != tt.failed {
				t.Errorf("%+v", e)
			}
		})
	}

	// Without a history the points tell what went before.
	points := []*backup.Point{
		{Timestamp: "20260101_000000", Manifest: backup.Manifest{Components: []backup.Component{{Name: "pulse", Version: "1.0.0"}}}},
		{Timestamp: "20260102_000000", Manifest: backup.Manifest{Components: []backup.Component{{Name: "beacon", Version: "3.0.0"}}}},
		{Timestamp: "20260103_000000", Manifest: backup.Manifest{Components: []backup.Component{{Name: "pulse", Version: "1.1.0"}}}},
	}
	e := state.Component{CurrentVersion: "1.2.0"}
	memory{points: points}.recall("pulse", &e)
	if e.PreviousVersion != "1.1.0" || len(e.Backups) != 2 || e.Backups[1] != (state.Backup{Version: "1.1.0", Timestamp: "20260103_000000"}) {
		t.Errorf("%+v", e)
	}
}
