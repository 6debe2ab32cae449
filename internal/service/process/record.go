package process

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// record is what is written down of a started service. It is written once
// before the start, with the token alone, and again with the process: whatever
// dies in between, the process is found by its token.
type record struct {
	Name      string    `json:"name"`
	PID       int       `json:"pid"` // 0: about to be started
	Ticks     uint64    `json:"start_ticks"`
	PGID      int       `json:"pgid"`
	BootID    string    `json:"boot_id"`
	Token     string    `json:"token"`
	Command   []string  `json:"command"`
	StartedAt time.Time `json:"started_at"`
	Stopped   bool      `json:"stopped"` // ended because it was told to
	Restarts  int       `json:"restarts"`
	LogOffset int64     `json:"log_offset"` // where this start begins in the log file
}

func (m *Manager) recordPath(name string) string { return filepath.Join(m.dir, name+".json") }

// Recorded names the services that there are records of, whether they run or not.
func (m *Manager) Recorded() ([]string, error) {
	entries, err := os.ReadDir(m.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("directory of process records: %w", err)
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && checkName(name) == nil {
			out = append(out, name)
		}
	}
	return out, nil
}

// checkName refuses names that would leave the manager's directories.
func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q cannot name a service: expected a name without slashes that does not begin with a dot", name)
	}
	return nil
}

// load reads a service's record; a zero one when there is none.
func (m *Manager) load(name string) (record, error) {
	if err := checkName(name); err != nil {
		return record{}, err
	}
	data, err := os.ReadFile(m.recordPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("process record of %s: %w", name, err)
	}
	r, err := parseRecord(data, name)
	if err != nil {
		return record{}, fmt.Errorf("process record %s: %w; its processes have %s=%s in /proc/PID/environ: end them by hand, then remove the file",
			m.recordPath(name), err, nameVar, name)
	}
	return r, nil
}

// parseRecord decodes the record of the named service. Fields of later versions
// are ignored.
func parseRecord(data []byte, name string) (record, error) {
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, err
	}
	token, err := hex.DecodeString(r.Token)
	switch {
	case r.Name != name:
		return record{}, fmt.Errorf("it is of %q, expected %q", r.Name, name)
	case err != nil || len(token) < 16:
		return record{}, fmt.Errorf("token %q, expected at least 32 hexadecimal digits", r.Token)
	case r.BootID == "":
		return record{}, errors.New("boot_id is empty")
	case r.PID < 0 || r.PID == 1:
		return record{}, fmt.Errorf("pid %d cannot be a service", r.PID)
	case r.PID > 0 && r.Ticks == 0:
		return record{}, errors.New("start_ticks is missing")
	}
	return r, nil
}

func (m *Manager) save(r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := m.host.MkdirAll(m.dir, 0o755); err != nil {
		return fmt.Errorf("directory of process records: %w", err)
	}
	if err := m.host.WriteFile(m.recordPath(r.Name), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("process record of %s: %w", r.Name, err)
	}
	return nil
}

// find returns the record of the service with the process that runs now: PID is
// 0 when none does. A record that a crash left without a process is completed
// by its token. Nothing is written.
func (m *Manager) find(name string) (record, error) {
	r, err := m.load(name)
	if err != nil || r.Token == "" {
		return r, err
	}
	boot, err := bootID()
	if err != nil {
		return r, err
	}
	if r.BootID != boot {
		r.PID = 0
		return r, nil
	}
	if r.PID != 0 {
		if !alive(r.PID, r.Ticks) {
			r.PID = 0
		}
		return r, nil
	}
	left, err := members(0, r.Token, nil)
	if err != nil {
		return r, err
	}
	if p, ok := eldest(left, func(pid int) bool { return hasToken(pid, r.Token) }); ok {
		r.PID, r.Ticks, r.PGID = p.pid, p.ticks, p.group
	}
	return r, nil
}
