package stack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hold"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/service/systemd"
	"github.com/observability-upgrade/observability-upgrade/internal/timer"
	"github.com/observability-upgrade/observability-upgrade/internal/window"
)

// WindowError says that an unattended run may not begin now. Nothing was touched.
type WindowError struct {
	Reason string
	Next   *window.Opening // nil when none is long enough
}

func (e *WindowError) Error() string { return "maintenance window: " + e.Reason }

// Windows are the maintenance windows of the policy or the matrix; one of the two
// may have them.
func (s *Stack) Windows() (window.Set, error) { return windowsOf(s.Policy, s.Matrix) }

func windowsOf(p *config.Policy, m *config.Matrix) (window.Set, error) {
	var list []config.Window
	if m != nil {
		list = m.MaintenanceWindows
	}
	if p != nil && p.MaintenanceWindows != nil {
		list = p.MaintenanceWindows
	}
	var set window.Set
	for i, w := range list {
		one, err := window.New(w.Day, w.Start, w.End, w.Timezone)
		if err != nil {
			return nil, fmt.Errorf("%w: maintenance_windows[%d]: %w", ErrConfig, i, err)
		}
		set = append(set, one)
	}
	return set, nil
}

// mayBegin refuses an unattended run that is outside the maintenance windows, or
// takes longer than the open one lasts. Runs by hand are not bound.
func (s *Stack) mayBegin(auto bool, takes time.Duration) error {
	set, err := s.Windows()
	if err != nil || !auto {
		return err
	}
	if v := set.Judge(s.now(), takes); !v.OK {
		return &WindowError{Reason: v.Reason, Next: v.Next}
	}
	return nil
}

// checkWindow tells of the maintenance windows among the pre-flight checks. It
// only warns: what binds an unattended run is mayBegin. Its name is the caller's.
func (s *Stack) checkWindow(p *plan.Plan) component.Check {
	c := component.Check{Status: component.CheckOK}
	set, err := s.Windows()
	if err != nil {
		c.Status, c.Detail = component.CheckFail, err.Error()
		return c
	}
	v := set.Judge(s.now(), time.Duration(p.EstimatedSeconds)*time.Second)
	c.Detail = v.Reason
	switch {
	case len(set) == 0:
		c.Status = component.CheckSkipped
	case !v.OK:
		c.Status = component.CheckWarn
	}
	return c
}

// holds are those of the policy and those that `hold` set.
func (s *Stack) holds() ([]plan.Hold, error) {
	var out []plan.Hold
	for _, h := range s.Policy.Holds {
		x := plan.Hold{Component: h.Component, Reason: h.Reason}
		if h.Version != "" {
			x.Range = mustRange(h.Version)
		}
		x.Until, _ = h.UntilTime() // checked when the file was read
		out = append(out, x)
	}
	set, err := hold.Load(s.Root.Holds())
	if err != nil {
		return nil, err
	}
	for _, h := range set {
		x := plan.Hold{Component: h.Component, Reason: h.Reason, Until: h.Until}
		if h.Version != "" {
			x.Range = mustRange(h.Version)
		}
		out = append(out, x)
	}
	return out, nil
}

// Hold keeps a component from versions (a range; empty: all) until a moment (zero:
// for good). The caller holds the lock.
func (s *Stack) Hold(name, versions, reason string, until time.Time) error {
	if _, err := s.Components([]string{name}); err != nil {
		return err
	}
	if versions != "" {
		if _, err := config.ParseRange(versions); err != nil {
			return &UsageError{Message: fmt.Sprintf("%s@%s: %v", name, versions, err), Hint: "observability-upgrade hold --help"}
		}
	}
	return hold.Set(s.host, s.Root.Holds(), hold.Hold{
		Component: name, Version: versions, Reason: reason, Until: until.UTC().Truncate(time.Second), SetAt: s.now().UTC().Truncate(time.Second),
	})
}

