package service

import (
	"errors"
	"fmt"
)

// ErrNoReload reports a service that has no reload action.
var ErrNoReload = errors.New("it has no reload action; name reload.signal or reload.http in the component's definition")

// NotFoundError reports a service that the manager does not know.
type NotFoundError struct {
	Unit string
	Hint string // what to do; optional
}

func (e *NotFoundError) Error() string {
	if e.Hint != "" {
		return fmt.Sprintf("%s does not exist: %s", e.Unit, e.Hint)
	}
	return fmt.Sprintf("%s does not exist", e.Unit)
}

// MaskedError reports a unit that an administrator masked.
type MaskedError struct{ Unit string }

func (e *MaskedError) Error() string {
	return fmt.Sprintf("%s is masked: `systemctl unmask %s` first", e.Unit, e.Unit)
}

// LoadError reports a unit that exists and that systemd cannot load.
type LoadError struct {
	Unit   string
	State  string // systemd's LoadState: bad-setting, error
	Detail string // systemd's text; may be empty
}

func (e *LoadError) Error() string {
	msg := fmt.Sprintf("systemd cannot load %s (%s)", e.Unit, e.State)
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg + fmt.Sprintf("; `systemd-analyze verify %s` tells where", e.Unit)
}

// NotRunningError reports a service without a main process.
type NotRunningError struct{ Unit string }

func (e *NotRunningError) Error() string { return e.Unit + " is not running" }

// StartError reports a service that did not start, with the end of its log.
type StartError struct {
	Unit   string
	Result string // what the manager says, or how the process ended
	Detail string // last log lines; may be empty
	Hint   string // what to look at next; may be empty
	Err    error  // the cause where there is one, such as fs.ErrNotExist
}

func (e *StartError) Error() string {
	msg := fmt.Sprintf("%s did not start: %s", e.Unit, e.Result)
	if e.Detail != "" {
		msg += "; its log ends with: " + e.Detail
	}
	if e.Hint != "" {
		msg += "; " + e.Hint
	}
	return msg
}

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// StopError reports a service of which something still runs.
type StopError struct {
	Unit   string
	PIDs   []int  // what is left; may be empty when it is not known
	Reason string // when it is not about processes that survived SIGKILL
}

func (e *StopError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("%s could not be stopped: %s", e.Unit, e.Reason)
	}
	return fmt.Sprintf("%s could not be stopped: processes %v are still there after SIGKILL; `cat /proc/PID/stack` shows what they wait for", e.Unit, e.PIDs)
}
