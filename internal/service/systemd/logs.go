package systemd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Logs reads the newest lines of the unit's current start from the journal with
// journalctl, which keeps this program free of C libraries.
func (m *Manager) Logs(ctx context.Context, s service.Service, since time.Time, limit int) ([]service.LogLine, error) {
	st, err := m.Status(ctx, s)
	if err != nil {
		return nil, err
	}
	args := []string{"-o", "json", "--no-pager", "-q", "-n", strconv.Itoa(limit), "-u", s.Unit}
	if !since.IsZero() {
		args = append(args, fmt.Sprintf("--since=@%d", since.Unix()))
	}
	if st.InvocationID != "" {
		args = append(args, "_SYSTEMD_INVOCATION_ID="+st.InvocationID)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "journalctl", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && ctx.Err() == nil {
			return nil, fmt.Errorf("journalctl -u %s: %w: %s", s.Unit, err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("journalctl -u %s: %w", s.Unit, err)
	}
	return parseJournal(out)
}

// parseJournal reads journalctl's JSON lines. A message that is not UTF-8 comes
// as an array of bytes.
func parseJournal(data []byte) ([]service.LogLine, error) {
	var lines []service.LogLine
	for _, raw := range bytes.Split(data, []byte("\n")) {
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		var rec struct {
			Message  json.RawMessage `json:"MESSAGE"`
			Priority string          `json:"PRIORITY"`
			Time     string          `json:"__REALTIME_TIMESTAMP"`
		}
		if err := json.Unmarshal(raw, &rec); err != nil {
			return nil, fmt.Errorf("journal line: %w", err)
		}
		l := service.LogLine{Priority: -1}
		if n, err := strconv.Atoi(rec.Priority); err == nil {
			l.Priority = n
		}
		if usec, err := strconv.ParseInt(rec.Time, 10, 64); err == nil {
			l.Time = time.UnixMicro(usec)
		}
		var nums []uint8
		var ints []int
		switch {
		case json.Unmarshal(rec.Message, &l.Message) == nil:
		case json.Unmarshal(rec.Message, &ints) == nil:
			for _, n := range ints {
				nums = append(nums, uint8(n))
			}
			l.Message = string(nums)
		}
		lines = append(lines, l)
	}
	return lines, nil
}
