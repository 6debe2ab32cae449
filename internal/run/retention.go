package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// IDs lists the runs that something is kept of, newest first.
func IDs(root layout.Root) ([]string, error) {
	entries, err := os.ReadDir(root.RunsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && backup.IsStamp(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return backup.CompareStamps(b, a) })
	return ids, nil
}

// pruneRuns removes what is kept of the oldest runs, beyond the newest RetainRuns.
// The run that ends stays, and so does one whose journal is still open and one
// that is why a version is held: what was found there is still of use. Rows of the
// history stay and go on naming the evidence.
func (b *Books) pruneRuns(ctx context.Context, run Header) error {
	if b.RetainRuns <= 0 {
		return nil
	}
	ids, err := IDs(b.Root)
	if !slices.Contains(ids, run.ID) {
		ids = append([]string{run.ID}, ids...) // its journal is moved there in a moment
	}
	if err != nil || len(ids) <= b.RetainRuns {
		return err
	}
	kept := map[string]bool{run.ID: true}
	open, err := journal.Pending(b.Root.JournalDir())
	if err != nil {
		return err
	}
	for _, path := range open {
		kept[journal.ID(path)] = true
	}
	f, err := b.State(ctx)
	if err != nil {
		return err
	}
	for _, c := range f.Components {
		for _, v := range c.FailedVersions {
			kept[v.RunID] = true
		}
	}
	old := ids[b.RetainRuns:]
	slices.Reverse(old)
	for _, id := range old {
		if kept[id] {
			continue
		}
		if err := b.Host.RemoveAll(filepath.Join(b.Root.RunsDir(), id)); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}
