package upstream

import (
	"context"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// asked is a listing that is on its way.
type asked struct {
	done chan struct{} // closed when what follows is there
	l    listing
	err  error
}

// Begin starts to ask for components before it is known that all of them are
// needed, so that the answers are on their way meanwhile: the next All takes them.
// stop must be called; it gives up what was not taken, and waits for it.
func (c *Client) Begin(ctx context.Context, comps []*component.Component) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all []*asked
	for _, group := range c.groups(comps) {
		a := &asked{done: make(chan struct{})}
		all = append(all, a)
		c.mu.Lock()
		c.early[c.sourceKey(group[0])] = a
		c.mu.Unlock()
		go func() {
			defer close(a.done)
			a.l, a.err = c.listInTurn(ctx, group[0])
		}()
	}
	return func() {
		cancel()
		for _, a := range all {
			<-a.done
		}
	}
}

// take is the listing of a component's source: the one that Begin asked for, or a
// new one.
func (c *Client) take(ctx context.Context, comp *component.Component) (listing, error) {
	key := c.sourceKey(comp)
	c.mu.Lock()
	a := c.early[key]
	delete(c.early, key)
	c.mu.Unlock()
	if a == nil {
		return c.listInTurn(ctx, comp)
	}
	<-a.done
	return a.l, a.err
}

// listInTurn is list, for so many at a time as the options say.
func (c *Client) listInTurn(ctx context.Context, comp *component.Component) (listing, error) {
	c.turns <- struct{}{}
	defer func() { <-c.turns }()
	return c.list(ctx, comp)
}

// groups puts components together that are published in the same place.
func (c *Client) groups(comps []*component.Component) [][]*component.Component {
	var out [][]*component.Component
	at := map[string]int{}
	for _, comp := range comps {
		key := c.sourceKey(comp)
		i, ok := at[key]
		if !ok {
			i, at[key] = len(out), len(out)
			out = append(out, nil)
		}
		out[i] = append(out[i], comp)
	}
	return out
}
