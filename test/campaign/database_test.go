package campaign

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

const databaseFile = "grafana.db"

// database upgrades a component that keeps an SQLite database, which is copied
// while it is in use.
func database() scenario {
	return scenario{
		name: "database", space: true, allowed: prom, next: upgradeProm,
		setup: func(ctx context.Context, w *runtest.World) error {
			if err := installProm(ctx, w); err != nil {
				return err
			}
			if err := os.MkdirAll(w.Data(runtest.DataUnit), 0o755); err != nil {
				return err
			}
			return withDatabase(w, func(db *sql.DB) error {
				_, err := db.ExecContext(ctx, "CREATE TABLE dashboards (name TEXT); INSERT INTO dashboards VALUES ('one'), ('two')")
				return err
			})
		},
		request: func(w *runtest.World) run.Request {
			req := w.WithData(w.Steps("prom 2.0.0 "+runtest.WordNotReady), true)
			d := req.Changes[0].Data
			d.Method, d.File, d.Fingerprint, d.Exclude = "sqlite", databaseFile, nil, nil
			return req
		},
		check: func(w *runtest.World, _ map[string]string) error {
			return withDatabase(w, func(db *sql.DB) error {
				var n int
				var sound string
				if err := db.QueryRow("SELECT count(*) FROM dashboards").Scan(&n); err != nil {
					return err
				}
				if err := db.QueryRow("PRAGMA integrity_check").Scan(&sound); err != nil {
					return err
				}
				if n != 2 || sound != "ok" {
					return fmt.Errorf("the database has %d dashboards, want 2; integrity %s", n, sound)
				}
				return nil
			})
		},
	}
}

func withDatabase(w *runtest.World, do func(*sql.DB) error) error {
	path := filepath.Join(w.Data(runtest.DataUnit), databaseFile)
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	return do(db)
}
