package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// dataDir holds, per set NAME, the copied files in NAME/ and NAME.places/N/, their
// checksums in NAME.sha256 and the description in NAME.json. A set is complete
// once SHA256SUMS of the point names the latter two, which is done last and taken
// back first; through them it covers the whole set.
const dataDir = "data"

// DataSet is a copy of what one component, or one instance of it, has collected.
type DataSet struct {
	Name    string    `json:"name"`
	Method  string    `json:"method"` // copy | prometheus | sqlite
	Path    string    `json:"path"`   // the data directory on the host, links resolved
	TakenAt time.Time `json:"taken_at"`
	// Replaces names the entries of the data directory that restoring replaces;
	// empty for all but Exclude.
	Replaces []string `json:"replaces,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
	Places   []Place  `json:"places,omitempty"` // where parts of the data lie elsewhere
	Bytes    int64    `json:"bytes"`
	Linked   int      `json:"linked_files"` // shared with the data directory by hard links
	Shared   int64    `json:"linked_bytes"`
	// Sum is the digest of what is there besides content: names, kinds, sizes, where
	// links lead, and of files that are shared when they were last written.
	Sum string `json:"listing_sha256"`
	// Fingerprint is how the data answered when it was taken; its form is the
	// caller's.
	Fingerprint json.RawMessage `json:"fingerprint,omitempty"`

	point string
	sums  map[string]string // SHA-256 of each file that is not shared, by its path below dataDir
}

// Files is where the copied files lie.
func (d *DataSet) Files() string { return filepath.Join(d.point, dataDir, d.Name) }

// part is one directory of a set: the data directory itself, or a place.
type part struct {
	set    *DataSet
	path   string // on the host
	prefix string // where its copy lies, below dataDir
	name   string // of a place; "" for the data directory
}

func (p part) stored() string { return filepath.Join(p.set.point, dataDir, p.prefix) }

// parts are the directories of a set, the data directory first.
func (d *DataSet) parts() []part {
	out := []part{{set: d, path: d.Path, prefix: d.Name}}
	for i, pl := range d.Places {
		out = append(out, part{set: d, path: pl.Path, prefix: filepath.Join(d.Name+".places", strconv.Itoa(i+1)), name: pl.Name})
	}
	return out
}

// stays reports whether an entry of a part is neither copied nor makes way.
func (p part) stays(rel string) bool {
	if ours(rel) {
		return true
	}
	return p.name == "" && (slices.Contains(p.set.Exclude, rel) || slices.ContainsFunc(p.set.Places, func(pl Place) bool { return pl.Mount && pl.Name == rel }))
}

// goes reports whether an entry of a part makes way for the copy.
func (p part) goes(name string) bool {
	if p.name == "" && len(p.set.Replaces) > 0 {
		return slices.Contains(p.set.Replaces, name)
	}
	return !p.stays(name)
}

// immutable tells files that are shared instead of copied.
func (p part) immutable(rel string) bool { return block.MatchString(filepath.Join(p.name, rel)) }

// ours reports whether an entry at the top of a directory belongs to nobody's
// data: where a restore works, and what a file system keeps at its top.
func ours(rel string) bool { return rel == restoreDir || rel == "lost+found" }

// block is a file of a block of Prometheus' TSDB that is written once: see
// https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/README.md.
var block = regexp.MustCompile(`^[0-9A-HJKMNP-TV-Z]{26}/(index|chunks/[0-9]{6})$`)

// DataSource makes the files of a set, which do not exist yet, and returns what it
// made; sums are by path below the directory of all data. tell hears of bytes as
// they are done.
type DataSource func(ctx context.Context, h *hostfs.Host, set *DataSet, tell func(bytes int64)) (hostfs.Bulked, error)

// ColdCopy copies the directories of a stopped service.
func ColdCopy(ctx context.Context, h *hostfs.Host, set *DataSet, tell func(int64)) (hostfs.Bulked, error) {
	all := hostfs.Bulked{Sums: map[string]string{}}
	inside, err := set.insider()
	if err != nil {
		return all, err
	}
	for _, p := range set.parts() {
		if err := h.MkdirAll(filepath.Dir(p.stored()), 0o700); err != nil {
			return all, err
		}
		got, err := h.CopyBulk(p.path, p.stored(), hostfs.Bulk{
			Skip: p.stays, Immutable: p.immutable, Stop: ctx.Err, Tell: tell,
			Link: func(rel string) error { return inside(p, rel) },
		})
		addBulked(&all, got, p.prefix)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// ImageCopy makes the source that copies dir, an image of the whole data at one
// moment: of parts that lie elsewhere nothing is needed besides.
func ImageCopy(dir string) DataSource {
	return func(ctx context.Context, h *hostfs.Host, set *DataSet, tell func(int64)) (hostfs.Bulked, error) {
		all := hostfs.Bulked{Sums: map[string]string{}}
		parts := set.parts()
		got, err := h.CopyBulk(dir, parts[0].stored(), hostfs.Bulk{Immutable: block.MatchString, Stop: ctx.Err, Tell: tell})
		addBulked(&all, got, parts[0].prefix)
		if err != nil {
			return all, err
		}
		for i, p := range parts[1:] {
			if err := h.MkdirAll(p.stored(), 0o700); err != nil {
				return all, err
			}
			if err := h.Adopt(p.path, p.stored()); err != nil {
				return all, err
			}
			link := filepath.Join(set.Files(), p.name)
			if _, err := os.Lstat(link); set.Places[i].Mount || err == nil {
				continue
			}
			if err := h.MkdirAll(filepath.Dir(link), 0o700); err != nil {
				return all, err
			}
			if err := h.Copy(filepath.Join(set.Path, p.name), link, ""); err != nil {
				return all, err
			}
		}
		return all, nil
	}
}

func addBulked(all *hostfs.Bulked, got hostfs.Bulked, prefix string) {
	all.Bytes += got.Bytes
	all.Linked += got.Linked
	all.Shared += got.Shared
	for rel, sum := range got.Sums {
		all.Sums[filepath.Join(prefix, rel)] = sum
	}
}

// TakeData adds a data set to a complete point, replacing one of that name.
func TakeData(ctx context.Context, h *hostfs.Host, p *Point, set DataSet, source DataSource, tell func(bytes int64)) (*DataSet, error) {
	set.point = p.Path
	if !filepath.IsLocal(set.Name) || strings.Contains(set.Name, "/") {
		return nil, fmt.Errorf("data set %q: want a plain name", set.Name)
	}
	if err := set.clear(h); err != nil {
		return nil, err
	}
	if err := h.MkdirAll(filepath.Dir(set.Files()), 0o700); err != nil {
		return nil, err
	}
	got, err := source(ctx, h, &set, tell)
	if err != nil {
		if !errors.Is(err, hostfs.ErrCrashed) {
			err = errors.Join(err, set.clear(h))
		}
		return nil, fmt.Errorf("copy the data of %s: %w", set.Name, err)
	}
	set.Bytes, set.Linked, set.Shared, set.sums = got.Bytes, got.Linked, got.Shared, got.Sums
	if set.Sum, err = set.listing(); err != nil {
		return nil, err
	}
	doc, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{set.Files() + ".sha256": formatSums(set.sums), set.Files() + ".json": append(doc, '\n')}
	sums := map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := h.WriteFile(path, files[path], 0o600); err != nil {
			return nil, err
		}
		sums[filepath.Join(dataDir, filepath.Base(path))] = hostfs.DigestBytes(files[path])
	}
	return &set, amendSums(h, p.Path, func(listed map[string]string) { maps.Copy(listed, sums) })
}

// clear removes a set of that name. SHA256SUMS goes first: one that is half
// removed must not look whole.
func (d *DataSet) clear(h *hostfs.Host) error {
	err := amendSums(h, d.point, func(listed map[string]string) {
		delete(listed, filepath.Join(dataDir, d.Name+".json"))
		delete(listed, filepath.Join(dataDir, d.Name+".sha256"))
	})
	for _, path := range []string{d.Files() + ".json", d.Files() + ".sha256", d.Files(), d.Files() + ".places"} {
		if err == nil {
			err = h.RemoveAll(path)
		}
	}
	return err
}

// amendSums changes SHA256SUMS of a complete point at once.
func amendSums(h *hostfs.Host, point string, change func(map[string]string)) error {
	listed, err := readSums(point, sumsFile)
	if err != nil {
		return err
	}
	before := maps.Clone(listed)
	if change(listed); maps.Equal(before, listed) {
		return nil
	}
	return h.WriteFile(filepath.Join(point, sumsFile), formatSums(listed), 0o600)
}

// Data returns the complete data set of that name, or nil. Its description is
// proved; its files are by VerifyData.
func (p *Point) Data(name string) (*DataSet, error) {
	listed, err := readSums(p.Path, sumsFile)
	if err != nil {
		return nil, err
	}
	described := filepath.Join(dataDir, name+".json")
	if listed[described] == "" {
		return nil, nil
	}
	for _, file := range []string{described, filepath.Join(dataDir, name+".sha256")} {
		if err := checkListed(p.Path, file, listed[file]); err != nil {
			return nil, err
		}
	}
	doc, err := os.ReadFile(filepath.Join(p.Path, described))
	if err != nil {
		return nil, err
	}
	var set DataSet
	if err := json.Unmarshal(doc, &set); err != nil {
		return nil, &DamagedError{Path: p.Path, File: described, Problem: err.Error()}
	}
	set.point, set.Name = p.Path, name
	set.sums, err = readSums(p.Path, filepath.Join(dataDir, name+".sha256"))
	return &set, err
}

// VerifyData proves that a set holds what it did when it was taken: names, kinds
// and sizes of all its files, and their content by its digest. Files that are hard
// links of Prometheus' blocks are not read: copy and original are one file, which
// nobody has written to since, by its size and time; Prometheus proves the
// checksums of its blocks whenever it reads them. tell hears of bytes as they are
// done.
func VerifyData(ctx context.Context, set *DataSet, tell func(bytes int64)) error {
	if err := set.checkListing(); err != nil {
		return err
	}
	if tell == nil {
		tell = func(int64) {}
	}
	base := filepath.Join(set.point, dataDir)
	for _, name := range slices.Sorted(maps.Keys(set.sums)) {
		got, err := sumLong(ctx, filepath.Join(base, name), tell)
		if err != nil {
			return err
		}
		if got != set.sums[name] {
			return set.damaged(name, got)
		}
	}
	return nil
}

func (d *DataSet) damaged(name, found string) error {
	return &DamagedError{Path: d.point, File: filepath.Join(dataDir, name), Problem: "content changed", Expected: d.sums[name], Found: found}
}

// sumLong is the digest of a file that may be long.
func sumLong(ctx context.Context, path string, tell func(int64)) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for buf := make([]byte, min(st.Size()+1, 1<<20)); ; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		tell(int64(n))
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// checkListing proves all of a set but the content of its files.
func (d *DataSet) checkListing() error {
	for _, p := range d.parts() {
		st, err := os.Lstat(p.stored())
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return &DamagedError{Path: d.point, File: filepath.Join(dataDir, p.prefix), Problem: "is missing"}
		case err != nil:
			return err
		case !st.IsDir():
			return &DamagedError{Path: d.point, File: filepath.Join(dataDir, p.prefix), Problem: "is no directory"}
		}
	}
	got, err := d.listing()
	if err != nil {
		return err
	}
	if got != d.Sum {
		return &DamagedError{
			Path: d.point, File: filepath.Join(dataDir, d.Name), Problem: "the names or sizes of its files changed",
			Expected: d.Sum, Found: got,
		}
	}
	return nil
}

// listing is the digest of what is in the copies of all parts besides content.
func (d *DataSet) listing() (string, error) {
	sum := sha256.New()
	for _, p := range d.parts() {
		if err := p.list(sum, p.stored(), func(string) bool { return false }); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// list writes what is in dir, which holds the part or its copy, but for entries at
// its top that are to be left out.
func (p part) list(w io.Writer, dir string, without func(name string) bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if rel != "." && without(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := filepath.Join(p.prefix, rel)
		switch {
		case info.IsDir():
			fmt.Fprintf(w, "%q directory\n", name)
		case info.Mode().IsRegular():
			written := "" // content tells
			if p.set.sums[name] == "" {
				written = " written " + strconv.FormatInt(info.ModTime().UnixNano(), 10)
			}
			fmt.Fprintf(w, "%q file %d%s\n", name, info.Size(), written)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%q link %q\n", name, target)
		}
		return nil
	})
}
