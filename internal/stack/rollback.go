package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// RollbackOptions name what to go back to.
type RollbackOptions struct {
	To         string // timestamp of a backup point
	Previous   bool   // the newest successful run, of Components where there are any, that was not rolled back yet
	Components []string
	SkipHealth bool
	// RestoreData puts the data back as the backup point has it too; what was
	// collected since is lost. It is done without asking where the older version
	// cannot read what the newer one wrote.
	RestoreData bool
	// Force goes back over a one-way door without the data, by the instances that the
	// state file remembers where they cannot be looked up, without those on other
	// hosts that cannot be asked, and with directories that hold more than a release
	// brings.
	Force bool
}

// RollbackPlan is what a rollback would do.
type RollbackPlan struct {
	Point   *backup.Point
	Changes []run.Change
	Skipped []string // components that are as the backup has them already
	Notes   []string // for the person who confirms; warnings of the result

	subjects []backup.Subject
}

// archive is what the version in the backup point came out of, as the state file
// in it says; "" where that does not know.
func (p *RollbackPlan) archive(bc backup.Component) string {
	f, err := state.Load(p.Point.StateFile())
	if err != nil || f.Components[bc.Name].CurrentVersion != bc.Version {
		return ""
	}
	return f.Components[bc.Name].Archive
}

// Backups lists the backup points, newest first.
func (s *Stack) Backups() ([]*backup.Point, error) { return backup.List(s.Root.Backups()) }

// PlanRollback finds the backup point, proves it intact, and works out what
// would change. Nothing is changed. It needs no network.
func (s *Stack) PlanRollback(ctx context.Context, o RollbackOptions) (*RollbackPlan, error) {
	ctx, end := s.Tracer.Span(ctx, "plan")
	p, err := s.planRollback(ctx, o)
	end(err)
	return p, err
}

func (s *Stack) planRollback(ctx context.Context, o RollbackOptions) (*RollbackPlan, error) {
	if _, err := s.Components(o.Components); err != nil {
		return nil, err
	}
	stamp, only, pasts, err := s.rollbackTarget(ctx, o)
	if err != nil {
		return nil, err
	}
	p, err := backup.Open(s.Root.Backups(), stamp)
	if err != nil {
		var missing *backup.NotFoundError
		if errors.As(err, &missing) {
			return nil, &UsageError{Message: err.Error(), Hint: "observability-upgrade rollback --list"}
		}
		return nil, distrusted("backup ownership", err)
	}
	if err := backup.Custody(p); err != nil {
		return nil, distrusted("backup ownership", err)
	}
	if err := backup.Verify(ctx, p); err != nil {
		return nil, &RefusedError{Check: "backup integrity", Err: err, Next: "observability-upgrade rollback --list"}
	}
	if err := s.meetNeighbours(ctx); err != nil {
		return nil, err
	}
	plan := &RollbackPlan{Point: p}
	for _, bc := range p.Manifest.Components {
		if len(only) > 0 && !slices.Contains(only, bc.Name) {
			continue
		}
		if err := s.addRollback(ctx, plan, bc, o, pasts[bc.Name]); err != nil {
			return nil, err
		}
	}
	for _, name := range only {
		if _, ok := p.Component(name); !ok {
			return nil, &UsageError{Message: fmt.Sprintf("backup %s holds nothing of %s", stamp, name), Hint: "observability-upgrade rollback --list"}
		}
	}
	return plan, nil
}

// past is what a rollback makes of a component's history.
type past struct {
	undoes []int64        // upgrades that it takes back
	redoes []history.Mark // upgrades that are in force again
}

