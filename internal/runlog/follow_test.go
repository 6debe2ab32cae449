package runlog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// A follower that is fed byte by byte knows in the end what Read knows, and tells
// each line once.
func TestFollow(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 7)
	whole, err := os.ReadFile(file(root, id))
	if err != nil {
		t.Fatal(err)
	}
	want, err := Read(root, id)
	if err != nil {
		t.Fatal(err)
	}
	slow := layout.Root(t.TempDir())
	f, err := Follow(slow, id)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Poll(); err != nil || got != nil {
		t.Fatalf("of a log that is not there: %v, %v", got, err)
	}
	if err := os.MkdirAll(filepath.Dir(file(slow, id)), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(file(slow, id))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var lines, steps []int
	for i := range whole {
		if _, err := out.Write(whole[i : i+1]); err != nil {
			t.Fatal(err)
		}
		changes, err := f.Poll()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			lines, steps = append(lines, c.Line), append(steps, c.Step)
		}
	}
	if diff := cmp.Diff([]int{1, 2, 3, 4, 5, 6, 7}, lines); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{-1, 0, 0, 1, 1, 1, -1}, steps); diff != "" {
		t.Error(diff)
	}
	same := cmp.Comparer(func(a, b component.Version) bool { return a.Equal(b) })
	if diff := cmp.Diff(want, f.Record, same); diff != "" {
		t.Errorf("-read +followed:\n%s", diff)
	}
}

// Lines that cannot be read are left out, as Read leaves them out; what is no log
// of ours is refused.
func TestFollowDamage(t *testing.T) {
	root := layout.Root(t.TempDir())
	write(t, root, 3)
	log := file(root, id)
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(log, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Follow(root, id)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := json.Marshal(Entry{Step: run.StepStart, Component: "pulse"})
	if err != nil {
		t.Fatal(err)
	}
	add("\x00\x00\x00not json\n" + string(entry) + "\n{\"step\":\"st")
	changes, err := f.Poll()
	if err != nil || len(changes) != 4 || changes[3].Line != 5 || len(f.Record.Steps) != 2 {
		t.Fatalf("%+v, %v", changes, err)
	}
	if err := os.Truncate(log, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Poll(); err == nil || !strings.Contains(err.Error(), "it was cut") {
		t.Errorf("of a log that was cut: %v", err)
	}
	if _, err := Follow(root, "../../etc"); err == nil {
		t.Error("a name that leads elsewhere is followed")
	}
	long, err := Follow(root, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, make([]byte, readAtOnce+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := long.Poll(); err == nil || !strings.Contains(err.Error(), "line 1: longer than") {
		t.Errorf("of one long line: %v", err)
	}
}

// Whatever the log, a follower knows what decode knows.
func FuzzFollow(f *testing.F) {
	f.Add([]byte(`{"step":"begin","begin":{"id":"20261125_120000"}}` + "\n" + `{"step":"stop","component":"a"}` + "\n" + `{"step":"stop","component":"a","done":true}` + "\nx"))
	f.Add([]byte("\x00\n\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		root := layout.Root(t.TempDir())
		path := file(root, id)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		follower, err := Follow(root, id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := follower.Poll(); err != nil {
			t.Fatal(err)
		}
		want, err := decode(id, data)
		if err != nil {
			return // it is no log at all
		}
		a, errA := json.Marshal(want)
		b, errB := json.Marshal(follower.Record)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("decoded %s %v\nfollowed %s %v", a, errA, b, errB)
		}
	})
}
