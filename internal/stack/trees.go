package stack

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/preflight"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// checkTrees refuses to replace directories that hold more than a release brings:
// the new version's takes the place of all of it.
func (s *Stack) checkTrees(v *View, p *plan.Plan) []component.Check {
	var out []component.Check
	var installed map[string]state.Component
	if st, err := s.State(); err == nil {
		installed = st.Components
	}
	looked := map[string]bool{}
	for _, st := range p.Steps() {
		in := v.Installed[st.Component]
		if looked[st.Component] {
			continue
		}
		looked[st.Component] = true
		for _, b := range in.Component.Binaries {
			tree, here := in.Binaries[b.Name]
			if !b.Tree || !here {
				continue
			}
			c := component.Check{Name: preflight.Tree, Component: st.Component, Status: component.CheckOK, Detail: tree + " holds nothing that the new version's would take away"}
			if err := s.ownTree(in, tree); err != nil {
				c.Status, c.Detail, c.Next = component.CheckFail, err.Error(), s.nextForTree(in)
			} else if since := installed[st.Component].UpgradedAt; !since.IsZero() {
				first := anyFile(tree, func(d fs.DirEntry) bool {
					info, err := d.Info()
					return err == nil && info.ModTime().After(since)
				})
				if first != "" {
					c.Status = component.CheckWarn
					c.Detail = fmt.Sprintf("%s was written after %s was installed: what was changed in there does not come along, and is kept in the backup", first, tree)
				}
			}
			out = append(out, c)
		}
	}
	return out
}

// nextForTree is what to do about a tree that holds what it should not.
func (s *Stack) nextForTree(in *inventory.Installed) string {
	return fmt.Sprintf("move that out of it, say where it is now in %s and in what starts the service, then: observability-upgrade plan", s.definition(in.Component))
}

// ownTree proves that a directory which is replaced whole holds no data, no
// configuration, and nothing of another component or of this program: by what is
// declared of them, as nobody knows all that the release has brought. A database is
// known by its name, wherever the component's settings have put it.
func (s *Stack) ownTree(whole *inventory.Installed, tree string) error {
	bad := func(what, path string) error {
		return fmt.Errorf("%s is replaced whole: expected nothing in it but what a release brings, found %s, %s", tree, what, path)
	}
	for _, path := range []string{s.Root.Lib(), s.Root.Backups(), s.Root.Config()} {
		if leadsInto(path, tree) {
			return bad("what this program keeps", path)
		}
	}
	if file := whole.Component.Data.Backup.File; file != "" {
		if path := anyFile(tree, func(d fs.DirEntry) bool { return d.Name() == filepath.Base(file) }); path != "" {
			return bad("its database", path)
		}
	}
	all := whole.Local()
	for _, other := range s.neighbours {
		if other.Component.Name != whole.Component.Name {
			all = append(all, parts(other)...)
		}
	}
	for _, one := range all {
		if one.Remote() {
			continue
		}
		own, of := one.Component.Name == whole.Component.Name, one.Set()+"'s "
		if own {
			of = "its "
		}
		if path := s.dataPath(one); path != "" && leadsInto(path, tree) {
			return bad(of+"data", path)
		}
		for _, path := range s.configPaths(one.Component) {
			if leadsInto(path, tree) {
				return bad(of+"configuration", path)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(one.Binaries)) {
			path := one.Binaries[name]
			if own && path == tree {
				continue // the tree itself; whether another has that path is for swaps to say
			}
			if leadsInto(path, tree) {
				return bad(of+"program "+name, path)
			}
		}
		if own {
			continue // without its unit the new version does not start, and the old one comes back
		}
		for _, path := range append([]string{one.Status.FragmentPath}, one.Status.DropIns...) {
			if path != "" && leadsInto(path, tree) {
				return bad(of+"unit", path)
			}
		}
	}
	return nil
}

// anyFile finds a regular file in a directory, as far as that can be read; "" where
// there is none.
func anyFile(dir string, is func(fs.DirEntry) bool) string {
	found := ""
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && is(d) {
			found = path
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// leadsInto reports whether what is at a path is in a directory, or reached by a
// link in it; not where there is nothing.
func leadsInto(path, dir string) bool {
	if _, err := os.Lstat(path); err != nil {
		return false
	}
	if isWithin(resolved(path), dir) {
		return true
	}
	for ; path != filepath.Dir(path); path = filepath.Dir(path) {
		if isWithin(filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path)), dir) {
			return true
		}
	}
	return false
}
