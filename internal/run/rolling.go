package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Rolling says how one of several instances is taken out of service and put
// back, so that the others serve while it is changed.
type Rolling struct {
	Balancer *component.Balancer `json:"balancer,omitempty"` // nil: clients find a way themselves
	Server   string              `json:"server,omitempty"`   // the instance's name at the balancer
	// Remote is the command before this program's arguments on the instance's host;
	// empty for an instance of this host. Args are the arguments that bring it to the
	// version of the change.
	Remote []string `json:"remote,omitempty"`
	Args   []string `json:"args,omitempty"`
}

const (
	defaultDrainTimeout = 30 * time.Second
	defaultStabilize    = 10 * time.Second
	defaultAdmit        = 60 * time.Second
)

func (c *Change) balanced() bool { return c.Rolling != nil && c.Rolling.Balancer != nil }
func (c *Change) remote() bool   { return c.Rolling != nil && len(c.Rolling.Remote) > 0 }

func (r *running) admitLimit() time.Duration { return cmp.Or(r.Timeouts.Admit, defaultAdmit) }

// at opens the balancer of an instance; the error is a FaultError of it.
func (r *running) at(ch Change) (balancer.Balancer, error) {
	if r.Balancer == nil {
		return nil, &balancer.FaultError{Err: errors.New("this run has no way to a balancer")}
	}
	b, err := r.Balancer(*ch.Rolling.Balancer, ch.Rolling.Server)
	if err != nil {
		return nil, &balancer.FaultError{Err: err}
	}
	return b, nil
}

// drain takes an instance out of the balancer and waits for what runs to end.
// One that is out already is somebody else's affair: it is neither drained nor
// put back. The last server that takes traffic is never drained. One that does not
// run serves nobody: where it need not or cannot be taken out, it is left in.
func (r *running) drain(ctx context.Context, ch Change) error {
	if !ch.balanced() {
		return nil
	}
	b, err := r.at(ch)
	var st balancer.State
	if err == nil {
		st, err = b.State(ctx)
	}
	if ctx.Err() == nil && r.leaves(ch, st, err) && r.idle(ctx, ch) {
		r.leftIn[ch.key()] = true
		r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepDrain, Done: true, Detail: "it does not run and takes no traffic: not taken out of the balancer"})
		return nil
	}
	if err != nil {
		return err
	}
	if !st.Admitted {
		r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepDrain, Done: true, Detail: "out of the balancer already (" + st.Detail + "); it is left so"})
		return nil
	}
	if st.Others == 0 {
		return fmt.Errorf("expected another server that takes traffic, found none beside %s: draining it would be an outage; see at the balancer why the others take none", ch.Rolling.Server)
	}
	if err := r.Host.Check("drain", ch.Set()); err != nil {
		return err
	}
	return r.step(ctx, ch, StepDrain, func() (string, error) {
		r.drained[ch.key()] = true
		if err := b.Drain(ctx); err != nil {
			return "", err
		}
		return r.quiet(ctx, ch, b)
	})
}

// leaves reports whether an instance that does not run is left in its balancer, by
// what that answers: where its own version is started, or none; and in a rollback
// where it could not be taken out. Any other proves itself before it takes traffic.
func (r *running) leaves(ch Change, st balancer.State, err error) bool {
	switch r.head.Operation {
	case Restart:
		return true
	case Rollback:
		return !ch.WasActive || err != nil || st.Admitted && st.Others == 0
	}
	return !ch.WasActive
}

// idle reports whether a service of this host does not run. What cannot be told
// counts as at work.
func (r *running) idle(ctx context.Context, ch Change) bool {
	if ch.remote() || !ch.hasService() {
		return false
	}
	st, err := r.Services.Status(ctx, ch.Service)
	return err == nil && st.Idle()
}

// taken waits until the balancer gives traffic to an instance that was started and
// never taken out: only then another one may leave. That it does not is a warning,
// as the instance itself works.
func (r *running) taken(ctx context.Context, ch Change) error {
	if !r.leftIn[ch.key()] {
		return nil
	}
	b, err := r.at(ch)
	var st balancer.State
	if err == nil {
		st, err = b.State(ctx)
	}
	detail := "in the balancer"
	switch {
	case err != nil:
	case !st.Admitted:
		detail = "out of the balancer (" + st.Detail + "); it is left so"
	default:
		_, err = balancer.AwaitUp(ctx, b, r.admitLimit())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.warn("%s works, and whether it takes traffic again is not known: %v", ch.Set(), err)
		return nil
	}
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepAdmit, Done: true, Detail: detail})
	return nil
}

