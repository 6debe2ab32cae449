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
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// RestartOptions say what is restarted and how.
type RestartOptions struct {
	Components []string // in this order; empty: all, in the order of specification section 5
	Strategy   run.Strategy
	Pause      time.Duration // between one component and the next
}

// Restarted is what became of a restart; its JSON form is the document of
// `restart`.
type Restarted struct {
	Components  []health.Report `json:"components"`
	Integration []health.Check  `json:"integration,omitempty"` // after all were restarted
}

// Restart restarts components one at a time, or starts those that do not run, and
// proves each healthy before the next. Of several instances one is restarted at a
// time too, out of the balancer. After all of them the integration tests are made;
// one that fails is an error. The caller holds the lock.
func (s *Stack) Restart(ctx context.Context, o RestartOptions) (Restarted, error) {
	doc := Restarted{Components: []health.Report{}}
	comps, err := s.Components(o.Components)
	if err != nil {
		return doc, err
	}
	found, err := s.Inventory(ctx, comps)
	if err != nil {
		return doc, err
	}
	byName := map[string]*inventory.Installed{}
	for _, in := range found {
		byName[in.Component.Name] = in
	}
	names := o.Components
	if len(names) == 0 {
		names = restartOrder(found)
	}
	req := run.Request{Operation: run.Restart, Trigger: "manual", Pause: o.Pause}
	targets := map[string]*inventory.Installed{}
	for _, name := range names {
		in := byName[name]
		if in == nil {
			return doc, &UsageError{Message: name + " is not installed on this host", Hint: "observability-upgrade components list"}
		}
		for _, one := range in.Copies {
			if one.Remote() {
				s.Notice(fmt.Sprintf("%s is on another host and is not restarted: %s restart --component=%s", one.Set(), strings.Join(one.Exec, " "), name))
			}
		}
		for _, one := range in.Local() {
			if !one.Status.Exists {
				return doc, &UsageError{Message: fmt.Sprintf("%s has no service: %s does not exist", one.Set(), one.Service.Label()), Hint: "observability-upgrade components show " + name}
			}
			ch := s.baseChange(one, one.Version, one.Version, false)
			ch.Rolling, ch.Strategy = s.rolling(in, one), o.Strategy
			if !ch.WasActive { // it is started
				ch.WasActive, ch.Strategy = true, run.Graceful
			}
			targets[one.Set()] = one
			req.Changes = append(req.Changes, ch)
		}
	}
	engine := s.engine()
	engine.ReloadConfig = func(ctx context.Context, ch run.Change) (bool, error) { return s.reload(ctx, targets[ch.Set()]) }
	res, err := engine.Execute(ctx, req)
	var done []*inventory.Installed
	for _, out := range res.Components {
		if out.Status != run.NotAttempted {
			key := run.Change{Component: out.Name, Instance: out.Instance}
			done = append(done, targets[key.Set()])
		}
	}
	reports, probeErr := s.probeAll(context.WithoutCancel(ctx), done, 0)
	doc.Components = append(doc.Components, reports...)
	if err != nil {
		return doc, err
	}
	if probeErr != nil {
		return doc, probeErr
	}
	if len(o.Components) > 0 {
		return doc, nil
	}
	doc.Integration = s.testLinks(ctx, local(found), local(found))
	var failed []string
	for _, c := range doc.Integration {
		if c.Status == health.Fail {
			failed = append(failed, c.Name+": "+c.Detail)
		}
	}
	if len(failed) > 0 {
		return doc, fmt.Errorf("all were restarted and are healthy, but integration tests fail: %s", strings.Join(failed, "; "))
	}
	return doc, ctx.Err()
}

// confirmWait is how long a component may need to read its configuration again
// after a signal.
const confirmWait = 15 * time.Second

// reload reports whether the component could re-read its configuration. Only
// what the definition names is tried: SIGHUP kills a program without a handler.
func (s *Stack) reload(ctx context.Context, in *inventory.Installed) (bool, error) {
	r := in.Component.Reload
	vars := s.vars(in).WithURL(in.Component.Health)
	before := s.lastReload(ctx, in, vars)
	done, err := s.askToReload(ctx, in, vars)
	if !done || err != nil || before == "" {
		return done, err
	}
	deadline, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if now := s.lastReload(deadline, in, vars); now != "" && now != before {
			return true, nil
		}
		select {
		case <-deadline.Done():
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, fmt.Errorf("it was asked to read its configuration again, and %s did not say that it has within %s: it keeps the old one; see its log", r.Confirm.Name, confirmWait)
		case <-tick.C:
		}
	}
}

// lastReload is what the definition's reload.confirm reads; "" where there is none
// or it cannot be read.
func (s *Stack) lastReload(ctx context.Context, in *inventory.Installed, vars component.Vars) string {
	confirm := in.Component.Reload.Confirm
	if confirm == nil {
		return ""
	}
	return s.prober.Test(ctx, in.Component.Client, health.ExpandTests([]component.Test{*confirm}, vars)[0], time.Time{}).Value
}

// askToReload goes through the ways of the definition: HTTP, and where that is
// refused or not there the signal, then the service manager.
func (s *Stack) askToReload(ctx context.Context, in *inventory.Installed, vars component.Vars) (bool, error) {
	r := in.Component.Reload
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
	return false, nil
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2}

// restartOrder is the order of specification section 5: data stores, shippers
// and exporters, alerting, UI, proxy.
func restartOrder(found []*inventory.Installed) []string {
	var order []string
	for _, role := range []component.Role{component.RoleDatastore, component.RoleShipper, component.RoleExporter, component.RoleAlerting, component.RoleUI, component.RoleProxy} {
		for _, in := range found {
			if in.Component.Role == role && in.Status.Exists {
				order = append(order, in.Component.Name)
			}
		}
	}
	return order
}
