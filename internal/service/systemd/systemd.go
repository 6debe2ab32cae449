// Package systemd controls units over D-Bus. It waits for jobs instead of
// sleeping, clears failed states and start limits before a start, and takes a
// unit for stopped only when its control group is empty. The interface is
// described in org.freedesktop.systemd1(5).
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
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

const (
	// backIn is how long systemd may take to execute itself anew: more than the 25 s
	// after which a D-Bus library gives up a call that nobody answers.
	backIn    = 30 * time.Second
	redialMin = 10 * time.Millisecond
	redialMax = 200 * time.Millisecond
)

// Manager implements service.Manager. It is safe for concurrent use.
type Manager struct {
	log        *slog.Logger
	groupRoots []string // where control groups are mounted
	dial       func(context.Context) (*dbus.Conn, error)
	patience   time.Duration // how long systemd may be away; 0 on a host without it

	mu     sync.Mutex
	closed bool
	conn   *dbus.Conn
	cancel context.CancelFunc // ends conn
}

var _ service.Manager = (*Manager)(nil)

// New connects to the system's systemd.
func New(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{log: o.Logger, groupRoots: []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"}, dial: dial}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil { // sd_booted(3)
		m.patience = backIn
	}
	if _, err := m.bus(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// Kind is "systemd".
func (m *Manager) Kind() string { return "systemd" }

// Close drops the connection. It may be called twice; the other methods fail
// after it.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.disconnect()
	return nil
}

// disconnect needs m.mu.
func (m *Manager) disconnect() {
	if m.conn != nil {
		m.conn.Close()
		m.cancel()
		m.conn, m.cancel = nil, nil
	}
}

var errClosed = errors.New("the connection to systemd was closed")

// bus returns a live connection: a new one after D-Bus or systemd was restarted.
// Root asks systemd on its private socket, which works without a bus.
func (m *Manager) bus(ctx context.Context) (*dbus.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if m.conn != nil && m.conn.Connected() {
		return m.conn, nil
	}
	m.disconnect()
	// The connection outlives the call that opens it, so that call's context
	// only bounds the opening.
	life, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel)
	conn, err := m.dial(life)
	if !stop() || err != nil {
		cancel()
		if conn != nil {
			conn.Close()
		}
		return nil, errors.Join(ctx.Err(), err)
	}
	m.conn, m.cancel = conn, cancel
	return conn, nil
}

func dial(ctx context.Context) (*dbus.Conn, error) {
	var private error
	if os.Geteuid() == 0 {
		conn, err := dbus.NewSystemdConnectionContext(ctx)
		if err == nil {
			return conn, nil
		}
		private = fmt.Errorf("private socket of systemd: %w", err)
	}
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return nil, errors.Join(private, fmt.Errorf("system bus: %w", err))
	}
	return conn, nil
}