// rollbackTarget is the backup point's name, the components wanted (empty: all
// it holds) and, per component, what the history will say. Going back to a point
// makes it say what was so when the point was taken: every upgrade since is
// rolled back, the point's own run first of them, and an upgrade before that a
// rollback took back since is a success again. So the point of a rollback is the
// way to undo it, and `--previous` finds the upgrade afterwards.
func (s *Stack) rollbackTarget(ctx context.Context, o RollbackOptions) (stamp string, only []string, pasts map[string]past, err error) {
	pasts = map[string]past{}
	db, err := history.OpenReadOnly(ctx, s.Root.History())
	if err != nil {
		if o.Previous {
			return "", nil, nil, err
		}
		s.Notice(fmt.Sprintf("the history cannot be read, so it will not show this rollback: %v", err))
		return o.To, o.Components, pasts, nil
	}
	defer db.Close()
	if o.Previous {
		runID, rows, err := db.LastSuccessfulRun(ctx, o.Components...)
		if err != nil {
			return "", nil, nil, err
		}
		for _, r := range rows {
			only = append(only, r.Component)
			p := pasts[r.Component]
			p.undoes = append(p.undoes, r.ID)
			pasts[r.Component] = p
			stamp = filepath.Base(r.BackupPath)
		}
		if stamp == "" {
			return "", nil, nil, &UsageError{Message: strings.TrimSuffix("there is no successful upgrade left to roll back of "+strings.Join(o.Components, ", "), " of "), Hint: "observability-upgrade rollback --list"}
		}
		for _, name := range o.Components {
			if !slices.Contains(only, name) {
				return "", nil, nil, &UsageError{Message: fmt.Sprintf("the newest successful upgrade among them, run %s, was of %s and not of %s", runID, strings.Join(only, ", "), name), Hint: "observability-upgrade rollback --previous --component=" + name}
			}
		}
		return stamp, only, pasts, nil
	}
	rows, err := db.List(ctx, history.Filter{})
	if err != nil {
		return "", nil, nil, err
	}
	for _, r := range rows {
		p := pasts[r.Component]
		since := !backup.Before(filepath.Base(r.BackupPath), o.To)
		switch {
		case since && r.Status == history.Success:
			p.undoes = append(p.undoes, r.ID)
		case !since && r.RolledBackBy != "" && r.RollbackTimestamp != nil && !backup.Before(r.RolledBackBy, o.To):
			p.redoes = append(p.redoes, history.Mark{ID: r.ID, By: r.RolledBackBy, At: *r.RollbackTimestamp})
		}
		pasts[r.Component] = p
	}
	return o.To, o.Components, pasts, nil
}

