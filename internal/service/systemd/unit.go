package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// unit is what systemd says of one unit at one moment: its properties by name.
type unit struct {
	name  string
	props map[string]any
}

// look asks systemd for a unit. A missing one is no error here.
func (m *Manager) look(ctx context.Context, name string) (unit, error) {
	u := unit{name: name}
	if err := ctx.Err(); err != nil {
		return u, err
	}
	if name == "" {
		return u, nil
	}
	err := m.do(ctx, func(conn *dbus.Conn) (err error) {
		u.props, err = conn.GetAllPropertiesContext(ctx, name)
		return err
	})
	if err != nil {
		return u, fmt.Errorf("ask systemd for %s: %w", name, err)
	}
	return u, nil
}

func (u unit) str(key string) string {
	s, _ := u.props[key].(string)
	return s
}

func (u unit) num(key string) int {
	switch n := u.props[key].(type) {
	case uint32:
		return int(n)
	case int32:
		return int(n)
	}
	return 0
}

// time is a wall clock time of the unit's, zero when it has none.
func (u unit) time(key string) time.Time {
	usec, _ := u.props[key].(uint64)
	if usec == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(usec)) //nolint:gosec // the year 294247
}

func (u unit) loadState() string {
	if s := u.str("LoadState"); s != "" {
		return s
	}
	return "not-found"
}

func (u unit) activeState() string { return u.str("ActiveState") }
func (u unit) mainPID() int        { return u.num("MainPID") }

// down reports that neither a process nor a job of the unit is on its way.
func (u unit) down() bool {
	switch u.activeState() {
	case "", "inactive", "failed":
		return true
	}
	return false
}

// job is the number of the unit's pending job, 0 for none.
func (u unit) job() uint32 {
	if j, ok := u.props["Job"].([]any); ok && len(j) > 0 {
		id, _ := j[0].(uint32)
		return id
	}
	return 0
}

// loadErr tells a unit that systemd has found and cannot load.
func (u unit) loadErr() error {
	switch state := u.loadState(); state {
	case "loaded", "not-found", "masked":
		return nil
	default:
		e := &service.LoadError{Unit: u.name, State: state}
		if le, ok := u.props["LoadError"].([]any); ok && len(le) == 2 {
			e.Detail, _ = le[1].(string)
		}
		return e
	}
}

// usable tells why a unit cannot be started.
func (u unit) usable() error {
	switch u.loadState() {
	case "not-found":
		name := u.name
		if name == "" {
			return &service.NotFoundError{Unit: "the service", Hint: "the component's definition names no unit"}
		}
		return &service.NotFoundError{Unit: name, Hint: "no such unit file; after adding one, `systemctl daemon-reload`"}
	case "masked":
		return &service.MaskedError{Unit: u.name}
	}
	return u.loadErr()
}

// Status tells the state of a unit.
func (m *Manager) Status(ctx context.Context, s service.Service) (service.Status, error) {
	u, err := m.look(ctx, s.Unit)
	if err != nil {
		return service.Status{}, err
	}
	if err := u.loadErr(); err != nil {
		return service.Status{}, err
	}
	return m.status(u), nil
}

// status translates properties. A unit whose file is gone may still run.
func (m *Manager) status(u unit) service.Status {
	st := service.Status{
		Exists:     u.loadState() != "not-found",
		Masked:     u.loadState() == "masked",
		Active:     m.active(u),
		Activating: u.activeState() == "activating",
		Failed:     u.activeState() == "failed",
		SubState:   u.str("SubState"), Result: u.str("Result"), User: u.str("User"), FragmentPath: u.str("FragmentPath"),
		MainPID: u.mainPID(), Restarts: u.num("NRestarts"), ExecStart: u.execStart(),
	}
	st.DropIns, _ = u.props["DropInPaths"].([]string)
	st.NeedDaemonReload, _ = u.props["NeedDaemonReload"].(bool)
	st.Restart, st.NoStartLimit = u.str("Restart"), u.noStartLimit()
	if id, ok := u.props["InvocationID"].([]byte); ok && len(id) > 0 {
		st.InvocationID = fmt.Sprintf("%x", id)
	}
	st.StartedAt = u.time("ExecMainStartTimestamp")
	if len(st.ExecStart) > 0 {
		st.ExecPath = st.ExecStart[0]
		if real, err := filepath.EvalSymlinks(st.ExecPath); err == nil {
			st.ExecPath = real
		}
		if isScript(st.ExecPath) {
			return st // its executable is the interpreter
		}
	}
	if st.MainPID > 0 {
		if exe, err := os.Readlink(exeLink(st.MainPID)); err == nil {
			st.ExecPath, st.ExecDeleted = strings.CutSuffix(exe, " (deleted)")
		}
	}
	return st
}

func exeLink(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid), "exe") }

// active reports whether the unit does its work: it is active and, unless it is
// of a kind that has none, has a process. A unit can be "active (exited)" with
// RemainAfterExit=.
func (m *Manager) active(u unit) bool {
	switch u.activeState() {
	case "active", "reloading", "refreshing":
	default:
		return false
	}
	if u.str("SubState") != "exited" || u.str("Type") == "oneshot" {
		return true
	}
	pids, err := m.processes(u.str("ControlGroup")) // old init scripts: no main process is known
	return err == nil && len(pids) > 0
}

// isScript tells a file that names an interpreter in its first line.
func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 2)
	n, err := f.Read(head)
	return err == nil && n == 2 && string(head) == "#!"
}

// execStart is the first ExecStart command: its path, then its arguments after
// argv[0]. Its D-Bus type is a(sasbttttuii).
func (u unit) execStart() []string {
	list, ok := u.props["ExecStart"].([][]any)
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

// noStartLimit reports that systemd counts no starts: systemd.unit(5),
// StartLimitIntervalSec=.
func (u unit) noStartLimit() bool {
	interval, known := u.props["StartLimitIntervalUSec"].(uint64)
	burst, also := u.props["StartLimitBurst"].(uint32)
	return known && interval == 0 || also && burst == 0
}

// resetFailed clears a failed state, the start limit and the restart counter. A
// unit that systemd has not loaded has none of them.
func (m *Manager) resetFailed(ctx context.Context, name string) error {
	err := m.do(ctx, func(conn *dbus.Conn) error { return conn.ResetFailedUnitContext(ctx, name) })
	if err == nil || isName(err, "org.freedesktop.systemd1.NoSuchUnit") {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(err, fmt.Errorf("reset-failed %s", name))
	}
	return refused(name, "reset-failed", err)
}
