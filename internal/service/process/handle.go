package process

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handle is a hold on one process, by pidfd_open(2), that cannot slip to
// another process which gets the same number later. A handle has one user at a
// time.
type handle struct {
	pid   int
	ticks uint64
	f     *os.File // pidfd, known to the runtime's poller; nil where the kernel has none (before 5.3, or forbidden by seccomp)
}

// forever as a timeout of wait.
const forever = time.Duration(-1)

// openHandle takes hold of the process with that number and start time; nil
// when it no longer runs. The number is opened first and the start time
// compared after: what then still has that start time is what was opened.
func openHandle(pid int, ticks uint64) (*handle, error) {
	if pid <= 0 {
		return nil, nil
	}
	h := &handle{pid: pid, ticks: ticks}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case err == nil:
		if err := h.adopt(fd); err != nil {
			return nil, err
		}
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL): // EINVAL: a thread's number
		return nil, nil
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
	default:
		return nil, fmt.Errorf("take hold of process %d: %w", pid, err)
	}
	if !alive(pid, ticks) {
		h.close()
		return nil, nil
	}
	return h, nil
}

// adopt makes a pidfd the handle's, registered with the runtime's poller.
func (h *handle) adopt(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return errors.Join(fmt.Errorf("take hold of process %d: %w", h.pid, err), unix.Close(fd))
	}
	h.f = os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(h.pid))
	return nil
}

func (h *handle) close() {
	if h.f != nil {
		_ = h.f.Close()
	}
}

// wait waits until the process has ended, also as a zombie, and reports whether
// it did within timeout. The error is the context's, or the system's.
func (h *handle) wait(ctx context.Context, timeout time.Duration) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if h.f == nil {
		return h.poll(ctx, timeout)
	}
	var deadline time.Time
	if timeout != forever {
		deadline = time.Now().Add(max(timeout, time.Millisecond))
	}
	if err := h.f.SetReadDeadline(deadline); err != nil {
		if errors.Is(err, os.ErrNoDeadline) { // a kernel whose pidfds do not poll
			return h.poll(ctx, timeout)
		}
		return false, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = h.f.SetReadDeadline(time.Unix(1, 0))
	})
	conn, err := h.f.SyscallConn()
	if err == nil {
		err = conn.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a file descriptor
			return n > 0
		})
	}
	if !stop() {
		<-interrupted // it still uses the file
	}
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, fmt.Errorf("wait for process %d: %w", h.pid, err)
}

// poll is wait without a pidfd.
func (h *handle) poll(ctx context.Context, timeout time.Duration) (bool, error) {
	if timeout == forever {
		timeout = math.MaxInt64
	}
	timer, tick := time.NewTimer(timeout), time.NewTicker(10*time.Millisecond)
	defer timer.Stop()
	defer tick.Stop()
	for {
		if !alive(h.pid, h.ticks) {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-timer.C:
			return false, nil
		case <-tick.C:
		}
	}
}

// signal sends a signal; a process that has ended is no error.
func (h *handle) signal(sig syscall.Signal) error {
	var err error
	if h.f == nil {
		if alive(h.pid, h.ticks) {
			err = unix.Kill(h.pid, sig)
		}
	} else {
		conn, connErr := h.f.SyscallConn()
		if connErr != nil {
			return connErr
		}
		if connErr := conn.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); connErr != nil {
			return connErr
		}
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), h.pid, err)
	}
	return nil
}
