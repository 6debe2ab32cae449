package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

func TestFind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lib", "audit.log")
	if got, err := Find(path, "r", time.Time{}); got != nil || err != nil {
		t.Errorf("without a log: %v %v", got, err)
	}
	began := time.Date(2026, 11, 25, 12, 0, 0, 700_400_000, time.UTC)
	l := New(&hostfs.Host{}, path)
	for _, e := range []Entry{
		{Time: began.Add(-time.Millisecond), Command: "apply", Outcome: "nothing to do", RunID: "20261125_120000"}, // took the name, and never began
		{Time: began, Command: "apply", RunID: "20261125_120000"},
		{Time: began.Add(time.Second), Command: "rollback", Args: []string{"--to=20261125_120000"}, RunID: "20261125_120001"},
		{Time: began.Add(time.Hour), Command: "recover", RunID: "20261125_120000"},
	} {
		if err := l.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Find(path, "20261125_120000", began)
	if err != nil || len(got) != 2 || got[0].Command != "apply" || got[1].Command != "recover" || got[0].User == "" {
		t.Errorf("%+v %v", got, err)
	}
	// A line that cannot be read does not hide the others.
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	torn := lines[0] + `{"run_id":"20261125_120000","comm` + "\n" + strings.Repeat("x", 3*maxLine) + "\n" + strings.Join(lines[1:], "")
	if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = Find(path, "20261125_120000", began)
	if len(got) != 2 || err == nil || !strings.Contains(err.Error(), path+": line 2: ") {
		t.Errorf("%+v %v", got, err)
	}
}

func FuzzFind(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-25T12:00:00Z","run_id":"r1"}` + "\n"))
	f.Add([]byte(`{"run_id":"r1"`))
	f.Add([]byte("r1\n\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, _ := find(strings.NewReader(string(data)), "r1", time.Time{})
		for _, e := range found {
			if e.RunID != "r1" {
				t.Fatalf("found %+v", e)
			}
		}
	})
}
