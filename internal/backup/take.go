package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Subject is one component that a point is to hold.
type Subject struct {
	Name     string
	Version  string
	Binaries []Source
	Configs  []string // files or directories; missing ones are left out
	Units    []string // unit files and drop-in directories; missing ones are left out
}

// Source is a binary or tree to keep.
type Source struct {
	Name string
	Path string
	Tree bool
}

// Request says what a new point is to hold.
type Request struct {
	Dir       string // the directory of all points
	RunID     string
	Operation string
	Now       time.Time
	Subjects  []Subject
	StateFile string // copied where it exists
	Plan      any    // stored as upgrade-plan.json
}

// Reserve picks the name of the next point: the time in UTC, with a number added
// where that second is taken in one of the directories. Points and runs are put in
// order by their names, so where the clock was set back, and there is one of a
// later time, the name is that time's with the next number. Nothing is created.
func Reserve(now time.Time, dirs ...string) string {
	stamp, n := now.UTC().Format(StampLayout), 1
	if last := newest(dirs); last != "" && !Before(last, stamp) {
		stamp, n = splitStamp(last)
		n++
	}
	for ; ; n++ {
		name := stamp
		if n > 1 {
			name = fmt.Sprintf("%s_%d", stamp, n)
		}
		if !Taken(name, dirs...) {
			return name
		}
	}
}

// newest is the last of the names in directories; "" where there is none. A
// directory that may not be looked into has none: whoever writes there will be told.
func newest(dirs []string) string {
	last := ""
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if IsStamp(e.Name()) && (last == "" || CompareStamps(e.Name(), last) > 0) {
				last = e.Name()
			}
		}
	}
	return last
}

// Taken reports whether one of the directories has an entry of that name. One that
// may not be looked into has none: whoever writes there will be told.
func Taken(name string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	})
}

// Take writes a backup point under the given name and syncs it whole before it
// returns. On an error the point stays incomplete (without its marker) and is
// removed again where possible.
func Take(ctx context.Context, h *hostfs.Host, name string, req Request) (*Point, error) {
	path := filepath.Join(req.Dir, name)
	if err := h.MkdirAll(req.Dir, 0o700); err != nil {
		return nil, err
	}
	if st, err := os.Lstat(req.Dir); err != nil || !st.IsDir() {
		return nil, fmt.Errorf("backup directory %s is not a directory; rm it or make it one", req.Dir)
	}
	t := &taker{host: h, path: path, used: map[string]bool{}}
	var point *Point
	err := h.MkdirAll(path, 0o700) // which may have made it and not synced it
	if err == nil {
		point, err = t.take(ctx, name, req)
	}
	if err != nil {
		if !errors.Is(err, hostfs.ErrCrashed) {
			err = errors.Join(err, h.RemoveAll(path))
		}
		return nil, fmt.Errorf("backup %s: %w", name, err)
	}
	return point, nil
}

type taker struct {
	host *hostfs.Host
	path string
	used map[string]bool
}

func (t *taker) take(ctx context.Context, name string, req Request) (*Point, error) {
	m := Manifest{Format: 1, Timestamp: name, RunID: req.RunID, Operation: req.Operation, TakenAt: req.Now.UTC()}
	for _, s := range req.Subjects {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := t.component(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		m.Components = append(m.Components, c)
	}
	for _, dir := range []string{"bin", "config", "systemd", "state"} {
		if err := t.host.MkdirAll(filepath.Join(t.path, dir), 0o700); err != nil {
			return nil, err
		}
	}
	if _, err := os.Lstat(req.StateFile); err == nil {
		if err := t.host.Copy(req.StateFile, stateFile(t.path), ""); err != nil {
			return nil, err
		}
	}
	if err := t.writeJSON(planFile, req.Plan); err != nil {
		return nil, err
	}
	if err := t.writeJSON(manifestFile, m); err != nil {
		return nil, err
	}
	sums, err := sumTree(t.path)
	if err != nil {
		return nil, err
	}
	if err := t.host.WriteFile(filepath.Join(t.path, sumsFile), formatSums(sums), 0o600); err != nil {
		return nil, err
	}
	point := load(t.path)
	return point, point.Damage
}

func (t *taker) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return t.host.WriteFile(filepath.Join(t.path, name), append(data, '\n'), 0o600)
}

