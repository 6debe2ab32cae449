package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/timer"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

var _ overview.Source = (*Stack)(nil)

// Overview gathers what there is to know from files alone. It needs no rights
// beyond reading what everybody may read; of what it may not read it tells in
// Problems.
func (s *Stack) Overview(ctx context.Context) (*overview.Overview, error) {
	pid, held := lock.Holder(s.Root.Lock())
	return s.overview(ctx, pid, held)
}

// overview is Overview, told whether a mutating command is at work.
func (s *Stack) overview(ctx context.Context, pid int, held bool) (*overview.Overview, error) {
	o := &overview.Overview{ReadAt: s.now(), Build: s.Build}
	problem := func(what string, err error) {
		if err != nil {
			o.Problems = append(o.Problems, fmt.Sprintf("%s: %v", what, err))
		}
	}
	var err error
	o.Host, err = os.Hostname()
	problem("host name", err)
	st, err := state.Load(s.Root.State())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	problem("state file", err)
	if st == nil {
		st = state.New()
	}
	trusted := s.trustCache()
	problem("cache", trusted)
	if trusted == nil {
		o.Check, err = overview.ReadCheck(s.Root)
		problem("last check", err)
	}
	s.overviewComponents(o, st)
	if trusted == nil {
		problem("known vulnerabilities", s.overviewVulnerabilities(o))
	}
	o.Runs = slices.Clone(st.UpgradeHistory)
	slices.Reverse(o.Runs)
	o.Upgrades, err = s.recentUpgrades(ctx)
	problem("history", err)
	o.Totals, err = s.totals.read(ctx, s.Root.History())
	problem("sums of the history", err)
	o.Holds, err = s.Holds()
	problem("holds", err)
	problem("maintenance windows", s.overviewWindows(o))
	if trusted == nil {
		o.Backups, err = overview.ReadBackups(s.Root)
		problem("backups", err)
	}
	t, ok, err := timer.Read(s.unitDir())
	problem("timer", err)
	if ok {
		o.Auto = overview.Auto{Enabled: timer.Enabled(s.unitDir()), Policy: t.Policy, Schedule: strings.Join(t.Schedule, "; ")}
	}
	problem("policies of unattended runs", s.overviewPolicies(o))
	problem("runs", s.overviewRuns(o, pid, held))
	problem("rollbacks", s.overviewBroken(o))
	return o, ctx.Err()
}

// overviewComponents joins what the state file and the last check know.
func (s *Stack) overviewComponents(o *overview.Overview, st *state.File) {
	at := map[string]int{}
	get := func(name string) *overview.Component {
		i, ok := at[name]
		if !ok {
			i = len(o.Components)
			at[name] = i
			c := overview.Component{Name: name}
			if def, ok := s.Catalogue.Get(name); ok {
				c.Role, c.Homepage = def.Role, def.Homepage
			}
			o.Components = append(o.Components, c)
		}
		return &o.Components[i]
	}
	for name, known := range st.Components {
		c := get(name)
		c.Version, c.Previous, c.Service = known.CurrentVersion, known.PreviousVersion, known.Service
		c.InstalledAt, c.UpgradedAt, c.Failed = known.InstalledAt, known.UpgradedAt, known.FailedVersions
	}
	if o.Check != nil {
		for i := range o.Check.Components {
			found := o.Check.Components[i]
			c := get(found.Name)
			if c.Version == "" {
				c.Version = found.Current.String()
			}
			c.Candidate = &found
			if c.Candidate.Current.IsZero() && c.UpgradedAt.Before(o.Check.CheckedAt) {
				continue // its binary was gone or broken, whatever the state file remembers
			}
			reconcile(c.Candidate, c.Version)
			holdFailed(c.Candidate, c.Failed)
		}
		for _, e := range o.Check.Errors {
			get(e.Component).CheckError = e.Error
		}
	}
	slices.SortFunc(o.Components, func(a, b overview.Component) int { return strings.Compare(a.Name, b.Name) })
}

