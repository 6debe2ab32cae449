// Package process is a small supervisor for hosts and containers without
// systemd. It starts a component detached, with its log in a file, and
// recognises it later, also from another process, by its number, start time and
// boot, and all that descends from it by its session and by a token in the
// environment. It restarts nothing by itself.
//
// What it cannot see: a process that leaves its session, clears its environment
// and outlives its parent before a stop begins. Only a control group would hold
// that one.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Options configure a Manager.
type Options struct {
	Dir    string // records, one per service; created when needed
	LogDir string // NAME.log per service; created when needed
	Logger *slog.Logger
}

// Manager implements service.Manager. It is safe for concurrent use; two
// processes must not start or stop the same service at the same time (the
// tool's lock sees to that), but may ask for its state.
type Manager struct {
	dir, logDir string
	log         *slog.Logger
	host        *hostfs.Host

	// The context ends with Close; reapers holds one goroutine for each child
	// that was started here and still runs.
	ctx     context.Context
	cancel  context.CancelFunc
	reapers sync.WaitGroup

	mu     sync.Mutex
	closed bool
	busy   map[string]chan struct{} // one start or stop per service at a time
	exits  map[string]string        // token -> how a child of ours ended
}

var _ service.Manager = (*Manager)(nil)

// New returns a manager; it touches nothing yet.
func New(o Options) *Manager {
	m := &Manager{
		dir: o.Dir, logDir: o.LogDir, log: o.Logger, host: &hostfs.Host{},
		busy: map[string]chan struct{}{}, exits: map[string]string{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Kind is "process".
func (m *Manager) Kind() string { return "process" }

// Close ends the watching over children; what was started goes on. A child that
// ends later stays a zombie until this process ends too. It may be called
// twice; the other methods must not be called after it.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.reapers.Wait()
	return nil
}

// DaemonReload does nothing: there are no unit files.
func (m *Manager) DaemonReload(ctx context.Context) error { return ctx.Err() }

// acquire makes the caller the only one to change a service, until release.
func (m *Manager) acquire(ctx context.Context, name string) (release func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	turn, ok := m.busy[name]
	if !ok {
		turn = make(chan struct{}, 1)
		m.busy[name] = turn
	}
	m.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Status tells whether the service runs. Failed means that it ended without a
// stop, in this boot.
func (m *Manager) Status(ctx context.Context, s service.Service) (service.Status, error) {
	if err := ctx.Err(); err != nil {
		return service.Status{}, err
	}
	r, err := m.find(s.Name)
	if errors.Is(err, fs.ErrPermission) {
		// Who may not read the record may still ask the component itself.
		return service.Status{Exists: true, SubState: "unknown", ExecStart: s.Command, ExecPath: first(s.Command), Unknown: err.Error()}, nil
	}
	if err != nil {
		return service.Status{}, err
	}
	st := service.Status{Exists: len(s.Command) > 0, SubState: "dead", ExecStart: s.Command, InvocationID: r.Token, StartedAt: r.StartedAt}
	st.ExecPath = first(s.Command)
	if r.PID == 0 {
		return m.ended(r, st)
	}
	st.Exists, st.Active, st.SubState, st.MainPID, st.Restarts = true, true, "running", r.PID, r.Restarts
	if r.Stopped { // it was told to end, and may answer until it has
		st.Active, st.SubState = false, "stopping"
	}
	if len(st.ExecStart) == 0 {
		st.ExecStart = r.Command
	}
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(r.PID), "exe"))
	if err != nil {
		return st, nil // another user's process: the command line has to do
	}
	exe, st.ExecDeleted = strings.CutSuffix(exe, " (deleted)")
	if len(r.Command) == 0 || !isScript(r.Command[0]) {
		st.ExecPath = exe
	} else {
		st.ExecPath, st.ExecDeleted = r.Command[0], false // its executable is the interpreter
	}
	return st, nil
}

func first(command []string) string {
	if len(command) == 0 {
		return ""
	}
	return command[0]
}

// ended fills in the state of a service that does not run.
func (m *Manager) ended(r record, st service.Status) (service.Status, error) {
	if r.Token == "" || r.Stopped {
		return st, nil
	}
	boot, err := bootID()
	if err != nil || r.BootID != boot {
		return st, err // the host was restarted: nobody's failure
	}
	st.Failed, st.SubState, st.Result = true, "failed", "exited"
	m.mu.Lock()
	defer m.mu.Unlock()
	if how, ok := m.exits[r.Token]; ok {
		st.Result = how
	}
	return st, nil
}

// isScript tells a file that names an interpreter in its first line.
func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 2)
	_, err = io.ReadFull(f, head)
	return err == nil && string(head) == "#!"
}

// Restart stops and starts the service.
func (m *Manager) Restart(ctx context.Context, s service.Service, timeout time.Duration) error {
	if len(s.Command) == 0 {
		return noCommand(s)
	}
	if _, err := m.Stop(ctx, s, timeout); err != nil {
		return err
	}
	return m.Start(ctx, s)
}

// Reload is not something a plain process has: SIGHUP, sent to a program that
// does not expect it, ends it.
func (m *Manager) Reload(_ context.Context, s service.Service) error {
	return fmt.Errorf("reload %s: %w", s.Label(), service.ErrNoReload)
}

// Signal sends a signal to the main process alone.
func (m *Manager) Signal(ctx context.Context, s service.Service, sig syscall.Signal) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := m.find(s.Name)
	if err != nil {
		return err
	}
	h, err := openHandle(r.PID, r.Ticks)
	if err != nil {
		return fmt.Errorf("signal %s: %w", s.Label(), err)
	}
	if h == nil {
		return &service.NotRunningError{Unit: s.Label()}
	}
	defer h.close()
	if err := h.signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", s.Label(), err)
	}
	return nil
}
