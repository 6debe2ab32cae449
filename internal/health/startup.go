package health

import (
	"context"
	"fmt"
	"time"
)

const (
	lookEvery = 500 * time.Millisecond
	tellEvery = 2 * time.Second
	// busyShare is the share of one processor above which a starting program
	// counts as at work, where it tells no numbers of its own.
	busyShare = 0.02
)

// startup decides how long a component that is not ready yet is waited for: its
// timeout, counted anew whenever it is seen alive and getting on, and never
// beyond a limit.
type startup struct {
	p        *Prober
	t        Target
	w        Watcher
	began    time.Time
	deadline time.Time
	limit    time.Time

	looked, told time.Time
	cpu          time.Duration // used up to the last look
	current      string        // how far it was at the last look
	extended     bool
}

func (p *Prober) newStartup(t Target, w Watcher) *startup {
	s := &startup{p: p, t: t, w: w, began: time.Now()}
	most := t.Spec.Health.Startup.MaxWait.Std()
	if most <= 0 {
		most = defaultMaxWait
	}
	s.deadline, s.limit = s.began.Add(t.Timeout), s.began.Add(max(most, t.Timeout))
	return s
}

// over reports whether the wait is over, after a look at how far it is.
func (s *startup) over(ctx context.Context) bool {
	now := time.Now()
	if s.t.Spec.Health.Startup.URL != "" && now.Sub(s.looked) >= lookEvery {
		if s.look(ctx) {
			s.deadline = now.Add(s.t.Timeout)
			s.extended = true
		}
		s.looked = now
	}
	if s.deadline.After(s.limit) {
		s.deadline = s.limit
	}
	return now.After(s.deadline)
}

// look reports whether the component is alive and got on since the last look.
func (s *startup) look(ctx context.Context) bool {
	conf := s.t.Spec.Health.Startup
	a, err := s.p.ask(ctx, s.t.Spec.Client, request{url: conf.URL})
	if err != nil || !a.ok() && a.status != 404 {
		return false // 404: an old version that does not tell how far it is
	}
	current := ""
	if a.ok() && conf.Current != "" {
		if values, err := query(ctx, conf.Current, a.body); err == nil && len(values) == 1 {
			current = values[0]
		}
		s.tell(ctx, a, current)
	}
	on := current != "" && current != s.current
	s.current = current
	if u := s.p.usage(ctx, s.t); u != nil {
		if since := time.Since(s.looked); !s.looked.IsZero() && float64(u.CPU-s.cpu) > busyShare*float64(since) {
			on = true
		}
		s.cpu = u.CPU
	}
	return on
}

func (s *startup) tell(ctx context.Context, a answer, current string) {
	conf := s.t.Spec.Health.Startup
	if s.w.Progress == nil || time.Since(s.told) < tellEvery {
		return
	}
	s.told = time.Now()
	what := conf.What
	if what == "" {
		what = "done"
	}
	msg := "alive, not ready yet: " + current
	if values, err := query(ctx, conf.Total, a.body); conf.Total != "" && err == nil && len(values) == 1 {
		msg += " of " + values[0]
	}
	s.w.Progress(fmt.Sprintf("%s %s, after %s", msg, what, time.Since(s.began).Round(time.Second)))
}

// why tells how the wait ended.
func (s *startup) why() string {
	took := time.Since(s.began).Round(100 * time.Millisecond)
	switch {
	case s.extended && !time.Now().Before(s.limit):
		return fmt.Sprintf("alive but not ready within %s, the longest it is waited for (health.startup.max_wait)", took)
	case s.extended:
		return fmt.Sprintf("not ready after %s, and for %s it did not get on", took, s.t.Timeout)
	}
	return fmt.Sprintf("not healthy within %s", s.t.Timeout)
}