// Unhold takes away what Hold set for a component and reports how many holds that
// were, and which hold of the policy stays, a person's to take away. Where that is
// the only one, it is an error. The caller holds the lock.
func (s *Stack) Unhold(name string) (n int, stays string, err error) {
	if _, err := s.Components([]string{name}); err != nil {
		return 0, "", err
	}
	if n, err = hold.Remove(s.host, s.Root.Holds(), name); err != nil {
		return n, "", err
	}
	for i, h := range s.Policy.Holds {
		if h.Component == name {
			line := 0
			if at := s.Policy.Root.At("holds", i); at != nil {
				line = at.Line
			}
			stays = fmt.Sprintf("%s is on hold in %s, line %d: %s", name, s.Policy.File, line, h.Reason)
			if n == 0 {
				return 0, stays, &UsageError{Message: stays + "; nothing else holds it", Hint: "take it out of that file: " + s.Policy.File}
			}
			return n, stays, nil
		}
	}
	return n, "", nil
}

// Holds lists what Hold set and has not ended, and what the policy holds.
func (s *Stack) Holds() ([]plan.Hold, error) {
	all, err := s.holds()
	var out []plan.Hold
	for _, h := range all {
		if h.Until.IsZero() || s.now().Before(h.Until) {
			out = append(out, h)
		}
	}
	return out, err
}

// unitManager is the part of systemd that unattended runs need.
type unitManager interface {
	EnableUnits(ctx context.Context, enable, start []string) error
	DisableUnits(ctx context.Context, names ...string) error
	DaemonReload(ctx context.Context) error
	Timer(ctx context.Context, name string) (systemd.TimerState, error)
}

// AutoOptions say how unattended runs are to happen.
type AutoOptions struct {
	Policy   string
	Schedule []string // empty: the start of each maintenance window, else every day at 03:00
	Delay    time.Duration
	Program  string // path of this program
}

// AutoStatus is the document of `auto-status`.
type AutoStatus struct {
	Enabled  bool       `json:"enabled"`
	Policy   string     `json:"policy"`
	Schedule string     `json:"schedule"`
	NextRun  *time.Time `json:"next_run"`
	LastRun  *time.Time `json:"last_run"`
	Windows  []string   `json:"windows"`
	Warnings []string   `json:"warnings"` // what of the configuration does not hold for the timer
}

// DefaultDelay is how much later than its schedule a run begins, at most, where
// nobody asks for another delay.
const DefaultDelay = 15 * time.Minute

// units is systemd, where this host has it; with --root there is nothing to
// control.
func (s *Stack) units() (unitManager, bool) {
	m, ok := s.services.(unitManager)
	return m, ok && s.Root.IsHost()
}

func (s *Stack) unitDir() string { return unitDir(s.Root) }

func unitDir(root layout.Root) string { return root.Path("etc/systemd/system") }

