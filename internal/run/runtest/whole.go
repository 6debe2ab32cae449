package runtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pkg/xattr"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// Whole asks for the promises about the components, each of which must be at one of
// the versions allowed, the one before any run first: files, process, state file
// and history agree, no run is open, nothing is left beside the files, their
// attributes are what they were, and every backup point is whole. It returns where
// each component is; the error tells the first promise that is broken.
func (w *World) Whole(allowed map[string][]string) (map[string]string, error) {
	at := map[string]string{}
	db, err := history.OpenReadOnly(context.Background(), w.Root.History())
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	defer db.Close()
	f, err := state.Load(w.Root.State())
	if errors.Is(err, fs.ErrNotExist) {
		f, err = nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	for name, versions := range allowed {
		v, err := w.wholeFiles(name)
		if err != nil {
			return nil, err
		}
		at[name] = v
		if !slices.Contains(versions, v) {
			return nil, fmt.Errorf("%s is at %s, want one of %v", name, v, versions)
		}
		if w.Balancer == nil || name != "prom" {
			if got := w.Running(name); got != v {
				return nil, fmt.Errorf("%s: binary %s, running %q", name, v, got)
			}
		}
		if err := agree(db, f, name, versions[0], v); err != nil {
			return nil, err
		}
	}
	return at, errors.Join(w.wholePlaces(), w.sound())
}

// wholeFiles returns the version that all files of a component have.
func (w *World) wholeFiles(name string) (string, error) {
	data, err := os.ReadFile(w.Bin(name))
	if err != nil {
		return "", err
	}
	if !whole(string(data), name) {
		return "", fmt.Errorf("%s is %q, no program", w.Bin(name), data)
	}
	v := strings.Fields(string(data))[1]
	tool, err := os.ReadFile(w.Bin(name + "tool"))
	if err != nil {
		return "", err
	}
	if string(tool) != name+"tool "+v {
		return "", fmt.Errorf("half state: %s is %s, its tool is %q", name, v, tool)
	}
	for _, path := range []string{w.Bin(name), w.Bin(name + "tool")} {
		st, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		want := w.kept[path]
		have, _ := xattr.Get(path, origin) // compared below
		if st.Mode() != want.mode || string(have) != want.origin {
			return "", fmt.Errorf("%s has mode %v and %s %q, had %v and %q", path, st.Mode(), origin, have, want.mode, want.origin)
		}
	}
	return v, nil
}

// agree compares what is installed with what is recorded; first is the version that
// a component has when nothing is.
func agree(db *history.DB, f *state.File, name, first, v string) error {
	rows, err := db.List(context.Background(), history.Filter{Components: []string{name}, Status: history.Success})
	if err != nil {
		return err
	}
	recorded := first
	if len(rows) > 0 {
		recorded = rows[0].NewVersion
	}
	if recorded != v {
		return fmt.Errorf("%s is at %s, its history says %s", name, v, recorded)
	}
	if f == nil {
		if len(rows) > 0 {
			return fmt.Errorf("%s has a history, and there is no state file", name)
		}
		return nil
	}
	c := f.Components[name]
	if c.CurrentVersion != "" && c.CurrentVersion != v {
		return fmt.Errorf("%s is at %s, the state file says %s", name, v, c.CurrentVersion)
	}
	// One that was taken back leaves the record: it does not make an unsigned release
	// acceptable.
	if s := c.SignatureVerified; recorded != first && (s == nil || component.MustParseVersion(s.Version).Less(component.MustParseVersion(v))) {
		return fmt.Errorf("%s is at %s, which was verified by a signature, the state file says %v", name, v, s)
	}
	return nil
}

// wholePlaces asks for what must be nowhere, and for whole backup points.
func (w *World) wholePlaces() error {
	if err := w.closed(); err != nil {
		return err
	}
	for _, dir := range []string{"usr/local/bin", "etc/*"} {
		left, err := filepath.Glob(w.Root.Path(dir, ".*obsup*"))
		if err != nil || len(left) > 0 {
			return fmt.Errorf("left beside the files: %v %v", left, err) //nolint:errorlint // there may be none
		}
	}
	points, err := backup.List(w.Root.Backups())
	if err != nil {
		return err
	}
	for _, p := range points {
		if err := backup.Verify(context.Background(), p); err != nil {
			return err
		}
	}
	ids, err := run.IDs(w.Root)
	if err != nil {
		return err
	}
	for _, id := range ids {
		path := filepath.Join(w.Root.RunsDir(), id, "journal")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue // only what recovery kept of a run that never began
		}
		if _, err := journal.Read(path); err != nil {
			return fmt.Errorf("the journal of the ended run %s: %w", id, err)
		}
	}
	return nil
}

// sound asks SQLite about the history.
func (w *World) sound() error {
	path := w.Root.History()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw"}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		return fmt.Errorf("history: integrity_check says %q (%v)", verdict, err) //nolint:errorlint // there may be none
	}
	return nil
}

// Holds asks that the data of prom is what is given, and that nothing is beside it.
func (w *World) Holds(samples, format string) error {
	for name, want := range map[string]string{"samples": samples, "format": format, "lock": "not data"} {
		got, err := os.ReadFile(filepath.Join(w.Data(DataUnit), name))
		if err != nil || string(got) != want {
			return fmt.Errorf("data: %s is %q, want %q (%v)", name, got, want, err) //nolint:errorlint // there may be none
		}
	}
	entries, err := os.ReadDir(w.Data(DataUnit))
	if err != nil || len(entries) != 3 {
		return fmt.Errorf("the data directory holds %v (%v)", entries, err) //nolint:errorlint // there may be none
	}
	return nil
}

// Clean asks that nothing happened that must never happen, and that no journal is
// open.
func (w *World) Clean() error {
	w.mu.Lock()
	wrong := slices.Clone(w.Wrong)
	w.mu.Unlock()
	if w.Balancer != nil {
		wrong = append(wrong, w.Balancer.Wrong...)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("what must never happen: %q", wrong)
	}
	return w.closed()
}

// closed asks that no journal is open.
func (w *World) closed() error {
	p, err := journal.Pending(w.Root.JournalDir())
	if err == nil && len(p) > 0 {
		err = fmt.Errorf("journal still open: %v", p)
	}
	return err
}
