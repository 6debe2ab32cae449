package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

const (
	// earlyExit is how long a main process must live to count as started; what
	// fails later is for the health checks to see.
	earlyExit = 100 * time.Millisecond
	// slowExec bounds the wait, on a busy host, until systemd's child has become
	// the program, and until systemd has noticed a process's end.
	slowExec = 3 * time.Second
)

// Start starts a unit, clearing a failed state and its start limit first, waits
// for the job, and looks whether the main process lives on: for Type=simple the
// job is done before the program is even executed.
func (m *Manager) Start(ctx context.Context, s service.Service) error {
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return err
	}
	if err := u.usable(); err != nil {
		return err
	}
	if m.active(u) {
		return nil
	}
	// A start job would wait until RestartSec= is over, and one for a unit that
	// is active without a process would do nothing.
	if strings.HasPrefix(u.str("SubState"), "auto-restart") || u.activeState() == "active" {
		return m.up(ctx, s, "restart", forever)
	}
	return m.up(ctx, s, "start", forever)
}

// Restart runs systemd's restart job. What does not stop within timeout is
// killed, with its whole control group.
func (m *Manager) Restart(ctx context.Context, s service.Service, timeout time.Duration) error {
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return err
	}
	if err := u.usable(); err != nil {
		return err
	}
	return m.up(ctx, s, "restart", max(timeout, 0))
}

// up runs a start or restart job and follows its outcome. After stopTimeout the
// stopping half of a restart is cut short.
func (m *Manager) up(ctx context.Context, s service.Service, verb string, stopTimeout time.Duration) error {
	began := time.Now()
	if err := m.resetFailed(ctx, s.Unit); err != nil {
		return err
	}
	j, err := m.submit(ctx, s.Unit, verb, func(conn *dbus.Conn, done chan<- string) (int, error) {
		if verb == "restart" {
			return conn.RestartUnitContext(ctx, s.Unit, "replace", done)
		}
		return conn.StartUnitContext(ctx, s.Unit, "replace", done)
	})
	if err != nil {
		return err
	}
	result, over, err := m.await(ctx, j, stopTimeout)
	for err == nil && !over {
		u, lookErr := m.look(ctx, s.Unit)
		if lookErr != nil {
			return lookErr
		}
		if u.activeState() == "deactivating" {
			m.log.Warn("it did not stop in time and is killed", "unit", s.Unit, "timeout", stopTimeout)
			if err := m.killAll(ctx, s.Unit); err != nil {
				return err
			}
		}
		result, over, err = m.await(ctx, j, killAgain)
	}
	if err != nil {
		return err
	}
	if result != jobDone && result != jobUnknown && result != "skipped" {
		u, err := m.look(ctx, s.Unit)
		if err != nil {
			return err
		}
		return m.startError(ctx, u, "job "+result, began)
	}
	return m.survives(ctx, s, began)
}

// survives watches the main process of a unit whose job is done.
func (m *Manager) survives(ctx context.Context, s service.Service, began time.Time) error {
	limit := time.Now().Add(slowExec)
	enough := time.Now().Add(earlyExit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		u, err := m.look(ctx, s.Unit)
		if err != nil {
			return err
		}
		pid := u.mainPID()
		switch {
		case u.num("NRestarts") > 0:
			return m.startError(ctx, u, "its main process ended at once", began)
		case m.active(u) && pid == 0:
			return nil // of a kind that has no main process
		case (m.active(u) || u.activeState() == "activating") && pid > 0:
			ended, err := watch(pid, time.Until(enough))
			if err != nil {
				return fmt.Errorf("start %s: watch its process %d: %w", s.Unit, pid, err)
			}
			if !ended && !executing(pid) {
				return nil
			}
			if time.Now().After(limit) {
				if ended {
					return m.startError(ctx, u, "its main process ended at once", began)
				}
				return nil
			}
		case u.activeState() == "inactive" && u.str("Type") == "oneshot" && u.str("Result") == "success" && u.conditionMet():
			return nil
		case u.activeState() == "inactive":
			return m.startError(ctx, u, "its main process ended at once, or was never started", began)
		default:
			return m.startError(ctx, u, "it is "+u.activeState()+" ("+u.str("SubState")+")", began)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("start %s: %w", s.Unit, ctx.Err())
		case <-tick.C:
		}
	}
}

// conditionMet is false when systemd is known to have skipped the start for a
// Condition=. A unit that is down may be unloaded at once, and is then loaded
// anew for the question, without its past: the log has to tell.
func (u unit) conditionMet() bool {
	met, _ := u.props["ConditionResult"].(bool)
	checked, _ := u.props["ConditionTimestamp"].(uint64)
	return met || checked == 0
}

// watch waits until a process has ended and reports whether it did.
func watch(pid int, timeout time.Duration) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case err == nil:
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return true, nil
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // no pidfds here: signal 0 has to do
		return errors.Is(unix.Kill(pid, 0), unix.ESRCH), nil
	default:
		return false, err
	}
	defer func() { _ = unix.Close(fd) }()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(timeout, 0).Milliseconds())) //nolint:gosec // a file descriptor
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	return n > 0, err
}

// exitHints explains the exit statuses that systemd itself gives to a process
// it could not set up; see "Process Exit Codes" in systemd.exec(5).
var exitHints = map[int]string{
	200: "WorkingDirectory= is missing or not accessible",
	203: "ExecStart= names a file that is missing, not executable or for another architecture",
	205: "a limit of the unit cannot be set",
	208: "standard input cannot be set up", 209: "standard output cannot be set up",
	216: "Group= does not exist", 217: "User= does not exist",
	226: "a path of ReadWritePaths=, BindPaths= or the like is missing",
	238: "StateDirectory= cannot be set up", 239: "CacheDirectory= cannot be set up", 240: "LogsDirectory= cannot be set up",
	243: "a credential is missing",
}

// startError explains a start that failed, with the end of what was logged
// since it began.
func (m *Manager) startError(ctx context.Context, u unit, what string, began time.Time) error {
	e := &service.StartError{Unit: u.name, Result: what, Hint: fmt.Sprintf("`systemctl status %s` shows its state", u.name)}
	if r := u.str("Result"); r != "" && r != "success" {
		e.Result += ": " + r
	}
	switch status := u.num("ExecMainStatus"); u.num("ExecMainCode") {
	case 1: // CLD_EXITED
		e.Result += fmt.Sprintf(", exit status %d", status)
		if hint, ok := exitHints[status]; ok {
			e.Hint = hint
			if cmd := u.execStart(); len(cmd) > 0 { // the log may have lost it with the process
				e.Hint += " (its command is " + cmd[0] + ")"
			}
		}
	case 2, 3: // CLD_KILLED, CLD_DUMPED
		e.Result += ", " + unix.SignalName(unix.Signal(status))
	}
	if !u.conditionMet() {
		e.Result += ": a Condition= of the unit is not met"
	}
	// What a dying process wrote may still be on its way to the journal.
	entries, err := m.journal(ctx, query{unit: u.name, since: began, limit: 30, sync: true})
	if err != nil {
		e.Detail = "(its log cannot be read: " + err.Error() + ")"
		return e
	}
	e.Detail = service.Tail(own(entries), 5)
	return e
}
