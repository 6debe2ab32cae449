package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Place is a directory of a component's data that is elsewhere than below its data
// directory, or on a file system of its own there. It is copied and put back as
// the data directory is.
type Place struct {
	Name  string `json:"name"`            // of the link to it or of the mount point, relative to the data directory
	Path  string `json:"path"`            // the directory, links resolved
	Mount bool   `json:"mount,omitempty"` // a file system is mounted there: it cannot be moved, only what it holds
}

// Survey is what is known of a data directory before it is copied.
type Survey struct {
	Bytes, Files int64 // what a copy takes; files that are shared by hard links take none
	Places       []Place
}

// ElsewhereError reports a link in a data directory, or a file system mounted in
// it, that is not followed.
type ElsewhereError struct {
	Dir    string // the data directory
	Name   string // the entry, relative to it
	Target string // where it leads
	Why    string
}

func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("%s leads to %s, out of the data directory: %s; move that into %s, or leave it out with data.backup.exclude where it is no data",
		filepath.Join(e.Dir, e.Name), e.Target, e.Why, e.Dir)
}

// SurveyData looks at a data directory, links resolved, whose copy is to be kept
// in a point below points. Links to directories elsewhere, such as a write-ahead
// log on another disk, are followed where these belong to the same user and may
// says that nobody else has to do with them; so are file systems mounted at the
// top. Whatever else leads out is an ElsewhereError: a copy without it would not
// be one, and to put it back could take others' files away.
//
// What cannot be read counts nothing: the copy, which must read it, says so.
func SurveyData(dir string, exclude []string, points string, may func(dir string) error) (Survey, error) {
	v := &surveyor{dir: dir, set: DataSet{Path: dir, Exclude: exclude}, points: points, may: may}
	if err := v.walk(v.set.parts()[0]); err != nil {
		return Survey{}, err
	}
	for i := 0; i < len(v.set.Places); i++ { // a place may lead to further ones
		if err := v.walk(v.set.parts()[i+1]); err != nil {
			return Survey{}, err
		}
	}
	v.found.Places = v.set.Places
	return v.found, nil
}

// FileSizes is the survey of a few files of a directory; those that are missing
// count nothing.
func FileSizes(dir string, names []string) Survey {
	var v Survey
	for _, name := range names {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil {
			v.Bytes += st.Size()
			v.Files++
		}
	}
	return v
}

type surveyor struct {
	dir    string
	set    DataSet // its places grow
	points string
	may    func(string) error
	found  Survey
}

func (v *surveyor) walk(p part) error {
	shared := sameDevice(p.path, v.points)
	return filepath.WalkDir(p.path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // the copy, which must read it, says so
		}
		rel, err := filepath.Rel(p.path, path)
		if err != nil {
			return err
		}
		name := filepath.Join(p.name, rel)
		switch {
		case rel == ".":
		case p.stays(rel):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir() && mounted(path):
			if p.name != "" || strings.Contains(rel, "/") {
				return &ElsewhereError{Dir: v.dir, Name: name, Target: "a file system of its own", Why: "that is followed only at the top of a data directory"}
			}
			v.set.Places = append(v.set.Places, Place{Name: rel, Path: path, Mount: true})
			return fs.SkipDir
		case d.Type()&fs.ModeSymlink != 0:
			return v.follow(name, path)
		case d.Type().IsRegular():
			if info, err := d.Info(); err == nil && (!shared || !p.immutable(rel)) {
				v.found.Bytes += info.Size()
				v.found.Files++
			}
		}
		return nil
	})
}

// follow judges a link.
func (v *surveyor) follow(name, path string) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it leads nowhere: there is nothing to copy but the link
	}
	if err != nil {
		return fmt.Errorf("the link %s: %w", path, err)
	}
	roots := []string{v.dir}
	for _, pl := range v.set.Places {
		roots = append(roots, pl.Path)
	}
	if within(target, roots) {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return &ElsewhereError{Dir: v.dir, Name: name, Target: target, Why: fmt.Sprintf(format, args...)}
	}
	st, err := os.Stat(target)
	if err != nil {
		return err
	}
	home, err := os.Stat(v.dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return refuse("only directories are followed")
	}
	for _, r := range roots {
		if within(r, []string{target}) {
			return refuse("it holds %s", r)
		}
	}
	if mine, its := owner(home), owner(st); mine != its {
		return refuse("it belongs to uid %d, the data directory to uid %d", its, mine)
	}
	if v.may != nil {
		if err := v.may(target); err != nil {
			return refuse("%v", err)
		}
	}
	v.set.Places = append(v.set.Places, Place{Name: name, Path: target})
	return nil
}

// insider makes the judge of links while a set is copied: what they lead to must
// be in one of its parts.
func (d *DataSet) insider() (func(p part, rel string) error, error) {
	var roots []string
	for _, p := range d.parts() {
		real, err := filepath.EvalSymlinks(p.path)
		if err != nil {
			return nil, err
		}
		roots = append(roots, real)
	}
	return func(p part, rel string) error {
		target, err := filepath.EvalSymlinks(filepath.Join(p.path, rel))
		if errors.Is(err, fs.ErrNotExist) || err == nil && within(target, roots) {
			return nil
		}
		if err != nil {
			return err
		}
		return &ElsewhereError{Dir: d.Path, Name: filepath.Join(p.name, rel), Target: target, Why: "it was not so when the run was planned"}
	}, nil
}

// within reports whether path is one of the directories, or below one.
func within(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	})
}

func owner(st fs.FileInfo) uint32 {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return sys.Uid
	}
	return 0
}

// mounted reports whether a file system is mounted on a directory: by statx(2)'s
// word where the kernel gives it (5.8), else by its device.
func mounted(dir string) bool {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &x); err == nil && x.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return x.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	}
	return !sameDevice(dir, filepath.Dir(dir))
}

// sameDevice reports whether two paths, or their nearest parents that exist, are on
// one file system.
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
