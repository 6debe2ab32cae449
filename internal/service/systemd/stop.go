package systemd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

const (
	killExpect = 10 * time.Second       // how long SIGKILL may take to work
	killAgain  = 500 * time.Millisecond // ExecStop= and ExecStopPost= start new processes
	emptyIn    = 5 * time.Second        // how long left-over processes may take to die
)

// Stop stops a unit: its stop job, SIGKILL to the whole control group when that
// takes longer than timeout, and proof that the group is empty. Where the unit's
// own TimeoutStopSec= is shorter, systemd kills earlier. A unit that systemd can
// no longer load, or whose file is gone, is stopped all the same. The failed
// state that a forced stop leaves is cleared.
func (m *Manager) Stop(ctx context.Context, s service.Service, timeout time.Duration) (service.StopResult, error) {
	began := time.Now()
	var res service.StopResult
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return res, err
	}
	group := u.str("ControlGroup")
	res.Idle = u.down() && group == ""
	if u.loadState() == "not-found" && res.Idle {
		return res, nil
	}
	j, err := m.submit(ctx, s.Unit, "stop", func(conn *dbus.Conn, done chan<- string) (int, error) {
		return conn.StopUnitContext(ctx, s.Unit, "replace", done)
	})
	var missing *service.NotFoundError
	switch {
	case errors.As(err, &missing):
	case err != nil:
		return res, err
	default:
		if res.Forced, err = m.stopped(ctx, j, max(timeout, 0)); err != nil {
			return res, err
		}
	}
	killed, err := m.emptyGroup(ctx, s.Unit, group)
	res.Forced = res.Forced || killed
	if err != nil {
		return res, err
	}
	if u, err = m.look(ctx, s.Unit); err != nil {
		return res, err
	}
	if !u.down() {
		return res, &service.StopError{Unit: s.Unit, Reason: fmt.Sprintf("it is %s (%s) again: something else started it", u.activeState(), u.str("SubState"))}
	}
	if u.activeState() == "failed" {
		res.Forced = res.Forced || u.str("Result") == "timeout" // systemd's own SIGKILL
		if err := m.resetFailed(ctx, s.Unit); err != nil {
			return res, err
		}
	}
	res.Took = time.Since(began)
	return res, nil
}

// stopped waits for a stop job, and kills the unit's processes after timeout.
func (m *Manager) stopped(ctx context.Context, j *job, timeout time.Duration) (forced bool, err error) {
	result, over, err := m.await(ctx, j, timeout)
	for limit := time.Now().Add(killExpect); err == nil && !over; {
		if time.Now().After(limit) {
			u, err := m.look(ctx, j.unit)
			if err != nil {
				return forced, err
			}
			pids, err := m.processes(u.str("ControlGroup"))
			if err == nil && len(pids) > 0 {
				return forced, &service.StopError{Unit: j.unit, PIDs: pids}
			}
			reason := fmt.Sprintf("its stop job is not done %v after SIGKILL, though no process of it is left", killExpect)
			reason += "; in a container with control groups of version 1 systemd does not notice that, and waits for TimeoutStopSec= of the unit: shorten it"
			return forced, errors.Join(&service.StopError{Unit: j.unit, Reason: reason}, err)
		}
		forced = true
		if err := m.killAll(ctx, j.unit); err != nil {
			return forced, err
		}
		result, over, err = m.await(ctx, j, killAgain)
	}
	if err == nil && result == "canceled" {
		err = &service.StopError{Unit: j.unit, Reason: "its stop job was cancelled by another one"}
	}
	return forced, err
}

// killAll sends SIGKILL to every process of the unit, control processes too.
func (m *Manager) killAll(ctx context.Context, name string) error {
	err := m.do(ctx, func(conn *dbus.Conn) error {
		return conn.KillUnitWithTarget(ctx, name, dbus.All, int32(syscall.SIGKILL))
	})
	// Nothing left to kill, or the unit is already unloaded: as wanted.
	if err == nil || isName(err, "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.NoSuchProcess") {
		return nil
	}
	return refused(name, "kill", err)
}

// emptyGroup proves that no process of a control group is left and kills those
// that are: KillMode=process and SendSIGKILL=no leave some.
func (m *Manager) emptyGroup(ctx context.Context, name, group string) (killed bool, err error) {
	deadline := time.Now().Add(emptyIn)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := m.processes(group)
		if err != nil {
			return killed, fmt.Errorf("stop %s: %w", name, err)
		}
		if len(pids) == 0 {
			return killed, nil
		}
		if time.Now().After(deadline) {
			return killed, &service.StopError{Unit: name, PIDs: pids}
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return killed, fmt.Errorf("stop %s: kill left-over process %d: %w", name, pid, err)
			}
			killed = true
		}
		select {
		case <-ctx.Done():
			return killed, fmt.Errorf("stop %s: %w", name, ctx.Err())
		case <-tick.C:
		}
	}
}
