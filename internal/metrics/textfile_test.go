package metrics

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

func TestTextfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "textfile", "upgrade.prom")
	put := func(src overview.Source, want bool) {
		t.Helper()
		changed, err := WriteTextfile(t.Context(), &hostfs.Host{}, path, src)
		if err != nil || changed != want {
			t.Fatalf("changed %v, %v; want %v", changed, err, want)
		}
	}
	put(fixed(), true)
	first, err := os.Stat(path)
	if err != nil || first.Mode() != 0o644 {
		t.Fatalf("%v %v", first.Mode(), err)
	}
	// The clock, and commands at work, change nothing.
	put(source(func(context.Context) (*overview.Overview, error) {
		o := full()
		o.ReadAt, o.Running, o.Preparing = now.Add(time.Hour), nil, &overview.Process{PID: 1}
		o.Windows.Open, o.Windows.Next = true, now.AddDate(0, 0, 10)
		return o, nil
	}), false)
	if st, err := os.Stat(path); err != nil || !os.SameFile(first, st) || !st.ModTime().Equal(first.ModTime()) {
		t.Errorf("it was written again: %v", err)
	}
	put(source(func(context.Context) (*overview.Overview, error) {
		o := full()
		o.Broken = nil
		return o, nil
	}), true)
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), `observability_rollback_failed{component="loki"} 0`) {
		t.Errorf("%v\n%s", err, data)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

// node_exporter reads whatever ends in .prom, also while the file is replaced.
func TestTextfileIsNeverHalf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "upgrade.prom")
	var seen []string
	h := &hostfs.Host{Guard: func(string, string) error {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.prom"))
		seen = append(seen, found...)
		return err
	}}
	if _, err := WriteTextfile(t.Context(), h, path, fixed()); err != nil {
		t.Fatal(err)
	}
	for _, s := range seen {
		if s != path {
			t.Errorf("there is %s", s)
		}
	}
	// What cannot be written leaves the old file.
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	h.Guard = func(op, _ string) error {
		if op == "write.rename" {
			return full
		}
		return nil
	}
	empty := source(func(context.Context) (*overview.Overview, error) { return &overview.Overview{}, nil })
	if _, err := WriteTextfile(t.Context(), h, path, empty); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("%v\n%s", err, after)
	}
	unreadable := source(func(context.Context) (*overview.Overview, error) { return nil, full })
	if _, err := WriteTextfile(t.Context(), &hostfs.Host{}, path, unreadable); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}

// The last of many writers leaves what is so in the end.
func TestTextfileOfManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "upgrade.prom")
	var mu sync.Mutex
	n := 0
	src := source(func(context.Context) (*overview.Overview, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return &overview.Overview{Backups: []overview.Backup{{Bytes: int64(n)}}}, nil
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := WriteTextfile(t.Context(), &hostfs.Host{}, path, src); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), "\nobservability_backup_bytes 20\n") {
		t.Errorf("%v\n%s", err, data)
	}
}

func TestTextfileWaitsNoLongerThanItsContext(t *testing.T) {
	dir := t.TempDir()
	held, err := queue(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = WriteTextfile(ctx, &hostfs.Host{}, filepath.Join(dir, "upgrade.prom"), fixed())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "fuser "+dir) {
		t.Errorf("got %v", err)
	}
}
