package process

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// killExpect is how long SIGKILL may take to work.
const killExpect = 5 * time.Second

// Stop ends the service: SIGTERM to the main process, SIGKILL after timeout to
// it and to all that it started; what outlives the main process is killed at
// once. It returns when nothing of it is left.
func (m *Manager) Stop(ctx context.Context, s service.Service, timeout time.Duration) (service.StopResult, error) {
	began := time.Now()
	var res service.StopResult
	release, err := m.acquire(ctx, s.Name)
	if err != nil {
		return res, fmt.Errorf("stop %s: %w", s.Label(), err)
	}
	defer release()
	r, err := m.find(s.Name)
	if err != nil || r.Token == "" {
		return service.StopResult{Idle: err == nil}, err
	}
	boot, err := bootID()
	if err != nil || r.BootID != boot {
		return service.StopResult{Idle: err == nil}, err
	}
	if !r.Stopped {
		r.Stopped = true
		if err := m.save(r); err != nil {
			return res, fmt.Errorf("stop %s: %w", s.Label(), err)
		}
	}
	res.Forced, err = end(ctx, s, r, timeout)
	res.Idle = r.PID == 0 && !res.Forced
	res.Took = time.Since(began)
	return res, err
}

// end ends what a record tells of, and reports whether it took SIGKILL.
func end(ctx context.Context, s service.Service, r record, timeout time.Duration) (forced bool, err error) {
	h, err := openHandle(r.PID, r.Ticks)
	if err != nil {
		return false, fmt.Errorf("stop %s: %w", s.Label(), err)
	}
	var known []proc
	session := 0
	if h != nil {
		defer h.close()
		// While its leader is held the session's number is ours, and as long as
		// anything is in the session the kernel gives the number to nobody else.
		session = r.PID
		if known, err = members(session, r.Token, nil); err != nil {
			return false, fmt.Errorf("stop %s: %w", s.Label(), err)
		}
		if err := h.signal(syscall.SIGTERM); err != nil {
			return false, fmt.Errorf("stop %s: %w", s.Label(), err)
		}
		if _, err := h.wait(ctx, timeout); err != nil {
			return false, fmt.Errorf("stop %s: SIGTERM was sent: %w", s.Label(), err)
		}
	}
	return killRest(ctx, s.Label(), session, r.Token, known)
}

// killRest kills all that belongs to a service until nothing of it is left, and
// reports whether there was anything to kill.
func killRest(ctx context.Context, label string, session int, token string, known []proc) (killed bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, killExpect, errStuck)
	defer cancel()
	for {
		left, err := members(session, token, known)
		if err != nil {
			return killed, fmt.Errorf("stop %s: %w", label, err)
		}
		if len(left) == 0 {
			return killed, nil
		}
		if err := ctx.Err(); err != nil {
			return killed, unfinished(ctx, label, left)
		}
		killed = true
		if err := killAll(ctx, left); err != nil {
			if ctx.Err() != nil {
				return killed, unfinished(ctx, label, left)
			}
			return killed, fmt.Errorf("stop %s: %w", label, err)
		}
	}
}

var errStuck = errors.New("processes survived SIGKILL")

func unfinished(ctx context.Context, label string, left []proc) error {
	if !errors.Is(context.Cause(ctx), errStuck) {
		return fmt.Errorf("stop %s: %w", label, ctx.Err())
	}
	e := &service.StopError{Unit: label}
	for _, p := range left {
		if alive(p.pid, p.ticks) {
			e.PIDs = append(e.PIDs, p.pid)
		}
	}
	return e
}

// killAll sends SIGKILL to all, then waits for all to end.
func killAll(ctx context.Context, procs []proc) error {
	var held []*handle
	defer func() {
		for _, h := range held {
			h.close()
		}
	}()
	for _, p := range procs {
		h, err := openHandle(p.pid, p.ticks)
		if err != nil {
			return err
		}
		if h == nil {
			continue
		}
		held = append(held, h)
		if err := h.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	for _, h := range held {
		if _, err := h.wait(ctx, forever); err != nil {
			return err
		}
	}
	return nil
}
