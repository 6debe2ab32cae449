package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// dataDir is where a component keeps its data on this host: where its service's
// command line says, else where its definition says; "" when that does not exist.
func (s *Stack) dataDir(in *inventory.Installed) string {
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
	if st, err := os.Stat(dir); dir == "" || err != nil || !st.IsDir() {
		return ""
	}
	return dir
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
	must     bool // the run is refused where it cannot be kept
	takeBack bool // the old version must not run on what the new one wrote
	copy     bool
}

// needOf decides for a step: what the edge needs, what the caller asked for, and
// what the definition says. A way down keeps a copy where there is room for it:
// an older version may not see what a newer one wrote.
func (s *Stack) needOf(c *component.Component, reversible string, down, asked bool) dataNeed {
	n := dataNeed{copy: asked || down || c.Data.Backup.Always, must: asked}
	if reversible == "with-backup" || reversible == "no" {
		n.copy, n.takeBack = true, true
		n.must = asked || reversible == "with-backup"
	}
	return n
}

// dataOf says what a change does about a component's data; nil when it has none
// that this program knows of.
func (s *Stack) dataOf(in *inventory.Installed, need dataNeed) (*run.Data, error) {
	c := in.Component
	if c.Data.Path == "" && len(c.Data.Fingerprint) == 0 {
		return nil, nil
	}
	vars := s.vars(in).WithURL(c.Health)
	b := c.Data.Backup
	d := &run.Data{
		Path: s.dataDir(in), Fingerprint: health.ExpandTests(c.Data.Fingerprint, vars),
		Method: b.Method, URL: vars.Expand(b.URL), File: b.File, Exclude: b.Exclude,
	}
	if !need.copy {
		return d, nil
	}
	if d.Path == "" {
		if need.must {
			return nil, fmt.Errorf("a copy of its data must be kept, and its data directory %s does not exist; set data.path in %s", c.Data.Path, filepath.Join(s.Root.ComponentsDir(), c.Name+".yaml"))
		}
		return d, nil
	}
	if !need.must {
		if why := s.noRoom(d); why != "" {
			s.Notice(fmt.Sprintf("%s: no copy of its data is kept: %s", in.Set(), why))
			return d, nil
		}
	}
	d.Copy, d.TakeBack = true, need.takeBack
	return d, nil
}

// noRoom says why a copy that nobody asked for is not made; "" when there is room.
func (s *Stack) noRoom(d *run.Data) string {
	want := backup.DataSize(d.Path, d.Exclude, s.Root.Backups())
	if want > impliedLimit {
		return fmt.Sprintf("that would copy %s while the service is down; --backup-data does so", plan.Bytes(want))
	}
	dir := s.Root.Backups()
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
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // narrower on arm
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

// rollbackData decides what a rollback does about the data. A way down keeps a
// copy of it as it is now, so that the rollback can be undone whole.
func (s *Stack) rollbackData(p *RollbackPlan, in *inventory.Installed, ch *run.Change, o RollbackOptions) error {
	c := in.Component
	refuse := func(format string, args ...any) error {
		return &RefusedError{Component: c.Name, Check: "data", Err: fmt.Errorf(format, args...), Next: "observability-upgrade rollback --list"}
	}
	down := ch.To.Less(ch.From)
	door := "yes"
	if down {
		door = s.reversible(c.Name, ch.To, ch.From)
	}
	set, err := p.Point.Data(in.Set())
	if err != nil {
		return refuse("%w", err)
	}
	restore := set != nil && (o.RestoreData || door != "yes")
	switch {
	case restore:
		if err := backup.VerifyData(set); err != nil {
			return refuse("%w", err)
		}
	case o.RestoreData && c.Data.Path != "":
		return refuse("backup %s holds no data of it", p.Point.Timestamp)
	case door != "yes" && !o.Force:
		return refuse("%s cannot be trusted with the data that %s wrote, and backup %s holds no copy of it; --force goes back all the same, and comes back by itself when the data does not answer", ch.To, ch.From, p.Point.Timestamp)
	}
	// The copy of now is what an undo of this rollback puts back.
	need := dataNeed{copy: down || restore, takeBack: down || restore, must: restore}
	if ch.Data, err = s.dataOf(in, need); err != nil {
		return refuse("%w", err)
	}
	if restore && ch.Data != nil {
		ch.Data.From, ch.Data.Path = p.Point.Timestamp, set.Path
		p.Notes = append(p.Notes, fmt.Sprintf("%s: its data is put back as it was at %s; what was collected since is lost (a copy of it is kept in this rollback's own backup)", in.Set(), set.TakenAt.Format("2006-01-02 15:04:05 UTC")))
	}
	return nil
}
