package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// dataDir holds, per set, the copied files NAME/ and the description NAME.json,
// which is written last: a set without it is not complete. SHA256SUMS does not
// cover it, as reading terabytes again would keep a service down: a set is proved
// by the names and sizes of its files.
const dataDir = "data"

// DataSet is a copy of what one component, or one instance of it, has collected.
type DataSet struct {
	Name    string    `json:"name"`
	Method  string    `json:"method"` // copy | prometheus | sqlite
	Path    string    `json:"path"`   // the data directory on the host
	TakenAt time.Time `json:"taken_at"`
	// Replaces names the entries of the data directory that restoring replaces;
	// empty for all but Exclude.
	Replaces []string `json:"replaces,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
	Bytes    int64    `json:"bytes"`
	Linked   int      `json:"linked_files"` // shared with the data directory by hard links
	Sum      string   `json:"listing_sha256"`
	// Fingerprint is how the data answered when it was taken; its form is the
	// caller's.
	Fingerprint json.RawMessage `json:"fingerprint,omitempty"`

	point string
}

// Files is where the copied files lie.
func (d *DataSet) Files() string { return filepath.Join(d.point, dataDir, d.Name) }

// DataSource makes the files of a set below dst, which does not exist yet, from
// the directory src.
type DataSource func(ctx context.Context, h *hostfs.Host, src, dst string) (bytes int64, linked int, err error)

// block is a file of a block of Prometheus' TSDB that is written once: see
// https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/README.md.
var block = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}/(index|chunks/[0-9]{6})$`)

// ColdCopy copies the directory of a stopped service.
func ColdCopy(exclude []string) DataSource {
	return func(ctx context.Context, h *hostfs.Host, src, dst string) (int64, int, error) {
		return h.CopyBulk(src, dst, hostfs.Bulk{
			Skip:      func(rel string) bool { return slices.Contains(exclude, rel) || ours(rel) },
			Immutable: block.MatchString,
			Stop:      ctx.Err,
		})
	}
}

// TakeData adds a data set to a point, replacing one of that name.
func TakeData(ctx context.Context, h *hostfs.Host, p *Point, set DataSet, source DataSource) (*DataSet, error) {
	set.point = p.Path
	dst := set.Files()
	if !filepath.IsLocal(set.Name) || strings.Contains(set.Name, "/") {
		return nil, fmt.Errorf("data set %q: want a plain name", set.Name)
	}
	if err := h.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
		return nil, err
	}
	// The description goes first: a set that is half removed must not look whole.
	for _, old := range []func() error{
		func() error { return h.Remove(dst + ".json") },
		func() error { return h.RemoveAll(dst) },
	} {
		if err := old(); err != nil {
			return nil, err
		}
	}
	var err error
	if set.Bytes, set.Linked, err = source(ctx, h, set.Path, dst); err != nil {
		if !errors.Is(err, hostfs.ErrCrashed) {
			err = errors.Join(err, h.RemoveAll(dst))
		}
		return nil, fmt.Errorf("copy the data of %s: %w", set.Name, err)
	}
	if set.Sum, err = listing(dst); err != nil {
		return nil, err
	}
	doc, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := h.WriteFile(dst+".json", append(doc, '\n'), 0o600); err != nil {
		return nil, err
	}
	return &set, nil
}

// Data returns the complete data set of that name, or nil.
func (p *Point) Data(name string) (*DataSet, error) {
	path := filepath.Join(p.Path, dataDir, name+".json")
	doc, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var set DataSet
	if err := json.Unmarshal(doc, &set); err != nil {
		return nil, &DamagedError{Path: p.Path, File: filepath.Join(dataDir, name+".json"), Problem: err.Error()}
	}
	set.point, set.Name = p.Path, name
	return &set, nil
}

// VerifyData proves that a set holds the files it did when it was taken, by their
// names and sizes.
func VerifyData(set *DataSet) error {
	got, err := listing(set.Files())
	if err != nil {
		return err
	}
	if got != set.Sum {
		return &DamagedError{
			Path: set.point, File: filepath.Join(dataDir, set.Name), Problem: "the names or sizes of its files changed",
			Expected: set.Sum, Found: got,
		}
	}
	return nil
}

