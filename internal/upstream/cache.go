package upstream

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// cache keeps answers as one JSON file per address. Files hold no credentials:
// neither request headers nor user information of the address.
type cache struct {
	dir string // "" keeps nothing
	log *slog.Logger
}

// cacheKey is what makes two requests the same. Answers given to a token are
// kept apart: they may list what others may not see.
type cacheKey struct {
	URL           string `json:"url"`
	Accept        string `json:"accept"`
	Authenticated bool   `json:"authenticated"`
}

// entry is one kept answer. When upstream last confirmed it is the file's time of
// change, so that an answer that stays the same is not written again.
type entry struct {
	Key          cacheKey  `json:"key"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	Link         string    `json:"link,omitempty"`
	NextPage     string    `json:"next_page,omitempty"`
	SHA256       string    `json:"sha256"` // of Body
	Body         []byte    `json:"body"`
	CheckedAt    time.Time `json:"-"`
}

func (e entry) answer(fromCache bool) answer {
	return answer{link: e.Link, nextPage: e.NextPage, fromCache: fromCache, checkedAt: e.CheckedAt}
}

func newCache(dir string, log *slog.Logger) cache {
	if dir == "" {
		return cache{log: log}
	}
	return cache{dir: filepath.Join(dir, "upstream"), log: log}
}

func (c cache) path(k cacheKey) string {
	sum := sha256.Sum256([]byte(k.URL + "\x00" + k.Accept + "\x00" + strconv.FormatBool(k.Authenticated)))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+".json")
}

// load returns the kept answer; a file that is damaged counts as none.
func (c cache) load(k cacheKey) (entry, bool) {
	if c.dir == "" {
		return entry{}, false
	}
	path := c.path(k)
	raw, err := read(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // or another user's
		return entry{}, false
	}
	var e entry
	if err == nil {
		e, err = decodeEntry(raw, k)
	}
	var st fs.FileInfo
	if err == nil {
		st, err = os.Stat(path)
	}
	if err != nil {
		c.log.Warn("kept upstream answer is unreadable and will be replaced", "file", path, "err", err)
		return entry{}, false
	}
	e.CheckedAt = st.ModTime()
	return e, true
}

// maxEntry bounds what is read of a file: an answer in base64, and what is around.
const maxEntry = 2 * maxBody

// read reads a regular file and nothing else that may lie in its place.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	case st.Size() > maxEntry:
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", st.Size(), maxEntry)
	}
	return io.ReadAll(io.LimitReader(f, maxEntry))
}

func decodeEntry(raw []byte, k cacheKey) (entry, error) {
	var e entry
	if err := json.Unmarshal(raw, &e); err != nil {
		return entry{}, err
	}
	sum := sha256.Sum256(e.Body)
	switch {
	case e.Key != k:
		return entry{}, fmt.Errorf("it belongs to %s", e.Key.URL)
	case e.SHA256 != hex.EncodeToString(sum[:]):
		return entry{}, fmt.Errorf("checksum of the body is %s, recorded is %q", hex.EncodeToString(sum[:]), e.SHA256)
	}
	return e, nil
}

// same reports whether two answers are the same, but for when they were confirmed.
func (e entry) same(o entry) bool {
	return e.ETag == o.ETag && e.LastModified == o.LastModified && e.Link == o.Link && e.NextPage == o.NextPage && bytes.Equal(e.Body, o.Body)
}

// confirm notes that a kept answer still holds.
func (c cache) confirm(k cacheKey, at time.Time) {
	if c.dir == "" {
		return
	}
	if err := os.Chtimes(c.path(k), at, at); err != nil && !errors.Is(err, fs.ErrPermission) {
		c.log.Warn("the time of a kept upstream answer is not kept", "dir", c.dir, "err", err)
	}
}

// store keeps an answer. A cache that cannot be written costs requests, not
// correctness, so it is a warning.
func (c cache) store(k cacheKey, e entry) {
	if c.dir == "" {
		return
	}
	err := c.write(k, e)
	if errors.Is(err, fs.ErrPermission) {
		c.log.Debug("upstream answer not kept", "dir", c.dir, "err", err)
	} else if err != nil {
		c.log.Warn("upstream answer not kept", "dir", c.dir, "err", err)
	}
}

func (c cache) write(k cacheKey, e entry) error {
	sum := sha256.Sum256(e.Body)
	e.Key, e.SHA256 = k, hex.EncodeToString(sum[:])
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(e); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	// Beside the answers there is what everybody may read.
	host := hostfs.Host{}
	if err := host.MkdirAll(filepath.Dir(c.dir), 0o755); err != nil {
		return err
	}
	if err := host.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(c.dir, ".tmp-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(buf.Bytes())
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Chtimes(tmp.Name(), e.CheckedAt, e.CheckedAt)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), c.path(k))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
