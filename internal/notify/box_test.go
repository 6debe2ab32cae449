package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

func TestFilesAreForTheirOwner(t *testing.T) {
	w := newWorld(t, "%s", hooks("a", "http://127.0.0.1:1/"))
	w.send(UpgradeFailed)
	for _, dir := range []string{"", queueDir, deadDir, sentDir} {
		st, err := os.Stat(filepath.Join(w.root.NotifyDir(), dir))
		if err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st.Mode(), err)
		}
	}
	w.hidden()
}

// A directory in which others could plant messages is refused, with the command
// that mends it.
func TestUnsafeDirectories(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"chmod 0700": func(dir string) error { return errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o777)) },
		"rm ": func(dir string) error {
			return errors.Join(os.MkdirAll(dir+"-elsewhere", 0o700), os.MkdirAll(filepath.Dir(dir), 0o755), os.Symlink(dir+"-elsewhere", dir))
		},
	} {
		for _, dir := range []string{"", queueDir} {
			w := newWorld(t, "%s", hooks("a", "http://127.0.0.1:1/"))
			path := filepath.Join(w.root.NotifyDir(), dir)
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			var unsafe *UnsafeError
			if err := w.notifier().Send(Sample(UpgradeFailed)); !errors.As(err, &unsafe) || unsafe.Path != path || !strings.HasPrefix(unsafe.Fix, name) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// A file that cannot be read is put aside, told of, and stops nothing.
func TestDamagedFiles(t *testing.T) {
	s := httpServer(t)
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	for id, text := range map[string]string{
		"0000000000000001": "", "0000000000000002": "{", "0000000000000003": `{"id": "0000000000000004", "channel": "a", "data": {"event": "upgrade_failed"}}`,
		"0000000000000005": `{"id": "0000000000000005", "channel": "a", "data": {"event": "test"}}`,
	} {
		w.write(w.box().path(queueDir, id), text, 0o600)
	}
	if err := os.Symlink("/etc/passwd", w.box().path(queueDir, "0000000000000006")); err != nil {
		t.Fatal(err)
	}
	if r := w.deliver(); r != (Report{Sent: 1, Dead: 5}) {
		t.Errorf("%+v", r)
	}
	dead := w.status().Dead
	if len(dead) != 5 || dead[0].Channel != "" || !strings.Contains(dead[0].Reason, "cannot be read") || !strings.Contains(dead[0].Reason, "rm "+w.root.NotifyDir()) {
		t.Errorf("%+v", dead)
	}
	if got, err := Retry(w.root, &hostfs.Host{}, ""); err != nil || len(got) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Old notes, the oldest dead letters and left-overs go; a queue that nobody
// empties does not grow for ever.
func TestBounds(t *testing.T) {
	w := newWorld(t, "%s", hooks("a", "http://127.0.0.1:1/"))
	b := w.box()
	now := time.Now()
	if err := b.make(); err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { return fmt.Sprintf("%016x", i) }
	for i := range maxSent + 3 {
		age := time.Duration(i) * time.Second
		if i == 1 {
			age = keepSent + time.Hour
		}
		data, err := json.Marshal(note{ID: at(i), Channel: "a", Event: UpgradeStarted, SentAt: now.Add(-age)})
		if err != nil {
			t.Fatal(err)
		}
		w.write(b.path(sentDir, at(i)), string(data), 0o600)
	}
	for i := range maxDead + 2 {
		data, err := json.Marshal(message{ID: at(i), Channel: "a", Created: now.Add(time.Duration(i) * time.Second), Data: Data{Event: UpgradeStarted}})
		if err != nil {
			t.Fatal(err)
		}
		w.write(b.path(deadDir, at(i)), string(data), 0o600)
	}
	old, young := filepath.Join(b.dir, queueDir, ".x.json.obsup-tmp"), filepath.Join(b.dir, queueDir, ".y.json.obsup-tmp")
	w.write(old, "x", 0o600)
	w.write(young, "x", 0o600)
	if err := os.Chtimes(old, now, now.Add(-25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := b.prune(now); err != nil {
		t.Fatal(err)
	}
	notes, err := b.notes()
	if err != nil || len(notes) != maxSent || notes[0].ID != at(0) || slices.ContainsFunc(notes, func(n note) bool { return n.ID == at(1) }) {
		t.Errorf("%d notes, %v", len(notes), err)
	}
	dead, _, err := b.all(deadDir)
	if err != nil || len(dead) != maxDead || dead[0].ID != at(2) {
		t.Errorf("%d dead, %v", len(dead), err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a left-over stays")
	}
	if _, err := os.Stat(young); err != nil {
		t.Error("a file that may be being written is gone")
	}
	for i := range maxQueued {
		w.write(b.path(queueDir, at(i)), "", 0o600)
	}
	if err := w.notifier().Send(Sample(UpgradeStarted)); err == nil || !strings.Contains(err.Error(), "2000 messages wait already") {
		t.Errorf("%v", err)
	}
}

// FuzzMessage: what is read of a file can be written and read again, and is safe to
// use as it is.
func FuzzMessage(f *testing.F) {
	d := Sample(UpgradeFailed)
	good, err := json.Marshal(message{ID: d.id("a"), Channel: "a", Subject: "s", Body: "b", Data: d, Created: d.Timestamp.Time, Attempts: 2, LastError: "e", Done: []string{"x@y"}})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(good), "", "{}", "[]", `{"id": "0123456789abcdef", "channel": "c", "data": {"event": "upgrade_failed", "actual_duration_seconds": 1e300}}`, `{"id": "../../etc/passwd"}`, string(good) + "{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeMessage(data)
		if err != nil {
			return
		}
		if !idPattern.MatchString(m.ID) || m.Channel == "" || m.Data.check() != nil {
			t.Fatalf("%+v", m)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Skip("a year that JSON does not have")
		}
		m2, err := decodeMessage(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		third, err := json.Marshal(m2)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(again), string(third)); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzAnnounced: what is read of the file can be written and read again.
func FuzzAnnounced(f *testing.F) {
	for _, s := range []string{`{"announced": {"a": ["1", "2"]}}`, `{"announced": {}}`, `{}`, ``, `{"announced": {"a": null}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := decodeAnnounced(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := decodeAnnounced(again); err != nil || !cmp.Equal(a, b) {
			t.Fatalf("%s: %v", again, err)
		}
	})
}
