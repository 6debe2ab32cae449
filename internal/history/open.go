package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite" // the pure Go driver, so that the program needs no C library
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// busyTimeout is how long a writer waits for another one.
const busyTimeout = 10 * time.Second

// DB is an open history. It is safe for concurrent use, and so is its file for
// several processes.
type DB struct {
	sql      *sql.DB // nil where there is no file
	path     string
	columns  map[string]bool
	writable bool
}

// CorruptError reports a database that cannot be used.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("history database %s cannot be used: %v; `%s` starts a new one", e.Path, e.Err, e.moveAside())
}

// Unwrap is the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// moveAside is the command to type. The write-ahead log goes with its database:
// SQLite would replay a stale one into a new database.
func (e *CorruptError) moveAside() string {
	cmds := []string{fmt.Sprintf("mv %s %s.corrupt", e.Path, e.Path)}
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Lstat(e.Path + suffix); err == nil {
			cmds = append(cmds, fmt.Sprintf("mv %s%s %s.corrupt%s", e.Path, suffix, e.Path, suffix))
		}
	}
	return strings.Join(cmds, " && ")
}

// NewerError reports a database of a newer program.
type NewerError struct {
	Path string
	Have int // the file's user_version
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("history database %s has schema %d, this program knows up to %d: a newer observability-upgrade wrote it; run that one", e.Path, e.Have, schemaVersion)
}

// Open opens the history for writing, creating and migrating it. The error may
// be a CorruptError or a NewerError.
func Open(ctx context.Context, path string) (*DB, error) {
	var corrupt *CorruptError
	if err := create(path); errors.As(err, &corrupt) {
		return nil, corrupt
	} else if err != nil {
		return nil, fmt.Errorf("history database: %w", err)
	}
	d, err := open(path, "rw", url.Values{"_pragma": {"journal_mode(WAL)"}})
	if err != nil {
		return nil, err
	}
	d.writable = true
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// create makes an empty file, which is an empty database, with the mode that
// lets everybody read it whatever the umask. SQLite gives its write-ahead log
// the same owner and mode.
func create(path string) error {
	h := &hostfs.Host{}
	if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return regular(path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return f.Sync()
}

// OpenReadOnly opens the history for reading and changes nothing; a missing file
// is an empty history. The error may be a CorruptError or a NewerError.
func OpenReadOnly(ctx context.Context, path string) (*DB, error) {
	var corrupt *CorruptError
	switch err := regular(path); {
	case errors.Is(err, fs.ErrNotExist):
		return &DB{path: path}, nil
	case errors.As(err, &corrupt):
		return nil, corrupt
	case err != nil:
		return nil, fmt.Errorf("history database: %w", err)
	}
	d, err := open(path, readMode(path), url.Values{"_pragma": {"query_only(1)"}})
	if err != nil {
		return nil, err
	}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// regular reports, as a CorruptError, what is there and is no file: SQLite calls it
// an error of the disk.
func regular(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &CorruptError{path, fmt.Errorf("it is not a regular file (%s)", st.Mode().Type())}
	}
	return nil
}

// readMode chooses how to read. Reading a WAL database needs its shared memory
// file. Who may write the directory makes it and, closing last, removes it; with
// mode=ro it would be left behind. Who may not can use it while a writer has it
// open, and otherwise there is no log to heed and the file alone is all.
func readMode(path string) string {
	if unix.Access(path, unix.W_OK) == nil && unix.Access(filepath.Dir(path), unix.W_OK) == nil {
		return "rw"
	}
	if st, err := os.Stat(path + "-wal"); err == nil && st.Size() > 0 {
		return "ro"
	}
	return "immutable"
}

func open(path, mode string, q url.Values) (*DB, error) {
	if mode == "immutable" {
		mode = "ro"
		q.Set("immutable", "1")
	}
	q.Set("mode", mode)
	q.Set("_txlock", "immediate")
	for _, p := range []string{fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "synchronous(FULL)", "foreign_keys(1)"} {
		q.Add("_pragma", p)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("history database %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	return &DB{sql: db, path: path}, nil
}

// start looks at the schema, and migrates it where the history may be changed.
func (d *DB) start(ctx context.Context) error {
	have, err := d.version(ctx)
	if err != nil {
		return d.explain(err)
	}
	if have > schemaVersion {
		return &NewerError{d.path, have}
	}
	if d.writable && have < schemaVersion {
		if err := d.migrate(ctx); err != nil {
			return d.explain(fmt.Errorf("bring it to schema %d: %w", schemaVersion, err))
		}
	}
	d.columns, err = columnsOf(ctx, d.sql)
	return d.explain(err)
}

// version connects. Two processes that switch a new file to WAL at the same time
// find it locked whatever the busy timeout, so that is tried again.
func (d *DB) version(ctx context.Context) (v int, err error) {
	deadline := time.Now().Add(busyTimeout)
	for {
		err = d.sql.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v)
		if code(err) != sqlite3.SQLITE_BUSY || time.Now().After(deadline) {
			return v, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Close closes the database; it may be called more than once.
func (d *DB) Close() error {
	if d.sql == nil {
		return nil
	}
	return d.sql.Close()
}

// explain names the file in an error, and tells damage from everything else.
func (d *DB) explain(err error) error {
	var typed *CorruptError
	if err == nil || errors.As(err, &typed) {
		return err
	}
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return &CorruptError{d.path, err}
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("history database %s: another process has had it locked for %v (`fuser %s` shows which): %w", d.path, busyTimeout, d.path, err)
	}
	return fmt.Errorf("history database %s: %w", d.path, err)
}

// code is SQLite's primary result code; 0 for errors of other origin.
func code(err error) int {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}