// listing is the digest of the names and sizes of all files below dir.
func listing(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		size := int64(0)
		if info, err := d.Info(); err != nil {
			return err
		} else if info.Mode().IsRegular() {
			size = info.Size()
		}
		fmt.Fprintf(&b, "%q %d\n", rel, size)
		return nil
	})
	return hostfs.DigestBytes([]byte(b.String())), err
}

// restoreDir is where a restore works, inside the data directory: the only place
// that is surely on its file system.
const restoreDir = ".obsup-restore"

func ours(rel string) bool { return rel == restoreDir }

// RestoreData puts a data set back while its service is stopped. What was there
// is kept aside until DropReplaced. It may be repeated after a crash at any
// point: first a full copy is made beside the data, then all that is to go moves
// out, then the copy moves in, and a marker between the two tells how far it is.
func RestoreData(ctx context.Context, h *hostfs.Host, set *DataSet) error {
	if err := VerifyData(set); err != nil {
		return err
	}
	work := filepath.Join(set.Path, restoreDir)
	fresh, old := filepath.Join(work, "new"), filepath.Join(work, "old")
	copied, out := filepath.Join(work, "copied"), filepath.Join(work, "out")
	if err := h.MkdirAll(set.Path, 0o755); err != nil {
		return err
	}
	// Another restore's left-overs (a different set) must not be mixed in.
	id := []byte(set.Sum + " " + set.point + "\n")
	if have, err := os.ReadFile(copied); err != nil || string(have) != string(id) {
		if err := h.RemoveAll(work); err != nil {
			return err
		}
		if err := h.MkdirAll(old, 0o700); err != nil {
			return err
		}
		_, _, err := h.CopyBulk(set.Files(), fresh, hostfs.Bulk{Immutable: block.MatchString, Stop: ctx.Err})
		if err != nil {
			return err
		}
		if err := h.WriteFile(copied, id, 0o600); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(out); err != nil {
		if err := set.moveAll(h, set.Path, old, set.goes); err != nil {
			return err
		}
		if err := h.WriteFile(out, nil, 0o600); err != nil {
			return err
		}
	}
	if err := set.moveAll(h, fresh, set.Path, func(string) bool { return true }); err != nil {
		return err
	}
	return h.Remove(copied) // from here on another restore begins anew
}

// goes reports whether an entry of the data directory makes way.
func (d *DataSet) goes(name string) bool {
	if ours(name) {
		return false
	}
	if len(d.Replaces) > 0 {
		return slices.Contains(d.Replaces, name)
	}
	return !slices.Contains(d.Exclude, name)
}

func (d *DataSet) moveAll(h *hostfs.Host, from, to string, which func(string) bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !which(e.Name()) {
			continue
		}
		if err := h.Rename(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// DropReplaced removes what a restore put aside in a data directory.
func DropReplaced(h *hostfs.Host, path string) error {
	return h.RemoveAll(filepath.Join(path, restoreDir))
}

// DataSize is about how many bytes a copy of a data directory takes in the
// directory of all points: files that are shared by hard links take none.
func DataSize(dir string, exclude []string, points string) int64 {
	shared := sameDevice(dir, points)
	var bytes int64
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // the copy, which must read it, says so
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if slices.Contains(exclude, rel) || ours(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && (!shared || !block.MatchString(rel)) {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}

func sameDevice(a, b string) bool {
	dev := func(path string) (uint64, bool) {
		for ; ; path = filepath.Dir(path) {
			var st syscall.Stat_t
			if syscall.Stat(path, &st) == nil {
				return uint64(st.Dev), true //nolint:unconvert // another type elsewhere
			}
			if path == filepath.Dir(path) {
				return 0, false
			}
		}
	}
	da, okA := dev(a)
	db, okB := dev(b)
	return okA && okB && da == db
}
