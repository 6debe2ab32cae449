package runtest

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"

	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
)

// Balancer is a load balancer in front of the instances a and b of prom, on another
// host. Its fields are not to be touched while a run goes on.
type Balancer struct {
	Admitted map[string]bool
	Did      []string        // what it was told
	Broken   bool            // it answers nothing
	By       map[string]bool // whom a person took out
	Wrong    []string        // what must never happen, and did
	// Answer has its say before anything is answered, such as "state a" with what the
	// state is, or "admit a"; may be nil.
	Answer func(to string, st *balancer.State) error

	mu      sync.Mutex
	works   func(name string) bool // what its own checks of the servers find
	open    map[string]int         // connections of a drained server that have not ended yet
	changed func(what string)
}

type server struct {
	lb   *Balancer
	name string
}

func (b *Balancer) of(name string) balancer.Balancer { return server{b, name} }

func (b *Balancer) takesTraffic(unit string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, instance, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	return b.Admitted[instance] || b.open[instance] > 0
}

// SetAdmitted puts a server in or takes it out, as a person does by hand.
func (b *Balancer) SetAdmitted(name string, in bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Admitted[name] = in
}

func (b *Balancer) restore(s Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Admitted, b.open, b.Wrong, b.Did = maps.Clone(s.admitted), maps.Clone(s.open), nil, nil
}

// forget ends all connections.
func (b *Balancer) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.open)
}

func (b *Balancer) answer(to string, st *balancer.State) error {
	if b.Broken {
		return errors.New("no answer")
	}
	if b.Answer == nil {
		return nil
	}
	return b.Answer(to, st)
}

func (s server) State(context.Context) (balancer.State, error) {
	up := map[string]bool{"a": s.lb.works("a"), "b": s.lb.works("b")}
	s.lb.mu.Lock()
	defer s.lb.mu.Unlock()
	st := balancer.State{Admitted: s.lb.Admitted[s.name], Up: up[s.name], Detail: "by hand", Sessions: s.lb.open[s.name]}
	for name, in := range s.lb.Admitted {
		if here, known := up[name]; name != s.name && in && (here || !known) {
			st.Others++
		}
	}
	if err := s.lb.answer("state "+s.name, &st); err != nil {
		return balancer.State{}, err
	}
	s.lb.open[s.name] = max(s.lb.open[s.name]-1, 0)
	return st, nil
}

func (s server) Drain(context.Context) error { return s.set(false) }

func (s server) Admit(context.Context) error {
	if s.lb.By[s.name] {
		return &balancer.NotOursError{Server: s.name, State: "by hand"}
	}
	return s.set(true)
}

func (s server) set(in bool) error {
	what := map[bool]string{true: "admit ", false: "drain "}[in] + s.name
	s.lb.mu.Lock()
	if err := s.lb.answer(what, nil); err != nil {
		s.lb.mu.Unlock()
		return err
	}
	if s.lb.Admitted[s.name] && !in {
		s.lb.open[s.name] = 1
	}
	s.lb.Admitted[s.name] = in
	if !s.lb.Admitted["a"] && !s.lb.Admitted["b"] {
		s.lb.Wrong = append(s.lb.Wrong, "no server was left when "+s.name+" was drained")
	}
	s.lb.Did = append(s.lb.Did, what)
	s.lb.mu.Unlock()
	if s.lb.changed != nil {
		s.lb.changed(what)
	}
	return nil
}
