// Package service holds what service managers share.
package service

import (
	"context"
	"syscall"
	"time"
)

// Service is what a manager needs to know about one unit or process.
type Service struct {
	Name    string   `json:"name"`
	Unit    string   `json:"unit,omitempty"`
	Command []string `json:"command,omitempty"`
	Dir     string   `json:"dir,omitempty"`
	Env     []string `json:"env,omitempty"`
}

// Label is the unit, or the name where there is none.
func (s Service) Label() string {
	if s.Unit != "" {
		return s.Unit
	}
	return s.Name
}

// Status is the state of a service.
type Status struct {
	Exists, Active, Failed, Masked, Activating bool
	SubState                                   string
	MainPID                                    int
	StartedAt                                  time.Time
	Restarts                                   int
	Result                                     string
	ExecPath                                   string
	ExecStart                                  []string
	User                                       string
	FragmentPath                               string
	DropIns                                    []string
	NeedDaemonReload                           bool
	InvocationID                               string
}

// LogLine is a line.
type LogLine struct {
	Time     time.Time
	Priority int
	Message  string
}

// StopResult says how a stop went.
type StopResult struct {
	Forced bool
	Took   time.Duration
}

// Manager is the full set.
type Manager interface {
	Kind() string
	Status(ctx context.Context, s Service) (Status, error)
	Start(ctx context.Context, s Service) error
	Stop(ctx context.Context, s Service, timeout time.Duration) (StopResult, error)
	Restart(ctx context.Context, s Service, timeout time.Duration) error
	Reload(ctx context.Context, s Service) error
	Signal(ctx context.Context, s Service, sig syscall.Signal) error
	DaemonReload(ctx context.Context) error
	Logs(ctx context.Context, s Service, since time.Time, max int) ([]LogLine, error)
	Close() error
}
