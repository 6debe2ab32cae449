// Package audit appends who did what, when and how it ended to the audit log:
// one JSON object per line, never rewritten.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// patience is how long a Write waits for others to finish theirs.
const patience = 2 * time.Second

// Entry is one line. Write fills in who and, where it is zero, when.
type Entry struct {
	Time     time.Time `json:"time"`
	User     string    `json:"user"` // name of UID, or its number where it has none
	UID      int       `json:"uid"`
	SudoUser string    `json:"sudo_user,omitempty"` // who called sudo, as sudo says
	PID      int       `json:"pid"`
	Command  string    `json:"command"`
	Args     []string  `json:"args"`
	Outcome  string    `json:"outcome"`
	ExitCode int       `json:"exit_code"`
	RunID    string    `json:"run_id,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// Log is the audit log. It may be used from several goroutines and processes.
type Log struct {
	host *hostfs.Host
	path string
}

// New returns the log at a path; nothing is opened yet.
func New(h *hostfs.Host, path string) *Log { return &Log{h, path} }

// Write appends one entry, in one write, and syncs it. The file is created with
// mode 0640, its directory with 0755. Keeping secrets out of Args and Detail is
// the caller's duty; values that look like one by their name are blotted out.
func (l *Log) Write(e Entry) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	e.UID, e.PID, e.SudoUser = os.Getuid(), os.Getpid(), os.Getenv("SUDO_USER")
	e.User = strconv.Itoa(e.UID)
	if u, err := user.LookupId(e.User); err == nil {
		e.User = u.Username
	}
	e.Args, e.Detail = redactArgs(e.Args), redactText(e.Detail)
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	line = append(line, '\n')
	if err := l.host.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	alone, release, err := l.alone()
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	defer release()
	if alone {
		torn, err := l.torn()
		if err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		if torn {
			line = append([]byte{'\n'}, line...)
		}
	}
	if err := l.host.Append(l.path, line, 0o640); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

// alone waits until no other process is at a Write, by a lock on the directory:
// a line half written by another would look torn. Who cannot get the lock in
// time writes all the same, as appending is safe without it.
func (l *Log) alone() (bool, func(), error) {
	dir, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return false, nil, err
	}
	release := func() { dir.Close() }
	for deadline := time.Now().Add(patience); ; {
		switch err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return true, release, nil
		case !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline):
			return false, release, nil
		}
		time.Sleep(time.Millisecond)
	}
}

// torn reports whether the last line has no end, as a full disk or a power cut
// leaves it: what is added must not be glued to it.
func (l *Log) torn() (bool, error) {
	f, err := os.OpenFile(l.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil // there is nothing, or it may only be added to
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !st.Mode().IsRegular() {
		return false, fmt.Errorf("%s is not a regular file; look at it, then: rm %s", l.path, l.path)
	}
	if st.Size() == 0 {
		return false, nil
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, st.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}
