// Package filecache remembers what was found out of files, such as what a program
// tells of its version, for as long as the files do not change. What it holds can
// always be found out again: losing it costs time, not correctness.
package filecache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// racy is how long a file must have been left alone before anything is remembered
// of it. The kernel's clock for files moves in steps: a file that is written twice
// within one has the same times both times (the rule is that of Git's index).
const racy = time.Second

// Cache remembers a T by file and by what was asked about it. It is safe for
// concurrent use.
type Cache[T any] struct {
	file  string
	scope string
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	known   map[string]entry[T]
	changed bool
}

// entry is what is known of one file.
type entry[T any] struct {
	Path     string `json:"path"`
	Identity string `json:"identity"`
	Value    T      `json:"value"`
}

// document is the form of the file.
type document[T any] struct {
	Scope string              `json:"scope,omitempty"`
	Files map[string]entry[T] `json:"files"`
}

// Open reads a cache; with "" as file it remembers nothing beyond the process.
// What was remembered in another scope, such as that of another database, is
// forgotten. A file that cannot be read is told to log and taken as empty.
func Open[T any](file, scope string, now func() time.Time, log *slog.Logger) *Cache[T] {
	c := &Cache[T]{file: file, scope: scope, now: now, log: log, known: map[string]entry[T]{}}
	if file == "" {
		return c
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c
	}
	var doc document[T]
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil {
		log.Warn("what is remembered of files cannot be read and is found out anew", "file", file, "error", err)
		return c
	}
	if doc.Scope == scope && doc.Files != nil {
		c.known = doc.Files
	}
	return c
}

// Get returns what find finds out of a file, or what is remembered of it. about
// tells apart what is asked of one file. find also says whether its answer may be
// remembered. The error is that of looking at the file, or find's.
func (c *Cache[T]) Get(path, about string, find func() (T, bool, error)) (T, error) {
	var none T
	before, _, err := identify(path)
	if err != nil {
		return none, err
	}
	key := path + "\n" + about
	c.mu.Lock()
	e, ok := c.known[key]
	c.mu.Unlock()
	if ok && e.Identity == before {
		return e.Value, nil
	}
	v, keep, err := find()
	if err != nil || !keep {
		return v, err
	}
	after, changed, err := identify(path)
	if err != nil || after != before || c.now().Sub(changed) < racy {
		return v, nil //nolint:nilerr // what was found out is so, but not remembered
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[key], c.changed = entry[T]{path, before, v}, true
	return v, nil
}

// Save keeps what was found out, and forgets what files that are no longer there
// or were changed showed. That it cannot is told to the log.
func (c *Cache[T]) Save() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.changed || c.file == "" {
		return
	}
	maps.DeleteFunc(c.known, func(_ string, e entry[T]) bool {
		id, _, err := identify(e.Path)
		return err != nil || id != e.Identity
	})
	data, err := json.Marshal(document[T]{Scope: c.scope, Files: c.known})
	if err == nil {
		err = Write(c.file, data)
	}
	if err != nil {
		c.log.Info("what was found out of files is not remembered", "file", c.file, "error", err)
	}
	c.changed = false // one that cannot be written is not tried again and again
}

// identify is a file as it is now, links followed: one that is replaced or written
// gets another identity. changed is when it last was.
func identify(path string) (identity string, changed time.Time, err error) {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return "", changed, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fmt.Sprintf("%d:%d %d %d.%09d %d.%09d", st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec),
		time.Unix(st.Ctim.Unix()), nil
}

// Write replaces a file of the cache at once, readable for all. Nothing is synced:
// what is lost is found out again.
func Write(file string, data []byte) error {
	if err := openDir(filepath.Dir(file)); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// openDir makes the cache's directory, and lets others look for names in it: what
// must not be read has a mode of its own.
func openDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := st.Mode().Perm(); mode&0o055 != 0o055 {
		return os.Chmod(dir, mode|0o055)
	}
	return nil
}
