package run_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	. "github.com/observability-upgrade/observability-upgrade/internal/run"
)

// Of the runs of one second the tenth is newer than the ninth.
func TestRememberedIsTheNewest(t *testing.T) {
	root := layout.Root(t.TempDir())
	h := &hostfs.Host{}
	for n := 1; n <= 10; n++ {
		id := "20260101_000000"
		if n > 1 {
			id += fmt.Sprintf("_%d", n)
		}
		j, err := journal.Create(h, root.JournalDir(), id, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		ch := Change{Component: "prom", Instance: "a", To: component.MustParseVersion(fmt.Sprintf("%d.0.0", n))}
		if err := errors.Join(j.Append("begin", Header{ID: id}), j.Append("change", ch)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(filepath.Join(root.RunsDir(), id, "journal")); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Remembered(root, "prom", []string{"a", "b"})
	if err != nil || len(got) != 1 || got["a"].To.String() != "10.0.0" {
		t.Errorf("remembered %v, %v", got, err)
	}
}
