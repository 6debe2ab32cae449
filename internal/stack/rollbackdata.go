package stack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// rollbackData decides what a rollback does about the data. A way down keeps a
// copy of it as it is now, so that the rollback can be undone whole.
func (s *Stack) rollbackData(ctx context.Context, p *RollbackPlan, whole, in *inventory.Installed, ch *run.Change, o RollbackOptions) error {
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
		if err := s.mayRestore(ctx, whole, in, ch, set); err != nil {
			return refuse("%w", err)
		}
	case o.RestoreData && c.Data.Path != "":
		return refuse("backup %s holds no data of it", p.Point.Timestamp)
	case door != "yes" && !o.Force:
		return refuse("%s cannot be trusted with the data that %s wrote, and backup %s holds no copy of it; --force goes back all the same, and comes back by itself when the data does not answer", ch.To, ch.From, p.Point.Timestamp)
	}
	// The copy of now is what an undo of this rollback puts back.
	need := dataNeed{copy: down || restore, must: restore && s.dataDir(in) != ""}
	why := ""
	if ch.Data, why, err = s.dataOf(whole, in, need); err != nil {
		return refuse("%w", err)
	}
	if why != "" {
		s.Notice(fmt.Sprintf("%s: no copy of its data as it is now is kept: %s", in.Set(), why))
	}
	ch.TakeBack = ch.Data != nil && ch.Data.Copy
	if !restore {
		return nil
	}
	if ch.Data == nil { // its definition knows of no data any more; the backup does
		ch.Data = &run.Data{Path: set.Path}
	}
	if need.must {
		size, err := s.survey(whole, in, ch.Data)
		if err != nil {
			return refuse("%w", err)
		}
		if why := noRoom(s.Root.Backups(), size.Bytes); why != "" {
			return refuse("a copy of its data as it is now cannot be kept: %s", why)
		}
	}
	if err := strangers(set, ch.Data); err != nil {
		return refuse("%w", err)
	}
	ch.Data.From = p.Point.Timestamp
	for _, pl := range append([]backup.Place{{Path: set.Path}}, set.Places...) {
		ch.Data.Restores = append(ch.Data.Restores, pl.Path)
	}
	p.Notes = append(p.Notes, fmt.Sprintf("%s: its data is put back as it was at %s; what was collected since is lost (a copy of it is kept in this rollback's own backup)", in.Set(), set.TakenAt.Format("2006-01-02 15:04:05 UTC")))
	return nil
}

// mayRestore proves that a set is whole, belongs where the data is now, and fits
// there.
func (s *Stack) mayRestore(ctx context.Context, whole, in *inventory.Installed, ch *run.Change, set *backup.DataSet) error {
	now := s.dataDir(in)
	if set.Method == "sqlite" {
		d := &run.Data{Path: now, Method: set.Method, File: in.Component.Data.Backup.File}
		if _, err := s.survey(whole, in, d); err != nil {
			d.Path = "" // there is no database now
		}
		now = d.Path
	}
	unit := slices.ContainsFunc(ch.Swaps, func(sw run.Swap) bool { return sw.Kind == backup.Unit })
	if now != "" && now != set.Path && !unit { // the unit that is put back may say where it was
		return fmt.Errorf("its data was in %s when the backup was taken, and is in %s now: put it back to where it was, or copy %s by hand", set.Path, now, set.Files())
	}
	for _, pl := range append([]backup.Place{{Path: set.Path}}, set.Places...) {
		if set.Method == "sqlite" {
			break // it replaces the database alone
		}
		if err := s.mayMove(whole, in, pl.Path); err != nil {
			return err
		}
	}
	if why := noRoom(set.Path, set.Bytes-set.Shared); why != "" {
		return fmt.Errorf("its data cannot be put back: %s", why)
	}
	return backup.VerifyData(ctx, set, s.proving(in, set.Bytes))
}

// strangers refuses to put data into a place that the data of now has no part in,
// and that is in use.
func strangers(set *backup.DataSet, now *run.Data) error {
	for _, pl := range set.Places {
		if slices.ContainsFunc(now.Places, func(have backup.Place) bool { return have.Path == pl.Path }) {
			continue
		}
		if entries, err := os.ReadDir(pl.Path); err == nil && len(entries) > 0 {
			return fmt.Errorf("a part of its data was in %s when the backup was taken; %s leads there no more, and something is in it now: look at it, and move it away", pl.Path, filepath.Join(set.Path, pl.Name))
		}
	}
	return nil
}

// proving tells now and then how far the proof of a copy is.
func (s *Stack) proving(in *inventory.Installed, total int64) func(int64) {
	var done int64
	next := s.now().Add(provingEvery)
	return func(n int64) {
		done += n
		if now := s.now(); now.After(next) && s.Events != nil {
			next = now.Add(provingEvery)
			s.Events(run.Event{
				Component: in.Component.Name, Instance: in.Instance, Step: run.StepData, Time: now,
				Detail: fmt.Sprintf("%s of %s of the backup proved", plan.Bytes(done), plan.Bytes(total)),
			})
		}
	}
}

// provingEvery is how often the proof of a copy is told of.
const provingEvery = 5 * time.Second
