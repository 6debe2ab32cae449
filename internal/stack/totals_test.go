package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
)

// The sums are made again when the history has changed, and only then.
func TestTotals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	var sums totals
	read := func(want uint64) {
		t.Helper()
		now, err := sums.read(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		var n uint64
		for _, c := range now.Counts {
			n += c.N
		}
		if n != want || len(now.Newest) != int(min(1, want)) || now.Downtimes["loki"].Count != want {
			t.Errorf("%d upgrades, want %d: %+v", n, want, now)
		}
	}
	record := func(n int) {
		t.Helper()
		db, err := history.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		u := history.Upgrade{Timestamp: time.Now(), RunID: fmt.Sprint("r", n), Component: "loki", NewVersion: "1.0.0", Status: history.Success, TriggeredBy: "manual"}
		if _, err := db.Record(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	age := func(d time.Duration) {
		t.Helper()
		at := time.Now().Add(-d)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	read(0)
	record(1)
	read(1)
	record(2)
	read(2) // within a second of the first
	age(time.Hour)
	read(2)
	if sums.kept == nil {
		t.Fatal("what has settled is not kept")
	}
	sums.kept.Counts[0].N = 7 // to see where it comes from
	sums.kept.Downtimes["loki"] = history.Downtime{Count: 7}
	read(7)
	record(3)
	read(3)
	age(time.Minute)
	read(3)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	read(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	record(4)
	if _, err := sums.read(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	read(1)
}
