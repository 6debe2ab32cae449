package run

import (
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// wishAge is how old the name may be that a request wishes for: a run is named
// after the moment it began.
const wishAge = time.Minute

// ReserveID picks a name for a run that begins at a moment, which is that of its
// backup point too. Nothing is created: the name is the caller's as long as it
// holds the lock.
func ReserveID(root layout.Root, now time.Time) string {
	return backup.Reserve(now, root.Backups(), root.RunsDir())
}

// name is the wish, as what was printed and stored of the plan has it, unless that
// is taken by now or too old.
func (e *Engine) name(wish string, now time.Time) string {
	if at, ok := backup.StampTime(wish); ok && !backup.Taken(wish, e.Root.Backups(), e.Root.RunsDir()) {
		if age := now.Sub(at); age >= 0 && age <= wishAge {
			return wish
		}
	}
	return ReserveID(e.Root, now)
}
