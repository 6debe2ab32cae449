package balancer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a balancer that answers as a test says, by the time since it was made.
type scripted struct {
	made  time.Time
	told  int // to put the server back
	state func(at time.Duration) (State, error)
	admit func(at time.Duration) error
}

func (s *scripted) State(context.Context) (State, error) { return s.state(time.Since(s.made)) }
func (s *scripted) Drain(context.Context) error          { return nil }
func (s *scripted) Admit(context.Context) error          { s.told++; return s.admit(time.Since(s.made)) }

var errAway = errors.New("connection refused")

// awayFrom is a balancer that gives no answer for a time, and this one else.
func awayFrom(from, to time.Duration, st State) func(time.Duration) (State, error) {
	return func(at time.Duration) (State, error) {
		if at >= from && at < to {
			return State{}, errAway
		}
		return st, nil
	}
}

const never = time.Hour

// A balancer that gives no answer for a moment ends neither wait; one that gives none
// to the end does, and is told from a server that gets no traffic.
func TestWaitsOutlastErrors(t *testing.T) {
	idle, busy := State{}, State{Sessions: 3}
	up, down := State{Admitted: true, Up: true}, State{Admitted: true, Detail: "DOWN"}
	for name, c := range map[string]struct {
		state func(time.Duration) (State, error)
		wait  bool // Wait, and not AwaitUp
		good  bool
		err   string
		fault bool
		took  time.Duration // at least, and at most two seconds more
	}{
		"idle after errors":      {state: awayFrom(0, 3*time.Second, idle), wait: true, good: true, took: 3 * time.Second},
		"busy, error at the end": {state: awayFrom(9*time.Second, 11*time.Second, busy), wait: true, took: 11 * time.Second},
		"away while draining":    {state: awayFrom(0, never, idle), wait: true, err: "connection refused (tried for 1", fault: true, took: 10 * time.Second},
		"away from then on":      {state: awayFrom(8*time.Second, never, busy), wait: true, err: "connection refused (tried for 5", fault: true, took: 12 * time.Second},
		"up after errors":        {state: awayFrom(0, 3*time.Second, up), good: true, took: 3 * time.Second},
		"down":                   {state: awayFrom(2*time.Second, 4*time.Second, down), err: "traffic after 10s: DOWN", took: 10 * time.Second},
		"away":                   {state: awayFrom(0, never, up), err: "connection refused (tried for 1", fault: true, took: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &scripted{made: time.Now(), state: c.state}
				var good bool
				var err error
				if c.wait {
					_, good, err = Wait(t.Context(), b, 10*time.Second)
				} else {
					_, err = AwaitUp(t.Context(), b, 10*time.Second)
					good = err == nil
				}
				if good != c.good || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
					t.Errorf("good %v, %v", good, err)
				}
				if fault := errors.As(err, new(*FaultError)); fault != c.fault || fault && !errors.Is(err, errAway) {
					t.Errorf("a fault of the balancer: %v, %v", fault, err)
				}
				if took := time.Since(b.made); took < c.took || took > c.took+2*time.Second {
					t.Errorf("it took %s, expected %s", took, c.took)
				}
			})
		})
	}
}

// Putting a server back is tried again, but not where the answer is a refusal.
func TestAdmitAgain(t *testing.T) {
	theirs := &NotOursError{Server: "a", State: "maintenance"}
	for name, c := range map[string]struct {
		admit func(time.Duration) error
		err   string
		fault bool
		once  bool
	}{
		"at once": {admit: func(time.Duration) error { return nil }, once: true},
		"after errors": {admit: func(at time.Duration) error {
			if at < 3*time.Second {
				return errAway
			}
			return nil
		}},
		"away":    {admit: func(time.Duration) error { return errAway }, err: "connection refused (tried for 1", fault: true},
		"refused": {admit: func(time.Duration) error { return &refusedError{errors.New("No such server.")} }, err: "No such server.", fault: true, once: true},
		"theirs":  {admit: func(time.Duration) error { return theirs }, err: "not by this program", once: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &scripted{made: time.Now(), admit: c.admit}
				err := Admit(t.Context(), b, 10*time.Second)
				if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || errors.As(err, new(*FaultError)) != c.fault {
					t.Error(err)
				}
				if (b.told == 1) != c.once {
					t.Errorf("told %d times", b.told)
				}
			})
		})
	}
}

// A server that was put back is not waited for where somebody took it out since.
func TestAwaitCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			st   State
			took time.Duration
		}{{State{Admitted: true, Up: true}, 0}, {State{Detail: "MAINT"}, 0}, {State{Admitted: true, Detail: "DOWN"}, 10 * time.Second}} {
			b := &scripted{made: time.Now(), state: awayFrom(0, 0, c.st)}
			st, err := AwaitCheck(t.Context(), b, 10*time.Second)
			if took := time.Since(b.made); st != c.st || (err != nil) != (c.took > 0) || took < c.took || took > c.took+time.Second {
				t.Errorf("%+v after %s: %v", st, took, err)
			}
		}
	})
}

// A signal ends the wait for a balancer that is away.
func TestAgainInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b := &scripted{made: time.Now(), state: awayFrom(0, never, State{})}
		_, err := AwaitUp(ctx, b, time.Minute)
		if !errors.Is(err, ctx.Err()) || !errors.Is(err, errAway) || time.Since(b.made) != time.Second {
			t.Errorf("after %s: %v", time.Since(b.made), err)
		}
	})
}