func (t *taker) component(s Subject) (Component, error) {
	c := Component{Name: s.Name, Version: s.Version}
	keep := func(kind Kind, name, path, stored string, tree bool) error {
		named := path
		path, err := filepath.EvalSymlinks(named)
		if errors.Is(err, fs.ErrNotExist) && kind != Binary {
			return nil
		}
		if err != nil {
			return err
		}
		if kind != Binary && path != named {
			if c.Links == nil {
				c.Links = map[string]string{}
			}
			c.Links[named] = path
		}
		if c.keeps(kind, path) {
			return nil // named twice, or by a link
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		digest, err := hostfs.Digest(path)
		if err != nil {
			return err
		}
		for t.used[stored] {
			stored += "+" + s.Name
		}
		t.used[stored] = true
		dst := filepath.Join(t.path, stored)
		if err := t.host.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
			return err
		}
		if err := t.host.Copy(path, dst, ""); err != nil {
			return err
		}
		it := Item{Kind: kind, Name: name, Path: path, Stored: stored, Digest: digest, Tree: tree || st.IsDir()}
		it.Owners, err = owners(dst)
		c.Items = append(c.Items, it)
		return err
	}
	for _, b := range s.Binaries {
		if err := keep(Binary, b.Name, b.Path, filepath.Join("bin", b.Name), b.Tree); err != nil {
			return c, err
		}
	}
	for _, path := range s.Configs {
		stored := filepath.Join("config", s.Name, filepath.Base(path))
		if st, err := os.Stat(path); err == nil && st.IsDir() && len(s.Configs) == 1 {
			stored = filepath.Join("config", s.Name)
		}
		if err := keep(Config, filepath.Base(path), path, stored, false); err != nil {
			return c, err
		}
		linked, err := LinkedFiles(path)
		if err != nil {
			return c, err
		}
		for _, file := range linked {
			if err := keep(Config, filepath.Base(file), file, filepath.Join("config", s.Name+".linked", filepath.Base(file)), false); err != nil {
				return c, err
			}
		}
	}
	for _, path := range s.Units {
		if err := keep(Unit, filepath.Base(path), path, filepath.Join("systemd", filepath.Base(path)), false); err != nil {
			return c, err
		}
	}
	return c, nil
}

// keeps reports whether a file or directory is kept already, by itself or with the
// directory that it is in.
func (c *Component) keeps(kind Kind, path string) bool {
	return slices.ContainsFunc(c.Items, func(it Item) bool {
		return it.Kind == kind && within(path, []string{it.Path})
	})
}

// LinkedFiles lists the regular files outside a directory, or what a link to one
// leads to, that links in it lead to, each once: they belong to the configuration
// as much as those inside.
func LinkedFiles(dir string) ([]string, error) {
	files, _, err := linksOut(dir)
	return files, err
}

// LinkedDirs lists the directories outside that links in a directory lead to: of
// these a point keeps the link alone, as they may be anybody's.
func LinkedDirs(dir string) ([]string, error) {
	_, dirs, err := linksOut(dir)
	return dirs, err
}

func linksOut(dir string) (files, dirs []string, err error) {
	root, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink == 0 {
			return err
		}
		target, err := filepath.EvalSymlinks(path)
		if err != nil || within(target, []string{root}) {
			return nil //nolint:nilerr // it leads nowhere: the link is all there is
		}
		switch st, err := os.Stat(target); {
		case err != nil:
			return err
		case st.IsDir() && !slices.Contains(dirs, target):
			dirs = append(dirs, target)
		case st.Mode().IsRegular() && !slices.Contains(files, target):
			files = append(files, target)
		}
		return nil
	})
	return files, dirs, err
}

// sumTree returns the SHA-256 of every regular file below dir but SHA256SUMS and
// copied data, by path relative to dir.
func sumTree(dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path == filepath.Join(dir, dataDir) {
			return fs.SkipDir
		}
		// A crash may leave the other when SHA256SUMS was written anew.
		if err != nil || !d.Type().IsRegular() || path == hostfs.Beside(filepath.Join(dir, sumsFile), "tmp") {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == sumsFile {
			return err
		}
		sums[rel], err = sumFile(path)
		return err
	})
	return sums, err
}

func sumFile(path string) (string, error) {
	return sumLong(context.Background(), path, func(int64) {})
}

// formatSums writes the form that `sha256sum -c` reads: names with a backslash
// or a newline are escaped and their line starts with a backslash.
func formatSums(sums map[string]string) []byte {
	names := make([]string, 0, len(sums))
	for n := range sums {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		esc := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(n)
		if esc != n {
			b.WriteByte('\\')
		}
		fmt.Fprintf(&b, "%s  %s\n", sums[n], esc)
	}
	return []byte(b.String())
}
