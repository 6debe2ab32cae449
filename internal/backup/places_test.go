package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// scattered makes a data directory whose log and older blocks lie elsewhere, and
// returns it with all directories that it consists of.
func scattered(t *testing.T) (string, []string) {
	t.Helper()
	top := t.TempDir()
	dir, ssd, hdd := filepath.Join(top, "data"), filepath.Join(top, "ssd/wal"), filepath.Join(top, "hdd/old")
	fill(t, dir, map[string]string{"meta": "of the data", "lock": "", "chunks_head/000001": "head chunks"})
	fill(t, ssd, map[string]string{"00000001": "a log", "checkpoint/1": "a checkpoint"})
	fill(t, hdd, map[string]string{"a": "block"})
	for link, to := range map[string]string{
		filepath.Join(dir, "wal"):       ssd,
		filepath.Join(ssd, "older"):     hdd, // a link in what a link leads to
		filepath.Join(dir, "inside"):    "chunks_head",
		filepath.Join(hdd, "back"):      dir, // and one that leads back
		filepath.Join(dir, "nowhere"):   "/nowhere/at/all",
		filepath.Join(dir, "wal-again"): ssd,
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	return dir, []string{dir, ssd, hdd}
}

func readAll(t *testing.T, dirs []string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for i, dir := range dirs {
		for name, content := range read(t, dir) {
			all[fmt.Sprintf("%d/%s", i, name)] = content
		}
	}
	return all
}

// spoil does to scattered data what a newer version does.
func spoil(t *testing.T, dirs []string) {
	t.Helper()
	fill(t, dirs[0], map[string]string{"meta": "of a newer kind", "new": "thing"})
	fill(t, dirs[1], map[string]string{"00000001": "another log", "00000002": "and more"})
	fill(t, dirs[2], map[string]string{"a": "gone", "b": "another block"})
}

// What links lead to is copied with the data, and put back to where they lead.
func TestLinkedPlacesRoundTrip(t *testing.T) {
	dir, dirs := scattered(t)
	want := readAll(t, dirs)
	set := newSet(t, dir, "lock")
	if got := len(set.Places); got != 2 {
		t.Fatalf("%d places: %+v", got, set.Places)
	}
	spoil(t, dirs)
	if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if err := DropReplaced(&hostfs.Host{}, d); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(want, readAll(t, dirs)); d != "" {
		t.Errorf("-before +restored\n%s", d)
	}
	if err := os.WriteFile(filepath.Join(set.point, "data/prom.places/1/00000001"), []byte("a lag"), 0o640); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if err := verifySet(t, set); !errors.As(err, &damaged) || damaged.File != "data/prom.places/1/00000001" {
		t.Errorf("one byte changed in a place: %v", err)
	}
}

func TestRestoreOfPlacesKilledAtEveryOperation(t *testing.T) {
	tried := 0
	for n := 1; ; n++ {
		dir, dirs := scattered(t)
		want := readAll(t, dirs)
		set := newSet(t, dir, "lock")
		spoil(t, dirs)
		crashed := false
		_ = RestoreData(t.Context(), &hostfs.Host{Guard: stopAt(n, &crashed)}, set, quiet)
		if !crashed {
			break
		}
		tried++
		if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
			t.Fatalf("killed at effect %d: %v", n, err)
		}
		for _, d := range dirs {
			if err := DropReplaced(&hostfs.Host{}, d); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(want, readAll(t, dirs)); d != "" {
			t.Fatalf("killed at effect %d: -before +restored\n%s", n, d)
		}
	}
	if tried < 30 {
		t.Fatalf("only %d effects were tried", tried)
	}
}

// An image of the whole data takes the place of what lies elsewhere too; the links
// stay.
func TestImageOfScatteredData(t *testing.T) {
	dir, dirs := scattered(t)
	image := t.TempDir()
	fill(t, image, map[string]string{ulid + "/index": "of all there is"})
	p := newPoint(t, &hostfs.Host{})
	set, err := TakeData(t.Context(), &hostfs.Host{}, p, DataSet{Name: "prom", Path: dir, Exclude: []string{"lock"}, Places: []Place{{Name: "wal", Path: dirs[1]}}}, ImageCopy(image), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs[:2] {
		if err := DropReplaced(&hostfs.Host{}, d); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(map[string]string{"lock": "", "wal": "-> " + dirs[1], ulid + "/index": "of all there is"}, read(t, dir)); d != "" {
		t.Error(d)
	}
	if left := read(t, dirs[1]); len(left) > 0 {
		t.Errorf("the log that the image makes needless is there: %v", left)
	}
}

// What may not be followed is named, with where it leads.
func TestLinksThatAreNotFollowed(t *testing.T) {
	never := errors.New("it is another's")
	for name, tt := range map[string]struct {
		to   func(dir, top string) string
		may  func(string) error
		want string
	}{
		"a file":          {to: func(_, top string) string { return filepath.Join(top, "file") }, want: "only directories are followed"},
		"its parent":      {to: func(_, top string) string { return top }, want: "it holds "},
		"another's":       {to: func(_, top string) string { return filepath.Join(top, "other") }, may: func(string) error { return never }, want: never.Error()},
		"another user's":  {to: func(_, top string) string { return filepath.Join(top, "foreign") }, want: "it belongs to uid 12345"},
		"round in itself": {to: func(dir, _ string) string { return filepath.Join(dir, "link") }, want: "too many links"},
	} {
		top := t.TempDir()
		dir := filepath.Join(top, "data")
		fill(t, top, map[string]string{"file": "x", "data/x": "", "other/x": "", "foreign/x": ""})
		if os.Geteuid() == 0 {
			if err := os.Chown(filepath.Join(top, "foreign"), 12345, 0); err != nil {
				t.Fatal(err)
			}
		} else if name == "another user's" {
			continue
		}
		if err := os.Symlink(tt.to(dir, top), filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		_, err := SurveyData(dir, nil, top, tt.may)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), filepath.Join(dir, "link")) {
			t.Errorf("%s: %v", name, err)
		}
		if v, err := SurveyData(dir, []string{"link"}, top, tt.may); err != nil || len(v.Places) > 0 {
			t.Errorf("%s, excluded: %+v, %v", name, v, err)
		}
		// Nor does a copy made without a look pass over it.
		if _, err := TakeData(t.Context(), &hostfs.Host{}, newPoint(t, &hostfs.Host{}), DataSet{Name: "prom", Path: dir}, ColdCopy, quiet); err == nil {
			t.Errorf("%s: it was copied as a link", name)
		}
	}
}

// A copy is never made of a link to the data.
func TestLinkToTheDataIsRefused(t *testing.T) {
	top := t.TempDir()
	fill(t, top, map[string]string{"data/x": "precious"})
	link := filepath.Join(top, "link")
	if err := os.Symlink("data", link); err != nil {
		t.Fatal(err)
	}
	if _, err := TakeData(t.Context(), &hostfs.Host{}, newPoint(t, &hostfs.Host{}), DataSet{Name: "prom", Path: link}, ColdCopy, quiet); err == nil || !strings.Contains(err.Error(), "found a link") {
		t.Errorf("%v", err)
	}
	// Nor is one put back where a link is now.
	set := newSet(t, filepath.Join(top, "data"))
	if err := errors.Join(os.Rename(set.Path, set.Path+".moved"), os.Symlink(set.Path+".moved", set.Path)); err != nil {
		t.Fatal(err)
	}
	if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err == nil || !strings.Contains(err.Error(), "expected a directory") {
		t.Errorf("%v", err)
	}
	if got := read(t, set.Path+".moved"); got["x"] != "precious" {
		t.Errorf("the data was touched: %v", got)
	}
}

// A file system that is mounted in the data stays mounted; what it holds is put
// back.
func TestMountedPlace(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, map[string]string{"meta": "of the data", "wal/under": "the mount"})
	mount := filepath.Join(dir, "wal")
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	fill(t, mount, map[string]string{"00000001": "a log", "lost+found/x": "not ours"})
	want := read(t, dir)
	set := newSet(t, dir)
	if len(set.Places) != 1 || !set.Places[0].Mount {
		t.Fatalf("%+v", set.Places)
	}
	fill(t, dir, map[string]string{"meta": "newer", "wal/00000001": "another log", "wal/2": "more"})
	if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, mount} {
		if err := DropReplaced(&hostfs.Host{}, d); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(want, read(t, dir)); d != "" || !mounted(mount) {
		t.Errorf("mounted: %v\n%s", mounted(mount), d)
	}
	deeper := filepath.Join(dir, "a/b")
	fill(t, deeper, map[string]string{"x": ""})
	if err := unix.Mount("tmpfs", deeper, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(deeper, unix.MNT_DETACH) })
	var elsewhere *ElsewhereError
	if _, err := SurveyData(dir, nil, dir, nil); !errors.As(err, &elsewhere) || elsewhere.Name != "a/b" {
		t.Errorf("%v", err)
	}
}

