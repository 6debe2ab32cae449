package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	return func(ctx context.Context, h *hostfs.Host, src, dst string) (int64, int, error) {
		from, to := filepath.Join(src, file), filepath.Join(dst, file)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			return 0, 0, fmt.Errorf("%s does not exist; a database elsewhere (MySQL, PostgreSQL) must be backed up there", from)
		}
		if err := h.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return 0, 0, err
		}
		if err := h.Check("copy", to); err != nil {
			return 0, 0, err
		}
		uri := url.URL{Scheme: "file", Path: from, RawQuery: "mode=ro&_pragma=busy_timeout(10000)"}
		db, err := sql.Open("sqlite", uri.String())
		if err != nil {
			return 0, 0, err
		}
		defer db.Close()
		if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
			return 0, 0, fmt.Errorf("copy the database %s: %w", from, err)
		}
		if err := h.Adopt(from, to); err != nil {
			return 0, 0, err
		}
		st, err := os.Stat(to)
		if err != nil {
			return 0, 0, err
		}
		return st.Size(), 0, nil
	}
}
