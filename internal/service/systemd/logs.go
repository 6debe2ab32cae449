package systemd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

const (
	journalTimeout = 15 * time.Second
	syncTimeout    = 2 * time.Second
)

// Logs reads the newest lines of the unit's current or last start, or of all since a
// time, from the journal with journalctl, which keeps this program free of C
// libraries. What systemd says about them is among them.
func (m *Manager) Logs(ctx context.Context, s service.Service, since time.Time, limit int) ([]service.LogLine, error) {
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return nil, err
	}
	if s.Unit == "" {
		return nil, nil
	}
	if limit < 1 {
		limit = service.DefaultLogLines
	}
	st := m.status(u)
	// What a process that has just failed said last may be on its way still.
	entries, err := m.journal(ctx, query{unit: s.Unit, since: since, limit: limit, sync: !st.Active || st.Restarts > 0})
	if err != nil {
		return nil, err
	}
	if since.IsZero() {
		entries = ofStart(entries, st.InvocationID, u.time("InactiveExitTimestamp"))
	}
	lines := make([]service.LogLine, len(entries))
	for i, e := range entries {
		lines[i] = e.LogLine
	}
	return lines, nil
}

// ofStart keeps the entries of one start, which began then. A unit that is down may
// be unloaded, and what systemd knew of its start forgotten: without an invocation
// it is the newest start among them.
//
// Entries of the unit's processes without an invocation are of the start that goes
// on: journald looks up the invocation as it receives a line, and systemd forgets it
// as soon as the unit is down, so the last words of a process that fails at once
// often have none.
func ofStart(entries []entry, invocation string, began time.Time) []entry {
	for _, e := range slices.Backward(entries) {
		if invocation != "" {
			break
		}
		invocation = e.invocation
	}
	if invocation == "" {
		return entries
	}
	var of []entry
	begun := false
	for _, e := range entries {
		begun = begun || e.invocation == invocation || !began.IsZero() && !e.Time.Before(began)
		if e.invocation == invocation || begun && e.invocation == "" && !e.manager {
			of = append(of, e)
		}
	}
	return of
}

// query says which journal entries are wanted.
type query struct {
	unit  string
	since time.Time // zero for no bound
	limit int       // newest first to count, oldest first in the answer
	sync  bool      // have journald take in what is on its way first
}

func (q query) args() []string {
	// Without -a, messages above 4 KiB are left out of JSON.
	args := []string{"-o", "json", "-a", "--no-pager", "-q", "-n", strconv.Itoa(q.limit)}
	if !q.since.IsZero() {
		args = append(args, fmt.Sprintf("--since=@%d.%06d", q.since.Unix(), q.since.Nanosecond()/1000))
	}
	return append(args, "-u", q.unit)
}

// journal runs journalctl.
func (m *Manager) journal(ctx context.Context, q query) ([]entry, error) {
	if q.sync {
		syncCtx, cancel := context.WithTimeout(ctx, syncTimeout)
		err := exec.CommandContext(syncCtx, "journalctl", "--sync").Run()
		cancel()
		if err != nil { // not root, or an old journald: what is there has to do
			m.log.Debug("journalctl --sync", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "journalctl", q.args()...).Output()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return nil, fmt.Errorf("journalctl -u %s: %w: %s", q.unit, err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("journalctl -u %s: %w", q.unit, err)
	}
	return parseJournal(out)
}

// entry is one journal entry.
type entry struct {
	service.LogLine
	manager    bool   // systemd speaks about the unit
	invocation string // the start it belongs to; may be empty
}

// own returns what the unit's processes said, or all when they said nothing.
func own(entries []entry) []service.LogLine {
	var mine, all []service.LogLine
	for _, e := range entries {
		all = append(all, e.LogLine)
		if !e.manager {
			mine = append(mine, e.LogLine)
		}
	}
	if len(mine) > 0 {
		return mine
	}
	return all
}

// parseJournal reads journalctl's JSON lines, as "Journal JSON Format" on
// systemd.io describes them.
func parseJournal(data []byte) ([]entry, error) {
	var entries []entry
	for raw := range bytes.Lines(data) {
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		e, err := parseEntry(raw)
		if err != nil {
			return nil, fmt.Errorf("journal entry %d: %w", len(entries)+1, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseEntry(raw []byte) (entry, error) {
	var rec struct {
		Message    json.RawMessage `json:"MESSAGE"`
		Priority   json.RawMessage `json:"PRIORITY"`
		Time       string          `json:"__REALTIME_TIMESTAMP"`
		PID        json.RawMessage `json:"_PID"`
		Identifier json.RawMessage `json:"SYSLOG_IDENTIFIER"`
		Invocation json.RawMessage `json:"_SYSTEMD_INVOCATION_ID"` // of the process
		About      json.RawMessage `json:"INVOCATION_ID"`          // that systemd speaks of
	}
	e := entry{LogLine: service.LogLine{Priority: -1}}
	if err := json.Unmarshal(raw, &rec); err != nil {
		return e, err
	}
	usec, err := strconv.ParseInt(rec.Time, 10, 64)
	if err != nil {
		return e, fmt.Errorf("__REALTIME_TIMESTAMP: %w", err)
	}
	e.Time = time.UnixMicro(usec)
	if e.Message, err = fieldText(rec.Message); err != nil {
		return e, fmt.Errorf("MESSAGE: %w", err)
	}
	priority, err := fieldText(rec.Priority)
	if err != nil {
		return e, fmt.Errorf("PRIORITY: %w", err)
	}
	// Programs set this field themselves; what syslog does not know is unknown.
	if n, err := strconv.Atoi(priority); err == nil && n >= 0 && n <= 7 {
		e.Priority = n
	}
	pid, err := fieldText(rec.PID)
	if err != nil {
		return e, fmt.Errorf("_PID: %w", err)
	}
	identifier, err := fieldText(rec.Identifier)
	if err != nil {
		return e, fmt.Errorf("SYSLOG_IDENTIFIER: %w", err)
	}
	e.manager = pid == "1" || identifier == "systemd"
	invocation := rec.Invocation
	if len(rec.About) > 0 && e.manager {
		invocation = rec.About
	}
	if e.invocation, err = fieldText(invocation); err != nil {
		return e, fmt.Errorf("invocation: %w", err)
	}
	return e, nil
}

// fieldText reads a field: a value, or an array of values when it was given more
// than once; then the first counts.
func fieldText(raw json.RawMessage) (string, error) {
	var list []json.RawMessage
	if bytes.HasPrefix(raw, []byte("[")) && json.Unmarshal(raw, &list) == nil && len(list) > 0 && !isDigit(list[0]) {
		return valueText(list[0])
	}
	return valueText(raw)
}

func isDigit(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] >= '0' && raw[0] <= '9' }

// valueText reads a value: text, an array of byte values when it is not UTF-8,
// or null when it is too long.
func valueText(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return "", nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var nums []uint16 // not bytes, which JSON takes as base64
	if err := json.Unmarshal(raw, &nums); err != nil {
		return "", fmt.Errorf("%.40q is neither text nor an array of bytes", raw)
	}
	out := make([]byte, len(nums))
	for i, n := range nums {
		if n > 255 {
			return "", fmt.Errorf("%d is not a byte", n)
		}
		out[i] = byte(n)
	}
	return string(bytes.ToValidUTF8(out, []byte("\uFFFD"))), nil
}