// quiet waits until the connections of a drained instance have ended, or until
// its drain timeout is over: what is open when it stops, fails.
func (r *running) quiet(ctx context.Context, ch Change, b balancer.Balancer) (string, error) {
	limit := ch.Rolling.Balancer.DrainTimeout.Std()
	if limit <= 0 {
		limit = defaultDrainTimeout
	}
	began := r.Now()
	st, idle, err := balancer.Wait(ctx, b, limit)
	switch {
	case err != nil:
		return "", err
	case idle:
		return fmt.Sprintf("no connections after %s", r.Now().Sub(began).Round(time.Millisecond)), nil
	case st.Sessions < 0:
		return fmt.Sprintf("given %s for its connections to end", limit), nil
	}
	r.warn("%s: %d connections were still open after %s", ch.Set(), st.Sessions, limit)
	return fmt.Sprintf("%d connections were still open after %s", st.Sessions, limit), nil
}

// admit puts an instance back that this run drained, and waits until the
// balancer gives it traffic.
func (r *running) admit(ctx context.Context, ch Change) error {
	if !r.drained[ch.key()] {
		return nil
	}
	b, err := r.at(ch)
	if err != nil {
		return err
	}
	if err := r.Host.Check("admit", ch.Set()); err != nil {
		return err
	}
	return r.step(ctx, ch, StepAdmit, func() (string, error) {
		err := balancer.Admit(ctx, b, r.admitLimit())
		if theirs := new(balancer.NotOursError); errors.As(err, &theirs) {
			r.leaveOut(ch, theirs)
			return "left out: " + theirs.State, nil
		}
		if err != nil {
			return "", err
		}
		if r.idle(ctx, ch) { // as before the host's boot has come to it
			return "back in the balancer, for when it runs", nil
		}
		if _, err := balancer.AwaitUp(ctx, b, r.admitLimit()); err != nil {
			return "", err
		}
		return "back in the balancer", nil
	})
}

// rejoin puts a changed instance back and watches it under traffic before the
// next one is touched.
func (r *running) rejoin(ctx context.Context, ch Change) error {
	if ch.Rolling == nil {
		return nil
	}
	if err := errors.Join(r.admit(ctx, ch), r.taken(ctx, ch)); err != nil {
		return err
	}
	wait := defaultStabilize
	if ch.balanced() && ch.Rolling.Balancer.Stabilize > 0 {
		wait = ch.Rolling.Balancer.Stabilize.Std()
	}
	t, err := r.target(ch, ch.To.String())
	if err != nil {
		return err
	}
	t.Spec.Health.Settle = component.Duration(wait)
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepStabilize, Detail: fmt.Sprintf("watched for %s", wait)})
	rep, err := r.prober(ch).Await(ctx, t, health.Watcher{})
	if err == nil && !rep.Healthy {
		err = &UnhealthyError{Component: ch.Set(), Version: ch.To.String(), Report: rep}
	}
	if err == nil {
		err = r.checked(ctx, ch)
	}
	r.tell(Event{Component: ch.Component, Instance: ch.Instance, Step: StepStabilize, Done: true, Detail: "steady", Err: err})
	return err
}

// checked looks at the balancer again once it had the time for checks of its own: a
// restart is often over before any of them notices, and that it was up as the instance
// was put back may be from before.
func (r *running) checked(ctx context.Context, ch Change) error {
	if !r.drained[ch.key()] {
		return nil
	}
	b, err := r.at(ch)
	if err != nil {
		return err
	}
	st, err := balancer.AwaitCheck(ctx, b, r.admitLimit())
	if err == nil && !st.Admitted {
		r.leaveOut(ch, &balancer.NotOursError{Server: ch.Rolling.Server, State: st.Detail})
	}
	return err
}

// leaveOut leaves an instance out that somebody else took out. It works; when it takes
// traffic again is another's to say.
func (r *running) leaveOut(ch Change, theirs *balancer.NotOursError) {
	delete(r.drained, ch.key())
	r.warn("%s: %v; put it back when it is time", ch.Set(), theirs)
}

