// Package systemd controls units over D-Bus. It waits for jobs instead of
// sleeping, clears failed states and start limits before a start, and takes a
// unit for stopped only when its control group is empty.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Options configure a Manager.
type Options struct{ Logger *slog.Logger }

// Manager implements service.Manager. It is safe for concurrent use.
type Manager struct {
	log  *slog.Logger
	mu   sync.Mutex
	conn *dbus.Conn
}

var _ service.Manager = (*Manager)(nil)

// New connects to the system's systemd.
func New(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{log: o.Logger}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	_, err := m.bus(ctx)
	return m, err
}

// Kind is "systemd".
func (m *Manager) Kind() string { return "systemd" }

// Close drops the connection.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
	return nil
}

// bus returns a live connection, a new one after D-Bus was restarted. Root asks
// systemd on its private socket, which works without a bus.
func (m *Manager) bus(_ context.Context) (*dbus.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && m.conn.Connected() {
		return m.conn, nil
	}
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
	// The connection outlives the call that opens it, so it gets no deadline of it.
	ctx := context.Background()
	var private error
	if os.Geteuid() == 0 {
		conn, err := dbus.NewSystemdConnectionContext(ctx)
		if err == nil {
			m.conn = conn
			return conn, nil
		}
		private = err
	}
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, errors.Join(private, err)
	}
	m.conn = conn
	return conn, nil
}

// DaemonReload makes systemd read unit files again.
func (m *Manager) DaemonReload(ctx context.Context) error {
	conn, err := m.bus(ctx)
	if err != nil {
		return err
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("systemctl daemon-reload: %w", err)
	}
	return nil
}

// Status tells the state of a unit.
func (m *Manager) Status(ctx context.Context, s service.Service) (service.Status, error) {
	st, _, err := m.status(ctx, s)
	return st, err
}

func (m *Manager) status(ctx context.Context, s service.Service) (service.Status, map[string]any, error) {
	var st service.Status
	if s.Unit == "" {
		return st, nil, nil
	}
	conn, err := m.bus(ctx)
	if err != nil {
		return st, nil, err
	}
	p, err := conn.GetAllPropertiesContext(ctx, s.Unit)
	if err != nil {
		return st, nil, fmt.Errorf("ask systemd for %s: %w", s.Unit, err)
	}
	switch load := str(p, "LoadState"); load {
	case "not-found":
		return st, p, nil
	case "masked":
		st.Masked = true
	case "loaded":
	default:
		return st, p, fmt.Errorf("systemd cannot load %s: %s; `systemctl status %s` and `systemd-analyze verify %s` tell why", s.Unit, loadError(p, load), s.Unit, s.Unit)
	}
	st.Exists = true
	switch str(p, "ActiveState") {
	case "active", "reloading":
		st.Active = true
	case "activating":
		st.Activating = true
	case "failed":
		st.Failed = true
	}
	st.SubState, st.Result, st.User = str(p, "SubState"), str(p, "Result"), str(p, "User")
	st.FragmentPath, st.InvocationID = str(p, "FragmentPath"), invocation(p)
	st.DropIns, _ = p["DropInPaths"].([]string)
	st.NeedDaemonReload, _ = p["NeedDaemonReload"].(bool)
	if pid, ok := p["MainPID"].(uint32); ok {
		st.MainPID = int(pid)
	}
	if n, ok := p["NRestarts"].(uint32); ok {
		st.Restarts = int(n)
	}
	if usec, ok := p["ExecMainStartTimestamp"].(uint64); ok && usec > 0 {
		st.StartedAt = time.UnixMicro(int64(usec))
	}
	st.ExecStart = execStart(p)
	if len(st.ExecStart) > 0 {
		st.ExecPath = st.ExecStart[0]
	}
	if st.MainPID > 0 {
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", st.MainPID)); err == nil {
			exe = strings.TrimSuffix(exe, " (deleted)")
			if len(st.ExecStart) == 0 || !interpreted(st.ExecStart[0]) {
				st.ExecPath = exe
			}
		}
	}
	return st, p, nil
}

