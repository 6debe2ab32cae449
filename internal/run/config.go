package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// restoreConfig puts back configuration and unit files that changed since the backup
// was taken, as a new version that migrates its own configuration does, with their
// mode, owner and attributes, and the directories they were in. Files that were added
// are left: they are not this program's to delete. units tells that the service
// manager has unit files to read again.
//
// Where the backup cannot tell what there was, the old version is started all the
// same: most new versions change no configuration. If it does not get healthy then,
// the run stays open.
func (r *running) restoreConfig(ch Change) (units bool, err error) {
	p, err := r.backupPoint()
	if err == nil {
		err = p.Damage
	}
	unknown := func(what string, err error) {
		r.unmended[ch.key()] = true
		r.warn("%s: whether %s changed during the run is not known, and nothing of it is put back: %v; compare it with what is in %s", ch.Set(), what, err, r.head.BackupPath)
	}
	if err != nil {
		unknown("its configuration", err)
		return false, nil
	}
	swapped := map[string]bool{}
	for _, s := range ch.Swaps {
		swapped[s.Path] = true
	}
	for path, by := range r.brought {
		swapped[path] = swapped[path] || by != ch.Component
	}
	c, _ := p.Component(ch.Component)
	for _, it := range c.Items {
		if it.Kind == backup.Binary {
			continue
		}
		if err := p.Intact(it); err != nil {
			unknown(it.Path, err)
			continue
		}
		stored, err := storedIn(p, it)
		if err != nil {
			return units, err
		}
		changed, err := r.restoreAll(slices.DeleteFunc(stored, func(s storedFile) bool { return swapped[s.path] }))
		if err != nil {
			return units, err
		}
		// An undo that was cut off may have put them back and told nobody.
		units = units || it.Kind == backup.Unit && (changed || r.recovering)
	}
	return units, nil
}

// hasBrought notes what a committed change brought: another component, undone later in the
// run, may have the same directory among its configuration.
func (r *running) hasBrought(ch Change) {
	for _, s := range ch.Swaps {
		r.brought[s.Path] = ch.Component
	}
}

// storedFile is a file, link or directory of a backup point, and where it belongs.
type storedFile struct {
	stored, path string
	dir          bool
}

// storedIn lists what a stored item consists of, directories before what they hold.
func storedIn(p *backup.Point, it backup.Item) ([]storedFile, error) {
	base := p.File(it)
	var out []storedFile
	err := filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		out = append(out, storedFile{stored: path, path: filepath.Join(it.Path, rel), dir: d.IsDir()})
		return nil
	})
	return out, err
}