// overviewVulnerabilities takes what the last assessment says of the versions that
// are installed now.
func (s *Stack) overviewVulnerabilities(o *overview.Overview) error {
	doc, err := vulnerability.Load(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	o.VulnerabilityData = &doc.Database
	for i := range o.Components {
		c := &o.Components[i]
		if r := doc.Of(c.Name); r.Version.String() == c.Version {
			c.Vulnerability = &r
		}
	}
	return nil
}

// reconcile brings what a check said up to the version that a run since left
// installed. How many versions that is behind is then only known to be none, or
// one at least.
func reconcile(c *plan.Candidate, installed string) {
	v, err := component.ParseVersion(installed)
	if err != nil || v.Equal(c.Current) {
		return
	}
	c.Current, c.Type, c.Target = v, component.BumpBetween(v, c.Latest), component.Version{}
	c.Reason = overview.Unchecked
	if v.Less(c.Latest) {
		c.VersionsBehind = max(1, c.VersionsBehind)
		return
	}
	c.VersionsBehind, c.Action, c.Type = 0, plan.ActionSkip, component.BumpNone
}

// holdFailed holds what failed since the check, as the next check will
// (docs/reference.md, promise 7).
func holdFailed(c *plan.Candidate, failed []state.FailedVersion) {
	if c.Action != plan.ActionUpgrade {
		return
	}
	for _, f := range failed {
		v, err := component.ParseVersion(f.Version)
		if err != nil || !v.Equal(c.Target) {
			continue
		}
		c.Action, c.Target = plan.ActionHold, component.Version{}
		c.Reason = fmt.Sprintf("%s failed here on %s: %s; name it with --component=%s@%s to try again", v, f.FailedAt.UTC().Format(time.DateOnly), f.Reason, c.Name, v)
	}
}

func (s *Stack) recentUpgrades(ctx context.Context) (rows []history.Upgrade, err error) {
	err = history.Look(ctx, s.Root.History(), func(db *history.DB) error {
		rows, err = db.List(ctx, history.Filter{Limit: overview.RecentUpgrades})
		return err
	})
	return rows, err
}

func (s *Stack) overviewWindows(o *overview.Overview) error {
	set, err := s.Windows()
	if err != nil {
		return err
	}
	for _, w := range set {
		o.Windows.List = append(o.Windows.List, w.String())
	}
	_, o.Windows.Open = set.At(s.now())
	if len(set) == 0 {
		o.Windows.Open = true
	} else if next, ok := set.Next(s.now(), 0); ok {
		o.Windows.Next = next.Start
	}
	return nil
}

func (s *Stack) overviewPolicies(o *overview.Overview) error {
	var in plan.Input
	if err := s.addPolicies(&in, o.Auto.Policy); err != nil {
		return err
	}
	for i := range o.Components {
		p := in.PolicyOf(o.Components[i].Name)
		o.Components[i].Policy, o.Components[i].Security = string(p.Level), p.Security
	}
	return nil
}

// overviewRuns tells of the run at work, or of one that was cut off: its journal
// is open.
func (s *Stack) overviewRuns(o *overview.Overview, pid int, held bool) error {
	id, err := overview.OpenRun(s.Root)
	var r *runlog.Record
	if id != "" {
		if r, err = runlog.Read(s.Root, id); err != nil { // that there is such a run matters more than what it did
			r = &runlog.Record{ID: id, Header: run.Header{ID: id}}
		}
	}
	var unlogged *runlog.NotFoundError
	if errors.As(err, &unlogged) {
		err = nil // it was cut off before its log was begun
	}
	switch overview.PhaseOf(r, held) {
	case overview.Preparing:
		o.Preparing = &overview.Process{PID: pid}
	case overview.Running:
		o.Running = r
	case overview.Interrupted:
		o.Interrupted = r
	}
	return err
}

// overviewBroken finds the components whose rollback failed in the last run that
// touched them. Such runs are rare, so their logs, and those of the runs since,
// are only read when one is known.
func (s *Stack) overviewBroken(o *overview.Overview) error {
	failed := map[string]bool{}
	for _, r := range o.Runs {
		if r.Status == run.StatusRollbackFail {
			failed[r.ID] = true
		}
	}
	if in := o.Interrupted; in != nil && in.Ended() && in.Result.Status == run.StatusRollbackFail {
		failed[in.ID] = true
	}
	if len(failed) == 0 {
		return nil
	}
	ids, err := runlog.IDs(s.Root)
	if err != nil {
		return err
	}
	var errs []error
	known := map[string]bool{} // components, or instances of them, that a later run left whole or broken
	for _, id := range ids {
		if len(failed) == 0 {
			break
		}
		delete(failed, id)
		r, err := runlog.Read(s.Root, id)
		if err != nil || !r.Ended() {
			errs = append(errs, err)
			continue
		}
		for _, out := range r.Result.Components {
			set := component.SetName(out.Name, out.Instance)
			changed := out.Status == run.Upgraded || out.Status == run.RolledBack || out.Status == run.RollbackFailed || out.Healthy
			if !changed || known[set] {
				continue
			}
			known[set] = true
			if out.Status == run.RollbackFailed && !slices.Contains(o.Broken, out.Name) {
				o.Broken = append(o.Broken, out.Name)
			}
		}
	}
	slices.Sort(o.Broken)
	return errors.Join(errs...)
}

// Checked keeps what a check found and announces the new versions among it.
func (s *Stack) Checked(v *View, o LookOptions) { s.announce(s.recordCheck(v, o, true), nil) }

// recordCheck keeps what a look found, for those who look at the stack without
// asking upstream, and returns it. Where always is not set, only what is new is
// written. A look at some components only renews what is known of those. Not being
// allowed to write is no error: a check by a plain user changes nothing.
func (s *Stack) recordCheck(v *View, o LookOptions, always bool) plan.CheckReport {
	in := v.Input
	in.Auto, in.Target, in.Pins, in.Force = false, plan.Latest, nil, false
	if s.trustCache() != nil {
		return plan.Check(in) // it was told
	}
	report := plan.Check(in)
	whole := report
	if len(o.Components) > 0 {
		old, err := overview.ReadCheck(s.Root)
		if err != nil || old == nil {
			return report // what is known of some is not what is known of all
		}
		whole = renew(*old, report)
	}
	if err := overview.WriteCheck(s.host, s.Root, whole, always); err != nil {
		s.Logger.Debug("what the check found is not kept", "error", err)
	}
	if !s.holdsLock { // else Mutate does it at its end
		s.writeTextfile()
	}
	return report
}

// renew puts what a later report says of some components into one of all.
func renew(old, later plan.CheckReport) plan.CheckReport {
	named := func(name string) bool {
		return slices.ContainsFunc(later.Components, func(c plan.Candidate) bool { return c.Name == name })
	}
	old.Components = slices.DeleteFunc(slices.Clone(old.Components), func(c plan.Candidate) bool { return named(c.Name) })
	old.Errors = slices.DeleteFunc(slices.Clone(old.Errors), func(e plan.ComponentError) bool { return named(e.Component) })
	old.Components = append(old.Components, later.Components...)
	old.Errors = append(old.Errors, later.Errors...)
	slices.SortFunc(old.Components, func(a, b plan.Candidate) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(old.Errors, func(a, b plan.ComponentError) int { return strings.Compare(a.Component, b.Component) })
	return old
}

// recordAfter keeps, once a run is over, what the check before it says of the
// versions that are installed now.
func (s *Stack) recordAfter(v *View, o LookOptions, at map[string]component.Version) {
	next := *v
	next.Input.Installed = slices.Clone(v.Input.Installed)
	for i := range next.Input.Installed {
		if now, ok := at[next.Input.Installed[i].Component.Name]; ok {
			next.Input.Installed[i].Current = now
		}
	}
	s.recordCheck(&next, o, false)
}

// recordBackups keeps the list of backup points for readers who may not look
// into them.
func (s *Stack) recordBackups() {
	if s.trustCache() != nil {
		return // told where the cache is of use
	}
	points, err := s.Backups()
	list := []overview.Backup{}
	for _, p := range points {
		b := overview.Backup{Timestamp: p.Timestamp, Path: p.Path, Complete: p.Complete, Bytes: p.Bytes, Components: map[string]string{}}
		for _, c := range p.Manifest.Components {
			b.Components[c.Name] = c.Version
		}
		list = append(list, b)
	}
	if err == nil {
		err = overview.WriteBackups(s.host, s.Root, list)
	}
	if err != nil {
		s.Logger.Debug("the list of backups is not kept", "error", err)
	}
}
