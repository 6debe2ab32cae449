package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"syscall"
)

// looks is how often Look tries while others write.
const looks = 10

// Look opens the history for reading, hands it to read and closes it. It writes
// nothing, not even what SQLite keeps beside a database while it is open, whoever
// calls it; a missing file is an empty history. Where somebody wrote meanwhile,
// read is called again, since what it saw may be torn: it must begin anew each
// time. The error may be a CorruptError, a NewerError, or that of read.
func Look(ctx context.Context, path string, read func(*DB) error) error {
	var err error
	for range looks {
		before := shape(path)
		err = lookOnce(ctx, path, read)
		if ctx.Err() != nil || shape(path) == before {
			return err
		}
	}
	what := fmt.Sprintf("history database %s: it was written to each of %d times it was read", path, looks)
	var corrupt *CorruptError
	switch {
	case err == nil:
		return errors.New(what)
	case errors.As(err, &corrupt):
		err = corrupt.Err // nobody shall move a sound database aside for what a torn read saw
	}
	return fmt.Errorf("%s: %w", what, err)
}

func lookOnce(ctx context.Context, path string, read func(*DB) error) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return read(&DB{path: path})
	} else if err != nil {
		return fmt.Errorf("history database: %w", err)
	}
	// A log with something in it is that of a writer at work, whose shared memory
	// tells what is so. Without one, the file alone is all.
	mode := "immutable"
	if st, err := os.Stat(path + "-wal"); err == nil && st.Size() > 0 {
		mode = "ro"
	}
	d, err := open(path, mode, url.Values{"_pragma": {"query_only(1)"}})
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.start(ctx); err != nil {
		return err
	}
	return read(d)
}

// shape is how the database looks from outside: another content of the file looks
// different. What lies beside it is of no matter: a log that a writer fills is read
// in one piece.
func shape(path string) string {
	out := ""
	for _, p := range []string{path, path + "-wal"} {
		st, err := os.Stat(p)
		if err != nil {
			out += "absent;"
			continue
		}
		if p != path {
			out += fmt.Sprint(st.Size() > 0)
			continue
		}
		var ino uint64
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			ino = sys.Ino
		}
		out += fmt.Sprint(ino, st.Size(), st.ModTime().UnixNano(), ";")
	}
	return out
}
