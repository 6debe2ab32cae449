package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// rebuildState makes a state file from what is installed, for one that cannot be
// read any more, and from what the history, the backup points and the results of
// runs remember: a version that failed here stays held. Package-owned and
// unreadable components are left out. A source that cannot be read is told, and
// the file is made without it.
func (s *Stack) rebuildState(ctx context.Context) (*state.File, error) {
	f := state.New()
	found, err := s.finder().Find(ctx, s.Catalogue.All(), nil)
	if err != nil {
		return nil, err
	}
	m := s.memory(ctx)
	var names []string
	for _, in := range found {
		if in.Owner != "" || in.Version.IsZero() || !in.Component.Swappable() {
			continue
		}
		name := in.Component.Name
		e, err := s.stateEntry(in, state.Component{SignatureVerified: m.signed[name]})
		if err != nil {
			return nil, err
		}
		m.recall(name, &e)
		f.Components[name] = e
		names = append(names, name+" "+e.CurrentVersion)
	}
	for _, r := range m.runs {
		f.AddRun(r)
	}
	slices.Sort(names)
	s.Notice("the state file was rebuilt from what is installed: " + strings.Join(names, ", "))
	return f, nil
}

// memory is what is known of the past without the state file.
type memory struct {
	upgrades map[string][]history.Upgrade // by component, oldest first
	points   []*backup.Point              // complete ones, oldest first
	signed   map[string]*state.SignatureVerified
	runs     []state.RunSummary
	idle     map[attempt]bool // attempts that never came to start the new version
}

// attempt is one run's try at a version of a component.
type attempt struct{ run, component, version string }

func (s *Stack) memory(ctx context.Context) memory {
	m := memory{upgrades: map[string][]history.Upgrade{}, idle: map[attempt]bool{}}
	forgotten := func(what string, err error) {
		if err != nil {
			s.Notice(fmt.Sprintf("%v, so it is forgotten %s", err, what))
		}
	}
	rows, err := s.allUpgrades(ctx)
	forgotten("which versions failed here and what went before", err)
	for _, r := range slices.Backward(rows) {
		m.upgrades[r.Component] = append(m.upgrades[r.Component], r)
	}
	points, err := s.Backups()
	forgotten("which backups there are, and which components were verified by a signature", err)
	m.signed = signedInBackups(points)
	for _, p := range slices.Backward(points) {
		if p.Complete {
			m.points = append(m.points, p)
		}
	}
	ids, err := runlog.IDs(s.Root)
	forgotten("which runs there were", err)
	for _, id := range ids {
		res, err := run.ReadResult(s.Root, id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a restart, or a run at work
		}
		if err != nil {
			forgotten("how that run ended", err)
			continue
		}
		m.runs = append(m.runs, res.Summary())
		for _, o := range res.Components {
			if !o.Started {
				m.idle[attempt{res.ID, o.Name, o.To.String()}] = true
			}
		}
	}
	return m
}

func (s *Stack) allUpgrades(ctx context.Context) ([]history.Upgrade, error) {
	db, err := history.OpenReadOnly(ctx, s.Root.History())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return db.List(ctx, history.Filter{})
}

// recall fills in what a component's entry had by the rules that wrote it; see
// run.Books.
func (m memory) recall(name string, e *state.Component) {
	for _, u := range m.upgrades[name] {
		switch {
		case u.Status != history.Success && u.Evidence != "" && !run.WasInterrupted(u.ErrorMessage) && !m.idle[attempt{u.RunID, name, u.NewVersion}]:
			e.MarkFailed(state.FailedVersion{Version: u.NewVersion, Reason: u.ErrorMessage, FailedAt: u.Timestamp, RunID: u.RunID})
		case u.ErrorMessage == "": // it worked, and may have been taken back by hand
			e.ClearFailed(u.NewVersion)
		}
		took := u.Timestamp.Add(u.Duration).Truncate(time.Second)
		switch {
		case u.Status == history.Success && u.NewVersion == e.CurrentVersion:
			e.PreviousVersion, e.UpgradedAt = u.OldVersion, took
		case u.RolledBackBy != "" && u.OldVersion == e.CurrentVersion && u.RollbackTimestamp != nil:
			e.PreviousVersion, e.UpgradedAt = u.NewVersion, *u.RollbackTimestamp
		}
	}
	e.ClearFailed(e.CurrentVersion)
	for _, p := range m.points {
		c, ok := p.Component(name)
		if !ok {
			continue
		}
		e.AddBackup(state.Backup{Version: c.Version, Timestamp: p.Timestamp, Path: p.Path})
		if c.Version != e.CurrentVersion && e.UpgradedAt.IsZero() {
			e.PreviousVersion = cmp.Or(c.Version, e.PreviousVersion)
		}
	}
}
