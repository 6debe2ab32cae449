package systemd

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// EnableUnits reads unit files anew, enables the named units and starts those to
// be started; one that runs already takes its new settings. It is idempotent.
func (m *Manager) EnableUnits(ctx context.Context, enable, start []string) error {
	if err := m.DaemonReload(ctx); err != nil {
		return err
	}
	err := m.do(ctx, func(conn *dbus.Conn) error {
		_, _, err := conn.EnableUnitFilesContext(ctx, enable, false, true)
		return err
	})
	if err != nil {
		return fmt.Errorf("systemctl enable %v: %w", enable, err)
	}
	if err := m.DaemonReload(ctx); err != nil {
		return err
	}
	for _, name := range start {
		err := m.job(ctx, name, "restart", func(conn *dbus.Conn, done chan<- string) (int, error) {
			return conn.RestartUnitContext(ctx, name, "replace", done)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// DisableUnits stops and disables units; those that are not active are not
// stopped.
func (m *Manager) DisableUnits(ctx context.Context, names ...string) error {
	for _, name := range names {
		t, err := m.Timer(ctx, name)
		if err != nil {
			return err
		}
		if !t.Active {
			continue
		}
		err = m.job(ctx, name, "stop", func(conn *dbus.Conn, done chan<- string) (int, error) {
			return conn.StopUnitContext(ctx, name, "replace", done)
		})
		if err != nil {
			return err
		}
	}
	err := m.do(ctx, func(conn *dbus.Conn) error {
		_, err := conn.DisableUnitFilesContext(ctx, names, false)
		return err
	})
	if err != nil {
		return fmt.Errorf("systemctl disable %v: %w", names, err)
	}
	return nil
}

// job submits a job and waits for its end.
func (m *Manager) job(ctx context.Context, unit, verb string, start func(*dbus.Conn, chan<- string) (int, error)) error {
	j, err := m.submit(ctx, unit, verb, start)
	if err != nil {
		return err
	}
	result, _, err := m.await(ctx, j, forever)
	if err == nil && result != jobDone && result != jobUnknown {
		err = fmt.Errorf("%s %s: job %s; `systemctl status %s` tells why", verb, unit, result, unit)
	}
	return err
}

// TimerState is what systemd says of a timer.
type TimerState struct {
	Active     bool      // it waits for its time
	Enabled    bool      // it will after the next boot
	Next, Last time.Time // zero: never
}

// Timer looks at a timer; one that does not exist is neither active nor enabled.
func (m *Manager) Timer(ctx context.Context, name string) (TimerState, error) {
	var s TimerState
	err := m.do(ctx, func(conn *dbus.Conn) error {
		unit, err := conn.GetUnitPropertiesContext(ctx, name)
		if err != nil {
			return err
		}
		s = TimerState{Active: unit["ActiveState"] == "active", Enabled: unit["UnitFileState"] == "enabled"}
		if unit["LoadState"] != "loaded" {
			return nil
		}
		props, err := conn.GetUnitTypePropertiesContext(ctx, name, "Timer")
		s.Next, s.Last = micros(props["NextElapseUSecRealtime"]), micros(props["LastTriggerUSec"])
		return err
	})
	if err != nil {
		return TimerState{}, fmt.Errorf("systemctl show %s: %w", name, err)
	}
	return s, nil
}

// micros is a moment in microseconds since 1970, where 0 and infinity mean never.
func micros(v any) time.Time {
	n, ok := v.(uint64)
	if !ok || n == 0 || n > math.MaxInt64 {
		return time.Time{}
	}
	return time.UnixMicro(int64(n)).UTC()
}