// Where one set takes another's place before the data was accepted, what the first
// moved out stays until the second is seen in place.
func TestOneRestoreAfterAnother(t *testing.T) {
	for n := 1; ; n++ {
		dir, crashed := t.TempDir(), false
		fill(t, dir, map[string]string{"x": "first"})
		first := newSet(t, dir)
		fill(t, dir, map[string]string{"x": "live!"})
		live := newSet(t, dir)
		if err := RestoreData(t.Context(), &hostfs.Host{}, first, quiet); err != nil {
			t.Fatal(err)
		}
		fill(t, dir, map[string]string{"x": "wrong"})
		err := RestoreData(t.Context(), &hostfs.Host{Guard: stopAt(n, &crashed)}, live, quiet)
		found := false
		for _, content := range read(t, dir) {
			found = found || content == "live!"
		}
		if !found {
			t.Fatalf("killed at effect %d (%v): the live data is gone: %v", n, err, read(t, dir))
		}
		if crashed {
			continue
		}
		if err != nil || n < 10 {
			t.Fatalf("%d effects, %v", n, err)
		}
		break
	}
}

// A restore that cannot copy says that the data is untouched, and leaves nothing
// behind; one that has moved data keeps what it put aside.
func TestRestoreThatCannotGoOn(t *testing.T) {
	full := errors.New("no space left on device")
	for op, untouched := range map[string]bool{"copy": true, "write": true, "rename": false} {
		dir, dirs := scattered(t)
		set := newSet(t, dir, "lock")
		spoil(t, dirs)
		want, n := readAll(t, dirs), 0
		guard := func(o, target string) error {
			if o == op && strings.Contains(target, "hdd/old") { // the last of three directories
				n++
				return full
			}
			return nil
		}
		err := RestoreData(t.Context(), &hostfs.Host{Guard: guard}, set, quiet)
		if !errors.Is(err, full) || n == 0 || errors.As(err, new(*UntouchedError)) != untouched {
			t.Fatalf("%s: %v", op, err)
		}
		kept := 0
		for _, d := range dirs {
			if err := DropReplaced(&hostfs.Host{}, d); err != nil {
				kept++
			}
		}
		if untouched && kept > 0 || !untouched && kept == 0 {
			t.Errorf("%s: %d directories keep what was put aside", op, kept)
		}
		if d := cmp.Diff(want, readAll(t, dirs)); untouched && d != "" {
			t.Errorf("%s: -before +after\n%s", op, d)
		}
	}
}

