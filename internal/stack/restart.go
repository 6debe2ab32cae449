package stack

import (
	"context"
	"fmt"
	"strings"
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
	ID          string          `json:"id"` // of the run, for `history show`
	Components  []health.Report `json:"components"`
	Integration []health.Check  `json:"integration,omitempty"` // after all were restarted
}

// Restart restarts components one at a time, or starts those that do not run, and
// proves each healthy before the next. Of several instances one is restarted at a
// time too, out of the balancer; those that do not run are started first. After all of
// them the integration tests are made; one that fails is an error. The caller holds the
// lock.
func (s *Stack) Restart(ctx context.Context, o RestartOptions) (Restarted, error) {
	doc := Restarted{Components: []health.Report{}}
	comps, err := s.Components(o.Components)
	if err != nil {
		return doc, err
	}
	looking, end := s.Tracer.Span(ctx, "look")
	found, err := s.Inventory(looking, comps)
	end(err)
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
			return doc, notInstalled(name)
		}
		if in.Gone != "" {
			return doc, goneError(in, "; a restart would stop what still runs of it for good; nothing was restarted")
		}
		if in.Unlisted != "" {
			return doc, s.unlistedError(in, "a restart of the plain service would start one more beside them")
		}
		for _, one := range in.Copies {
			if one.Remote() {
				s.Notice(fmt.Sprintf("%s is on another host and is not restarted: %s restart --component=%s", one.Set(), strings.Join(one.Exec, " "), name))
			}
		}
		for _, one := range idleFirst(in.Local()) {
			if !one.Status.Exists {
				return doc, &UsageError{Message: fmt.Sprintf("%s has no service: %s does not exist", one.Set(), one.Service.Label()), Hint: "observability-upgrade components show " + name}
			}
			if err := unstartableError(one); err != nil {
				return doc, err
			}
			ch := s.baseChange(one, one.Version, one.Version, false)
			ch.Rolling, ch.Strategy = s.rolling(in, one), o.Strategy
			if !ch.WasActive || one.Status.Idle() { // it is started
				ch.WasActive, ch.Strategy = true, run.Graceful
			}
			targets[one.Set()] = one
			req.Changes = append(req.Changes, ch)
		}
	}
	engine := s.engine()
	engine.ReloadConfig = func(ctx context.Context, ch run.Change) (bool, error) { return s.reload(ctx, targets[ch.Set()]) }
	res, err := engine.Execute(ctx, req)
	doc.ID = res.ID
	var done []*inventory.Installed
	for _, out := range res.Components {
		if out.Status != run.NotAttempted {
			done = append(done, targets[component.SetName(out.Name, out.Instance)])
		}
	}
	reports, probeErr := s.probeAll(context.WithoutCancel(ctx), done, 0)
	doc.Components = append(doc.Components, reports...)
	if res.Status == run.StatusInterrupted || res.Status == run.StatusCancelled || ctx.Err() != nil {
		cut := &CutOffError{Err: err}
		for _, out := range res.Components {
			set := component.SetName(out.Name, out.Instance)
			switch out.Status {
			case run.NotAttempted:
				cut.Left = append(cut.Left, set)
			case run.Upgraded:
				cut.Done = append(cut.Done, set)
			}
		}
		return doc, cut
	}
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