func (s *Stack) addRollback(ctx context.Context, plan *RollbackPlan, bc backup.Component, o RollbackOptions, was past) error {
	c, ok := s.Catalogue.Get(bc.Name)
	if !ok {
		return &RefusedError{Component: bc.Name, Check: "definition", Err: fmt.Errorf("the backup holds it, but no definition of it exists any more; put it back into %s", s.Root.ComponentsDir()), Next: "observability-upgrade components list"}
	}
	found, err := s.Inventory(ctx, []*component.Component{c})
	if err != nil {
		return err
	}
	var in *inventory.Installed
	if len(found) == 1 {
		in = found[0]
	} else if in, err = s.lost(ctx, c, bc); err != nil {
		return err
	}
	if in.Unlisted != "" {
		if !o.Force {
			return s.unlistedError(in, "a rollback of the plain service alone would leave them as they are; --force goes by those that the state file remembers")
		}
		if in, err = s.remembered(ctx, in); err != nil {
			return err
		}
	}
	to, err := component.ParseVersion(bc.Version)
	if err != nil {
		return &RefusedError{Component: bc.Name, Check: "backup", Err: err, Next: "observability-upgrade rollback --list"}
	}
	var all []run.Swap
	for _, it := range bc.Items {
		swaps, err := rollbackSwaps(plan.Point, it)
		if err != nil {
			return err
		}
		all = append(all, swaps...)
	}
	all = once(all, plan.Changes)
	if err := s.sameFiles(in, bc, all); err != nil {
		return err
	}
	if err := sameLinks(bc); err != nil {
		return err
	}
	for _, sw := range all {
		if err := s.ownTree(in, sw.Path); sw.Tree && err != nil && !o.Force {
			return &RefusedError{
				Component: bc.Name, Check: "tree",
				Err:  fmt.Errorf("%w; --force puts back all of it as it was, and keeps what is there now in this rollback's own backup", err),
				Next: "move that out of it, then the same command",
			}
		}
	}
	away := slices.ContainsFunc(in.Copies, func(one *inventory.Installed) bool { return one.Remote() })
	if len(all) == 0 && !o.RestoreData && !away {
		plan.Skipped = append(plan.Skipped, bc.Name)
		return nil
	}
	var changes []run.Change
	for _, one := range idleFirst(parts(in)) {
		if one.Remote() {
			ch, err := s.rollbackAway(ctx, in, one, to, o)
			switch {
			case err != nil && o.Force:
				s.Notice(fmt.Sprintf("%s is left out, as it is: %v", one.Set(), err))
			case err != nil:
				return &RefusedError{
					Component: one.Set(), Check: "its host", Err: fmt.Errorf("%w; --force leaves it as it is", err),
					Next: strings.Join(append(slices.Clone(one.Exec), "rollback", "--list"), " "),
				}
			case ch != nil:
				ch.Undoes, ch.Redoes = was.undoes, was.redoes
				changes = append(changes, *ch)
			}
			continue
		}
		ch := s.baseChange(one, in.Version, to, o.SkipHealth)
		// A rollback leaves the service running: it is how a stopped one is mended.
		ch.WasActive = ch.Service.Unit != "" || len(ch.Service.Command) > 0
		ch.Archive = plan.archive(bc)
		ch.Undoes, ch.Redoes, ch.Swaps, ch.Rolling = was.undoes, was.redoes, slices.Clone(all), s.rolling(in, one)
		for _, it := range bc.Items {
			if it.Kind != backup.Binary {
				continue
			}
			if ch.Binaries[it.Name] == "" {
				ch.Binaries[it.Name] = it.Path
			}
			if main, ok := c.MainBinary(); ok && main.Name == it.Name {
				ch.Executable = it.Path
			}
		}
		if err := s.rollbackData(ctx, plan, in, one, &ch, o); err != nil {
			return err
		}
		if len(ch.Swaps) == 0 && (ch.Data == nil || ch.Data.From == "") {
			continue
		}
		changes = append(changes, ch)
	}
	if len(changes) == 0 {
		plan.Skipped = append(plan.Skipped, bc.Name)
		return nil
	}
	s.listInstances(in, changes)
	plan.Changes = append(plan.Changes, changes...)
	kept := s.subject(in)
	// A program that is gone, and comes back by this rollback, is not there to keep.
	kept.Binaries = slices.DeleteFunc(kept.Binaries, func(b backup.Source) bool {
		_, err := os.Lstat(b.Path)
		return errors.Is(err, fs.ErrNotExist)
	})
	plan.subjects = append(plan.subjects, kept)
	return nil
}

// sameFiles refuses to put back programs that nobody would start: those whose link
// leads to another file than when the backup was taken.
func (s *Stack) sameFiles(in *inventory.Installed, bc backup.Component, swaps []run.Swap) error {
	if slices.ContainsFunc(swaps, func(sw run.Swap) bool { return sw.Kind == backup.Unit }) {
		return nil // the unit that is put back says what is started
	}
	for _, it := range bc.Items {
		now := in.Binaries[it.Name]
		if it.Kind != backup.Binary || now == "" || now == it.Path {
			continue
		}
		link := ""
		for _, b := range in.Component.Binaries {
			if b.Name == it.Name {
				link = s.Root.Path(component.Vars{Name: in.Component.Name}.Expand(b.Install))
			}
		}
		return &RefusedError{
			Component: bc.Name, Check: "files",
			Err:  fmt.Errorf("expected its %s to be %s, as when the backup was taken, found %s: what is put back would not be what is started", it.Name, it.Path, now),
			Next: fmt.Sprintf("ln -sfn %s %s, then the same command", it.Path, link),
		}
	}
	return nil
}

// sameLinks refuses to put back configuration, or a unit, that nobody would read:
// where a link leads elsewhere than when the backup was taken.
func sameLinks(bc backup.Component) error {
	for _, link := range slices.Sorted(maps.Keys(bc.Links)) {
		was, now := bc.Links[link], "nothing"
		if real, err := filepath.EvalSymlinks(link); err == nil {
			now = real
		}
		if now == was {
			continue
		}
		next := fmt.Sprintf("make %s lead to %s again, then the same command", link, was)
		if st, err := os.Lstat(link); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			next = fmt.Sprintf("ln -sfn %s %s, then the same command", was, link)
		}
		return &RefusedError{
			Component: bc.Name, Check: "files", Next: next,
			Err: fmt.Errorf("expected %s to lead to %s, as when the backup was taken, found %s: what is put back would not be what is read", link, was, now),
		}
	}
	return nil
}

