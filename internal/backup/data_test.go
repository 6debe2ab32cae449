package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Temporary directories are in memory where they can be: these tests sync thousands
// of times.
func TestMain(m *testing.M) {
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() && os.Getenv("TMPDIR") == "" {
		if err := os.Setenv("TMPDIR", "/dev/shm"); err != nil {
			panic(err)
		}
	}
	m.Run()
}

const ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

// tsdb is a data directory in the form of Prometheus'.
var tsdb = map[string]string{
	"lock":                       "",
	"wal/00000001":               "a write-ahead log",
	"empty":                      "",
	ulid + "/index":              "an index",
	ulid + "/meta.json":          "{}",
	ulid + "/chunks/000001":      "chunks",
	"chunks_head/000001":         "head chunks",
	"deep/er/and/deeper/a file ": "with a blank at its end",
}

func fill(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// read lists a directory: content by path, links as "-> target", and the mode of
// all that is not 0640.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			got[rel] = "-> " + to
			return err
		}
		data, err := os.ReadFile(path)
		got[rel] = string(data)
		if info, infoErr := d.Info(); infoErr == nil && info.Mode().Perm() != 0o640 {
			got[rel] += " " + info.Mode().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// newPoint takes a point of nothing, to which data can be added.
func newPoint(t *testing.T, h *hostfs.Host) *Point {
	t.Helper()
	p, err := Take(t.Context(), h, "20260101_000000", Request{Dir: t.TempDir(), Now: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newSet copies a data directory into a new point.
func newSet(t *testing.T, dir string, exclude ...string) *DataSet {
	t.Helper()
	p := newPoint(t, &hostfs.Host{})
	v, err := SurveyData(dir, exclude, p.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var told int64
	set, err := TakeData(t.Context(), &hostfs.Host{}, p, DataSet{Name: "prom", Method: "copy", Path: dir, Exclude: exclude, Places: v.Places, TakenAt: time.Unix(0, 0).UTC()},
		ColdCopy, func(n int64) { told += n })
	if err != nil {
		t.Fatal(err)
	}
	if told != set.Bytes {
		t.Errorf("told of %d bytes, %d were copied", told, set.Bytes)
	}
	again, err := p.Data("prom")
	if err != nil || again == nil {
		t.Fatalf("the set is not there: %v", err)
	}
	if d := cmp.Diff(set, again, cmp.AllowUnexported(DataSet{})); d != "" {
		t.Fatal(d)
	}
	if err := Verify(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return set
}

func quiet(int64) {}

func verifySet(t *testing.T, set *DataSet) error {
	t.Helper()
	return VerifyData(t.Context(), set, nil)
}

func TestDataRoundTrip(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, tsdb)
	if err := os.Symlink("wal/00000001", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "empty"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := read(t, dir)
	set := newSet(t, dir, "lock")
	if set.Linked != 2 {
		t.Errorf("%d files are shared, want the block's index and chunks", set.Linked)
	}
	if err := verifySet(t, set); err != nil {
		t.Fatal(err)
	}
	// What a newer version does to it.
	fill(t, dir, map[string]string{"wal/00000001": "another log", "wal/00000002": "more of it", "new": "thing"})
	if err := os.RemoveAll(filepath.Join(dir, ulid)); err != nil {
		t.Fatal(err)
	}
	h := &hostfs.Host{}
	if err := RestoreData(t.Context(), h, set, quiet); err != nil {
		t.Fatal(err)
	}
	if aside, err := os.ReadFile(filepath.Join(dir, restoreDir, "old/new")); err != nil || string(aside) != "thing" {
		t.Errorf("what was replaced is not kept aside: %q %v", aside, err)
	}
	if err := DropReplaced(h, dir); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, read(t, dir)); d != "" {
		t.Errorf("-before +restored\n%s", d)
	}
	if err := verifySet(t, set); err != nil {
		t.Errorf("the copy was spent: %v", err)
	}
}

func TestDamagedDataIsFound(t *testing.T) {
	for name, spoil := range map[string]func(files string) error{
		"missing": func(f string) error { return os.Remove(filepath.Join(f, "wal/00000001")) },
		"shorter": func(f string) error { return os.Truncate(filepath.Join(f, "chunks_head/000001"), 3) },
		"one byte": func(f string) error {
			return os.WriteFile(filepath.Join(f, "wal/00000001"), []byte("a write-ahead loh"), 0o640)
		},
		"a shared block": func(f string) error {
			return os.WriteFile(filepath.Join(f, ulid, "index"), []byte("an indey"), 0o640)
		},
		"a link to the data": func(f string) error {
			return errors.Join(os.Rename(f, f+".away"), os.Symlink(f+".away", f))
		},
		"its description": func(f string) error { return os.WriteFile(f+".json", []byte(`{"path": "/"}`), 0o600) },
		"its checksums":   func(f string) error { return os.WriteFile(f+".sha256", nil, 0o600) },
		"more":            func(f string) error { return os.WriteFile(filepath.Join(f, "stray"), nil, 0o600) },
	} {
		dir := t.TempDir()
		fill(t, dir, tsdb)
		set := newSet(t, dir)
		if err := spoil(set.Files()); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		before := read(t, dir)
		set, err := (&Point{Path: set.point}).Data("prom")
		if described := strings.HasPrefix(name, "its "); described {
			if !errors.As(err, &damaged) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if err := verifySet(t, set); !errors.As(err, &damaged) {
			t.Errorf("%s: %v", name, err)
		}
		if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); !errors.As(err, &damaged) {
			t.Errorf("%s: restored: %v", name, err)
		}
		if err := DropReplaced(&hostfs.Host{}, dir); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(before, read(t, dir)); d != "" {
			t.Errorf("%s: the data was touched: %s", name, d)
		}
	}
}

// stopAt is a guard that fails the n-th effect and all after it.
func stopAt(n int, crashed *bool) hostfs.Guard {
	var mu sync.Mutex
	count := 0
	return func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if count++; count >= n {
			*crashed = true
			return hostfs.ErrCrashed
		}
		return nil
	}
}

func TestInterruptedCopyIsNoSet(t *testing.T) {
	tried := 0
	for n := 1; ; n++ {
		dir, crashed := t.TempDir(), false
		fill(t, dir, tsdb)
		p := newPoint(t, &hostfs.Host{})
		_, err := TakeData(t.Context(), &hostfs.Host{Guard: stopAt(n, &crashed)}, p, DataSet{Name: "prom", Path: dir}, ColdCopy, quiet)
		if !crashed {
			break
		}
		tried++
		if set, lookErr := p.Data("prom"); err == nil || lookErr != nil || set != nil {
			t.Fatalf("killed at effect %d: %+v, %v, %v", n, set, err, lookErr)
		}
		if err := Verify(t.Context(), p); err != nil {
			t.Fatalf("killed at effect %d: the point: %v", n, err)
		}
	}
	if tried < 4 {
		t.Fatalf("only %d effects were tried", tried)
	}
	// Nor is one that was cancelled; its files are removed.
	dir := t.TempDir()
	fill(t, dir, tsdb)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := newPoint(t, &hostfs.Host{})
	if _, err := TakeData(ctx, &hostfs.Host{}, p, DataSet{Name: "prom", Path: dir}, ColdCopy, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left := read(t, filepath.Join(p.Path, dataDir)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Killed at any effect of a restore, doing it again brings the data back whole;
// killed in that as well.
func TestRestoreKilledAtEveryOperation(t *testing.T) {
	tried := 0
	for n, m := 1, 1; ; m++ {
		dir, first, second := t.TempDir(), false, false
		fill(t, dir, tsdb)
		want := read(t, dir)
		set := newSet(t, dir, "lock")
		fill(t, dir, map[string]string{"wal/00000001": "another log", "new": "thing"})
		_ = RestoreData(t.Context(), &hostfs.Host{Guard: stopAt(n, &first)}, set, quiet)
		if !first {
			break
		}
		_ = RestoreData(t.Context(), &hostfs.Host{Guard: stopAt(m, &second)}, set, quiet)
		what := fmt.Sprintf("killed at effect %d, then at %d", n, m)
		if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if err := DropReplaced(&hostfs.Host{}, dir); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, read(t, dir)); d != "" {
			t.Fatalf("%s: -before +restored\n%s", what, d)
		}
		tried++
		if !second {
			n, m = n+1, 0
		}
	}
	if tried < 100 {
		t.Fatalf("only %d pairs of kill points", tried)
	}
	t.Logf("%d pairs of kill points", tried)
}

func TestDataNames(t *testing.T) {
	for _, name := range []string{"../x", "a/b", "/x", ""} {
		if _, err := TakeData(t.Context(), &hostfs.Host{}, newPoint(t, &hostfs.Host{}), DataSet{Name: name, Path: t.TempDir()}, ColdCopy, quiet); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

// A database that is written to all the time is copied whole, and put back
// without the journals of the one it replaces.
func TestSQLiteCopy(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "grafana.db")+"?_pragma=journal_mode(WAL)&_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE dashboards (id INTEGER PRIMARY KEY, title TEXT); INSERT INTO dashboards(title) VALUES ('first')"); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := db.Exec("INSERT INTO dashboards(title) VALUES (?)", strings.Repeat("x", 500)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	p := newPoint(t, &hostfs.Host{})
	set, err := TakeData(t.Context(), &hostfs.Host{}, p, DataSet{Name: "grafana", Method: "sqlite", Path: dir, Replaces: SQLiteFiles("grafana.db")}, SQLiteCopy("grafana.db"), quiet)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	count := func(dir string) (rows int) {
		t.Helper()
		c, err := sql.Open("sqlite", filepath.Join(dir, "grafana.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var ok string
		if err := c.QueryRow("PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
			t.Fatalf("integrity: %s %v", ok, err)
		}
		if err := c.QueryRow("SELECT count(*) FROM dashboards").Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	kept := count(set.Files())
	if err := verifySet(t, set); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("DELETE FROM dashboards"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	fill(t, dir, map[string]string{"plugins/one": "not in the database"})
	if err := RestoreData(t.Context(), &hostfs.Host{}, set, quiet); err != nil {
		t.Fatal(err)
	}
	if got := count(dir); got != kept || got < 1 {
		t.Errorf("%d rows, want %d", got, kept)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "plugins/one")); err != nil || len(data) == 0 {
		t.Errorf("what is beside the database was taken away: %v", err)
	}
}
