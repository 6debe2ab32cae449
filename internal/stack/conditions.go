package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/discovery"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// State is how a component is at a moment, the better ones first.
type State int

// The states.
const (
	StateHealthy State = iota
	StateUnknown       // nothing could be asked; Condition.Detail says why
	StateUnhealthy
	StateStopped
)

// Condition is how a component is, or the worst of its instances on this host.
type Condition struct {
	State  State
	Detail string // what is wrong, or what is not known and why; "" when all is well
}

// Conditions asks how components are, by their names and the versions they must
// report ("": any). It needs no more rights than everybody has: it asks the unit's
// state, whether the component is ready and which version it reports, and runs no
// program. What it may not ask is StateUnknown, never healthy. It is safe for
// concurrent use.
func (s *Stack) Conditions(ctx context.Context, versions map[string]string) map[string]Condition {
	out := make(map[string]Condition, len(versions))
	var mu sync.Mutex
	units, err := s.openServices(ctx)
	if err == nil {
		defer units.Close()
	} else {
		units = nil
		s.Logger.Debug("the service manager cannot be asked", "error", err)
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for name, version := range versions {
		g.Go(func() error {
			c := s.condition(ctx, units, name, version)
			mu.Lock()
			defer mu.Unlock()
			out[name] = c
			return nil
		})
	}
	_ = g.Wait() // it never fails
	return out
}

func unknown(format string, args ...any) Condition {
	return Condition{State: StateUnknown, Detail: "not known: " + fmt.Sprintf(format, args...)}
}

func (s *Stack) condition(ctx context.Context, units service.Manager, name, version string) Condition {
	def, ok := s.Catalogue.Get(name)
	if !ok {
		return unknown("there is no definition of it any more")
	}
	want, err := component.ParseVersion(version)
	if err != nil {
		want = component.Version{}
	}
	if def.Instances.IsZero() {
		return s.conditionOf(ctx, units, def, "", want)
	}
	list, err := discovery.Instances(ctx, def, discovery.Options{Expand: config.Expander(s.Root, s.Env)})
	if err != nil {
		return unknown("its instances: %v", err)
	}
	worst, here := Condition{}, 0
	for _, i := range list {
		if len(i.Exec) > 0 {
			continue // its own host tells
		}
		here++
		c := s.conditionOf(ctx, units, def.Of(i), i.Name, want)
		if c.Detail != "" {
			c.Detail = i.Name + ": " + c.Detail
		}
		if c.State > worst.State || worst.Detail == "" {
			worst = c
		}
	}
	if here == 0 {
		return unknown("none of its instances is on this host")
	}
	return worst
}

// conditionOf asks one component, or one instance of it.
func (s *Stack) conditionOf(ctx context.Context, units service.Manager, def *component.Component, instance string, want component.Version) Condition {
	svc := inventory.ServiceOf(def, s.Root, instance)
	silent, note := false, ""
	switch st, err := status(ctx, units, svc); {
	case err != nil:
		silent, note = true, fmt.Sprintf("the state of its unit is not known: %v", err)
	case st.Unknown != "":
		silent, note = true, "the state of its unit is not known: "+st.Unknown
	case !st.Exists:
		return Condition{StateStopped, svc.Label() + " does not exist"}
	case st.Activating:
		return Condition{StateUnhealthy, svc.Label() + " is still starting"}
	case !st.Active:
		return Condition{StateStopped, fmt.Sprintf("%s is %s", svc.Label(), st.SubState)}
	case st.Restarts > 0:
		note = fmt.Sprintf("%s restarted by itself %d times", svc.Label(), st.Restarts)
	}
	if err := s.mayAsk(def); err != nil {
		return unknown("%v", err)
	}
	vars := component.Vars{Name: def.Name, Version: want.String(), Root: s.Root.Prefix(), Instance: instance}
	t := health.NewTarget(def, svc, vars, 0)
	t.Version, t.Spec.Functional = want, nil
	r := (&health.Prober{Logger: s.Logger, Expand: config.Expander(s.Root, s.Env)}).Once(ctx, t)
	switch {
	case ctx.Err() != nil:
		return unknown("it was not asked to the end: %v", ctx.Err())
	case r.Verdict == health.Unhealthy:
		return Condition{StateUnhealthy, r.Failures()}
	case r.Verdict == health.Inconclusive:
		return unknown("%s", doubts(r))
	case silent && len(r.Checks) == 0:
		return unknown("%s", note)
	}
	return Condition{StateHealthy, note}
}

func doubts(r health.Report) string {
	var parts []string
	for _, c := range r.Checks {
		if c.Status == health.Warn {
			parts = append(parts, c.Name+": "+c.Detail)
		}
	}
	return strings.Join(parts, "; ")
}

func status(ctx context.Context, units service.Manager, svc service.Service) (service.Status, error) {
	if units == nil {
		return service.Status{}, errors.New("the service manager cannot be asked")
	}
	return units.Status(ctx, svc)
}

// mayAsk tells why a component cannot be asked by this user: what it must be
// asked with is not his to read.
func (s *Stack) mayAsk(def *component.Component) error {
	expand := config.Expander(s.Root, s.Env)
	for _, text := range []string{def.Client.Bearer, def.Client.Username, def.Client.Password} {
		if _, err := expand(text); err != nil {
			return fmt.Errorf("its credentials: %w", err)
		}
	}
	vars := component.Vars{Name: def.Name, Root: s.Root.Prefix()}
	for _, path := range []string{def.Client.CA, def.Client.Cert, def.Client.Key} {
		if path == "" {
			continue
		}
		f, err := os.Open(vars.Expand(path))
		if err != nil {
			return fmt.Errorf("its certificates: %w", err)
		}
		f.Close()
	}
	return nil
}
