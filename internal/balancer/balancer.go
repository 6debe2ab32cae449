// Package balancer takes one server out of a load balancer and puts it back, so
// that it can be upgraded while the others serve.
package balancer

import (
	"cmp"
	"context"
	"errors"
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

// FaultError says that the balancer itself does not work or does not do what it is
// told. Of the server behind it that says nothing.
type FaultError struct {
	Tried time.Duration // for so long it gave nothing but errors; 0: asked once
	Err   error         // the last
}

func (e *FaultError) Error() string {
	if e.Tried == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v (tried for %s)", e.Err, e.Tried.Round(100*time.Millisecond))
}

func (e *FaultError) Unwrap() error { return e.Err }

// refusedError is an answer that asking again does not change.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

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
	var st State
	idle, err := again(ctx, limit, func() (bool, error) {
		var err error
		st, err = b.State(ctx)
		return err == nil && st.Sessions == 0, err
	})
	return st, idle, err
}

// AwaitUp waits until the balancer gives the server traffic again: admitted, and
// up by its own health check.
func AwaitUp(ctx context.Context, b Balancer, limit time.Duration) (State, error) {
	return awaitState(ctx, b, limit, func(st State) bool { return st.Admitted && st.Up })
}

// AwaitCheck waits until the balancer's own health check takes a server that was put
// back for one that works. Where somebody has taken it out since, nothing is to come.
func AwaitCheck(ctx context.Context, b Balancer, limit time.Duration) (State, error) {
	return awaitState(ctx, b, limit, func(st State) bool { return !st.Admitted || st.Up })
}

func awaitState(ctx context.Context, b Balancer, limit time.Duration, good func(State) bool) (State, error) {
	var st State
	ok, err := again(ctx, limit, func() (bool, error) {
		var err error
		st, err = b.State(ctx)
		return err == nil && good(st), err
	})
	if err == nil && !ok {
		err = fmt.Errorf("the balancer does not give it traffic after %s: %s", limit, st.Detail)
	}
	return st, err
}

// Admit puts the server back, however often that takes within the limit. What the
// balancer refuses, and what is not ours to put back, is asked once.
func Admit(ctx context.Context, b Balancer, limit time.Duration) error {
	var final error
	_, err := again(ctx, limit, func() (bool, error) {
		err := b.Admit(ctx)
		switch {
		case errors.As(err, new(*NotOursError)), errors.Is(err, hostfs.ErrCrashed):
			final = err
		case errors.As(err, new(*refusedError)):
			final = &FaultError{Err: err}
		default:
			return err == nil, err
		}
		return true, nil
	})
	return cmp.Or(final, err)
}

// again asks until the answer is good or the limit is over. A balancer that restarts,
// or elects its leader, gives none for a moment: an error ends it only when there has
// been nothing else for as long as the limit, or as one question may take.
func again(ctx context.Context, limit time.Duration, ask func() (bool, error)) (bool, error) {
	began := time.Now()
	answered := began
	for next := 20 * time.Millisecond; ; next = min(next*3/2, 250*time.Millisecond) {
		good, err := ask()
		if good {
			return true, nil
		}
		now := time.Now()
		if err == nil {
			answered = now
		}
		if silent := now.Sub(answered); now.Sub(began) >= limit && (err == nil || silent >= min(limit, askLimit)) {
			if err != nil {
				err = &FaultError{Tried: silent, Err: err}
			}
			return false, err
		}
		if stop := pause(ctx, next); stop != nil {
			if err != nil {
				stop = fmt.Errorf("%w; the last answer was: %w", stop, err)
			}
			return false, stop
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
