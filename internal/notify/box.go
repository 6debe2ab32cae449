package notify

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// How much is kept. What is beyond is removed, oldest first.
const (
	maxQueued  = 2000
	maxDead    = 500
	maxSent    = 1000
	keepSent   = 30 * 24 * time.Hour
	maxMessage = 1 << 20 // bytes of a file
)

// The directories of a box. A message is in one of queue and dead; what was sent
// leaves a note in sent.
const (
	queueDir = "queue"
	deadDir  = "dead"
	sentDir  = "sent"
)

// message is one file of the queue, or of the dead letters: what one channel is to
// say. It holds no secret.
type message struct {
	ID          string    `json:"id"`
	Channel     string    `json:"channel"`
	Subject     string    `json:"subject"`
	Body        string    `json:"body"`
	Data        Data      `json:"data"`
	Created     time.Time `json:"created"`
	Attempts    int       `json:"attempts"`
	LastAttempt time.Time `json:"last_attempt,omitzero"`
	NextAttempt time.Time `json:"next_attempt,omitzero"` // not before
	LastError   string    `json:"last_error,omitempty"`
	Done        []string  `json:"done,omitempty"` // e-mail: digests of the addresses that have it, as an address may come from a secret
	Died        time.Time `json:"died,omitzero"`
}

