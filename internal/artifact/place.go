package artifact

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// wanted is one file or tree that the component needs, with the path it has
// inside the archive.
type wanted struct {
	binary  component.Binary
	pattern string // "*" stands for any one path element
	at      string // what the pattern turned out to be; "" until found
	sum     string
	size    int64
}

// unpacker writes the wanted files of one archive into quarantine and has the
// ledger judge every entry, wanted or not.
type unpacker struct {
	job    *job
	root   *os.Root
	wanted []*wanted
	ledger *ledger
	gauge  *gauge
	made   map[string]bool // directories below quarantine
}

func newUnpacker(j *job) (*unpacker, error) {
	root, err := os.OpenRoot(j.quarantine)
	if err != nil {
		return nil, err
	}
	l := newLedger(j.asset.Name, j.store.MaxEntries)
	u := &unpacker{job: j, root: root, ledger: l, gauge: &gauge{ledger: l, max: j.store.MaxUnpacked}, made: map[string]bool{}}
	vars := j.req.Component.Vars(j.req.Root, j.req.OS, j.req.Arch, j.req.Release)
	vars.Asset = j.asset.Name
	for _, b := range j.req.Component.Binaries {
		u.wanted = append(u.wanted, &wanted{binary: b, pattern: path.Clean(vars.Expand(b.Path))})
	}
	return u, nil
}

func (u *unpacker) close() { _ = u.root.Close() }

// special refuses what is neither file, directory nor link.
func (u *unpacker) special(name, format string, args ...any) error {
	if _, err := u.ledger.admit(name, nodeFile); err != nil {
		return err
	}
	return u.ledger.refuse(format, args...)
}

func (u *unpacker) directory(name string) error {
	clean, err := u.ledger.admit(name, nodeDir)
	if err != nil {
		return err
	}
	w, rel, err := u.match(clean, true)
	if w == nil || err != nil || !w.binary.Tree {
		return err
	}
	return u.unplaced(name, u.mkdir(path.Join(w.binary.Name, rel)))
}

// link judges a link; only symbolic ones inside a wanted tree are made again.
func (u *unpacker) link(name, target string, symbolic bool) error {
	clean, err := u.ledger.admit(name, nodeLink)
	if err != nil {
		return err
	}
	if err := u.ledger.link(clean, target, symbolic); err != nil {
		return err
	}
	w, rel, err := u.match(clean, false)
	if w == nil || err != nil {
		return err
	}
	if !symbolic || !w.binary.Tree {
		return u.ledger.refuse("is a link where a program is expected")
	}
	// Relative to the tree this time: it is installed without what is around it.
	if err := u.ledger.link(rel, target, true); err != nil {
		return err
	}
	dst := path.Join(w.binary.Name, rel)
	if err := u.mkdir(path.Dir(dst)); err != nil {
		return u.unplaced(name, err)
	}
	return u.unplaced(name, u.root.Symlink(target, dst))
}

// unplaced names the entry that the disk did not take.
func (u *unpacker) unplaced(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %.200q: %w", u.job.asset.Name, name, err)
}