// lost stands in for a component whose binary is gone from the host.
func (s *Stack) lost(ctx context.Context, c *component.Component, bc backup.Component) (*inventory.Installed, error) {
	in := &inventory.Installed{Component: c, Service: inventory.ServiceOf(c, s.Root, ""), Binaries: map[string]string{}}
	var err error
	in.Status, err = s.services.Status(ctx, in.Service)
	return in, err
}

// rollbackSwaps lists the files of a stored item that differ from the host.
func rollbackSwaps(p *backup.Point, it backup.Item) ([]run.Swap, error) {
	if it.Kind == backup.Binary {
		sw, err := rollbackSwap(it.Kind, it.Name, p.File(it), it.Path, it.Tree)
		if err != nil || sw == nil {
			return nil, err
		}
		return []run.Swap{*sw}, nil
	}
	var swaps []run.Swap
	base := p.File(it)
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		sw, err := rollbackSwap(it.Kind, filepath.Base(path), path, filepath.Join(it.Path, rel), false)
		if err != nil || sw == nil {
			return err
		}
		swaps = append(swaps, *sw)
		return nil
	})
	return swaps, err
}

// once drops swaps of what another one brings back already, of the component or of
// one before it: configuration may be named twice, by a directory and a file in it,
// and shared by components. What is exchanged twice is what it was. Programs that
// components share are the engine's to refuse.
func once(swaps []run.Swap, before []run.Change) []run.Swap {
	var out, shared []run.Swap
	for _, ch := range before {
		shared = append(shared, ch.Swaps...)
	}
	for _, sw := range swaps {
		brings := func(other run.Swap) bool { return other.Path == sw.Path || other.Tree && isWithin(sw.Path, other.Path) }
		if i := slices.IndexFunc(out, brings); i >= 0 {
			if sw.Kind == backup.Unit {
				out[i].Kind = sw.Kind // for systemd to read it again
			}
			continue
		}
		if sw.Kind == backup.Binary || !slices.ContainsFunc(shared, brings) {
			out = append(out, sw)
		}
	}
	return out
}

func rollbackSwap(kind backup.Kind, name, stored, path string, tree bool) (*run.Swap, error) {
	want, err := hostfs.Digest(stored)
	if err != nil {
		return nil, err
	}
	have, err := hostfs.Digest(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if want == have {
		return nil, nil
	}
	return &run.Swap{
		Kind: kind, Name: name, Path: path, Source: stored, Beside: hostfs.Beside(path, "new"), Old: have, New: want, Tree: tree,
	}, nil
}

// rollbackDoc is what the backup point of a rollback keeps as its plan.
type rollbackDoc struct {
	Operation  run.Operation   `json:"operation"`
	Target     string          `json:"target"` // the point that it goes back to
	Components []rollbackEntry `json:"components"`
}

type rollbackEntry struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Rollback carries out a rollback plan; the caller holds the lock.
func (s *Stack) Rollback(ctx context.Context, p *RollbackPlan, trigger string) (run.Result, error) {
	if len(p.Changes) == 0 {
		return run.Result{Operation: run.Rollback, Trigger: trigger, StartedAt: s.now().UTC(), Status: run.StatusNothingToDo, Components: []run.Outcome{}}, nil
	}
	doc := rollbackDoc{Operation: run.Rollback, Target: p.Point.Timestamp}
	for _, c := range p.Changes {
		doc.Components = append(doc.Components, rollbackEntry{c.Component, c.From.String(), c.To.String()})
	}
	res, err := s.engine().Execute(ctx, run.Request{
		Operation: run.Rollback, Trigger: trigger, Changes: p.Changes, Subjects: p.subjects, Plan: doc, ContinueOnFailure: true, Warnings: p.Notes,
	})
	s.reloadStale(ctx, &res)
	s.tell.ended(res, err)
	if !errors.Is(err, hostfs.ErrCrashed) {
		s.assessAgain(ctx)
	}
	return res, err
}