// putBack again into the balancer after an undo: only an instance that works.
func (r *running) readmit(ctx context.Context, ch Change) error {
	err := r.admit(ctx, ch)
	if err != nil && !errors.Is(err, hostfs.ErrCrashed) {
		err = fmt.Errorf("%s works, and could not be put back into the balancer: %w", ch.Set(), err)
	}
	return err
}

// byUrgency is the order in which recovery settles changes: what was at work when
// the run died comes first, so that it takes traffic again before an instance that
// works is taken out to be brought back.
func byUrgency(order []*progress, takenBack map[*progress]bool) []*progress {
	var first, last []*progress
	for _, p := range order {
		if takenBack[p] {
			last = append([]*progress{p}, last...)
		} else {
			first = append(first, p)
		}
	}
	return append(first, last...)
}

// interrupted reports whether a change was settled, by a recovery before this one,
// for no fault of its own.
func (p *progress) interrupted() bool {
	if out := cmp.Or(p.recorded, p.undone); out != nil {
		return WasInterrupted(out.Error)
	}
	return WasInterrupted(p.reason)
}

// half lists the instances of interrupted rolling changes that are committed
// while others of their component are not: recovery takes them back, so that a
// component is whole again.
func half(op Operation, order []*progress, unreached []Planned) map[*progress]bool {
	done, left := map[string][]*progress{}, map[string]bool{}
	for _, p := range order {
		if p.change.Rolling == nil {
			continue
		}
		key := p.change.Component + " " + p.change.To.String()
		switch {
		case p.committed != nil || p.recorded != nil && p.recorded.arrived(op):
			done[key] = append(done[key], p)
		case p.recorded == nil && p.undone == nil, p.interrupted():
			left[key] = true
		}
	}
	for _, pl := range unreached {
		if pl.Instance != "" {
			left[pl.Name+" "+pl.To] = true
		}
	}
	// An instance that failed for itself ended the roll-out: the rest stays as it is.
	for _, p := range order {
		failed := p.undone != nil || p.reason != "" || p.recorded != nil && p.recorded.Status != NotAttempted && !p.recorded.arrived(op)
		if failed && !p.interrupted() {
			delete(left, p.change.Component+" "+p.change.To.String())
		}
	}
	out := map[*progress]bool{}
	for key, list := range done {
		if left[key] {
			for _, p := range list {
				out[p] = true
			}
		}
	}
	return out
}

// mendBooted brings back instances that the interrupted run had not touched, where
// the power was cut: they started at boot from the files that they share with one
// that was being changed, which are the old ones again. One that runs the old
// version is left alone. It returns order with those that the run had not begun.
func (r *running) mendBooted(ctx context.Context, order []*progress, settled map[*progress]Outcome) ([]*progress, error) {
	at, touched := map[Planned]*progress{}, map[string]bool{}
	for _, p := range order {
		at[p.change.planned()] = p
		for _, s := range p.change.Swaps {
			touched[s.Path] = touched[s.Path] || p.stopped
		}
	}
	var failure error
	for _, ch := range r.head.Instances {
		p := at[ch.planned()]
		shares := slices.ContainsFunc(ch.Swaps, func(s Swap) bool { return touched[s.Path] })
		if p != nil && p.stopped || !shares || !ch.WasActive {
			continue
		}
		// Where another failed for itself, the files are the new ones for good.
		if inPlace, err := r.oldInPlace(ch); err != nil {
			return order, r.leaveOpen(err)
		} else if !inPlace || r.untouched(ctx, ch) {
			continue
		}
		// From here on it is as if the run had come to it.
		if p == nil {
			p = &progress{change: ch}
			order = append(order, p)
			if err := r.note(stepChange, ch); err != nil {
				return order, r.leaveOpen(err)
			}
		}
		if err := r.drain(ctx, ch); errors.Is(err, hostfs.ErrCrashed) {
			return order, err
		} else if err != nil {
			r.warn("%s could not be taken out of the balancer while it is restarted: %v", ch.Set(), err)
		}
		p.stopped, p.recorded, p.undone, p.reason = true, nil, nil, interruptedBetween
		out, err := r.settle(ctx, p)
		if errors.Is(err, hostfs.ErrCrashed) {
			return order, err
		}
		failure, settled[p] = errors.Join(failure, err), out
	}
	return order, failure
}
