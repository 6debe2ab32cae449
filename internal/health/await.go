package health

import (
	"context"
	"fmt"
	"time"
)

// Await waits until the component is ready, at most t.Timeout, then watches it
// for t.Settle: the process must stay the same and stay ready. It returns early
// when the unit has failed for good. onReady, when not nil, is called once at
// the first ready answer, which is where an outage ends.
//
// An unhealthy component is told in the report, not as an error; the error is
// the context's.
func (p *Prober) Await(ctx context.Context, t Target, onReady func(Report)) (Report, error) {
	deadline := time.Now().Add(t.Timeout)
	poll := newPoll()
	defer poll.stop()
	var r Report
	for {
		r = p.ready(ctx, t)
		if r.Healthy {
			break
		}
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if gone := p.lost(ctx, t, 0); gone != "" {
			r.add("stability", Fail, "%s", gone)
			return p.withLogs(ctx, t, r), nil
		}
		if time.Now().After(deadline) {
			r.add("timeout", Fail, "not healthy within %s", t.Timeout)
			return p.withLogs(ctx, t, r), nil
		}
		if err := poll.wait(ctx); err != nil {
			return r, err
		}
	}
	r.ReadyAt = time.Now()
	if onReady != nil {
		onReady(r)
	}
	return p.settle(ctx, t, r)
}

// settle watches a ready component and concludes with one full look at it.
func (p *Prober) settle(ctx context.Context, t Target, first Report) (Report, error) {
	end := time.Now().Add(t.Settle)
	poll := newPoll()
	defer poll.stop()
	for time.Now().Before(end) {
		if err := poll.wait(ctx); err != nil {
			return first, err
		}
		if gone := p.lost(ctx, t, first.PID); gone != "" {
			r := first
			r.add("stability", Fail, "%s, %s after it was ready", gone, time.Since(first.ReadyAt).Round(10*time.Millisecond))
			r.conclude()
			return p.withLogs(ctx, t, r), nil
		}
	}
	r := p.Once(ctx, t)
	r.ReadyAt = first.ReadyAt
	if r.PID != first.PID {
		r.add("stability", Fail, "process %d became %d", first.PID, r.PID)
	} else if t.Settle > 0 {
		r.add("stability", OK, "same process for %s", t.Settle)
	}
	r.conclude()
	return r, ctx.Err()
}

// ready is Once without the log scan, which is not worth repeating in a poll.
func (p *Prober) ready(ctx context.Context, t Target) Report {
	r := Report{Name: t.Component}
	if p.checkService(ctx, t, &r) {
		p.checkReady(ctx, t, &r)
		if !hasFailed(r) {
			p.checkMetrics(ctx, t, &r)
		}
	}
	r.excuse(t.Excused)
	r.conclude()
	return r
}

func hasFailed(r Report) bool {
	r.conclude()
	return !r.Healthy
}

func (p *Prober) withLogs(ctx context.Context, t Target, r Report) Report {
	p.checkLogs(ctx, t, &r)
	r.conclude()
	return r
}

// lost tells how a component that was started is no longer the process it was;
// "" while all is well. pid 0 means that it has not been ready yet. A manager
// counts restarts from zero after a start by hand, so any is a crash.
func (p *Prober) lost(ctx context.Context, t Target, pid int) string {
	if p.Services == nil {
		return ""
	}
	st, err := p.Services.Status(ctx, t.Service)
	switch {
	case err != nil:
		return ""
	case st.Restarts > 0:
		return fmt.Sprintf("%s crashed and was restarted by its manager", t.Service.Label())
	case st.Failed || !st.Active && !st.Activating:
		return fmt.Sprintf("%s is %s", t.Service.Label(), stateText(st))
	case pid != 0 && st.Active && st.MainPID != pid:
		return fmt.Sprintf("process %d became %d", pid, st.MainPID)
	}
	return ""
}

// poll is a ticker that starts tight, so that a fast start costs no waiting,
// and slows down for a long one.
type poll struct {
	timer *time.Timer
	next  time.Duration
}

func newPoll() *poll { return &poll{timer: time.NewTimer(pollMin), next: pollMin} }

func (p *poll) stop() { p.timer.Stop() }

func (p *poll) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.timer.C:
	}
	p.next = min(p.next*5/4, pollMax)
	p.timer.Reset(p.next)
	return nil
}
