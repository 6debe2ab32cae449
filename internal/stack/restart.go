package stack

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

// Strategy is how a restart is made.
type Strategy string

// The strategies of specification section 5.
const (
	Graceful Strategy = "graceful" // stop, wait for the end, start
	Fast     Strategy = "fast"     // the service manager's restart
	Reload   Strategy = "reload"   // re-read the configuration; graceful where that is not possible
)

// Restart restarts one component, or starts it where it is not running, and
// proves it healthy. The caller holds the lock.
func (s *Stack) Restart(ctx context.Context, name string, strategy Strategy) (health.Report, error) {
	comps, err := s.Components([]string{name})
	if err != nil {
		return health.Report{}, err
	}
	found, err := s.Inventory(ctx, comps)
	if err != nil {
		return health.Report{}, err
	}
	if len(found) == 0 {
		return health.Report{}, &UsageError{Message: name + " is not installed on this host", Hint: "observability-upgrade components list"}
	}
	in := found[0]
	if !in.Status.Exists {
		return health.Report{}, &UsageError{Message: fmt.Sprintf("%s has no service: %s does not exist", name, in.Service.Label()), Hint: "observability-upgrade components show " + name}
	}
	if err := s.host.Check("service.restart", in.Service.Label()); err != nil {
		return health.Report{}, err
	}
	if err := s.restart(ctx, in, strategy); err != nil {
		return health.Report{}, fmt.Errorf("%s: %w", name, err)
	}
	t, err := s.target(in)
	if err != nil {
		return health.Report{}, err
	}
	return s.prober.Await(ctx, t, health.Watcher{Progress: func(how string) { s.Notice(name + ": " + how) }})
}

func (s *Stack) restart(ctx context.Context, in *inventory.Installed, strategy Strategy) error {
	stop, start := s.Policy.Timeouts.Stop.Std(), s.Policy.Timeouts.Start.Std()
	startCtx, cancel := context.WithTimeout(ctx, stop+start)
	defer cancel()
	if !in.Status.Active {
		return s.services.Start(startCtx, in.Service)
	}
	if strategy == Reload {
		done, err := s.reload(ctx, in)
		if done || err != nil {
			return err
		}
		strategy = Graceful
	}
	if strategy == Fast {
		return s.services.Restart(startCtx, in.Service, stop)
	}
	if _, err := s.services.Stop(ctx, in.Service, stop); err != nil {
		return err
	}
	return s.services.Start(startCtx, in.Service)
}

// reload reports whether the component could re-read its configuration. Only
// what the definition names is tried: SIGHUP kills a program without a handler.
func (s *Stack) reload(ctx context.Context, in *inventory.Installed) (bool, error) {
	r := in.Component.Reload
	vars := component.Vars{Name: in.Component.Name, Root: s.Root.Prefix()}.WithURL(in.Component.Health)
	if r.HTTP != "" {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		status, body, err := s.prober.Post(ctx, in.Component.Client, vars.Expand(r.HTTP))
		if err == nil {
			switch {
			case status < 300:
				return true, nil
			case status >= 500 || status == http.StatusBadRequest:
				return false, fmt.Errorf("%s answered %d %.200q: it keeps its old configuration; correct it and reload again", vars.Expand(r.HTTP), status, body)
			}
		}
	}
	if r.Signal != "" {
		sig, ok := signals[strings.TrimPrefix(strings.ToUpper(r.Signal), "SIG")]
		if !ok {
			return false, fmt.Errorf("reload.signal %q is not known", r.Signal)
		}
		return true, s.services.Signal(ctx, in.Service, sig)
	}
	if r.Service {
		return true, s.services.Reload(ctx, in.Service)
	}
	s.Notice(in.Component.Name + " cannot re-read its configuration; it is restarted gracefully")
	return false, nil
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2}

// RestartOrder is the order of specification section 5: data stores, shippers
// and exporters, alerting, UI, proxy.
func (s *Stack) RestartOrder(ctx context.Context) ([]string, error) {
	found, err := s.Inventory(ctx, s.Catalogue.All())
	if err != nil {
		return nil, err
	}
	var order []string
	for _, role := range []component.Role{component.RoleDatastore, component.RoleShipper, component.RoleExporter, component.RoleAlerting, component.RoleUI, component.RoleProxy} {
		for _, in := range found {
			if in.Component.Role == role && in.Status.Exists {
				order = append(order, in.Component.Name)
			}
		}
	}
	return order, nil
}