func (u *unpacker) file(name string, mode fs.FileMode, src io.Reader) error {
	clean, err := u.ledger.admit(name, nodeFile)
	if err != nil {
		return err
	}
	w, rel, err := u.match(clean, false)
	switch {
	case err != nil:
		return err
	case w == nil:
		if _, err := io.Copy(io.Discard, src); err != nil {
			return fmt.Errorf("%s: %s: %w", u.job.asset.Name, name, err)
		}
		return nil
	case !w.binary.Tree:
		return u.store(w, clean, src)
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	return u.write(w, path.Join(w.binary.Name, rel), clean, src, perm)
}

// match finds what an entry is wanted for; rel is its path inside a tree. A
// pattern stands for one place: a second that fits is an error.
func (u *unpacker) match(clean string, dir bool) (w *wanted, rel string, err error) {
	for _, w := range u.wanted {
		at, rel := clean, ""
		if w.binary.Tree {
			at, rel = cutElements(clean, w.pattern)
			if at == "" || rel == "" && !dir {
				continue // beside the tree, or a file where its directory should be
			}
		}
		if ok, err := path.Match(w.pattern, at); err != nil || !ok || dir && !w.binary.Tree {
			continue
		}
		if w.at != "" && w.at != at {
			return nil, "", u.ledger.refuse("is a second candidate for %s beside %q", w.binary.Name, w.at)
		}
		w.at = at
		return w, rel, nil
	}
	return nil, "", nil
}

// cutElements splits a path after as many elements as the pattern has; at is ""
// when it is shorter. The pattern "." is the whole archive.
func cutElements(clean, pattern string) (at, rel string) {
	if pattern == "." {
		if clean == "." {
			return ".", ""
		}
		return ".", clean
	}
	n := strings.Count(pattern, "/") + 1
	parts := strings.Split(clean, "/")
	if len(parts) < n || clean == "." {
		return "", ""
	}
	return path.Join(parts[:n]...), path.Join(parts[n:]...)
}

// store writes a program.
func (u *unpacker) store(w *wanted, entry string, src io.Reader) error {
	if w.at == "" {
		w.at = entry
	}
	return u.write(w, w.binary.Name, entry, src, 0o755)
}

// mkdir makes a directory and those above it, with the same mode whatever the
// umask is.
func (u *unpacker) mkdir(dir string) error {
	if dir == "." || dir == "" || u.made[dir] {
		return nil
	}
	if err := u.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	if err := u.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	u.made[dir] = true
	return u.root.Chmod(dir, 0o755)
}

// write stores one file below quarantine, synced, never with set-id bits.
func (u *unpacker) write(w *wanted, dst, entry string, src io.Reader, perm fs.FileMode) error {
	if err := u.mkdir(path.Dir(dst)); err != nil {
		return u.unplaced(entry, err)
	}
	want, listed, err := u.inside(w, entry)
	if err != nil {
		return err
	}
	f, err := u.root.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return u.unplaced(entry, err)
	}
	defer f.Close()
	sum := newSums(want)
	n, err := copyBehind(io.MultiWriter(&writeout{file: f}, sum), src)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", u.job.asset.Name, entry, err)
	}
	if err := f.Chmod(perm); err != nil { // whatever the umask says
		return err
	}
	w.sum, w.size = sum.digest("sha256").Hex(), w.size+n
	if listed {
		if got := sum.digest(want.Algorithm()); got != want {
			return &ChecksumError{Component: u.job.req.Component.Name, Asset: entry, Source: u.job.proof.vouched, Expected: want, Got: got}
		}
	}
	if w.binary.Tree {
		return nil // trees are synced when they are placed
	}
	return f.Sync()
}

// inside finds the sum that the release's checksum file has for a file inside
// the archive (VictoriaMetrics lists them beside the archive, Jaeger alone). A
// program is found by its base name too, a tree's file by its whole path only.
func (u *unpacker) inside(w *wanted, entry string) (want component.Digest, listed bool, err error) {
	list := u.job.proof.contents
	if w.binary.Tree {
		want, listed = list.byPath[entry]
		return want, listed, nil
	}
	want, listed, err = list.lookup(entry)
	if err == nil && !listed && u.job.proof.byContent {
		err = &NoChecksumError{Asset: entry, Reason: u.job.proof.vouched + " has no line for it"}
	}
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", u.job.proof.vouched, err)
	}
	return want, listed, nil
}

// collect lists the files found, in the definition's order, paths relative to
// quarantine.
func (u *unpacker) collect() ([]File, error) {
	var files []File
	for _, w := range u.wanted {
		switch {
		case w.at != "":
		case w.pattern == "." && !w.binary.Tree:
			return nil, fmt.Errorf("the definition does not say where %s lies in %s: set its path%s", w.binary.Name, u.job.asset.Name, u.near(w))
		default:
			return nil, fmt.Errorf("%s holds no %s, which the definition names for %s%s", u.job.asset.Name, w.pattern, w.binary.Name, u.near(w))
		}
		f := File{Name: w.binary.Name, Path: w.binary.Name, SHA256: w.sum, Size: w.size, Tree: w.binary.Tree}
		if f.Tree {
			var err error
			if f.SHA256, err = hostfs.Digest(filepath.Join(u.job.quarantine, f.Name)); err != nil {
				return nil, err
			}
		} else if err := checkExecutable(filepath.Join(u.job.quarantine, f.Name), u.job.req.Arch); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", u.job.asset.Name, f.Name, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// near names what the archive holds instead, the likeliest first.
func (u *unpacker) near(w *wanted) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(u.ledger.nodes)) {
		if (u.ledger.nodes[name] == nodeDir) == w.binary.Tree {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	base := func(name string) int { // same base name before everything else
		if path.Base(name) == path.Base(w.pattern) {
			return 0
		}
		return 1
	}
	names = nearest(w.pattern, names)
	slices.SortStableFunc(names, func(a, b string) int { return base(a) - base(b) })
	return fmt.Sprintf("; it holds %q", names[:min(len(names), 5)])
}