// do runs a call, and again on new connections while systemd is away. When it
// executes itself anew (daemon-reexec, an upgrade of systemd or libc) nobody
// listens on its socket for seconds, and nobody on the bus has its name.
//
// A call is made twice when only its answer was lost, so each must bear that: to
// look, to read unit files, to clear a failed state, to enable or to disable is the
// same done twice; SIGKILL finds nobody left, SIGHUP has a configuration read once
// more. A job that is submitted again is merged into the one that is pending; where
// that is over, a start or stop finds the unit as it should be, and a restart or
// reload is done once more.
func (m *Manager) do(ctx context.Context, call func(*dbus.Conn) error) error {
	var since time.Time
	for pause := redialMin; ; pause = min(2*pause, redialMax) {
		conn, err := m.bus(ctx)
		if err == nil {
			err = call(conn)
		}
		if err == nil || ctx.Err() != nil || m.patience == 0 || !away(conn, err) {
			return err
		}
		m.drop(conn)
		switch {
		case since.IsZero():
			since = time.Now()
			m.log.Info("connect to systemd again", "error", err)
		case time.Since(since) > m.patience:
			return fmt.Errorf("systemd has not answered for %v; `systemctl is-system-running` tells whether it does again: %w", m.patience, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; systemd did not answer: %w", ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// drop gives up a connection, unless it was replaced meanwhile.
func (m *Manager) drop(conn *dbus.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == conn {
		m.disconnect()
	}
}

// away tells a systemd that cannot be reached, and will be again, from one that
// refuses. conn is nil when there was no connection to be had.
func away(conn *dbus.Conn, err error) bool {
	if conn != nil && !conn.Connected() || conn == nil && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)) {
		return true
	}
	// The last three are a bus's that looks for systemd, and would activate it with /bin/false.
	return isName(err, "org.freedesktop.DBus.Error.Disconnected", "org.freedesktop.DBus.Error.NoReply",
		"org.freedesktop.DBus.Error.NameHasNoOwner", "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.Spawn.ChildExited") ||
		errors.Is(err, godbus.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// isName tells whether systemd refused with one of these D-Bus error names.
func isName(err error, names ...string) bool {
	var e godbus.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, n := range names {
		if e.Name == n {
			return true
		}
	}
	return false
}

// refused turns systemd's refusals into the errors that callers tell apart.
func refused(unit, verb string, err error) error {
	switch {
	case isName(err, "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitMasked") && !strings.Contains(err.Error(), unit):
		return &service.StartError{Unit: unit, Result: err.Error(), Hint: "it requires that unit: provide it, or correct Requires= and BindsTo= in `systemctl cat " + unit + "`", Err: err}
	case isName(err, "org.freedesktop.systemd1.NoSuchUnit"):
		return &service.NotFoundError{Unit: unit}
	case isName(err, "org.freedesktop.systemd1.UnitMasked"):
		return &service.MaskedError{Unit: unit}
	case isName(err, "org.freedesktop.systemd1.BadUnitSetting", "org.freedesktop.systemd1.LoadFailed"):
		return &service.LoadError{Unit: unit, State: "bad-setting", Detail: err.Error()}
	case isName(err, "org.freedesktop.systemd1.JobTypeNotApplicable"):
		return fmt.Errorf("%s %s: %w", verb, unit, service.ErrNoReload)
	case isName(err, "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"):
		return fmt.Errorf("%s %s: %w; run as root", verb, unit, err)
	}
	return fmt.Errorf("%s %s: %w", verb, unit, err)
}

// DaemonReload makes systemd read unit files again.
func (m *Manager) DaemonReload(ctx context.Context) error {
	err := m.do(ctx, func(conn *dbus.Conn) error { return conn.ReloadContext(ctx) })
	if err != nil {
		return fmt.Errorf("systemctl daemon-reload: %w", err)
	}
	return nil
}

// Signal sends a signal to the unit's main process alone.
func (m *Manager) Signal(ctx context.Context, s service.Service, sig syscall.Signal) error {
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return err
	}
	if u.mainPID() == 0 {
		return &service.NotRunningError{Unit: s.Unit}
	}
	err = m.do(ctx, func(conn *dbus.Conn) error { return conn.KillUnitWithTarget(ctx, s.Unit, dbus.Main, int32(sig)) }) //nolint:gosec // signals end at 64
	if err != nil {
		return refused(s.Unit, "signal", err)
	}
	return nil
}

// Reload runs the unit's ExecReload and waits for it.
func (m *Manager) Reload(ctx context.Context, s service.Service) error {
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return err
	}
	if err := u.usable(); err != nil {
		return err
	}
	if !m.active(u) {
		return &service.NotRunningError{Unit: s.Unit}
	}
	j, err := m.submit(ctx, s.Unit, "reload", func(conn *dbus.Conn, done chan<- string) (int, error) {
		return conn.ReloadUnitContext(ctx, s.Unit, "replace", done)
	})
	if err != nil {
		return err
	}
	result, _, err := m.await(ctx, j, forever)
	if err != nil {
		return err
	}
	if result != jobDone && result != jobUnknown {
		return fmt.Errorf("reload %s: job %s; it keeps its old configuration; `journalctl -u %s` tells why", s.Unit, result, s.Unit)
	}
	return nil
}
