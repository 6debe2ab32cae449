package stack

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/discovery"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// finder looks for what is installed, instances included.
func (s *Stack) finder() *inventory.Finder {
	return &inventory.Finder{
		Root: s.Root, Services: s.services, Probe: s.probe, Logger: s.Logger,
		Instances: func(ctx context.Context, c *component.Component) ([]component.Instance, error) {
			list, err := discovery.Instances(ctx, c, discovery.Options{Expand: config.Expander(s.Root, s.Env), Root: s.Root.Prefix()})
			if s.Here {
				list = slices.DeleteFunc(list, func(i component.Instance) bool { return len(i.Exec) > 0 })
			}
			return list, err
		},
	}
}

// vars are the placeholders of a component, or of an instance of it.
func (s *Stack) vars(in *inventory.Installed) component.Vars {
	return component.Vars{Name: in.Component.Name, Version: in.Version.String(), Root: s.Root.Prefix(), Instance: in.Instance}
}

// parts are what a change of a component is made on: its instances, or itself.
func parts(in *inventory.Installed) []*inventory.Installed {
	if len(in.Copies) > 0 {
		return in.Copies
	}
	return []*inventory.Installed{in}
}

// idleFirst puts the instances first that do not run here. They serve nobody, so
// starting them is no outage, and one that works can be taken out once they are back.
func idleFirst(list []*inventory.Installed) []*inventory.Installed {
	order := func(one *inventory.Installed) int {
		if !one.Remote() && one.Status.Idle() {
			return 0
		}
		return 1
	}
	return slices.SortedStableFunc(slices.Values(list), func(a, b *inventory.Installed) int { return order(a) - order(b) })
}

// rolling says how one of several instances leaves traffic and comes back; nil for
// a component that has not several.
func (s *Stack) rolling(whole, one *inventory.Installed) *run.Rolling {
	if len(whole.Copies) == 0 {
		return nil
	}
	r := &run.Rolling{Remote: one.Exec}
	if b := whole.Component.Balancer; b != nil {
		r.Balancer, r.Server = b, s.vars(one).Expand(cmp.Or(one.Server, b.Server, "{instance}"))
	}
	return r
}

// listInstances tells the changes of a component which instances of it there are, so
// that the state file does not go on remembering others. --here does not know.
func (s *Stack) listInstances(whole *inventory.Installed, changes []run.Change) {
	for i := range changes {
		if !s.Here {
			changes[i].Listed = whole.Listed
		}
	}
}

// openBalancer is the engine's way to a load balancer.
func (s *Stack) openBalancer(b component.Balancer, server string) (balancer.Balancer, error) {
	return balancer.New(b, server, balancer.Options{
		Host: s.host, Root: s.Root, Exec: artifact.RunTool, Expand: config.Expander(s.Root, s.Env),
	})
}

// loneNotice tells of a component with instances declared that has fewer than two:
// as specification section 5 says it is upgraded the standard way.
func (s *Stack) loneNotice(declared *component.Component, in *inventory.Installed) {
	if declared.Instances.IsZero() || len(in.Copies) > 0 || in.Problem != "" || s.Here {
		return
	}
	s.Notice(declared.Name + ": fewer than two instances were found, so it is upgraded the standard way, with a short time down")
}

// unlistedError refuses to act on a component whose instances are not known.
func (s *Stack) unlistedError(in *inventory.Installed, how string) error {
	return &RefusedError{
		Component: in.Component.Name, Check: "instances",
		Err:  fmt.Errorf("expected to find them, found: %s; %s", in.Unlisted, how),
		Next: fmt.Sprintf("mend that, or write the instances as a list into %s (docs/discovery.md); then the same command", s.definition(in.Component)),
	}
}

// remembered finds a component whose instances cannot be looked up by those that
// the state file remembers, as the last runs found them.
func (s *Stack) remembered(ctx context.Context, in *inventory.Installed) (*inventory.Installed, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	name := in.Component.Name
	names := slices.Sorted(maps.Keys(st.Components[name].Instances))
	if len(names) == 0 {
		return nil, s.unlistedError(in, "and no run has noted any")
	}
	changes, err := run.Remembered(s.Root, name, names)
	if err != nil {
		return nil, err
	}
	var list []component.Instance
	for _, n := range names {
		ch, ok := changes[n]
		if !ok {
			return nil, s.unlistedError(in, fmt.Sprintf("and no run tells how to reach %s, which the state file remembers", n))
		}
		list = append(list, s.instanceOf(&ch))
	}
	f := s.finder()
	f.Instances = func(context.Context, *component.Component) ([]component.Instance, error) { return list, nil }
	found, err := f.Find(ctx, []*component.Component{in.Component}, st.Components)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, s.unlistedError(in, "and nothing of those that the state file remembers is on this host")
	}
	s.Notice(fmt.Sprintf("%s: its instances are not known (%s); these are taken, as the last runs found them: %s", name, in.Unlisted, strings.Join(names, ", ")))
	return found[0], nil
}

// instanceOf is an instance as a run's journal describes it.
func (s *Stack) instanceOf(ch *run.Change) component.Instance {
	spec := ch.Health.Spec.Health
	i := component.Instance{Name: ch.Instance, Service: ch.Service.Unit, Health: &spec}
	if len(ch.Service.Command) > 0 {
		i.Process = &component.Process{Command: ch.Service.Command, Dir: ch.Service.Dir, Env: ch.Service.Env}
	}
	if ch.Rolling != nil {
		i.Exec, i.Server = ch.Rolling.Remote, ch.Rolling.Server
	}
	if ch.Data != nil && isWithin(ch.Data.Path, s.Root.Prefix()) {
		i.Data = &component.Data{Path: strings.TrimPrefix(ch.Data.Path, s.Root.Prefix())}
	}
	return i
}
