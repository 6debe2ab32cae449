package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// restoreDir is where a restore works, inside each directory it restores: the only
// place that is surely on its file system. It holds
//
//	new/      the copy on its way
//	copied    whose copy new/ is, whole and proved, and where what makes way goes
//	out       all that was to make way has
//	old/      what made way; old.2/ … where restores followed one another
const restoreDir = ".obsup-restore"

// RestoreData puts a data set back while its service is stopped. What was there
// is kept aside until DropReplaced. It may be repeated after a crash at any
// point: first full copies are made beside the data and proved by their checksums,
// then, directory by directory, all that is to go moves out and the copy moves in.
// It returns without an error only once all names and sizes are seen in place.
// tell hears of bytes as they are done.
func RestoreData(ctx context.Context, h *hostfs.Host, set *DataSet, tell func(bytes int64)) error {
	if err := set.checkListing(); err != nil {
		return err
	}
	misplaced, err := set.restore(ctx, h, tell)
	if misplaced != nil && err == nil {
		// The service was started on what a killed restore had left half done: all of
		// that makes way too.
		misplaced, err = set.restore(ctx, h, tell)
	}
	return errors.Join(err, misplaced)
}

// restore does all of it once. misplaced says how the data in place differs from
// the copy then; doing it again begins anew.
func (d *DataSet) restore(ctx context.Context, h *hostfs.Host, tell func(int64)) (misplaced, err error) {
	var all []*restore
	begun := false
	for _, p := range d.parts() {
		r, again, err := p.prepare(ctx, h, tell)
		begun = begun || again
		if err != nil && !begun {
			err = &UntouchedError{Err: err}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	for _, r := range all {
		if err := r.exchange(h); err != nil {
			return nil, err
		}
	}
	misplaced = d.inPlace()
	if misplaced == nil && begun {
		// The service may have been started on what was in place already, and have
		// written to it: names and sizes do not tell.
		misplaced, err = d.sameContent(ctx, tell)
		if err != nil {
			return nil, err
		}
	}
	for _, r := range all {
		if misplaced == nil {
			err = r.dropEarlier(h)
		}
		if err = errors.Join(err, h.Remove(r.at("copied"))); err != nil {
			return misplaced, err
		}
	}
	return misplaced, nil
}

// UntouchedError says that data could not be put back, and that what is there is
// untouched.
type UntouchedError struct{ Err error }

func (e *UntouchedError) Error() string {
	return fmt.Sprintf("%v; the data that is there was not touched", e.Err)
}

// Unwrap is the cause.
func (e *UntouchedError) Unwrap() error { return e.Err }

// restore is the work in one directory.
type restore struct {
	part
	old string // the name of the directory that takes what makes way
}

func (r *restore) at(name string) string { return filepath.Join(r.path, restoreDir, name) }

// prepare copies a part beside the data and proves the copy. again tells that a
// restore of the same had done so already, and may have gone further.
func (p part) prepare(ctx context.Context, h *hostfs.Host, tell func(int64)) (r *restore, again bool, err error) {
	r = &restore{part: p}
	switch st, err := os.Lstat(p.path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := h.MkdirAll(p.path, 0o755); err != nil {
			return nil, false, err
		}
		if err := h.Adopt(p.stored(), p.path); err != nil {
			return nil, false, err
		}
	case err != nil:
		return nil, false, err
	case !st.IsDir():
		return nil, false, fmt.Errorf("%s, which the data of %s belongs to: expected a directory, found none; it was one when the copy was taken", p.path, p.set.Name)
	}
	id := p.set.Sum + " " + hostfs.DigestBytes(formatSums(p.set.sums)) + " " + p.set.point + "\n"
	if have, err := os.ReadFile(r.at("copied")); err == nil {
		if old, mine := strings.CutPrefix(string(have), id); mine {
			r.old = strings.TrimSpace(old)
			return r, true, nil
		}
	}
	// What another restore moved out stays: only what it brought goes.
	for _, name := range []string{"copied", "out", "new"} {
		if err := h.RemoveAll(r.at(name)); err != nil {
			return nil, false, err
		}
	}
	if r.old = r.free("old"); r.old == "" {
		return nil, false, fmt.Errorf("%s is full of what earlier restores moved out: look at it and remove it", r.at(""))
	}
	if err := h.MkdirAll(r.at(r.old), 0o700); err != nil {
		return nil, false, err
	}
	got, err := h.CopyBulk(p.stored(), r.at("new"), hostfs.Bulk{
		Immutable: func(rel string) bool { return p.immutable(rel) && p.set.sums[filepath.Join(p.prefix, rel)] == "" },
		Stop:      ctx.Err, Tell: tell,
	})
	if err != nil {
		return nil, false, err
	}
	for name, want := range p.set.sums {
		rel, err := filepath.Rel(p.prefix, name)
		if err != nil || !filepath.IsLocal(rel) {
			continue // of another part
		}
		if sum := got.Sums[rel]; sum != want {
			return nil, false, errors.Join(p.set.damaged(name, sum), h.RemoveAll(r.at("new")))
		}
	}
	return r, false, h.WriteFile(r.at("copied"), []byte(id+r.old+"\n"), 0o600)
}

// free finds a name in the working directory that is not taken, or an empty
// directory.
func (r *restore) free(name string) string {
	for n := 1; n < 100; n++ {
		one := name
		if n > 1 {
			one = fmt.Sprintf("%s.%d", name, n)
		}
		if entries, err := os.ReadDir(r.at(one)); errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
			return one
		}
	}
	return ""
}

// exchange moves out what makes way, and the copy in.
func (r *restore) exchange(h *hostfs.Host) error {
	if _, err := os.Lstat(r.at("out")); err != nil {
		if err := each(r.path, r.goes, func(name string) error { return r.aside(h, name) }); err != nil {
			return err
		}
		if err := h.WriteFile(r.at("out"), nil, 0o600); err != nil {
			return err
		}
	}
	return each(r.at("new"), func(string) bool { return true }, func(name string) error {
		// Where the service was started in between, it has made its own anew.
		if err := r.aside(h, name); err != nil {
			return err
		}
		return h.Rename(filepath.Join(r.at("new"), name), filepath.Join(r.path, name))
	})
}

// each does something with the entries of a directory.
func each(dir string, which func(string) bool, do func(name string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if which(e.Name()) {
			if err := do(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// aside moves an entry out of the way, where it is there; nothing that was moved
// before is lost by it.
func (r *restore) aside(h *hostfs.Host, name string) error {
	from, to := filepath.Join(r.path, name), filepath.Join(r.at(r.old), name)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			return h.Rename(from, to)
		}
		to = fmt.Sprintf("%s.%d", filepath.Join(r.at(r.old), name), n)
	}
}

// inPlace proves that the directories of a set hold it now.
func (d *DataSet) inPlace() error {
	sum := sha256.New()
	for _, p := range d.parts() {
		stored := map[string]bool{}
		entries, err := os.ReadDir(p.stored())
		if err != nil {
			return err
		}
		for _, e := range entries {
			stored[e.Name()] = true
		}
		if err := p.list(sum, p.path, func(rel string) bool {
			return !strings.Contains(rel, "/") && !stored[rel] && (!p.goes(rel) || ours(rel))
		}); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != d.Sum {
		return fmt.Errorf("the data of %s was put back in %s, and is not as it was copied: expected listing %s, found %s; what was there before is kept in %s",
			d.Name, d.Path, d.Sum, got, filepath.Join(d.Path, restoreDir))
	}
	return nil
}

// sameContent proves that the files in place, but for those shared by hard links,
// have the content that was copied. differs says which has not.
func (d *DataSet) sameContent(ctx context.Context, tell func(int64)) (differs, err error) {
	for _, p := range d.parts() {
		for name, want := range d.sums {
			rel, err := filepath.Rel(p.prefix, name)
			if err != nil || !filepath.IsLocal(rel) {
				continue // of another part
			}
			path := filepath.Join(p.path, rel)
			switch got, err := sumLong(ctx, path, tell); {
			case err != nil:
				return nil, err
			case got != want:
				return fmt.Errorf("%s was put back, and has been written to since: expected sha256 %s, found %s; what was there before is kept in %s",
					path, want, got, filepath.Join(p.path, restoreDir)), nil
			}
		}
	}
	return nil, nil
}

// dropEarlier removes what earlier restores put aside: now that this one is seen
// in place, that is of no more use.
func (r *restore) dropEarlier(h *hostfs.Host) error {
	entries, err := os.ReadDir(r.at(""))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "old") && e.Name() != r.old {
			if err := h.RemoveAll(r.at(e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Restoring reports whether a restore of a directory has begun to move data and not
// ended.
func Restoring(path string) bool {
	_, err := os.Lstat(filepath.Join(path, restoreDir, "copied"))
	return err == nil
}

// DropReplaced removes what a restore put aside in a directory. Where a restore
// has moved data out and not ended it removes nothing.
func DropReplaced(h *hostfs.Host, path string) error {
	work := filepath.Join(path, restoreDir)
	if marker, err := os.ReadFile(filepath.Join(work, "copied")); err == nil {
		lines := strings.Split(strings.TrimSpace(string(marker)), "\n")
		if left, err := os.ReadDir(filepath.Join(work, lines[len(lines)-1])); err != nil || len(left) > 0 {
			return fmt.Errorf("%s: a restore has moved data there and not ended: what it put aside is kept", work)
		}
	}
	return h.RemoveAll(work)
}