// note is what is kept of a message that was sent.
type note struct {
	ID      string    `json:"id"`
	Channel string    `json:"channel"`
	Event   string    `json:"event"`
	RunID   string    `json:"run_id"`
	SentAt  time.Time `json:"sent_at"`
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{16}$`)

// box is the notify directory. Any process may add to the queue and bring dead
// letters back; only the one that holds the deliverer's lock changes or removes
// what is queued.
type box struct {
	dir  string
	host *hostfs.Host
}

func (b *box) path(dir, id string) string { return filepath.Join(b.dir, dir, id+".json") }

// UnsafeError refuses a directory in which another user could plant messages.
type UnsafeError struct{ Path, Reason, Fix string }

func (e *UnsafeError) Error() string {
	return fmt.Sprintf("%s %s, so it is not used; type: %s", e.Path, e.Reason, e.Fix)
}

// make creates the directories that are missing, for their owner alone.
func (b *box) make() error {
	for _, dir := range []string{"", queueDir, deadDir, sentDir} {
		path := filepath.Join(b.dir, dir)
		if err := b.host.MkdirAll(path, 0o700); err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			return &UnsafeError{Path: path, Reason: "is a link", Fix: "rm " + path}
		case ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
			return &UnsafeError{Path: path, Reason: fmt.Sprintf("belongs to user %d, neither root nor you", sys.Uid), Fix: "chown -R root: " + path}
		case st.Mode().Perm()&0o022 != 0:
			return &UnsafeError{Path: path, Reason: fmt.Sprintf("has mode %04o and can be written by others", st.Mode().Perm()), Fix: "chmod 0700 " + path}
		}
	}
	return nil
}

// add puts a message into the queue, unless it is there, dead or sent already.
func (b *box) add(m *message) (added bool, err error) {
	if err := b.make(); err != nil {
		return false, err
	}
	for _, dir := range []string{queueDir, deadDir, sentDir} {
		if _, err := os.Lstat(b.path(dir, m.ID)); err == nil {
			return false, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	ids, err := b.list(queueDir)
	if err != nil {
		return false, err
	}
	if len(ids) >= maxQueued {
		return false, fmt.Errorf("%d messages wait already, and nobody delivers them; see `observability-upgrade notify status`", len(ids))
	}
	return true, b.write(queueDir, m)
}

func (b *box) write(dir string, m *message) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if len(data) >= maxMessage {
		return fmt.Errorf("it has %d bytes, more than %d", len(data), maxMessage)
	}
	return b.host.WriteFile(b.path(dir, m.ID), append(data, '\n'), 0o600)
}

// list gives the ids in a directory, sorted; none where there is no directory.
func (b *box) list(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(b.dir, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(id, ".") {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// read reads one message; fs.ErrNotExist where it is gone. A file that is none of
// ours is a DamagedError.
func (b *box) read(dir, id string) (*message, error) {
	path := b.path(dir, id)
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	m, err := decodeMessage(data)
	if err == nil && m.ID != id {
		err = fmt.Errorf("it says that it is message %q", m.ID)
	}
	if err != nil {
		return nil, &DamagedError{Path: path, Err: err}
	}
	return m, nil
}

// DamagedError says that a file cannot be read as what this package writes.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%s cannot be read: %v", e.Path, e.Err) }

// Unwrap is the cause.
func (e *DamagedError) Unwrap() error { return e.Err }

func readSmall(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxMessage {
		return nil, &DamagedError{Path: path, Err: fmt.Errorf("it is no regular file of at most %d bytes", maxMessage)}
	}
	return os.ReadFile(path)
}

// decodeMessage reads a file of the queue. Keys that are not known are those of
// a newer version of this program, and are left alone.
func decodeMessage(data []byte) (*message, error) {
	var m message
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&m); err != nil {
		return nil, err
	}
	switch {
	case dec.More():
		return nil, errors.New("something follows the document")
	case !idPattern.MatchString(m.ID):
		return nil, fmt.Errorf("id %q: want 16 hexadecimal digits", m.ID)
	case m.Channel == "":
		return nil, errors.New("it names no channel")
	case !slices.Contains(config.Events(), m.Data.Event):
		return nil, fmt.Errorf("unknown event %q", m.Data.Event)
	case m.Attempts < 0:
		return nil, fmt.Errorf("%d attempts", m.Attempts)
	}
	return &m, nil
}

// sent notes that a message was sent and takes it out of the queue. The note comes
// first: a message that has one is not sent again, even if it is still queued.
func (b *box) sent(m *message, at time.Time) error {
	data, err := json.Marshal(note{ID: m.ID, Channel: m.Channel, Event: m.Data.Event, RunID: m.Data.RunID, SentAt: at.UTC()})
	if err != nil {
		return err
	}
	return errors.Join(b.host.WriteFile(b.path(sentDir, m.ID), append(data, '\n'), 0o600), b.host.Remove(b.path(queueDir, m.ID)))
}

// bury makes a queued message a dead letter.
func (b *box) bury(m *message, at time.Time) error {
	m.Died = at.UTC()
	if err := b.write(queueDir, m); err != nil {
		return err
	}
	return b.host.Rename(b.path(queueDir, m.ID), b.path(deadDir, m.ID))
}

// revive puts a dead letter back into the queue, as if it were new.
func (b *box) revive(m *message) error {
	m.Attempts, m.LastAttempt, m.NextAttempt, m.LastError, m.Died = 0, time.Time{}, time.Time{}, "", time.Time{}
	if err := b.write(deadDir, m); err != nil {
		return err
	}
	return b.host.Rename(b.path(deadDir, m.ID), b.path(queueDir, m.ID))
}

// discard puts a file that cannot be read among the dead letters.
func (b *box) discard(id string) error {
	return b.host.Rename(b.path(queueDir, id), b.path(deadDir, id))
}

// wasSent reports whether there is a note of a message.
func (b *box) wasSent(id string) bool {
	_, err := os.Lstat(b.path(sentDir, id))
	return err == nil
}

// notes reads what was sent, newest first. Notes that cannot be read count as
// none: they say nothing that anybody waits for.
func (b *box) notes() ([]note, error) {
	ids, err := b.list(sentDir)
	if err != nil {
		return nil, err
	}
	var out []note
	for _, id := range ids {
		data, err := readSmall(b.path(sentDir, id))
		if err != nil {
			continue
		}
		var n note
		if json.Unmarshal(data, &n) == nil && n.ID == id {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b note) int { return cmp.Or(b.SentAt.Compare(a.SentAt), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// all reads the messages of a directory, oldest first, and the ids of those that
// cannot be read.
func (b *box) all(dir string) (list []*message, damaged []*DamagedError, err error) {
	ids, err := b.list(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		m, err := b.read(dir, id)
		var bad *DamagedError
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was sent, or revived, meanwhile
		case errors.As(err, &bad):
			damaged = append(damaged, bad)
		case err != nil:
			return nil, nil, err
		default:
			list = append(list, m)
		}
	}
	slices.SortFunc(list, byAge)
	return list, damaged, nil
}

func byAge(a, b *message) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.ID, b.ID))
}

// prune removes what is beyond the bounds: old notes, the oldest dead letters, and
// temporary files that a crash left.
func (b *box) prune(now time.Time) error {
	var errs []error
	notes, err := b.notes()
	errs = append(errs, err)
	for i, n := range notes {
		if i >= maxSent || now.Sub(n.SentAt) > keepSent {
			errs = append(errs, b.host.Remove(b.path(sentDir, n.ID)))
		}
	}
	dead, _, err := b.all(deadDir)
	errs = append(errs, err)
	for i := range max(0, len(dead)-maxDead) {
		errs = append(errs, b.host.Remove(b.path(deadDir, dead[i].ID)))
	}
	left, err := filepath.Glob(filepath.Join(b.dir, "*", ".*.obsup-tmp"))
	errs = append(errs, err)
	for _, path := range left {
		if st, err := os.Lstat(path); err == nil && now.Sub(st.ModTime()) > 24*time.Hour {
			errs = append(errs, b.host.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// wake asks a deliverer that waits for the next attempts to make them now.
func (b *box) wake() error { return b.host.WriteFile(filepath.Join(b.dir, "wake"), nil, 0o600) }

// woken is when wake was last called; zero for never.
func (b *box) woken() time.Time {
	st, err := os.Lstat(filepath.Join(b.dir, "wake"))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}
