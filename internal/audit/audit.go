// Package audit appends who did what, when and how it ended to the audit log.
package audit

import (
	"encoding/json"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Entry is one line.
type Entry struct {
	Time     time.Time `json:"time"`
	User     string    `json:"user"`
	UID      int       `json:"uid"`
	SudoUser string    `json:"sudo_user,omitempty"`
	PID      int       `json:"pid"`
	Command  string    `json:"command"`
	Args     []string  `json:"args"`
	Outcome  string    `json:"outcome"`
	ExitCode int       `json:"exit_code"`
	RunID    string    `json:"run_id,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// Log is the audit log.
type Log struct {
	host *hostfs.Host
	path string
}

// New returns the log at a path; nothing is opened yet.
func New(h *hostfs.Host, path string) *Log { return &Log{h, path} }

var secret = regexp.MustCompile(`(?i)((?:token|secret|password)[^=]*=).+`)

// Write appends one entry, filling in who and when.
func (l *Log) Write(e Entry) error {
	e.Time, e.UID, e.PID, e.SudoUser = time.Now().UTC(), os.Getuid(), os.Getpid(), os.Getenv("SUDO_USER")
	e.User = strconv.Itoa(e.UID)
	if u, err := user.LookupId(e.User); err == nil {
		e.User = u.Username
	}
	args := make([]string, len(e.Args))
	for i, a := range e.Args {
		args[i] = secret.ReplaceAllString(a, "$1[redacted]")
	}
	e.Args = args
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := l.host.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return err
	}
	return l.host.Append(l.path, append(line, '\n'), 0o640)
}
