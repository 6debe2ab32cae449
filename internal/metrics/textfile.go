package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

// maxTextfile bounds what is read of a file that is there already.
const maxTextfile = 16 << 20

// WriteTextfile brings a file for node_exporter's textfile collector up to date
// and reports whether it changed. What a scrape alone can tell is left out (see
// Family.Live). The file is replaced as a whole, with mode 0644 where it is new,
// and not touched where it would say the same.
//
// Of several processes that do so at once each reads the stack only when it is its
// turn, so the last one leaves what is so in the end. See
// https://github.com/prometheus/node_exporter#textfile-collector
func WriteTextfile(ctx context.Context, h *hostfs.Host, path string, src overview.Source) (changed bool, err error) {
	dir := filepath.Dir(path)
	if err := h.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	turn, err := queue(ctx, dir)
	if err != nil {
		return false, err
	}
	defer turn.Close()
	text, err := render(ctx, src)
	if err != nil {
		return false, err
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() < maxTextfile {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			return false, nil
		}
	}
	return true, h.WriteFile(path, text, 0o644)
}

// queue waits until no other process writes into the directory. The lock is the
// kernel's, flock(2) on the directory itself, so it leaves no file and ends with
// the process.
func queue(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("another process holds the lock of %s (`fuser %s` shows which): %w", dir, dir, context.Cause(ctx)), f.Close())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
