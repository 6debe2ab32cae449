package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// earlyExit is how long a process must live to count as started. What fails
// later is for the health checks to see.
const earlyExit = 150 * time.Millisecond

// busyText is how long a start waits for an executable that is still open for
// writing: a child forked by another goroutine holds it for a moment.
const busyText = 2 * time.Second

// cutOff is how long a service may take to end after a stop that was cut off: what
// `timeouts.stop` is by default.
const cutOff = 30 * time.Second

func noCommand(s service.Service) error {
	return &service.NotFoundError{Unit: s.Label(), Hint: "the process manager needs process.command in the component's definition"}
}

// Start starts the service detached: a session of its own, no terminal, no
// descriptors of ours, its output appended to its log. When it runs already
// with the same command nothing happens; with another command that is an error.
// One that was told to stop, by a stop that was cut off, is ended first.
// What an earlier start left behind after its main process ended is killed
// first, as systemd would have done.
func (m *Manager) Start(ctx context.Context, s service.Service) error {
	if len(s.Command) == 0 {
		return noCommand(s)
	}
	release, err := m.acquire(ctx, s.Name)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Label(), err)
	}
	defer release()
	boot, err := bootID()
	if err != nil {
		return err
	}
	r, err := m.find(s.Name)
	if err != nil {
		return err
	}
	if r.PID != 0 && r.Stopped {
		if _, err := end(ctx, s, r, cutOff); err != nil {
			return err
		}
		r.PID = 0
	}
	if r.PID != 0 {
		if slices.Equal(r.Command, s.Command) {
			return nil
		}
		return &service.StartError{
			Unit: s.Label(), Result: fmt.Sprintf("process %d runs already, with the command %q, expected %q", r.PID, r.Command, s.Command),
			Hint: "stop it first",
		}
	}
	if r.Token != "" && r.BootID == boot {
		killed, err := killRest(ctx, s.Label(), 0, r.Token, nil)
		if err != nil {
			return err
		}
		if killed {
			m.log.Warn("killed what an earlier start left behind", "service", s.Name)
		}
	}
	path, err := executable(s)
	if err != nil {
		return err
	}
	return m.start(ctx, s, path, boot)
}

func (m *Manager) start(ctx context.Context, s service.Service, path, boot string) error {
	log, offset, err := m.openLog(s.Name)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Label(), err)
	}
	defer log.Close()
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails, see its documentation
	r := record{Name: s.Name, BootID: boot, Token: hex.EncodeToString(token), Command: s.Command, StartedAt: time.Now().UTC(), LogOffset: offset}
	if err := m.save(r); err != nil {
		return err
	}
	child, err := m.spawn(ctx, s, path, r.Token, log)
	if err != nil {
		r.Stopped = true // nothing was started
		return errors.Join(&service.StartError{Unit: s.Label(), Result: err.Error(), Err: err}, m.save(r))
	}
	r.PID, r.Ticks, r.PGID = child.pid, child.ticks, child.pid
	if err := m.save(r); err != nil {
		return fmt.Errorf("%s was started as process %d: %w; stopping it still works", s.Label(), r.PID, err)
	}
	timer := time.NewTimer(earlyExit)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start %s: process %d was started: %w", s.Label(), r.PID, ctx.Err())
	case <-child.done:
	}
	// Nothing may be left of a failed start, such as a port in use.
	killed, err := killRest(ctx, s.Label(), 0, r.Token, nil)
	start := &service.StartError{
		Unit: s.Label(), Result: "its process ended at once: " + child.how, Detail: m.tail(s.Name, offset), Hint: "its log is " + m.LogPath(s.Name),
	}
	if killed {
		start.Hint = "it left processes behind, which were killed: it must stay in the foreground; " + start.Hint
	}
	return errors.Join(start, err)
}

// executable finds the program of the command line.
func executable(s service.Service) (string, error) {
	name := s.Command[0]
	if filepath.IsAbs(name) {
		return name, nil
	}
	if strings.Contains(name, "/") {
		return "", &service.StartError{Unit: s.Label(), Result: fmt.Sprintf("process.command begins with the relative path %q", name), Hint: "write it in full"}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &service.StartError{Unit: s.Label(), Result: err.Error(), Err: err}
	}
	return filepath.Abs(path)
}

// child is a process started here.
type child struct {
	pid   int
	ticks uint64
	done  chan struct{} // closed when it has ended and was reaped
	how   string        // "exit status 1", "signal: killed"; set before done is closed
}

// spawn runs the program and leaves a goroutine behind that reaps it, until
// Close.
func (m *Manager) spawn(ctx context.Context, s service.Service, path, token string, log *os.File) (*child, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, errors.Join(fmt.Errorf("its working directory %s is not there", dir), err)
	}
	closeOnExec()
	pidfd := -1
	attr := &os.ProcAttr{
		Dir: dir, Env: environment(s, token), Files: []*os.File{null, log, log},
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	p, err := startProcess(ctx, path, s.Command, attr)
	if err != nil {
		return nil, err
	}
	// It is not reaped before this, so its number and start time are its own.
	st, err := readStat(p.Pid)
	h := &handle{pid: p.Pid, ticks: st.ticks}
	if err == nil && pidfd >= 0 {
		err = h.adopt(pidfd)
	}
	if err != nil {
		_ = p.Kill()
		_, _ = p.Wait()
		return nil, fmt.Errorf("watch process %d: %w", p.Pid, err)
	}
	c := &child{pid: p.Pid, ticks: st.ticks, done: make(chan struct{})}
	m.reap(p, h, c, token)
	return c, nil
}

// startProcess starts the program, and again for a moment while it is "text
// file busy" (https://go.dev/issue/22315).
func startProcess(ctx context.Context, path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	deadline := time.Now().Add(busyText)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p, err := os.StartProcess(path, argv, attr)
		if !errors.Is(err, unix.ETXTBSY) || time.Now().After(deadline) {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// reap collects the child when it ends. After Close it is left to init.
func (m *Manager) reap(p *os.Process, h *handle, c *child, token string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		h.close()
		_ = p.Release()
		return
	}
	m.reapers.Go(func() {
		defer h.close()
		if ended, err := h.wait(m.ctx, forever); !ended {
			if m.ctx.Err() == nil {
				m.log.Warn("cannot watch a process", "pid", c.pid, "error", err)
			}
			_ = p.Release()
			return
		}
		c.how = "unknown exit status"
		if state, err := p.Wait(); err == nil {
			c.how = state.String()
		}
		m.mu.Lock()
		m.exits[token] = c.how
		m.mu.Unlock()
		close(c.done)
	})
}

// environment is the little of ours that programs expect, the service's own,
// and our marks; a later entry replaces an earlier one of that name.
func environment(s service.Service, token string) []string {
	var env []string
	set := func(entry string) {
		key, _, _ := strings.Cut(entry, "=")
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
		env = append(env, entry)
	}
	for _, k := range []string{"PATH", "HOME", "LANG", "TZ"} {
		if v, ok := os.LookupEnv(k); ok {
			set(k + "=" + v)
		}
	}
	for _, e := range s.Env {
		set(e)
	}
	set(nameVar + "=" + s.Name)
	set(tokenVar + "=" + token)
	return env
}

// closeOnExec keeps descriptors that we inherited ourselves from the service:
// those that Go opens have the flag, those of a careless parent do not.
func closeOnExec() {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
