package stack

import (
	"fmt"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hold"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
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
func (s *Stack) Windows() (window.Set, error) {
	list := s.Policy.MaintenanceWindows
	if list == nil {
		list = s.Matrix.MaintenanceWindows
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
// were. A hold in the policy is a person's to take away. The caller holds the
// lock.
func (s *Stack) Unhold(name string) (int, error) {
	if _, err := s.Components([]string{name}); err != nil {
		return 0, err
	}
	n, err := hold.Remove(s.host, s.Root.Holds(), name)
	if err != nil {
		return n, err
	}
	for i, h := range s.Policy.Holds {
		if h.Component == name {
			line := 0
			if at := s.Policy.Root.At("holds", i); at != nil {
				line = at.Line
			}
			return n, &UsageError{
				Message: fmt.Sprintf("%s is also on hold in %s, line %d: %s", name, s.Policy.File, line, h.Reason),
				Hint:    "take it out of that file: " + s.Policy.File,
			}
		}
	}
	return n, nil
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
