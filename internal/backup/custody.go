package backup

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/custody"
)

// Custody proves that nobody but root and the caller could have changed a point
// since it was taken: the directory of all points, the point, and every file in
// it. Files that belonged to another user when they were stored, as the
// configuration of a service does, may still belong to that one; their modes and
// links are as they were, which Verify proves. Copied data is its service's own,
// and only the directory around it counts. The error is a *custody.Error.
func Custody(p *Point) error {
	// The manifest says who else may own what, so it comes first.
	for _, err := range []error{custody.Dir(filepath.Dir(p.Path)), custody.Dir(p.Path), custody.File(filepath.Join(p.Path, manifestFile))} {
		if err != nil {
			return err
		}
	}
	items := map[string]Item{}
	for _, c := range p.Manifest.Components {
		for _, it := range c.Items {
			items[p.File(it)] = it
		}
	}
	return filepath.WalkDir(p.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		it, stored := items[path]
		switch {
		case stored && d.IsDir():
			if err := custodyOfItem(path, it); err != nil {
				return err
			}
			return fs.SkipDir
		case stored:
			return custodyOfItem(path, it)
		case d.IsDir() && filepath.Dir(path) == filepath.Join(p.Path, dataDir):
			return fs.SkipDir
		case d.IsDir():
			return custody.Dir(path)
		}
		return custody.File(path)
	})
}

// custodyOfItem looks at one stored item and all it holds.
func custodyOfItem(path string, it Item) error {
	return filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if err := custody.Owner(at, st, it.Owners); err != nil {
			return err
		}
		if at == path && st.Mode().IsRegular() && st.Mode().Perm()&0o002 != 0 {
			return &custody.Error{Path: at, Want: "that not everybody can write it", Have: fmt.Sprintf("mode %04o", st.Mode().Perm()), Fix: "chmod o-w " + at}
		}
		return nil
	})
}

// owners lists the users, other than root, who own a file or what a tree holds.
func owners(path string) ([]int, error) {
	var out []int
	err := filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if uid := custody.UID(st); uid != 0 && !slices.Contains(out, uid) {
			out = append(out, uid)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}
