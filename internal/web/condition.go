package web

import (
	"context"
	"maps"
	"sync"
	"time"
)

const (
	// freshFor is how long an answer is shown before components are asked again.
	freshFor = 15 * time.Second
	// askFor bounds one round of questions; a component that hangs takes the
	// prober's 5 s.
	askFor = 8 * time.Second
	// waitFor is how long a page waits for answers before it is shown without.
	waitFor = 1500 * time.Millisecond
)

// conditions keeps the last answer of Options.Conditions. However many look, one
// round of questions is on its way.
type conditions struct {
	ask func(ctx context.Context, versions map[string]string) map[string]Condition
	now func() time.Time

	ctx    context.Context // of the questions; ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	at       time.Time // of the answers; zero: there are none yet
	answers  map[string]Condition
	versions map[string]string // that were asked about
	busy     chan struct{}     // closed when the round on its way is over; nil: none is
}

func newConditions(ask func(context.Context, map[string]string) map[string]Condition) *conditions {
	ctx, cancel := context.WithCancel(context.Background())
	return &conditions{ask: ask, now: time.Now, ctx: ctx, cancel: cancel}
}

// get returns how components are and when that was asked; pending tells that they
// are being asked and that a later look shows more.
func (c *conditions) get(ctx context.Context, versions map[string]string) (answers map[string]Condition, at time.Time, pending bool) {
	if c.ask == nil || len(versions) == 0 {
		return nil, time.Time{}, false
	}
	busy := c.begin(versions)
	if busy != nil {
		timer := time.NewTimer(waitFor)
		defer timer.Stop()
		select {
		case <-busy:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers, c.at, c.busy != nil
}

// begin starts a round where the answers are not fresh, or are of other versions,
// and returns what to wait for; nil where there is nothing to wait for.
func (c *conditions) begin(versions map[string]string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy != nil {
		return c.busy
	}
	if c.ctx.Err() != nil || c.now().Sub(c.at) < freshFor && maps.Equal(c.versions, versions) {
		return nil
	}
	done := make(chan struct{})
	c.busy = done
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer close(done)
		ctx, cancel := context.WithTimeout(c.ctx, askFor)
		defer cancel()
		answers := c.ask(ctx, versions)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.answers, c.versions, c.at, c.busy = answers, versions, c.now(), nil
	}()
	return done
}

// close ends the questions and waits for their end.
func (c *conditions) close() {
	c.mu.Lock() // no round begins after it
	c.cancel()
	c.mu.Unlock()
	c.wg.Wait()
}
