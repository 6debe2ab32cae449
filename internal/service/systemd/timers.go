package systemd

import (
	"context"
	"fmt"
	"math"
	"time"
)

// EnableUnits reads unit files anew, enables the named units and starts those to
// be started. It is idempotent.
func (m *Manager) EnableUnits(ctx context.Context, enable, start []string) error {
	conn, err := m.bus(ctx)
	if err != nil {
		return err
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("systemctl daemon-reload: %w", err)
	}
	if _, _, err := conn.EnableUnitFilesContext(ctx, enable, false, true); err != nil {
		return fmt.Errorf("systemctl enable %v: %w", enable, err)
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("systemctl daemon-reload: %w", err)
	}
	for _, name := range start {
		done := make(chan string, 1)
		// A timer that runs already must take its new times.
		if _, err := conn.RestartUnitContext(ctx, name, "replace", done); err != nil {
			return fmt.Errorf("systemctl start %s: %w", name, err)
		}
		select {
		case result := <-done:
			if result != "done" {
				return fmt.Errorf("systemctl start %s: the job ended with %q", name, result)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// DisableUnits stops and disables units; those that do not exist are left out.
func (m *Manager) DisableUnits(ctx context.Context, names ...string) error {
	conn, err := m.bus(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		props, err := conn.GetUnitPropertiesContext(ctx, name)
		if err != nil {
			return fmt.Errorf("systemctl show %s: %w", name, err)
		}
		if props["ActiveState"] == "inactive" || props["LoadState"] == "not-found" {
			continue
		}
		done := make(chan string, 1)
		if _, err := conn.StopUnitContext(ctx, name, "replace", done); err != nil {
			return fmt.Errorf("systemctl stop %s: %w", name, err)
		}
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if _, err := conn.DisableUnitFilesContext(ctx, names, false); err != nil {
		return fmt.Errorf("systemctl disable %v: %w", names, err)
	}
	return nil
}

// TimerState is what systemd says of a timer.
type TimerState struct {
	Active     bool      // it waits for its time
	Enabled    bool      // it will after the next boot
	Next, Last time.Time // zero: never
}

// Timer looks at a timer; one that does not exist is neither active nor enabled.
func (m *Manager) Timer(ctx context.Context, name string) (TimerState, error) {
	conn, err := m.bus(ctx)
	if err != nil {
		return TimerState{}, err
	}
	unit, err := conn.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return TimerState{}, fmt.Errorf("systemctl show %s: %w", name, err)
	}
	s := TimerState{Active: unit["ActiveState"] == "active", Enabled: unit["UnitFileState"] == "enabled"}
	if unit["LoadState"] != "loaded" {
		return s, nil
	}
	props, err := conn.GetUnitTypePropertiesContext(ctx, name, "Timer")
	if err != nil {
		return s, fmt.Errorf("systemctl show %s: %w", name, err)
	}
	s.Next, s.Last = micros(props["NextElapseUSecRealtime"]), micros(props["LastTriggerUSec"])
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
