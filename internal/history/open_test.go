package history

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary also plays a second process: it writes 50 rows and then waits
// for its standard input to end.
func TestMain(m *testing.M) {
	if path := os.Getenv("HISTORY_TEST_WRITER"); path != "" {
		if err := writer(context.Background(), path, os.Getenv("HISTORY_TEST_RUN")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func writer(ctx context.Context, path, run string) error {
	for i := range 10 { // opening again and again is what runs do
		db, err := Open(ctx, path)
		if err != nil {
			return err
		}
		for j := range 5 {
			if _, err := db.Record(ctx, upgrade(run, "loki", "", fmt.Sprintf("%d.%d.0", i, j), i)); err != nil {
				return err
			}
		}
		if i == 9 {
			fmt.Println("done")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		}
		if err := db.Close(); err != nil {
			return err
		}
	}
	return nil
}

type child struct {
	*exec.Cmd
	stdin io.Closer
}

// startWriter returns when the process has written its rows.
func startWriter(t *testing.T, path, run string) (*child, error) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "HISTORY_TEST_WRITER="+path, "HISTORY_TEST_RUN="+run)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "done\n" {
		return nil, errors.Join(fmt.Errorf("process said %q", line), err, cmd.Wait())
	}
	return &child{cmd, stdin}, nil
}

func files(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestProcessesWriteAtOnce(t *testing.T) {
	path := file(t)
	const processes = 4
	errs := make([]error, processes)
	var all sync.WaitGroup
	for i := range processes {
		all.Go(func() {
			c, err := startWriter(t, path, fmt.Sprint("run", i))
			if err == nil {
				err = errors.Join(c.stdin.Close(), c.Wait())
			}
			errs[i] = err
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	db, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list(t, db, Filter{})); n != processes*50 {
		t.Errorf("%d rows, want %d", n, processes*50)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if got := files(t, path); got != "upgrade-history.db" {
		t.Errorf("files left: %s", got)
	}
}

func TestKilledWriterLosesNothing(t *testing.T) {
	path := file(t)
	c, err := startWriter(t, path, "r1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed
	if got := files(t, path); !strings.Contains(got, "-wal") {
		t.Fatalf("the kill left no log, so this proves nothing: %s", got)
	}
	db, err := OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list(t, db, Filter{})); n != 50 {
		t.Errorf("%d rows, want 50", n)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if got := files(t, path); got != "upgrade-history.db" {
		t.Errorf("files left: %s", got)
	}
}

func TestOpenCreates(t *testing.T) {
	old := syscall.Umask(0o077)
	path := file(t)
	db, err := Open(t.Context(), path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000", "user_version": strconv.Itoa(schemaVersion)} {
		var got string
		if err := db.sql.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %s", pragma, got, err, want)
		}
	}
}

func TestReadingChangesNothing(t *testing.T) {
	path := file(t)
	db := mustOpen(t, path)
	record(t, db, upgrade("r1", "loki", "", "1.0.0", 0))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"rw", "immutable"} {
		t.Run(mode, func(t *testing.T) {
			ro, err := open(path, mode, url.Values{"_pragma": {"query_only(1)"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := ro.start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := names(list(t, ro, Filter{})); got != "loki 1.0.0 success" {
				t.Errorf("rows %s", got)
			}
			if _, err := ro.sql.Exec("DELETE FROM upgrades"); err == nil {
				t.Error("a history opened for reading could be changed")
			}
			if err := ro.Close(); err != nil {
				t.Error(err)
			}
			after, err := os.Stat(path)
			if err != nil || !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() || files(t, path) != "upgrade-history.db" {
				t.Errorf("reading changed something: %v, files %s", err, files(t, path))
			}
		})
	}
}

func TestReadWithoutRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	path := file(t)
	db := mustOpen(t, path)
	record(t, db, upgrade("r1", "loki", "", "1.0.0", 0))
	dir := filepath.Dir(path)
	t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	read := func() {
		t.Helper()
		if err := errors.Join(os.Chmod(dir, 0o555), os.Chmod(path, 0o444)); err != nil {
			t.Fatal(err)
		}
		ro, err := OpenReadOnly(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer ro.Close()
		if got := names(list(t, ro, Filter{})); got != "loki 1.0.0 success" {
			t.Errorf("rows %s", got)
		}
	}
	read() // while a writer has it open, the row still in the log
	if err := errors.Join(os.Chmod(dir, 0o755), db.Close()); err != nil {
		t.Fatal(err)
	}
	read()
}

// script runs statements as another program would.
func script(t *testing.T, path string, statements ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, s := range statements {
		if _, err := raw.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

const scriptRow = `INSERT INTO upgrades (timestamp, component, old_version, new_version, status, duration_seconds, triggered_by)
VALUES ('2026-02-28 23:59:59', 'grafana', '10.0.0', '10.1.0', 'success', 45, 'manual')`

func TestTableOfAScript(t *testing.T) {
	for name, extra := range map[string][]string{
		"as specified":         nil,
		"with some of our own": {"ALTER TABLE upgrades ADD COLUMN run_id TEXT", "CREATE INDEX idx_status ON upgrades(status)"},
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t)
			script(t, path, append([]string{specTable, scriptRow}, extra...)...)
			ro, err := OpenReadOnly(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			rows := list(t, ro, Filter{Components: []string{"grafana"}})
			if names(rows) != "grafana 10.1.0 success" || rows[0].DurationSeconds != 45 || rows[0].RunID != "" {
				t.Errorf("before: %+v", rows)
			}
			if rows := list(t, ro, Filter{RunID: "r1"}); len(rows) != 0 {
				t.Errorf("rows of a run: %+v", rows)
			}
			if id, _, err := ro.LastSuccessfulRun(t.Context()); id != "" || err != nil {
				t.Errorf("last successful run %q, %v", id, err)
			}
			ro.Close()

			db := mustOpen(t, path)
			record(t, db, upgrade("r1", "grafana", "10.1.0", "10.2.0", 0))
			if got := names(list(t, db, Filter{})); got != "grafana 10.2.0 success, grafana 10.1.0 success" {
				t.Errorf("after: %s", got)
			}
			var stored string
			if err := db.sql.QueryRow(`SELECT CAST(timestamp AS TEXT) FROM upgrades WHERE id = 1`).Scan(&stored); err != nil || stored != "2026-02-28T23:59:59Z" {
				t.Errorf("the script's time is now %q, %v", stored, err)
			}
			if id, rows, err := db.LastSuccessfulRun(t.Context()); id != "r1" || len(rows) != 1 || err != nil {
				t.Errorf("last successful run %q, %v, %v", id, rows, err)
			}
		})
	}
}

func TestSchemaIsTheSpecifications(t *testing.T) {
	db := mustOpen(t, file(t))
	want := map[string]string{
		"id": "INTEGER", "timestamp": "DATETIME", "component": "VARCHAR(50)", "old_version": "VARCHAR(20)", "new_version": "VARCHAR(20)",
		"status": "VARCHAR(20)", "error_message": "TEXT", "duration_seconds": "INTEGER", "triggered_by": "VARCHAR(50)", "backup_path": "VARCHAR(255)",
		"rollback_timestamp": "DATETIME", "health_check_passed": "BOOLEAN", "notification_sent": "BOOLEAN", "created_at": "DATETIME",
	}
	for name, typ := range want {
		var got string
		if err := db.sql.QueryRow("SELECT type FROM pragma_table_info('upgrades') WHERE name = ?", name).Scan(&got); err != nil || got != typ {
			t.Errorf("column %s is %q, %v; want %s", name, got, err, typ)
		}
	}
	var indexes string
	if err := db.sql.QueryRow("SELECT group_concat(name, ' ') FROM (SELECT name FROM pragma_index_list('upgrades') ORDER BY name)").Scan(&indexes); err != nil {
		t.Fatal(err)
	}
	if indexes != "idx_component idx_component_time idx_measures idx_run idx_status idx_status_time idx_timestamp" {
		t.Errorf("indexes %s", indexes)
	}
}

// The specification's three example queries, section 7.
var specQueries = []struct{ name, query, want string }{
	{"recent", "SELECT * FROM upgrades ORDER BY timestamp DESC LIMIT 10", "3 2 1"},
	{"failed", "SELECT * FROM upgrades WHERE status = 'failed' ORDER BY timestamp DESC", "3"},
	{"frequency", `SELECT component, COUNT(*) as upgrade_count, AVG(duration_seconds) as avg_duration
FROM upgrades WHERE status = 'success' GROUP BY component`, "loki"},
}

func TestSpecificationQueries(t *testing.T) {
	path := file(t)
	db := mustOpen(t, path)
	bad := upgrade("r3", "tempo", "1.0.0", "2.0.0", 3)
	bad.Status = Failed
	record(t, db, upgrade("r1", "loki", "1.0.0", "2.0.0", 1), upgrade("r2", "loki", "2.0.0", "3.0.0", 2), bad)
	shell, lookErr := exec.LookPath("sqlite3")
	for _, q := range specQueries {
		t.Run(q.name, func(t *testing.T) {
			if got := strings.Join(firstColumn(t, db, q.query), " "); got != q.want {
				t.Errorf("the driver gives %s, want %s", got, q.want)
			}
			if lookErr != nil {
				t.Skip("the sqlite3 program is not installed")
			}
			out, err := exec.CommandContext(t.Context(), shell, "-readonly", path, q.query).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var got []string
			for line := range strings.Lines(string(out)) {
				first, _, _ := strings.Cut(line, "|")
				got = append(got, first)
			}
			if strings.Join(got, " ") != q.want {
				t.Errorf("sqlite3 prints %s, want first column %s", out, q.want)
			}
			if q.name == "recent" && !strings.Contains(string(out), "|2026-03-01T15:00:00Z|") {
				t.Errorf("the time is not readable: %s", out)
			}
			if q.name == "frequency" && string(out) != "loki|2|2.0\n" {
				t.Errorf("sqlite3 prints %s", out)
			}
		})
	}
}

func firstColumn(t *testing.T, db *DB, query string) (out []string) {
	t.Helper()
	rows, err := db.sql.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		cells := make([]any, len(cols))
		for i := range cells {
			cells[i] = new(any)
		}
		if err := rows.Scan(cells...); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(*cells[0].(*any)))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDamage(t *testing.T) {
	// whole is a database of several pages.
	path := file(t)
	db := mustOpen(t, path)
	for i := range 200 {
		u := upgrade(fmt.Sprint("r", i), "loki", "", "1.0.0", i)
		u.ErrorMessage = strings.Repeat("x", 500)
		record(t, db, u)
	}
	db.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	torn := slices.Clone(whole)
	for i := 4096; i < len(torn); i++ {
		torn[i] = 0xff
	}
	for name, data := range map[string][]byte{
		"no database": []byte(strings.Repeat("not a database ", 100)),
		"truncated":   whole[:len(whole)/2/4096*4096],
		"torn":        torn,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "h.db")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			for way, open := range map[string]func(context.Context, string) (*DB, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
				db, err := open(t.Context(), path)
				if err == nil {
					_, err = db.List(t.Context(), Filter{})
					db.Close()
				}
				var corrupt *CorruptError
				if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "`mv "+path+" "+path+".corrupt") {
					t.Errorf("%s: got %v, want a CorruptError with what to type", way, err)
				}
			}
		})
	}
}

func TestForeignTable(t *testing.T) {
	path := file(t)
	script(t, path, "CREATE TABLE upgrades (id INTEGER PRIMARY KEY, what TEXT)")
	var corrupt *CorruptError
	if _, err := Open(t.Context(), path); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), `no column "timestamp"`) {
		t.Errorf("got %v", err)
	}
}

func TestUnreadableTimeNamesTheRow(t *testing.T) {
	path := file(t)
	script(t, path, specTable, strings.Replace(scriptRow, "2026-02-28 23:59:59", "last week", 1))
	db := mustOpen(t, path)
	if _, err := db.List(t.Context(), Filter{}); err == nil || !strings.Contains(err.Error(), `row 1: timestamp: "last week"`) {
		t.Errorf("got %v", err)
	}
}

func TestNewerSchema(t *testing.T) {
	path := file(t)
	script(t, path, "PRAGMA user_version = 9")
	for _, open := range []func(context.Context, string) (*DB, error){Open, OpenReadOnly} {
		var newer *NewerError
		if _, err := open(t.Context(), path); !errors.As(err, &newer) || newer.Have != 9 {
			t.Errorf("got %v", err)
		}
	}
}

func TestMoveAsideTakesTheLogAlong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.db")
	for _, name := range []string{path, path + "-wal"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := &CorruptError{path, io.ErrUnexpectedEOF}
	want := fmt.Sprintf("`mv %[1]s %[1]s.corrupt && mv %[1]s-wal %[1]s.corrupt-wal`", path)
	if !strings.Contains(e.Error(), want) {
		t.Errorf("got %s, want %s", e, want)
	}
}

// A program that keeps the database locked is waited for a while, and then told of.
func TestLockedForGood(t *testing.T) {
	if testing.Short() {
		t.Skip("waits as long as a writer does; not with -short")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "history.db")
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", "file:"+path+"?_pragma=locking_mode(EXCLUSIVE)")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	conn, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := Open(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another process has had it locked for 10s (`fuser ") {
		t.Fatalf("err = %v", err)
	}
	if took := time.Since(start); took > 3*busyTimeout {
		t.Fatalf("it took %s", took)
	}
}
