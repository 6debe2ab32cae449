// Package service says what a service manager is: the nouns that the systemd
// and the process manager share, and the errors that callers tell apart. It
// does nothing itself but read control groups. The contract both managers keep is tested by package
// servicetest.
package service

import (
	"context"
	"strings"
	"syscall"
	"time"
)

// Service is what a manager needs to know about one unit or process.
type Service struct {
	Name    string   `json:"name"`              // component or instance; also names the process manager's files
	Unit    string   `json:"unit,omitempty"`    // with its suffix: prometheus.service
	Command []string `json:"command,omitempty"` // process manager: the expanded command line
	Dir     string   `json:"dir,omitempty"`     // process manager: working directory, "/" when empty
	Env     []string `json:"env,omitempty"`     // process manager: KEY=VALUE, above PATH, HOME, LANG and TZ
}

// Label is the unit, or the name where there is none: what people call it.
func (s Service) Label() string {
	if s.Unit != "" {
		return s.Unit
	}
	return s.Name
}

// Status is the state of a service at one moment.
type Status struct {
	Exists bool // its unit is loaded, or it has a command line
	// Unknown says why nothing more than that can be told, such as a record that the
	// caller may not read; "" when all is told.
	Unknown    string
	Active     bool // its main process runs; systemd: or the unit is active without one, by its type
	Failed     bool // it ended by itself, or could not be started
	Masked     bool
	Activating bool   // on its way up, also between two automatic restarts
	SubState   string // systemd's word: running, exited, auto-restart, dead …
	MainPID    int    // 0 when none runs
	StartedAt  time.Time
	// Restarts counts restarts that nobody asked for since the last start by hand
	// (systemd's NRestarts). The process manager restarts nothing: always 0.
	Restarts int
	Result   string // how it ended: success, exit-code, signal, timeout …
	// ExecPath is the file the main process runs, links resolved; while nothing
	// runs, or when a script runs, the program of the command line.
	ExecPath string
	// ExecDeleted tells that the file the main process runs was removed or
	// replaced since it started.
	ExecDeleted      bool
	ExecStart        []string // first command: path, then arguments
	User             string
	FragmentPath     string
	DropIns          []string
	NeedDaemonReload bool   // unit files changed since systemd read them
	InvocationID     string // differs for every start
	Restart          string // systemd's Restart=: no, on-failure, always …; "" elsewhere
	NoStartLimit     bool   // systemd restarts it without end (StartLimitBurst= or StartLimitIntervalSec= is 0)
}

// Idle reports whether nothing of the service runs, so that it serves nobody. One
// that waits to be restarted by itself is idle; one of which nothing is known is not.
func (s Status) Idle() bool { return s.Unknown == "" && !s.Active && s.MainPID == 0 }

// LogLine is one line a service logged.
type LogLine struct {
	Time     time.Time // zero when unknown
	Priority int       // syslog's 0 to 7; -1 unknown
	Message  string
}

// Tail joins the last n messages for an error text.
func Tail(lines []LogLine, n int) string {
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	parts := make([]string, 0, len(lines))
	for _, l := range lines {
		parts = append(parts, strings.TrimSpace(l.Message))
	}
	return strings.Join(parts, " | ")
}

// Usage is what all processes of a service use together.
type Usage struct {
	At          time.Time     // when it was read
	CPU         time.Duration // processor time since the start
	Memory      uint64        // bytes it needs: without cached files that the kernel can drop; 0 when not known
	MemoryLimit uint64        // bytes it may use: the lowest limit of its control groups, else the host's memory
	Processors  float64       // how many it may use: its quota, else those of the host
}

// StopResult says how a stop went.
type StopResult struct {
	Forced bool // something had to be killed with SIGKILL
	Idle   bool // there was nothing to stop
	Took   time.Duration
}

// Manager is everything both managers can do; consumers declare the few
// methods they need. All methods are safe for concurrent use. A cancelled
// context ends the waiting, not what systemd or the process is already doing.
type Manager interface {
	// Kind is "systemd" or "process".
	Kind() string
	// Status tells the state. A missing service is Exists=false, not an error; a
	// unit that systemd cannot load is a *LoadError.
	Status(ctx context.Context, s Service) (Status, error)
	// Start starts the service and returns when its start job is done (process:
	// when it has survived exec and its first moments), not when it is ready. A
	// running service is left alone. Failed states and start limits are cleared
	// first. Errors: *NotFoundError, *MaskedError, *StartError.
	Start(ctx context.Context, s Service) error
	// Stop ends the service: SIGTERM, after timeout SIGKILL to all of it, and
	// proof that no process of it is left, else a *StopError. The manager does
	// not restart it meanwhile. A stopped or missing service is no error.
	Stop(ctx context.Context, s Service, timeout time.Duration) (StopResult, error)
	// Restart stops and starts in one go; timeout is that of the stop. A stopped
	// service is started. Errors as Start and Stop.
	Restart(ctx context.Context, s Service, timeout time.Duration) error
	// Reload asks for the manager's own reload action (ExecReload); the process
	// manager has none and answers ErrNoReload.
	Reload(ctx context.Context, s Service) error
	// Signal sends a signal to the main process alone. *NotRunningError without
	// one.
	Signal(ctx context.Context, s Service, sig syscall.Signal) error
	// DaemonReload makes the manager read changed definitions; the process
	// manager has none.
	DaemonReload(ctx context.Context) error
	// Logs returns the newest lines, oldest first, at most limit of them (1000 when
	// limit is below 1): of the current or last start or, unless since is zero, of
	// all starts since then. The process manager starts nothing by itself and its
	// lines carry no time: they are always of one start.
	Logs(ctx context.Context, s Service, since time.Time, limit int) ([]LogLine, error)
	// Usage tells what all processes of a running service use together: its
	// control group, or the processes found to be its own. *NotRunningError
	// without one.
	Usage(ctx context.Context, s Service) (Usage, error)
	// Close releases what the manager holds; services go on.
	Close() error
}

// DefaultLogLines is how many lines Logs returns when no limit is given.
const DefaultLogLines = 1000

// HostMemory is the host's memory in bytes; 0 when it cannot be read.
func HostMemory() uint64 {
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // narrower on arm
}