// A service that was started on data half put back has made its own anew: that
// makes way, and nothing is lost.
func TestRestoreAfterTheServiceCameInBetween(t *testing.T) {
	tried := 0
	for n := 1; ; n++ {
		dir, crashed := t.TempDir(), false
		fill(t, dir, tsdb)
		want := read(t, dir)
		set := newSet(t, dir)
		fill(t, dir, map[string]string{"wal/00000001": "another log", "new": "thing"})
		_ = RestoreData(t.Context(), &hostfs.Host{Guard: stopAt(n, &crashed)}, set, quiet)
		if !crashed {
			break
		}
		tried++
		fill(t, dir, map[string]string{"wal/00000009": "of the one in between", "own": "thing"})
		if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
			t.Fatalf("killed at effect %d: %v", n, err)
		}
		if err := DropReplaced(&hostfs.Host{}, dir); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, read(t, dir)); d != "" {
			t.Fatalf("killed at effect %d: -before +restored\n%s", n, d)
		}
	}
	if tried < 10 {
		t.Fatalf("only %d effects were tried", tried)
	}
}

// The service was started in between, on what was in place already, and wrote to it
// without changing names or sizes, as databases do.
func TestRestoreAfterTheServiceWroteInBetween(t *testing.T) {
	wrote := 0
	for n := 1; ; n++ {
		dir, crashed := t.TempDir(), false
		fill(t, dir, tsdb)
		want := read(t, dir)
		set := newSet(t, dir)
		fill(t, dir, map[string]string{"wal/00000001": "another log"})
		_ = RestoreData(t.Context(), &hostfs.Host{Guard: stopAt(n, &crashed)}, set, quiet)
		if !crashed {
			break
		}
		path := filepath.Join(dir, "wal/00000001")
		if have, err := os.ReadFile(path); err == nil && string(have) == tsdb["wal/00000001"] {
			wrote++
			fill(t, dir, map[string]string{"wal/00000001": strings.Repeat("x", len(have))})
		}
		if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
			t.Fatalf("killed at effect %d: %v", n, err)
		}
		if err := DropReplaced(&hostfs.Host{}, dir); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, read(t, dir)); d != "" {
			t.Fatalf("killed at effect %d: -before +restored\n%s", n, d)
		}
	}
	if wrote == 0 {
		t.Fatal("it was never in place when the power was cut")
	}
}
