package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

const (
	maxLog  = 10 << 20 // a log above this is put aside at the next start
	maxRead = 1 << 20  // of a log's end
)

// LogPath is the file a service's output goes to.
func (m *Manager) LogPath(name string) string { return filepath.Join(m.logDir, name+".log") }

// Logs returns the newest lines of the current or last start, oldest first, from
// at most the last 1 MiB of the log. They carry neither time nor priority, so
// since does not apply.
func (m *Manager) Logs(ctx context.Context, s service.Service, _ time.Time, limit int) ([]service.LogLine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := m.load(s.Name)
	if err != nil || r.Token == "" {
		return nil, err
	}
	if limit < 1 {
		limit = service.DefaultLogLines
	}
	return m.logSince(s.Name, r.LogOffset, limit)
}

// openLog opens a service's log for appending, after a rotation when it has
// grown too large, and returns where the new output will begin.
func (m *Manager) openLog(name string) (*os.File, int64, error) {
	if err := os.MkdirAll(m.logDir, 0o755); err != nil {
		return nil, 0, fmt.Errorf("log directory: %w", err)
	}
	path := m.LogPath(name)
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, 0, fmt.Errorf("log file: %w", err)
	case !st.Mode().IsRegular():
		return nil, 0, fmt.Errorf("log file %s is %s, expected a regular file; move it away", path, st.Mode().Type())
	case st.Size() > maxLog:
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, fmt.Errorf("rotate the log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, 0, fmt.Errorf("log file: %w", err)
	}
	if st, err = f.Stat(); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// logSince reads the last lines of a log, from an offset on. A log that is
// shorter was truncated since.
func (m *Manager) logSince(name string, offset int64, limit int) ([]service.LogLine, error) {
	f, err := os.Open(m.LogPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	if offset < 0 || offset > st.Size() {
		offset = 0
	}
	cut := st.Size()-maxRead > offset
	data, err := io.ReadAll(io.NewSectionReader(f, max(offset, st.Size()-maxRead), maxRead))
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	if cut { // it begins within a line
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	var out []service.LogLine
	for line := range bytes.Lines(data) {
		if text := strings.ToValidUTF8(strings.TrimRight(string(line), "\r\n"), "\uFFFD"); text != "" {
			out = append(out, service.LogLine{Priority: -1, Message: text})
		}
	}
	if len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out, nil
}

// tail is the end of a start's log, for an error.
func (m *Manager) tail(name string, offset int64) string {
	lines, err := m.logSince(name, offset, 5)
	if err != nil {
		return err.Error()
	}
	return service.Tail(lines, 5)
}
