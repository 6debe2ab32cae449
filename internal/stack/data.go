package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// dataPath is where a component keeps its data on this host: where its service's
// command line says, else where its definition says; "" when neither does.
func (s *Stack) dataPath(in *inventory.Installed) string {
	c := in.Component
	dir := ""
	if c.Data.Path != "" {
		dir = s.Root.Path(component.Vars{Name: c.Name, Instance: in.Instance}.Expand(strings.TrimPrefix(c.Data.Path, "{root}")))
	}
	words := in.Status.ExecStart
	if len(in.Service.Command) > 0 && s.services.Kind() == "process" {
		words = in.Service.Command
	}
	if said := flagValue(words, c.Data.Flag); filepath.IsAbs(said) {
		dir = said
	}
	return dir
}

// dataDir is dataPath with links resolved; "" when that does not exist.
func (s *Stack) dataDir(in *inventory.Installed) string {
	dir := s.dataPath(in)
	// It is often a link to another disk: what matters is where it leads.
	real, err := filepath.EvalSymlinks(dir)
	if st, statErr := os.Stat(real); dir == "" || err != nil || statErr != nil || !st.IsDir() {
		return ""
	}
	return real
}

// flagValue finds --flag=value or --flag value, with one dash or two.
func flagValue(words []string, flag string) string {
	flag = strings.TrimLeft(flag, "-")
	if flag == "" {
		return ""
	}
	for i, w := range words {
		name, value, given := strings.Cut(strings.TrimLeft(w, "-"), "=")
		switch {
		case !strings.HasPrefix(w, "-") || name != flag:
		case given:
			return value
		case i+1 < len(words):
			return words[i+1]
		}
	}
	return ""
}

// impliedLimit is how much is copied at most where nobody asked for a copy and no
// rule needs one: more would keep the service down for long.
const impliedLimit = 2 << 30

// dataNeed is why a copy of a component's data is kept, and what for.
type dataNeed struct {
	copy  bool
	must  bool // the run is refused where it cannot be kept
	asked bool // a person asked for it
	// takeBack: the old version must not run on what the new one wrote.
	takeBack bool
}

// needOf decides for a step: what the edge needs, what the caller asked for, and
// what the definition says. A way down keeps a copy where there is room for it:
// an older version may not see what a newer one wrote. A door without a way back
// needs one as a door with a backup does: it is all that an undo can stand on.
func (s *Stack) needOf(c *component.Component, reversible string, down, asked bool) dataNeed {
	door := reversible == "with-backup" || reversible == "no"
	return dataNeed{copy: asked || down || door || c.Data.Backup.Always, must: asked || door, asked: asked, takeBack: door}
}

// dataOf says what a change does about a component's data, or about that of one of
// its instances; nil when it has none that this program knows of. why is the reason
// that no copy is kept though one would be; an error that one cannot be kept and
// must.
func (s *Stack) dataOf(whole, in *inventory.Installed, need dataNeed) (d *run.Data, why string, err error) {
	c := in.Component
	if c.Data.Path == "" && len(c.Data.Fingerprint) == 0 {
		if need.takeBack {
			why = fmt.Sprintf("its definition says not where it keeps its data; set data.path in %s", s.definition(c))
		}
		return nil, why, nil
	}
	vars := s.vars(in).WithURL(c.Health)
	b := c.Data.Backup
	d = &run.Data{
		Path: s.dataDir(in), Fingerprint: health.ExpandTests(c.Data.Fingerprint, vars),
		Method: b.Method, URL: vars.Expand(b.URL), File: b.File, Exclude: b.Exclude,
	}
	if !need.copy {
		return d, "", nil
	}
	if d.Path == "" {
		why = fmt.Sprintf("its data directory %s does not exist; set data.path in %s", c.Data.Path, s.definition(c))
		if need.asked {
			return nil, "", fmt.Errorf("a copy of its data must be kept, and %s", why)
		}
		return d, why, nil
	}
	size, err := s.survey(whole, in, d)
	switch {
	case err != nil && need.must:
		return nil, "", fmt.Errorf("a copy of its data must be kept, and cannot be: %w", err)
	case err != nil:
		return d, err.Error(), nil
	case !need.must && size.Bytes > impliedLimit:
		return d, fmt.Sprintf("that would copy %s while the service is down; --backup-data does so", plan.Bytes(size.Bytes)), nil
	case !need.must:
		if why := noRoom(s.Root.Backups(), size.Bytes); why != "" {
			return d, why, nil
		}
	}
	d.Copy, d.Places = true, size.Places
	return d, "", nil
}

// definition is where a component's own definition is written.
func (s *Stack) definition(c *component.Component) string {
	return filepath.Join(s.Root.ComponentsDir(), c.Name+".yaml")
}

// noRoom says why a number of bytes does not fit into a directory; "" when there is
// room.
func noRoom(dir string, want int64) string {
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err.Error()
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert,gosec // narrower on arm; less than 8 EiB
	if want*6/5 > free {
		return fmt.Sprintf("it needs %s in %s, and %s are free", plan.Bytes(want), dir, plan.Bytes(free))
	}
	return ""
}

// reversible is how a component comes back from one version to an older one: the
// worst of the doors between them.
func (s *Stack) reversible(name string, older, newer component.Version) string {
	var in plan.Input
	s.addRules(&in)
	worst := "yes"
	for _, e := range in.OneWay {
		if e.Component != name || worst == "no" || e.Reversible == "yes" {
			continue
		}
		if (e.From == nil || e.From.Contains(older)) && (e.To == nil || e.To.Contains(newer)) {
			worst = e.Reversible
		}
	}
	return worst
}
