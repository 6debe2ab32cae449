package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// SQLiteFiles names a database and the files that SQLite keeps beside it: they
// belong to one database and are replaced together.
func SQLiteFiles(name string) []string {
	return []string{name, name + "-wal", name + "-shm", name + "-journal"}
}

// SQLiteCopy copies one SQLite database that is in use, as one consistent
// moment of it (VACUUM INTO, https://sqlite.org/lang_vacuum.html).
func SQLiteCopy(file string) DataSource {
	return func(ctx context.Context, h *hostfs.Host, set *DataSet, _ func(int64)) (hostfs.Bulked, error) {
		var out hostfs.Bulked
		from, to := filepath.Join(set.Path, file), filepath.Join(set.Files(), file)
		if err := LooksLikeSQLite(from); err != nil {
			return out, err
		}
		if err := h.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return out, err
		}
		if err := h.Check("copy", to); err != nil {
			return out, err
		}
		uri := url.URL{Scheme: "file", Path: from, RawQuery: "mode=ro&_pragma=busy_timeout(10000)"}
		db, err := sql.Open("sqlite", uri.String())
		if err != nil {
			return out, err
		}
		defer db.Close()
		if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
			return out, fmt.Errorf("copy the database %s: %w", from, err)
		}
		if err := h.Adopt(from, to); err != nil {
			return out, err
		}
		st, err := os.Stat(to)
		if err != nil {
			return out, err
		}
		sum, err := sumLong(ctx, to, func(int64) {})
		if err != nil {
			return out, err
		}
		return hostfs.Bulked{Bytes: st.Size(), Sums: map[string]string{filepath.Join(set.Name, file): sum}}, nil
	}
}

// LooksLikeSQLite tells, from the file alone, whether a database is there that can
// be copied: a file that begins as https://sqlite.org/fileformat.html says, or an
// empty one.
func LooksLikeSQLite(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist; a database elsewhere (MySQL, PostgreSQL) must be backed up there", path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(sqliteMagic))
	n, err := io.ReadFull(f, head)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case string(head[:n]) != sqliteMagic:
		return fmt.Errorf("%s: expected an SQLite database, found a file that begins with %.16q", path, head[:n])
	}
	return nil
}

const sqliteMagic = "SQLite format 3\x00"
