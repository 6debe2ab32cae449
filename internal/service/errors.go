package service

import "fmt"

// NotFoundError reports a unit that does not exist.
type NotFoundError struct{ Unit string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("%s does not exist", e.Unit) }

// MaskedError reports a unit that an administrator masked.
type MaskedError struct{ Unit string }

func (e *MaskedError) Error() string {
	return fmt.Sprintf("%s is masked: `systemctl unmask %s` first", e.Unit, e.Unit)
}

// StartError reports a service that did not start, with the end of its log.
type StartError struct {
	Unit   string
	Result string // what the manager says, or how the process ended
	Detail string // last log lines
}

func (e *StartError) Error() string {
	msg := fmt.Sprintf("%s did not start: %s", e.Unit, e.Result)
	if e.Detail != "" {
		msg += "; its log ends with: " + e.Detail
	}
	return msg
}

// StopError reports a service of which something still runs.
type StopError struct {
	Unit string
	PIDs []int
}

func (e *StopError) Error() string {
	return fmt.Sprintf("%s could not be stopped: processes %v are still there after SIGKILL", e.Unit, e.PIDs)
}
