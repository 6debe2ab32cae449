package state

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestSetVersion(t *testing.T) {
	f := &File{}
	f.SetVersion("prometheus", "2.53.0", day)
	f.SetVersion("prometheus", "2.55.1", day.Add(time.Hour))
	f.SetVersion("prometheus", "2.55.1", day.Add(2*time.Hour))
	want := Component{CurrentVersion: "2.55.1", PreviousVersion: "2.53.0", InstalledAt: day, UpgradedAt: day.Add(time.Hour)}
	if diff := cmp.Diff(want, f.Components["prometheus"], cmp.AllowUnexported(Component{})); diff != "" {
		t.Error(diff)
	}
}

func TestFailedVersions(t *testing.T) {
	var c Component
	c.MarkFailed(FailedVersion{Version: "3.0.0", Reason: "first"})
	before := c
	c.MarkFailed(FailedVersion{Version: "3.1.0", Reason: "other"})
	c.MarkFailed(FailedVersion{Version: "3.0.0", Reason: "second"})
	if got, ok := c.Failed("3.0.0"); !ok || got.Reason != "second" || len(c.FailedVersions) != 2 {
		t.Errorf("after marking twice: %+v", c.FailedVersions)
	}
	c.ClearFailed("3.0.0")
	if _, ok := c.Failed("3.0.0"); ok || len(c.FailedVersions) != 1 {
		t.Errorf("after clearing: %+v", c.FailedVersions)
	}
	if len(before.FailedVersions) != 1 || before.FailedVersions[0].Reason != "first" {
		t.Errorf("a copy made earlier changed too: %+v", before.FailedVersions)
	}
}

func TestBackups(t *testing.T) {
	f := New()
	var c Component
	a, b := Backup{"1.0.0", "20260301_120000", "/b/a"}, Backup{"1.1.0", "20260302_120000", "/b/b"}
	c.AddBackup(a)
	c.AddBackup(b)
	c.AddBackup(a)
	f.Components["x"], f.Components["y"] = c, c
	f.DropBackups([]string{"/b/a", "/b/unknown"})
	for _, name := range []string{"x", "y"} {
		if got := f.Components[name].Backups; !slices.Equal(got, []Backup{b}) {
			t.Errorf("%s keeps %v", name, got)
		}
	}
	if !slices.Equal(c.Backups, []Backup{a, b}) {
		t.Errorf("a copy made earlier changed too: %v", c.Backups)
	}
}

func TestAddRunKeepsTheNewestInOrder(t *testing.T) {
	f := New()
	for i := range 150 {
		f.AddRun(RunSummary{ID: fmt.Sprint(i), Timestamp: day.Add(time.Duration(i) * time.Hour), Status: "failed"})
	}
	// A replay replaces its own entry, in its own place.
	f.AddRun(RunSummary{ID: "100", Timestamp: day.Add(100 * time.Hour), Status: "success"})
	if n := len(f.UpgradeHistory); n != maxRuns {
		t.Fatalf("%d runs are kept, want %d", n, maxRuns)
	}
	for i, r := range f.UpgradeHistory {
		if r.ID != fmt.Sprint(i+50) {
			t.Fatalf("run %d is %s", i, r.ID)
		}
		if want := map[bool]string{true: "success", false: "failed"}[r.ID == "100"]; r.Status != want {
			t.Errorf("run %s is %s", r.ID, r.Status)
		}
		if r.ComponentsUpgraded == nil {
			t.Error("components_upgraded would be null")
		}
	}
	if got := Newest(f.UpgradeHistory); got.ID != "149" {
		t.Errorf("newest is %s", got.ID)
	}
	if got := Newest(nil); got.ID != "" {
		t.Errorf("newest of none is %+v", got)
	}
}

// After the clock was set back, runs begin in the second of the one before them and
// are told apart by their names.
func TestNewestOfOneSecond(t *testing.T) {
	f := New()
	name := day.Format("20060102_150405")
	for _, id := range []string{name, name + "_2", name + "_9", name + "_11", name + "_10"} {
		r := RunSummary{ID: id, Timestamp: day}
		if id == name {
			r.Timestamp = day.Add(time.Second / 2) // by the clock as it was
		}
		f.AddRun(r)
	}
	if got, last := Newest(f.UpgradeHistory).ID, f.UpgradeHistory[4].ID; got != name+"_11" || last != got {
		t.Errorf("newest is %s, the last one %s", got, last)
	}
	if first := f.UpgradeHistory[0].ID; first != name {
		t.Errorf("the first one is %s", first)
	}
}

func TestSignatureVerifiedIsKept(t *testing.T) {
	const text = `{"components":{
"signed":{"current_version":"1.1.0","signature_verified":{"type":"minisign","key":"RWQ","version":"1.1.0"}},
"unsigned":{"current_version":"2.0.0"},"null":{"current_version":"3.0.0","signature_verified":null}}}`
	f, err := decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	f.SetVersion("signed", "1.2.0", day)
	data, err := f.encode()
	if err != nil {
		t.Fatal(err)
	}
	if f, err = decode(data); err != nil {
		t.Fatal(err)
	}
	want := &SignatureVerified{Type: "minisign", Key: "RWQ", Version: "1.1.0"}
	if diff := cmp.Diff(want, f.Components["signed"].SignatureVerified); diff != "" {
		t.Error(diff)
	}
	if want.String() != "1.1.0 by a minisign signature of RWQ" {
		t.Error(want)
	}
	for _, name := range []string{"unsigned", "null"} {
		if f.Components[name].SignatureVerified != nil {
			t.Errorf("%s is said to be signed", name)
		}
	}
	if n := bytes.Count(data, []byte("signature_verified")); n != 1 {
		t.Errorf("the key is written %d times:\n%s", n, data)
	}
	if _, err := decode([]byte(`{"components":{"x":{"signature_verified":"yes"}}}`)); err == nil {
		t.Error("text is taken for a record")
	}
}
