package stack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// ComponentStatus is one component in `status`.
type ComponentStatus struct {
	Name       string     `json:"name"`
	Current    string     `json:"current"`
	Previous   string     `json:"previous"`
	Service    string     `json:"service"`
	Active     bool       `json:"active"`
	Healthy    bool       `json:"healthy"`
	UpgradedAt *time.Time `json:"upgraded_at"`
	Vulnerable *bool      `json:"vulnerable"`        // null: not known
	Unknown    bool       `json:"unknown,omitempty"` // how it is could not be found out; see detail
	Detail     string     `json:"detail,omitempty"`

	Instances []InstanceStatus `json:"instances,omitempty"` // of a component that has several
}

// InstanceStatus is one of several instances in `status`. One on another host is
// what the program there says of it.
type InstanceStatus struct {
	Name    string `json:"name"`
	Current string `json:"current"` // as it was left by the last run, where it cannot be asked
	Service string `json:"service,omitempty"`
	Remote  bool   `json:"remote,omitempty"`
	Active  bool   `json:"active"`
	Healthy bool   `json:"healthy"`
	Unknown bool   `json:"unknown,omitempty"` // its host could not be asked
	Detail  string `json:"detail,omitempty"`
}

// LastRun is the newest run in `status`.
type LastRun struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// Status is the document of `status`.
type Status struct {
	Components     []ComponentStatus `json:"components"`
	LastRun        *LastRun          `json:"last_run"`
	InterruptedRun *run.Interrupted  `json:"interrupted_run"`
	RunningPID     int               `json:"running_pid,omitempty"` // a mutating command is at work
}

// addInstances adds what is so of each instance; the component is as well as the
// worst of them.
func (c *ComponentStatus) addInstances(in *inventory.Installed, known state.Component, report map[*inventory.Installed]health.Report, away map[*inventory.Installed]InstanceStatus) {
	var units []string
	failed := false
	for _, one := range in.Copies {
		i, asked := away[one]
		if !asked {
			r := report[one]
			i = InstanceStatus{Service: one.Service.Label(), Active: one.Status.Active, Healthy: r.Healthy, Detail: r.Failures(), Current: r.Version}
			units = append(units, i.Service)
		}
		i.Name, i.Remote = one.Instance, one.Remote()
		i.Current = cmp.Or(i.Current, known.Instances[one.Instance])
		if i.Current == "" && !i.Remote {
			i.Current = one.Version.String()
		}
		c.Active, c.Healthy = c.Active && i.Active, c.Healthy && i.Healthy
		c.Unknown = c.Unknown || i.Unknown
		failed = failed || !i.Healthy && !i.Unknown
		if !i.Healthy {
			c.Detail = strings.TrimPrefix(c.Detail+"; "+i.Name+": "+i.Detail, "; ")
		}
		c.Instances = append(c.Instances, i)
	}
	c.Unknown = c.Unknown && !failed
	c.Service = strings.Join(units, ", ")
}

// askInstances asks the hosts of remote instances how these are, side by side.
func (s *Stack) askInstances(ctx context.Context, found []*inventory.Installed) map[*inventory.Installed]InstanceStatus {
	var mu sync.Mutex
	out := map[*inventory.Installed]InstanceStatus{}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, in := range found {
		for _, one := range in.Copies {
			if !one.Remote() {
				continue
			}
			g.Go(func() error {
				i := InstanceStatus{Unknown: true}
				if c, err := s.statusAway(ctx, one); err != nil {
					i.Detail = fmt.Sprintf("not known: %v", err)
				} else {
					i = InstanceStatus{Current: c.Current, Service: c.Service, Active: c.Active, Healthy: c.Healthy, Unknown: c.Unknown, Detail: c.Detail}
				}
				mu.Lock()
				defer mu.Unlock()
				out[one] = i
				return nil
			})
		}
	}
	_ = g.Wait() // it never fails
	return out
}

// local lists what can be probed here: components, and the instances of those that
// have several.
func local(found []*inventory.Installed) []*inventory.Installed {
	var out []*inventory.Installed
	for _, in := range found {
		out = append(out, in.Local()...)
	}
	return out
}

