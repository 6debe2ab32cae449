package modeldisk

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

func TestMain(m *testing.M) {
	if mine, err := Serve(); mine {
		if err != nil {
			fmt.Fprintln(os.Stderr, "model disk:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func start(t *testing.T) *Disk {
	t.Helper()
	d, err := Start(t.TempDir())
	if err != nil {
		t.Skipf("no model disk: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func (d *Disk) path(name string) string { return filepath.Join(d.Dir, name) }

// put writes a file, and syncs it where that is asked for.
func put(t *testing.T, path, text string, sync bool) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncDir(t *testing.T, path string) {
	t.Helper()
	d, err := os.Open(path)
	must(t, err)
	must(t, d.Sync(), d.Close())
}

func have(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "nothing"
	}
	must(t, err)
	return string(data)
}

// It is a file system like others.
func TestFileSystem(t *testing.T) {
	d := start(t)
	a, b := d.path("a"), d.path("b")
	put(t, a, "one", true)
	put(t, b, "two", true)
	must(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
	if have(t, a) != "two" || have(t, b) != "one" {
		t.Errorf("exchanged: %s, %s", have(t, a), have(t, b))
	}
	must(t, os.Link(a, d.path("c")), os.Rename(a, b), os.Symlink("b", d.path("s")), os.Mkdir(d.path("dir"), 0o750))
	put(t, d.path("dir/f"), strings.Repeat("x", 300_000), false)
	if have(t, d.path("s")) != "two" || have(t, d.path("c")) != "two" || len(have(t, d.path("dir/f"))) != 300_000 {
		t.Errorf("%q %q", have(t, d.path("s")), have(t, d.path("c")))
	}
	st, err := os.Stat(b)
	must(t, err)
	if st.Sys().(*syscall.Stat_t).Nlink != 2 {
		t.Errorf("%d links", st.Sys().(*syscall.Stat_t).Nlink)
	}
	must(t, os.Chown(b, 3, 4), os.Chmod(b, os.ModeSetuid|0o711), xattr.Set(b, "user.origin", []byte("here")))
	value, err := xattr.Get(b, "user.origin")
	must(t, err)
	names, err := xattr.List(b)
	must(t, err)
	st, err = os.Stat(b)
	must(t, err)
	if sys := st.Sys().(*syscall.Stat_t); st.Mode() != 0o711|os.ModeSetuid || sys.Uid != 3 || sys.Gid != 4 || string(value) != "here" || len(names) != 1 {
		t.Errorf("%v %d:%d %q %v", st.Mode(), sys.Uid, sys.Gid, value, names)
	}
	must(t, os.Truncate(b, 1), os.Truncate(b, 3))
	if have(t, b) != "t\x00\x00" {
		t.Errorf("truncated: %q", have(t, b))
	}
	if err := os.Remove(d.path("dir")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("remove a full directory: %v", err)
	}
	entries, err := os.ReadDir(d.Dir)
	must(t, err, os.RemoveAll(d.path("dir")))
	if len(entries) != 4 {
		t.Errorf("%v", entries)
	}
}

// What is promised to be durable is there after every cut; what is not is lost in
// one or another.
func TestCuts(t *testing.T) {
	d := start(t)
	steps := []struct {
		name string
		do   func()
		ask  string // a path
		want []string
		only bool // durable: nothing else may be seen
	}{
		{"a name is not durable by the file's sync", func() { put(t, d.path("new"), "content", true) }, "new", []string{"content", "nothing"}, false},
		{"it is by the directory's", func() { syncDir(t, d.Dir) }, "new", []string{"content"}, true},
		{"content without a sync", func() { put(t, d.path("old"), "v1", true); syncDir(t, d.Dir); put(t, d.path("old"), "v2", false) }, "old", []string{"v1", "v2", "", "\x00\x00"}, false},
		{"a rename is whole", func() {
			put(t, d.path("x"), "v1", true)
			put(t, d.path("y"), "v2", true)
			syncDir(t, d.Dir)
			must(t, os.Rename(d.path("y"), d.path("x")))
		}, "x", []string{"v1", "v2"}, false},
		{"synced", func() { syncDir(t, d.Dir) }, "x", []string{"v2"}, true},
		{"all at once", func() { put(t, d.path("many"), "v", false); must(t, d.SyncFS("")) }, "many", []string{"v"}, true},
	}
	for _, s := range steps {
		before, err := d.Save()
		must(t, err, d.Load(before))
		s.do()
		log, ops, err := d.Keep()
		must(t, err)
		after, err := d.Save()
		must(t, err)
		seen := map[string]bool{}
		for seed := range uint64(200) {
			for _, loss := range []Loss{Nothing, NoData, Ordered, Anything} {
				_, lost, err := d.Crash(log, len(ops), loss, seed)
				must(t, err)
				got := have(t, d.path(s.ask))
				seen[got] = true
				if !slices.Contains(s.want, got) {
					t.Fatalf("%s: %s, seed %d: %q; lost %q of %q", s.name, loss, seed, got, lost, ops)
				}
			}
		}
		if len(seen) != len(s.want) {
			t.Errorf("%s: saw %v, expected all of %q", s.name, seen, s.want)
		}
		_, _, err = d.Crash(log, len(ops), Kill, 0)
		must(t, err)
		if got := have(t, d.path(s.ask)); got != s.want[0] && !s.only && got != "v2" {
			t.Errorf("%s: after a kill %q", s.name, got)
		}
		must(t, d.Load(after))
	}
}

// A write is torn in sectors, and what an fsync that failed was to sync stays in
// danger.
func TestTornAndFailed(t *testing.T) {
	d := start(t)
	put(t, d.path("f"), strings.Repeat("a", 4*sector), true)
	syncDir(t, d.Dir)
	must(t, d.Begin())
	f, err := os.OpenFile(d.path("f"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte(strings.Repeat("b", 4*sector)), 0)
	must(t, err, d.Fail(Fault{Errno: syscall.EIO, At: 1}))
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	_, failed, err := d.Repair()
	must(t, err, f.Sync(), f.Close())
	if len(failed) != 1 || failed[0] != "fsync f" {
		t.Errorf("failed: %q", failed)
	}
	log, ops, err := d.Keep()
	must(t, err)
	torn, old := 0, 0
	for seed := range uint64(100) {
		_, _, err := d.Crash(log, len(ops), Anything, seed)
		must(t, err)
		got := have(t, d.path("f"))
		for i := range 4 {
			if s := got[i*sector : (i+1)*sector]; strings.Trim(s, s[:1]) != "" {
				t.Fatalf("a sector is torn: %q", s)
			}
		}
		switch strings.Count(got, "b") {
		case 4 * sector:
		case 0:
			old++
		default:
			torn++
		}
	}
	if torn == 0 || old == 0 {
		t.Errorf("%d torn, %d without it", torn, old)
	}
}

// A full disk takes a part of a write and nothing after it, until there is room.
func TestFull(t *testing.T) {
	d := start(t)
	must(t, d.Fail(Fault{Errno: syscall.ENOSPC, At: 2, Stays: true}))
	if err := os.WriteFile(d.path("f"), []byte("0123456789"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write: %v", err)
	}
	if got := have(t, d.path("f")); got != "01234" {
		t.Errorf("%q", got)
	}
	if err := os.Mkdir(d.path("d"), 0o700); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("mkdir: %v", err)
	}
	must(t, os.Remove(d.path("f")))
	_, _, err := d.Repair()
	must(t, err, os.Mkdir(d.path("d"), 0o700))
}

// What is left can be had as plain files, as if it were still on the disk.
func TestPlainFiles(t *testing.T) {
	d := start(t)
	put(t, d.path("f"), "content", true)
	must(t, os.Link(d.path("f"), d.path("g")), os.Symlink("f", d.path("s")), os.Mkdir(d.path("d"), 0o750), os.Chown(d.path("f"), 3, 4), os.Chmod(d.path("f"), 0o640))
	log, ops, err := d.Keep()
	must(t, err)
	there, err := d.Sum()
	must(t, err)
	dir := t.TempDir()
	sum, _, err := d.CrashTo(dir, log, len(ops), Kill, 0)
	must(t, err)
	f, err := os.Stat(filepath.Join(dir, "f"))
	must(t, err)
	g, err := os.Stat(filepath.Join(dir, "s"))
	must(t, err)
	if sum != there || !os.SameFile(f, g) || f.Mode() != 0o640 || f.Sys().(*syscall.Stat_t).Uid != 3 || f.Sys().(*syscall.Stat_t).Nlink != 2 || have(t, filepath.Join(dir, "g")) != "content" {
		t.Errorf("%v %v, %s and %s", f, g, sum, there)
	}
}

// SQLite keeps what it committed, whatever is lost of the rest.
func TestSQLite(t *testing.T) {
	d := start(t)
	open := func() *sql.DB {
		db, err := sql.Open("sqlite", "file:"+d.path("db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
		must(t, err)
		db.SetMaxOpenConns(1)
		return db
	}
	db := open()
	_, err := db.Exec("CREATE TABLE t (n INTEGER)")
	must(t, err, d.SyncFS(""))
	must(t, d.Begin())
	for n := range 3 {
		_, err := db.Exec("INSERT INTO t VALUES (?)", n)
		must(t, err)
		_, err = d.Mark("committed")
		must(t, err)
	}
	must(t, db.Close())
	log, ops, err := d.Keep()
	must(t, err)
	committed := 0
	for n := range len(ops) + 1 {
		if n > 0 && ops[n-1] == "committed" {
			committed++
		}
		for seed := range uint64(6) {
			for _, loss := range []Loss{Kill, Nothing, NoData, Ordered, Anything} {
				_, lost, err := d.Crash(log, n, loss, seed)
				must(t, err)
				db := open()
				var rows int
				var sound string
				must(t, db.QueryRow("SELECT count(*) FROM t").Scan(&rows), db.QueryRow("PRAGMA integrity_check").Scan(&sound), db.Close())
				if rows < committed || rows > committed+1 || sound != "ok" {
					t.Fatalf("cut %d of %d, %s, seed %d: %d rows, %d were committed, %s; lost %q", n, len(ops), loss, seed, rows, committed, sound, lost)
				}
			}
		}
	}
}