// interpreted reports whether a path is a script: then the process's executable
// is its interpreter.
func interpreted(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 2)
	n, err := f.Read(head)
	return err == nil && n == 2 && string(head) == "#!"
}

func str(p map[string]any, key string) string {
	s, _ := p[key].(string)
	return s
}

func loadError(p map[string]any, load string) string {
	if le, ok := p["LoadError"].([]any); ok && len(le) == 2 {
		if msg, ok := le[1].(string); ok && msg != "" {
			return load + ": " + msg
		}
	}
	return load
}

func invocation(p map[string]any) string {
	id, ok := p["InvocationID"].([]byte)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%x", id)
}

// execStart is the first ExecStart command: its path, then its arguments after
// argv[0].
func execStart(p map[string]any) []string {
	list, ok := p["ExecStart"].([][]any)
	if !ok || len(list) == 0 || len(list[0]) < 2 {
		return nil
	}
	path, _ := list[0][0].(string)
	argv, _ := list[0][1].([]string)
	if path == "" {
		return nil
	}
	out := []string{path}
	if len(argv) > 1 {
		out = append(out, argv[1:]...)
	}
	return out
}

// job runs a job and waits for its result.
func job(ctx context.Context, unit, verb string, start func(ctx context.Context, ch chan<- string) (int, error)) (string, error) {
	ch := make(chan string, 1)
	if _, err := start(ctx, ch); err != nil {
		var e godbus.Error
		if errors.As(err, &e) {
			switch e.Name {
			case "org.freedesktop.systemd1.NoSuchUnit":
				return "", &service.NotFoundError{Unit: unit}
			case "org.freedesktop.systemd1.UnitMasked":
				return "", &service.MaskedError{Unit: unit}
			}
		}
		return "", fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	select {
	case <-ctx.Done():
		return "", fmt.Errorf("%s %s: its job is not done: %w", verb, unit, context.Cause(ctx))
	case result := <-ch:
		return result, nil
	}
}

// Start starts a unit, clearing a failed state and its start limit first.
func (m *Manager) Start(ctx context.Context, s service.Service) error {
	st, err := m.Status(ctx, s)
	switch {
	case err != nil:
		return err
	case !st.Exists:
		return &service.NotFoundError{Unit: s.Unit}
	case st.Masked:
		return &service.MaskedError{Unit: s.Unit}
	case st.Active:
		return nil
	}
	conn, err := m.bus(ctx)
	if err != nil {
		return err
	}
	// It resets the start limit too; a unit without either answers an error that
	// says nothing of interest.
	_ = conn.ResetFailedUnitContext(ctx, s.Unit)
	result, err := job(ctx, s.Unit, "start", func(ctx context.Context, ch chan<- string) (int, error) {
		return conn.StartUnitContext(ctx, s.Unit, "replace", ch)
	})
	if err != nil {
		return err
	}
	st, p, err := m.status(ctx, s)
	if err != nil {
		return err
	}
	if result == "done" && (st.Active || st.Activating) && st.Restarts == 0 {
		return nil
	}
	return m.startError(ctx, s, st, p, result)
}

func (m *Manager) startError(ctx context.Context, s service.Service, st service.Status, p map[string]any, result string) error {
	e := &service.StartError{Unit: s.Unit, Result: st.Result}
	if e.Result == "" || e.Result == "success" {
		e.Result = "job " + result + ", unit " + st.SubState
	}
	if code, ok := p["ExecMainStatus"].(int32); ok && code != 0 {
		e.Result += fmt.Sprintf(", exit status %d", code)
	}
	if lines, err := m.Logs(ctx, s, time.Time{}, 3); err == nil {
		var parts []string
		for _, l := range lines {
			parts = append(parts, l.Message)
		}
		e.Detail = strings.Join(parts, " | ")
	}
	return e
}

// Stop stops a unit: its stop job, SIGKILL to the whole control group when that
// takes longer than timeout, and a look that the group is empty.
func (m *Manager) Stop(ctx context.Context, s service.Service, timeout time.Duration) (service.StopResult, error) {
	began := time.Now()
	var res service.StopResult
	st, p, err := m.status(ctx, s)
	if err != nil || !st.Exists {
		return res, err
	}
	group := str(p, "ControlGroup")
	conn, err := m.bus(ctx)
	if err != nil {
		return res, err
	}
	done := make(chan string, 1)
	if _, err := conn.StopUnitContext(ctx, s.Unit, "replace", done); err != nil {
		return res, fmt.Errorf("stop %s: %w", s.Unit, err)
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return res, ctx.Err()
	case <-done:
	case <-timer.C:
		res.Forced = true
		conn.KillUnitContext(ctx, s.Unit, int32(syscall.SIGKILL))
		timer.Reset(10 * time.Second)
		select {
		case <-ctx.Done():
			return res, ctx.Err()
		case <-done:
		case <-timer.C:
			return res, fmt.Errorf("stop %s: its stop job is not done 10 s after SIGKILL", s.Unit)
		}
	}
	if err := emptyGroup(ctx, s.Unit, group); err != nil {
		return res, err
	}
	if st, err := m.Status(ctx, s); err == nil && st.Failed {
		if st.Result == "timeout" || st.Result == "signal" {
			res.Forced = res.Forced || st.Result == "timeout"
		}
		_ = conn.ResetFailedUnitContext(ctx, s.Unit)
	}
	res.Took = time.Since(began)
	return res, nil
}

// emptyGroup proves that no process of a control group is left and kills those
// that are.
func emptyGroup(ctx context.Context, unit, group string) error {
	if group == "" || group == "/" {
		return nil
	}
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids := groupProcesses(group)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return &service.StopError{Unit: unit, PIDs: pids}
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop %s: kill left-over process %d: %w", unit, pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// groupProcesses lists the processes of a control group and those below it, in
// the unified hierarchy or systemd's own.
func groupProcesses(group string) []int {
	var pids []int
	for _, base := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		_ = filepath.WalkDir(filepath.Join(base, group), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil // a group that is gone has no processes
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			for _, f := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// Restart runs systemd's restart job.
func (m *Manager) Restart(ctx context.Context, s service.Service, _ time.Duration) error {
	conn, err := m.bus(ctx)
	if err != nil {
		return err
	}
	_ = conn.ResetFailedUnitContext(ctx, s.Unit)
	result, err := job(ctx, s.Unit, "restart", func(ctx context.Context, ch chan<- string) (int, error) {
		return conn.RestartUnitContext(ctx, s.Unit, "replace", ch)
	})
	if err == nil && result != "done" {
		st, p, serr := m.status(ctx, s)
		if serr != nil {
			return serr
		}
		err = m.startError(ctx, s, st, p, result)
	}
	return err
}

// Reload runs the unit's ExecReload.
func (m *Manager) Reload(ctx context.Context, s service.Service) error {
	conn, err := m.bus(ctx)
	if err != nil {
		return err
	}
	result, err := job(ctx, s.Unit, "reload", func(ctx context.Context, ch chan<- string) (int, error) {
		return conn.ReloadUnitContext(ctx, s.Unit, "replace", ch)
	})
	if err == nil && result != "done" {
		err = fmt.Errorf("reload %s: job %s", s.Unit, result)
	}
	return err
}

// Signal sends a signal to the unit's main process.
func (m *Manager) Signal(ctx context.Context, s service.Service, sig syscall.Signal) error {
	conn, err := m.bus(ctx)
	if err != nil {
		return err
	}
	if err := conn.KillUnitWithTarget(ctx, s.Unit, dbus.Main, int32(sig)); err != nil {
		return fmt.Errorf("send %s to %s: %w", sig, s.Unit, err)
	}
	return nil
}
