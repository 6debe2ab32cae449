package stack

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/preflight"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// survey looks at a data directory of which a copy is to be kept: how much it is,
// and where parts of it lie. A database that is a link, or lies below, is taken
// where it really is. What must not be moved about as data is an error.
func (s *Stack) survey(whole, in *inventory.Installed, d *run.Data) (backup.Survey, error) {
	if d.Method == "sqlite" {
		real, err := filepath.EvalSymlinks(filepath.Join(d.Path, d.File))
		if err != nil {
			real = filepath.Join(d.Path, d.File) // what is missing is said below
		}
		if err := backup.LooksLikeSQLite(real); err != nil {
			return backup.Survey{}, err
		}
		d.Path, d.File = filepath.Dir(real), filepath.Base(real)
		return backup.FileSizes(d.Path, backup.SQLiteFiles(d.File)), nil
	}
	if err := s.mayMove(whole, in, d.Path); err != nil {
		return backup.Survey{}, err
	}
	if known, ok := s.surveys[d.Path]; ok {
		return known, nil
	}
	found, err := backup.SurveyData(d.Path, d.Exclude, s.Root.Backups(), func(dir string) error {
		for _, system := range []string{"/boot", "/dev", "/etc", "/proc", "/sys"} {
			if isWithin(dir, system) {
				return fmt.Errorf("%s is the system's", system)
			}
		}
		return s.mayMove(whole, in, dir)
	})
	if err == nil {
		if s.surveys == nil {
			s.surveys = map[string]backup.Survey{}
		}
		s.surveys[d.Path] = found
	}
	return found, err
}

// shared are directories that many have things in: none of them, nor any above
// them, is one component's data.
var shared = []string{
	"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp",
	"/usr/bin", "/usr/lib", "/usr/local/bin", "/usr/local/lib", "/usr/sbin", "/usr/share", "/var/backups", "/var/cache", "/var/lib", "/var/log", "/var/tmp",
}

// mayMove refuses to take a directory for a component's data, all of which a
// restore replaces, when others have to do with it.
func (s *Stack) mayMove(whole, in *inventory.Installed, dir string) error {
	for _, d := range shared {
		for _, at := range []string{d, resolved(s.Root.Path(d))} {
			if isWithin(at, dir) {
				return fmt.Errorf("%s is not one component's own: %s is, or is in, it", dir, at)
			}
		}
	}
	for _, own := range []string{s.Root.Lib(), s.Root.Backups(), s.Root.Cache(), s.Root.Config()} {
		if own = resolved(own); isWithin(own, dir) || isWithin(dir, own) {
			return fmt.Errorf("%s is where this program keeps what is its own", own)
		}
	}
	for name, path := range in.Binaries {
		if isWithin(path, dir) {
			return fmt.Errorf("its program %s lies in it, as %s", name, path)
		}
	}
	for who, other := range s.otherData(whole, in) {
		if isWithin(other, dir) || isWithin(dir, other) {
			return fmt.Errorf("%s keeps its data in %s", who, other)
		}
	}
	return nil
}

// otherData lists the data directories of the other components that are installed,
// and of the other instances of this one.
func (s *Stack) otherData(whole, in *inventory.Installed) map[string]string {
	out := map[string]string{}
	add := func(one *inventory.Installed) {
		if one.Remote() || one.Component.Name == in.Component.Name && one.Instance == in.Instance {
			return
		}
		if dir := s.dataDir(one); dir != "" {
			out[one.Set()] = dir
		}
	}
	for _, other := range s.neighbours {
		if other.Component.Name != in.Component.Name {
			for _, one := range parts(other) {
				add(one)
			}
		}
	}
	for _, one := range whole.Copies {
		add(one)
	}
	return out
}

// meetNeighbours notes what else is installed, for otherData. It looks nothing up
// elsewhere: instances that are not listed here count as their component.
func (s *Stack) meetNeighbours(ctx context.Context) error {
	st, err := s.State()
	if err != nil {
		return err
	}
	f := s.finder()
	f.Instances = nil
	s.neighbours, err = f.Find(ctx, s.Catalogue.All(), st.Components)
	return err
}

// resolved is a path with its links followed, as far as it exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// isWithin reports whether a path is a directory, or below it.
func isWithin(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// dataNeeds goes through the copies of data that a plan asks for.
func (s *Stack) dataNeeds(v *View, p *plan.Plan, asked bool, each func(st plan.Step, in *inventory.Installed, need dataNeed, d *run.Data, why string, err error)) {
	for _, st := range p.Steps() {
		whole := v.Installed[st.Component]
		for _, in := range whole.Local() {
			need := s.needOf(in.Component, st.Reversible, st.To.Less(st.From), asked)
			if !need.copy {
				continue
			}
			d, why, err := s.dataOf(whole, in, need)
			each(st, in, need, d, why, err)
		}
	}
}

// dataCopies lists the copies of data that the plan cannot do without.
func (s *Stack) dataCopies(v *View, p *plan.Plan, asked bool) []preflight.DataCopy {
	var out []preflight.DataCopy
	s.dataNeeds(v, p, asked, func(_ plan.Step, in *inventory.Installed, need dataNeed, d *run.Data, _ string, err error) {
		if err != nil || !need.must || d == nil || !d.Copy {
			return
		}
		if size, err := s.survey(v.Installed[in.Component.Name], in, d); err == nil {
			out = append(out, preflight.DataCopy{Dir: d.Path, Bytes: size.Bytes, Files: size.Files})
		}
	})
	return out
}

// checkData tells of every copy of data that the plan keeps, and of those that
// cannot be kept.
func (s *Stack) checkData(v *View, p *plan.Plan, asked bool) []component.Check {
	var out []component.Check
	s.dataNeeds(v, p, asked, func(st plan.Step, in *inventory.Installed, need dataNeed, d *run.Data, why string, err error) {
		c := component.Check{Name: preflight.DataBackup, Component: in.Set(), Status: component.CheckOK}
		switch {
		case err != nil:
			c.Status, c.Detail = component.CheckFail, err.Error()
			c.Next = "observability-upgrade components show " + st.Component
		case why != "" && need.takeBack:
			c.Status = component.CheckWarn
			c.Detail = fmt.Sprintf("no copy of its data can be kept: %s. Where %s fails, %s is put back and left stopped, as it must not run on what %s wrote", why, st.To, st.From, st.To)
		case why != "":
			c.Status, c.Detail = component.CheckSkipped, "no copy of its data is kept: "+why
		case d == nil:
			return // it has no data that this program knows of
		default:
			c.Detail = fmt.Sprintf("a copy of %s is kept", strings.Join(dataPaths(d), " and "))
		}
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	})
	return out
}

// dataPaths are the directories, or the database, that are copied.
func dataPaths(d *run.Data) []string {
	if d.Method == "sqlite" {
		return []string{filepath.Join(d.Path, d.File)}
	}
	paths := []string{d.Path}
	for _, pl := range d.Places {
		paths = append(paths, pl.Path)
	}
	return paths
}
