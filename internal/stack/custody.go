package stack

import (
	"errors"

	"github.com/observability-upgrade/observability-upgrade/internal/custody"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
)

// distrusted refuses what somebody else could have changed, with the command
// that mends it; any other error is returned as it is.
func distrusted(check string, err error) error {
	var e *custody.Error
	if !errors.As(err, &e) {
		return err
	}
	return &RefusedError{Check: check, Err: e, Next: e.Fix}
}

// trustJournal refuses the journal of an interrupted run that somebody else could
// have planted: what it says is done to the host, usually as root.
func (s *Stack) trustJournal() error {
	pending, err := journal.Pending(s.Root.JournalDir())
	if err != nil || len(pending) == 0 {
		return err
	}
	for _, dir := range []string{s.Root.Lib(), s.Root.JournalDir(), s.Root.RunsDir()} {
		if err := custody.Dir(dir); err != nil {
			return distrusted("journal ownership", err)
		}
	}
	for _, path := range pending {
		if err := custody.File(path); err != nil {
			return distrusted("journal ownership", err)
		}
	}
	return nil
}
