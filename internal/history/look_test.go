package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func lookRow(i int) Upgrade {
	return Upgrade{
		Timestamp: time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC), RunID: fmt.Sprintf("r%d", i), Component: "pulse", OldVersion: "1.0.0", NewVersion: fmt.Sprintf("1.%d.0", i),
		Status: Success, TriggeredBy: "manual", ErrorMessage: strings.Repeat("x", 2000),
	}
}

// beside lists what lies in a directory, with times of change, its own included.
func beside(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(e.Name(), st.Size(), st.ModTime()))
	}
	st, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append(out, st.ModTime().String()), "\n")
}

func TestLookWritesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "h.db")
	count := func(want int) {
		t.Helper()
		was := beside(t, dir)
		n := -1
		err := Look(t.Context(), path, func(d *DB) error {
			rows, err := d.List(t.Context(), Filter{})
			n = len(rows)
			return err
		})
		if err != nil || n != want {
			t.Errorf("%d rows, want %d: %v", n, want, err)
		}
		if is := beside(t, dir); is != was {
			t.Errorf("looking changed files:\n%s\n---\n%s", was, is)
		}
	}
	count(0)
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Record(t.Context(), lookRow(1)); err != nil {
		t.Fatal(err)
	}
	// A writer has it open: its log is heeded.
	n := 0
	if err := Look(t.Context(), path, func(d *DB) error {
		rows, err := d.List(t.Context(), Filter{})
		n = len(rows)
		return err
	}); err != nil || n != 1 {
		t.Errorf("%d rows beside a writer: %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	count(1)
}

func TestLookErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	called := false
	err := Look(t.Context(), path, func(*DB) error { called = true; return nil })
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || called {
		t.Errorf("%v, called %v", err, called)
	}
	mine := errors.New("mine")
	if err := Look(t.Context(), filepath.Join(t.TempDir(), "none.db"), func(*DB) error { return mine }); !errors.Is(err, mine) {
		t.Error(err)
	}
}

// What is written to at every look is not called corrupt for what a torn read saw.
func TestLookAlwaysTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.db")
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, torn := range []error{nil, os.ErrInvalid, fmt.Errorf("read: %w", &CorruptError{path, os.ErrInvalid})} {
		at := time.Now()
		err := Look(t.Context(), path, func(*DB) error {
			at = at.Add(time.Second)
			return errors.Join(os.Chtimes(path, at, at), torn)
		})
		if err == nil || !strings.Contains(err.Error(), "it was written to each of 10 times") || errors.As(err, new(*CorruptError)) || errors.Is(err, os.ErrInvalid) != (torn != nil) {
			t.Errorf("%v: %v", torn, err)
		}
	}
}

// Whoever looks while others write sees whole states, one after the other.
func TestLookBesideWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.db")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			d, err := Open(context.Background(), path)
			if err == nil {
				_, err = d.Record(context.Background(), lookRow(i))
				err = errors.Join(err, d.Close())
			}
			if err != nil {
				done <- err
				return
			}
			time.Sleep(3 * time.Millisecond) // as real runs, it does not write all the time
		}
		done <- nil
	}()
	last, seen := 0, 0
	for begin := time.Now(); time.Since(begin) < 2*time.Second || last < 5 && time.Since(begin) < time.Minute; {
		err := Look(t.Context(), path, func(d *DB) error {
			rows, err := d.List(t.Context(), Filter{})
			seen = len(rows)
			for i, r := range rows {
				if want := lookRow(len(rows) - 1 - i); err == nil && r.NewVersion != want.NewVersion {
					return fmt.Errorf("row %d is %s, want %s", i, r.NewVersion, want.NewVersion)
				}
			}
			return err
		})
		if err != nil && !strings.Contains(err.Error(), "it was written to each of") {
			t.Fatal(err)
		}
		if err == nil && seen < last {
			t.Fatalf("%d rows after %d", seen, last)
		}
		if err == nil {
			last = seen
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if last < 5 {
		t.Errorf("%d rows were seen", last)
	}
}
