package health

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

const (
	pollMin = 20 * time.Millisecond
	pollMax = 250 * time.Millisecond
	// sampleEvery is how often a settling component is asked whether it is ready.
	sampleEvery = time.Second
	// defaultMaxWait bounds how long a start may be extended in all.
	defaultMaxWait  = time.Hour
	defaultPatience = 90 * time.Second
	// answerPatience is how long a component that was ready may fail to answer in the
	// last look: on a busy host an answer may be late.
	answerPatience = 10 * time.Second
)

// Watcher is told how an Await goes on; any of its functions may be nil.
type Watcher struct {
	Ready    func(Report) // once, at the first ready answer, which is where an outage ends
	Progress func(string) // when a start takes long: how far it is
}

// Await waits until the component is ready, at most t.Timeout, then watches it
// settle: the process must stay the same and stay ready, and then pass every
// other check. It returns early when the unit has failed for good. A component
// that is seen at work before it is ready (health.startup) is waited for as long
// as it gets on.
//
// An unhealthy component is told in the report, not as an error; the error is
// the context's.
func (p *Prober) Await(ctx context.Context, t Target, w Watcher) (Report, error) {
	s := p.newStartup(t, w)
	poll := newPoll()
	defer poll.stop()
	var r Report
	for {
		r = p.ready(ctx, t)
		if r.Verdict == Healthy {
			break
		}
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if gone := p.lost(ctx, t, 0); gone != "" {
			r.add("stability", Fail, "%s", gone)
			return p.withLogs(ctx, t, r), nil
		}
		if s.over(ctx) {
			if r.Verdict == Inconclusive {
				break // nothing says that it is broken
			}
			r.add("timeout", Fail, "%s", s.why())
			return p.withLogs(ctx, t, r), nil
		}
		if err := poll.wait(ctx); err != nil {
			return r, err
		}
	}
	r.ReadyAt = time.Now()
	if w.Ready != nil {
		w.Ready(r)
	}
	return p.settle(ctx, t, r, w)
}

// settle watches a ready component and concludes with one full look at it.
func (p *Prober) settle(ctx context.Context, t Target, first Report, w Watcher) (Report, error) {
	end := time.Now().Add(t.settle())
	before := p.usage(ctx, t)
	poll := newPoll()
	defer poll.stop()
	var samples []Sample
	next := time.Now().Add(sampleEvery)
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
		if time.Now().After(next) {
			r := p.ready(ctx, t)
			samples = append(samples, Sample{Ready: r.Healthy, Detail: r.Failures()})
			next = time.Now().Add(sampleEvery)
		}
	}
	r, err := p.final(ctx, t, w)
	r.ReadyAt = first.ReadyAt
	switch gone := p.lost(ctx, t, first.PID); {
	case r.PID != first.PID:
		r.add("stability", Fail, "process %d became %d", first.PID, r.PID)
	case gone != "":
		r.add("stability", Fail, "%s", gone)
	case t.settle() > 0:
		st, detail := Steady(samples)
		r.add("stability", st, "same process for %s%s", t.settle(), detail)
		p.checkUsage(ctx, t, before, &r)
	}
	r.excuse(t.Excused)
	r.conclude()
	return r, err
}

// final looks at everything. What a component must do besides being ready may
// take a while after it is: a first scrape, for one. A test that failed before
// the upgrade is not waited for.
func (p *Prober) final(ctx context.Context, t Target, w Watcher) (Report, error) {
	poll := newPoll()
	defer poll.stop()
	told := ""
	var since time.Time // the end of the first look
	for {
		r := p.Once(ctx, t)
		if since.IsZero() {
			since = time.Now()
		}
		waiting, patience := p.worthWaiting(t, r)
		if waiting == "" || ctx.Err() != nil || time.Since(since) > patience || p.lost(ctx, t, 0) != "" {
			return r, ctx.Err()
		}
		if w.Progress != nil && waiting != told {
			w.Progress("ready; waiting for: " + waiting)
			told = waiting
		}
		if err := poll.wait(ctx); err != nil {
			return r, err
		}
	}
}

func (p *Prober) patience() time.Duration { return cmp.Or(p.Patience, defaultPatience) }

// worthWaiting names what may pass at another look, and for how long to look: answers,
// and functional tests. It names nothing when something else failed, or nothing did.
func (p *Prober) worthWaiting(t Target, r Report) (string, time.Duration) {
	functional, verify := map[string]bool{}, map[string]bool{}
	for _, f := range t.Spec.Functional {
		functional[f.Name] = true
		verify[f.Name] = f.Severity == component.SeverityVerify && !slices.Contains(t.Excused, f.Name)
	}
	var names []string
	patience := p.patience()
	for _, c := range r.Checks {
		switch {
		case c.Status == Warn && verify[c.Name]:
			names = append(names, c.Name)
		case c.Status != Fail:
		case functional[c.Name]:
			names = append(names, c.Name)
		case c.Name == "ready" || c.Name == "metric":
			names = append(names, c.Name)
			patience = min(patience, answerPatience)
		default:
			return "", 0
		}
	}
	return strings.Join(names, ", "), patience
}

// ready looks at what tells readiness, and not at the rest, which is not worth
// repeating in a poll.
func (p *Prober) ready(ctx context.Context, t Target) Report {
	r := Report{Name: t.Component, Instance: t.Instance}
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
// counts restarts from zero after a start by hand, so any beyond those known
// before is a crash.
func (p *Prober) lost(ctx context.Context, t Target, pid int) string {
	if p.Services == nil {
		return ""
	}
	st, err := p.Services.Status(ctx, t.Service)
	switch {
	case err != nil:
		return ""
	case st.Restarts > t.Restarts:
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
