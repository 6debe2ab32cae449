// Package balancer takes one server out of a load balancer and puts it back, so
// that it can be upgraded while the others serve.
package balancer

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// Reason is how drains of this program are told from those of people, where a
// balancer keeps a reason.
const Reason = "observability-upgrade"

// NotOursError says that somebody else took the server out, or took it out again
// after this program did: it is theirs to put back.
type NotOursError struct {
	Server string // its name at the balancer
	State  string // the balancer's own words
}

func (e *NotOursError) Error() string {
	return fmt.Sprintf("%s is out of the balancer (%s), and not by this program: that is not its to end", e.Server, e.State)
}

// Balancer takes one server out of a load balancer and puts it back. Its methods
// are idempotent and may not be called concurrently.
type Balancer interface {
	// State tells how the server is in the balancer now.
	State(ctx context.Context) (State, error)
	// Drain stops new traffic to the server and lets what runs end.
	Drain(ctx context.Context) error
	// Admit puts the server back. One that somebody else took out is left so, which
	// is a NotOursError where the balancer can tell.
	Admit(ctx context.Context) error
}

// State is how a server is in a balancer at one moment.
type State struct {
	Admitted bool   // as far as people's wishes go, it takes traffic
	Up       bool   // the balancer's own health check says it works; true where there is none
	Sessions int    // connections or requests in progress to it; -1 unknown
	Others   int    // other servers that are admitted and up; -1 unknown
	Detail   string // the balancer's own words
}

// Options are what balancers need of their surroundings.
type Options struct {
	Host   *hostfs.Host // writes of files
	Root   layout.Root  // below which the definition's paths are
	HTTP   *http.Client // nil: one without proxy
	Exec   func(ctx context.Context, args []string, limit time.Duration) (string, error)
	Expand func(string) (string, error) // reads the secrets in a token; nil: none
}

const (
	commandLimit = 30 * time.Second
	askLimit     = 5 * time.Second
)

// New makes the balancer of one instance; server is its name there.
func New(b component.Balancer, server string, o Options) (Balancer, error) {
	if o.HTTP == nil {
		o.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}
	}
	if server == "" {
		return nil, fmt.Errorf("balancer: the instance has no name there; set balancer.server")
	}
	switch b.Type {
	case "haproxy":
		return newHAProxy(b, server, o), nil
	case "nginx":
		return newNginx(b, server, o), nil
	case "consul":
		return newConsul(b, server, o)
	case "exec":
		return &commands{spec: b, server: server, o: o}, nil
	}
	return nil, fmt.Errorf("balancer.type %q is not known", b.Type)
}

// Wait waits until the server has no sessions, or, where that cannot be known,
// until the limit is over. It returns the last state and whether the server is
// idle.
func Wait(ctx context.Context, b Balancer, limit time.Duration) (State, bool, error) {
	deadline := time.Now().Add(limit)
	next := 20 * time.Millisecond
	for {
		st, err := b.State(ctx)
		if err != nil {
			return st, false, err
		}
		if st.Sessions == 0 {
			return st, true, nil
		}
		if time.Now().After(deadline) {
			return st, false, nil
		}
		if err := pause(ctx, next); err != nil {
			return st, false, err
		}
		next = min(next*3/2, 250*time.Millisecond)
	}
}

// AwaitUp waits until the balancer gives the server traffic again: admitted, and
// up by its own health check.
func AwaitUp(ctx context.Context, b Balancer, limit time.Duration) (State, error) {
	deadline := time.Now().Add(limit)
	for {
		st, err := b.State(ctx)
		if err != nil {
			return st, err
		}
		if st.Admitted && st.Up {
			return st, nil
		}
		if time.Now().After(deadline) {
			return st, fmt.Errorf("the balancer does not give it traffic after %s: %s", limit, st.Detail)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return st, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// put fills in the placeholders of a command.
func put(words []string, server string) []string {
	r := strings.NewReplacer("{server}", server, "{instance}", server)
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = r.Replace(w)
	}
	return out
}
