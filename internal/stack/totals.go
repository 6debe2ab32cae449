package stack

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

// totals keeps what the history adds up to, as every row is read for it and it
// only changes with a run. It is safe for concurrent use.
type totals struct {
	mu   sync.Mutex
	of   []fs.FileInfo // the files it was made from
	kept *overview.Totals
}

// settled is how long files must have been left alone for what was read of them
// to be kept: a change within the same tick of the clock would not be seen.
const settled = 2 * time.Second

func (t *totals) read(ctx context.Context, path string) (overview.Totals, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of, err := filesOf(path)
	if err != nil {
		return overview.Totals{}, err
	}
	if t.kept != nil && slices.EqualFunc(t.of, of, unchanged) {
		return *t.kept, nil
	}
	t.kept = nil
	now, err := addUp(ctx, path)
	recent := slices.ContainsFunc(of, func(st fs.FileInfo) bool { return time.Since(st.ModTime()) < settled })
	if err == nil && !recent {
		t.of, t.kept = of, &now
	}
	return now, err
}

// filesOf finds a database and its write-ahead log. An empty log, as reading
// leaves, is none.
func filesOf(path string) (of []fs.FileInfo, err error) {
	for _, name := range []string{path, path + "-wal"} {
		st, err := os.Stat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case name == path || st.Size() > 0:
			of = append(of, st)
		}
	}
	return of, nil
}

func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func addUp(ctx context.Context, path string) (t overview.Totals, err error) {
	err = history.Look(ctx, path, func(db *history.DB) error {
		var err error
		if t.Counts, err = db.Counts(ctx); err != nil {
			return err
		}
		if t.Downtimes, err = db.Downtimes(ctx, overview.DowntimeBounds()); err != nil {
			return err
		}
		t.Newest, err = db.Newest(ctx)
		return err
	})
	return t, err
}