// Status tells what is installed and how it is, and how the last run ended. With a
// journal that cannot be read it returns what it knows and the error.
func (s *Stack) Status(ctx context.Context) (*Status, error) {
	found, err := s.Inventory(ctx, s.Catalogue.All())
	if err != nil {
		return nil, err
	}
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	a := s.assessor()
	defer a.Close()
	known, err := a.All(ctx, subjects(found))
	if err != nil {
		return nil, err
	}
	doc := &Status{Components: []ComponentStatus{}}
	here := local(found)
	reports, err := s.probeAll(ctx, here, 0)
	if err != nil {
		return nil, err
	}
	report := map[*inventory.Installed]health.Report{}
	for i, in := range here {
		report[in] = reports[i]
	}
	away := s.askInstances(ctx, found)
	for _, in := range found {
		recorded := st.Components[in.Component.Name]
		c := ComponentStatus{
			Name: in.Component.Name, Current: in.Version.String(), Previous: recorded.PreviousVersion,
			Service: in.Service.Label(), Active: in.Status.Active, Healthy: report[in].Healthy, Detail: report[in].Failures(),
			Vulnerable: known.Of(in.Component.Name).Vulnerable(),
		}
		if in.Service.Unit == "" && len(in.Service.Command) == 0 {
			c.Service = "" // a program that people call
		}
		if len(in.Copies) > 0 {
			c.Active, c.Healthy = true, true
			c.addInstances(in, recorded, report, away)
		}
		if in.Unlisted != "" {
			c.Active, c.Healthy, c.Unknown = false, false, true
		}
		if in.Status.Unknown != "" && len(in.Copies) == 0 {
			asked := slices.ContainsFunc(report[in].Checks, func(c health.Check) bool { return c.Status == health.OK })
			if c.Healthy && !asked { // neither its manager nor the component itself
				c.Healthy, c.Unknown = false, true
			}
			c.Detail = strings.TrimPrefix(c.Detail+"; not known whether it runs: "+in.Status.Unknown, "; ")
		}
		if in.Problem != "" && !strings.Contains(c.Detail, in.Problem) {
			c.Detail = strings.TrimPrefix(c.Detail+"; "+in.Problem, "; ")
		}
		if !recorded.UpgradedAt.IsZero() {
			at := recorded.UpgradedAt
			c.UpgradedAt = &at
		}
		doc.Components = append(doc.Components, c)
	}
	if n := len(st.UpgradeHistory); n > 0 {
		last := state.Newest(st.UpgradeHistory)
		doc.LastRun = &LastRun{ID: last.ID, Status: last.Status}
	}
	pid, held := lock.Holder(s.Root.Lock())
	if held {
		doc.RunningPID = pid
		return doc, nil // the open journal is that of a run at work
	}
	doc.InterruptedRun, err = s.interrupted()
	return doc, err
}

// interrupted finds the run that was cut off, or nil; by its log for those who may
// not read its journal. Whoever asks has seen that no run is at work.
func (s *Stack) interrupted() (*run.Interrupted, error) {
	in, err := run.FindInterrupted(s.Root.JournalDir())
	if errors.Is(err, fs.ErrPermission) {
		if in, err = s.interruptedByLog(); err != nil || in == nil {
			s.Notice("the journal cannot be read without more rights; an interrupted run would not be seen")
		}
		err = nil
	}
	return in, err
}

// unsettled tells which components a run has changed, or may have, that is at work
// or was cut off: what is installed of them is not what they will be left at. cutOff
// tells of one that was cut off; "" where none was.
func (s *Stack) unsettled() (of func(name string) bool, cutOff string) {
	none := func(string) bool { return false }
	if s.holdsLock {
		return none, "" // it was recovered first
	}
	_, held := lock.Holder(s.Root.Lock())
	in, err := s.interrupted()
	switch {
	case err != nil && held:
		return none, "" // it is being written
	case err != nil:
		return func(string) bool { return true }, fmt.Sprintf("it is not known whether a run was cut off: %v", err)
	case in == nil:
		return none, ""
	}
	of = func(name string) bool {
		return slices.ContainsFunc(in.Components, func(c run.Planned) bool { return c.Name == name })
	}
	if held {
		return of, ""
	}
	at := fmt.Sprintf("step %q", in.Step)
	if in.Component != "" {
		at += " of " + in.Component
	}
	return of, fmt.Sprintf("run %s (%s) was cut off at %s; the next run puts that right first, and then this may look different", in.ID, in.Operation, at)
}

// interruptedByLog tells of an interrupted run by its log, for those who may see
// that there is a journal and may not read it.
func (s *Stack) interruptedByLog() (*run.Interrupted, error) {
	pending, err := journal.Pending(s.Root.JournalDir())
	if err != nil || len(pending) == 0 {
		return nil, err
	}
	rec, err := runlog.Read(s.Root, journal.ID(pending[0]))
	if err != nil {
		return nil, err
	}
	h := rec.Header
	in := &run.Interrupted{ID: rec.ID, Operation: h.Operation, StartedAt: h.StartedAt, Components: h.Components, PID: h.PID, Manager: h.Manager}
	if n := len(rec.Steps); n > 0 {
		in.Component, in.Step = rec.Steps[n-1].Component, rec.Steps[n-1].Step
	}
	return in, nil
}
