package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/metrics"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

// textfileDeadline bounds what nobody waits for.
const textfileDeadline = 10 * time.Second

// writeTextfile brings the file that node_exporter reads up to what is known now,
// where the policy asks for one. It fails nothing: who may not write it, as a
// plain user who checks, changes nothing, and other errors are told.
func (s *Stack) writeTextfile() {
	path := s.Policy.Metrics.Textfile
	if path == "" {
		return
	}
	path = s.Root.Path(path)
	ctx, cancel := context.WithTimeout(context.Background(), textfileDeadline) // also after Ctrl+C
	defer cancel()
	changed, err := metrics.WriteTextfile(ctx, s.host, path, own{s})
	switch {
	case err == nil:
		s.Logger.Debug("metrics are written", "file", path, "changed", changed)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, hostfs.ErrCrashed):
		s.Logger.Debug("metrics are not written", "file", path, "error", err)
	default:
		s.Notice(fmt.Sprintf("metrics for node_exporter are not written: %v; nothing else is affected", err))
	}
}

// own is the stack as it is left by the command at work here, which holds the
// lock only to tidy up.
type own struct{ *Stack }

func (o own) Overview(ctx context.Context) (*overview.Overview, error) {
	if o.holdsLock {
		return o.overview(ctx, 0, false)
	}
	return o.Stack.Overview(ctx)
}