// restoreAll puts back what differs, in the order of storedIn. Directories get their
// attributes last, innermost first, so that a read-only one can be filled.
func (r *running) restoreAll(all []storedFile) (changed bool, err error) {
	made := map[string]bool{}
	for _, s := range all {
		restore := r.restoreFile
		if s.dir {
			restore = r.restoreDir
		}
		done, err := restore(s)
		if err != nil {
			return changed, err
		}
		made[s.path], changed = done, changed || done
	}
	for _, s := range slices.Backward(all) {
		if !s.dir {
			continue
		}
		if same, err := hostfs.SameAttrs(s.stored, s.path); err != nil || same {
			if err != nil {
				return changed, err
			}
			continue
		}
		if changed = true; !made[s.path] {
			r.warn("the mode, owner or attributes of %s changed during the run; it is put back as it was", s.path)
		}
		if err := r.Host.Adopt(s.stored, s.path); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// restoreDir makes a directory that is missing, or that something else took the place
// of; nobody but its owner gets in before it has its attributes.
func (r *running) restoreDir(s storedFile) (changed bool, err error) {
	st, err := os.Lstat(s.path)
	if err == nil && st.IsDir() {
		return false, nil
	}
	r.warn("%s changed during the run; it is put back as it was", s.path)
	if err == nil {
		if err := r.moveAside(s.path); err != nil {
			return false, err
		}
	}
	if err := r.makeParent(s.path); err != nil {
		return false, err
	}
	return true, r.Host.MkdirAll(s.path, 0o700)
}

// restoreFile puts back a file or link whose content or attributes differ.
func (r *running) restoreFile(s storedFile) (changed bool, err error) {
	want, err := hostfs.Digest(s.stored)
	if err != nil {
		return false, err
	}
	if err := r.makeParent(s.path); err != nil {
		return false, err
	}
	got, err := hostfs.Digest(s.path)
	if err != nil {
		return false, err
	}
	if got == want {
		if same, err := hostfs.SameAttrs(s.stored, s.path); err != nil || same {
			return false, err
		}
		r.warn("the mode, owner or attributes of %s changed during the run; it is put back as it was", s.path)
	} else {
		kept, err := r.keep(s.path, s.path)
		if err != nil {
			return false, err
		}
		r.warn("%s changed during the run; it is put back as it was%s", s.path, kept)
	}
	beside := hostfs.Beside(s.path, r.head.ID)
	if err := r.Host.RemoveAll(beside); err != nil {
		return false, err
	}
	if err := r.Host.Copy(s.stored, beside, ""); err != nil {
		return false, err
	}
	if st, err := os.Lstat(s.path); err == nil && st.IsDir() {
		if err := r.moveAside(s.path); err != nil {
			return false, err
		}
	}
	return true, r.Host.Rename(beside, s.path)
}

// keep copies a file that is to be replaced, and that belongs at path, to the run's
// records: a person may have edited it. It returns where that is, in words. That it
// cannot be kept, as on a full disk, is told and hinders no undo.
func (r *running) keep(file, path string) (told string, err error) {
	st, err := os.Lstat(file)
	if err != nil || st.IsDir() {
		return "", nil // nothing to keep; or see moveAside
	}
	to := filepath.Join(r.Root.RunsDir(), r.head.ID, "changed", path)
	if err = r.Host.MkdirAll(filepath.Dir(to), 0o700); err == nil {
		if err = r.Host.RemoveAll(to); err == nil {
			err = r.Host.Copy(file, to, "")
		}
	}
	switch {
	case errors.Is(err, hostfs.ErrCrashed):
		return "", err
	case err != nil:
		return fmt.Sprintf("; what it was by then could not be kept: %v", err), nil
	}
	return "; what it was by then is kept as " + to, nil
}

// keepEdited keeps what lies beside a configuration or unit file after the exchange,
// where that is not what the run was to replace: it was edited in between.
func (r *running) keepEdited(s Swap) error {
	if s.Kind == backup.Binary {
		return nil
	}
	got, err := hostfs.Digest(s.Beside)
	if err != nil || got == "" || got == s.Old || got == s.New {
		return err
	}
	kept, err := r.keep(s.Beside, s.Path)
	if err == nil {
		r.warn("%s was edited while the run was at work, and is as the run was to leave it%s", s.Path, kept)
	}
	return err
}

// makeParent makes the directory of a path, where something else may be by now.
func (r *running) makeParent(path string) error {
	dir := filepath.Dir(path)
	st, err := os.Stat(dir)
	if _, there := os.Lstat(dir); there == nil && (errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir()) {
		if err := r.moveAside(dir); err != nil {
			return err
		}
	}
	return r.Host.MkdirAll(dir, 0o755)
}

// moveAside keeps what took the place of something of another kind: a rename cannot
// replace it, and somebody may want it.
func (r *running) moveAside(path string) error {
	for n := 1; ; n++ {
		to := hostfs.Beside(path, r.head.ID+".replaced")
		if n > 1 {
			to = fmt.Sprintf("%s.%d", to, n)
		}
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return err
			}
			continue
		}
		r.warn("%s had become of another kind; what it was then is kept as %s: look at it and remove it", path, to)
		return r.Host.Rename(path, to)
	}
}