// AutoEnable makes a timer run upgrades unattended. It returns the names of the
// files that changed: none when it was enabled so already. The caller holds the
// lock.
func (s *Stack) AutoEnable(ctx context.Context, o AutoOptions) ([]string, error) {
	m, onHost := s.units()
	if !onHost && s.services.Kind() != "systemd" && s.Root.IsHost() {
		return nil, &UsageError{
			Message: "there is no systemd here to set a timer with (service_manager: process)",
			Hint:    fmt.Sprintf("put this line into root's crontab: 0 3 * * * %s apply --auto --policy=%s --quiet", o.Program, o.Policy),
		}
	}
	if s.Root.IsHost() { // below another root the path means nothing yet
		var wrong *timer.ProgramError
		if err := timer.CheckProgram(o.Program); errors.As(err, &wrong) {
			const place = "/usr/local/bin/observability-upgrade"
			return nil, &RefusedError{Check: "program of the units", Err: err, Next: fmt.Sprintf("install -m 0755 %s %s && %s auto-enable --policy=%s", wrong.Path, place, place, o.Policy)}
		} else if err != nil {
			return nil, err
		}
	}
	set, err := s.Windows()
	if err != nil {
		return nil, err
	}
	units := timer.Options{Program: o.Program, Policy: o.Policy, Schedule: o.Schedule, Delay: timer.Cap(o.Delay, set)}
	if len(units.Schedule) == 0 {
		units.Windows, units.Schedule = madeOf(set), scheduleOf(set)
	}
	if units.Delay < o.Delay {
		s.Notice(fmt.Sprintf("runs begin up to %s after the schedule, at random, not %s: the shortest maintenance window is open for %s", units.Delay, o.Delay, set.Shortest()))
	}
	for _, dir := range []string{"usr/local/lib", "usr/lib", "lib"} { // as systemd looks for them, after /etc
		units.Installed = append(units.Installed, s.Root.Path(dir, "systemd/system"))
	}
	changed, err := timer.Write(s.host, s.unitDir(), units)
	if err != nil {
		return changed, foreignUnit(err)
	}
	if !onHost {
		links, err := timer.Enable(s.host, s.unitDir(), units)
		if len(changed)+len(links) > 0 {
			s.Notice("the units below " + s.unitDir() + " run once a systemd starts there; this host's own was not asked")
		}
		return append(changed, links...), err
	}
	state, err := m.Timer(ctx, timer.Timer)
	if err != nil {
		return changed, err
	}
	if len(changed) == 0 && state.Active && state.Enabled {
		return nil, nil
	}
	return append(changed, "enabled"), m.EnableUnits(ctx, []string{timer.Timer, timer.Recovery}, []string{timer.Timer})
}

func foreignUnit(err error) error {
	var foreign *timer.ForeignError
	if errors.As(err, &foreign) {
		return &RefusedError{Check: "unit file", Err: err, Next: "mv " + foreign.Path + " " + foreign.Path + ".old"}
	}
	return err
}

// AutoDisable takes the timer away and reports whether there was one. People's
// drop-ins and the recovery unit stay. The caller holds the lock.
func (s *Stack) AutoDisable(ctx context.Context) (bool, error) {
	m, onHost := s.units()
	if _, _, err := timer.Read(s.unitDir()); err != nil {
		return false, foreignUnit(err)
	}
	if onHost {
		if err := m.DisableUnits(ctx, timer.Timer); err != nil {
			return false, err
		}
	}
	removed, err := timer.Remove(s.host, s.unitDir())
	if err != nil {
		return false, foreignUnit(err)
	}
	if onHost && len(removed) > 0 {
		err = m.DaemonReload(ctx)
	}
	return len(removed) > 0, err
}

// AutoStatus tells whether and when upgrades run unattended.
func (s *Stack) AutoStatus(ctx context.Context) (*AutoStatus, error) {
	doc := &AutoStatus{Windows: []string{}, Warnings: []string{}}
	set, err := s.Windows()
	if err != nil {
		return nil, err
	}
	for _, w := range set {
		doc.Windows = append(doc.Windows, w.String())
	}
	o, ok, err := timer.Read(s.unitDir())
	if err != nil {
		return nil, foreignUnit(err)
	}
	if !ok {
		return doc, nil
	}
	doc.Policy, doc.Schedule = o.Policy, strings.Join(o.Schedule, "; ")
	for _, w := range timerWarnings(ctx, s.Root, s.Policy, s.Matrix, s.now()) {
		doc.Warnings = append(doc.Warnings, w.Error())
	}
	m, onHost := s.units()
	if !onHost {
		doc.Enabled = timer.Enabled(s.unitDir())
		return doc, nil
	}
	t, err := m.Timer(ctx, timer.Timer)
	if err != nil {
		return nil, err
	}
	doc.Enabled = t.Active && t.Enabled
	if !t.Next.IsZero() {
		doc.NextRun = &t.Next
	}
	if !t.Last.IsZero() {
		doc.LastRun = &t.Last
	}
	return doc, nil
}
