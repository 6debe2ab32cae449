// Package process is a small supervisor for hosts and containers without
// systemd. It starts a component detached, with its log in a file, and
// recognises it later, from another process, by its number, start time and
// boot. It restarts nothing by itself.
package process

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

const (
	tokenVar   = "OBSERVABILITY_UPGRADE_SERVICE_TOKEN"
	maxLog     = 10 << 20
	earlyExit  = 60 * time.Millisecond // an exit sooner than this is a failed start
	killExpect = 5 * time.Second       // how long SIGKILL may take to work
)

// Options configure a Manager.
type Options struct {
	Dir    string // records, one per service
	LogDir string
	Logger *slog.Logger
}

// Manager implements service.Manager.
type Manager struct {
	Options
	host *hostfs.Host
}

var _ service.Manager = (*Manager)(nil)

// New returns a manager; it touches nothing yet.
func New(o Options) *Manager {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Manager{Options: o, host: &hostfs.Host{}}
}

// record is what is written down of a started service. It is written once
// before the start, with the token alone, and again with the process: whatever
// dies in between, the process is found by its token.
type record struct {
	Name      string    `json:"name"`
	PID       int       `json:"pid"`
	Ticks     uint64    `json:"start_ticks"`
	BootID    string    `json:"boot_id"`
	Token     string    `json:"token"`
	Command   []string  `json:"command"`
	StartedAt time.Time `json:"started_at"`
	Stopped   bool      `json:"stopped"` // ended because it was told to
	LogOffset int64     `json:"log_offset"`
}

// Kind is "process".
func (m *Manager) Kind() string { return "process" }

// Close has nothing to release: what was started goes on.
func (m *Manager) Close() error { return nil }

// DaemonReload does nothing: there are no unit files.
func (m *Manager) DaemonReload(context.Context) error { return nil }

func (m *Manager) recordPath(name string) string { return filepath.Join(m.Dir, name+".json") }

// LogPath is the file a service's output goes to.
func (m *Manager) LogPath(name string) string { return filepath.Join(m.LogDir, name+".log") }

func (m *Manager) load(name string) (record, error) {
	data, err := os.ReadFile(m.recordPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("process record %s: %w; stop the process by hand and remove the file", m.recordPath(name), err)
	}
	return r, nil
}

func (m *Manager) save(r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := m.host.MkdirAll(m.Dir, 0o755); err != nil {
		return err
	}
	return m.host.WriteFile(m.recordPath(r.Name), append(data, '\n'), 0o600)
}

// find returns the record with the process it stands for; pid is 0 when none
// runs. A record without a process is completed by its token.
func (m *Manager) find(name string) (record, error) {
	r, err := m.load(name)
	if err != nil || r.Token == "" {
		return r, err
	}
	if r.BootID != bootID() {
		r.PID = 0
		return r, nil
	}
	if r.PID != 0 {
		reap(r.PID)
		if !alive(r.PID, r.Ticks) {
			r.PID = 0
		}
		return r, nil
	}
	for _, pid := range members(0, r.Token) {
		if st, err := readStat(pid); err == nil && st.session == pid {
			r.PID, r.Ticks = pid, st.ticks
			return r, m.save(r)
		}
	}
	return r, nil
}

// Status tells whether the service runs.
func (m *Manager) Status(_ context.Context, s service.Service) (service.Status, error) {
	r, err := m.find(s.Name)
	if err != nil {
		return service.Status{}, err
	}
	st := service.Status{Exists: len(s.Command) > 0, SubState: "dead", ExecStart: s.Command}
	if r.PID == 0 {
		if r.Token != "" && !r.Stopped && r.BootID == bootID() {
			st.Failed, st.SubState, st.Result = true, "failed", "exited"
		}
		return st, nil
	}
	st.Active, st.SubState, st.MainPID, st.StartedAt, st.InvocationID = true, "running", r.PID, r.StartedAt, r.Token
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.PID)); err == nil {
		st.ExecPath = strings.TrimSuffix(exe, " (deleted)")
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.PID)); err == nil && len(s.Command) > 0 && isScript(s.Command[0]) {
		// A script's executable is its interpreter; what was started is its argument.
		if slices.Contains(strings.Split(string(data), "\x00"), s.Command[0]) {
			st.ExecPath = s.Command[0]
		}
	}
	return st, nil
}

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

// Start starts the service detached, unless it runs already.
func (m *Manager) Start(ctx context.Context, s service.Service) error {
	if len(s.Command) == 0 {
		return &service.NotFoundError{Unit: s.Label() + " (its definition has no process.command)"}
	}
	r, err := m.find(s.Name)
	if err != nil {
		return err
	}
	if r.PID != 0 {
		return nil
	}
	log, offset, err := m.openLog(s.Name)
	if err != nil {
		return err
	}
	defer log.Close()
	token := make([]byte, 16)
	if _, err := rand.Read(token); err != nil {
		return err
	}
	r = record{
		Name: s.Name, BootID: bootID(), Token: hex.EncodeToString(token), Command: s.Command, StartedAt: time.Now().UTC(), LogOffset: offset,
	}
	if err := m.save(r); err != nil {
		return err
	}
	if r.PID, r.Ticks, err = spawn(s, r.Token, log); err != nil {
		r.Stopped = true
		return errors.Join(&service.StartError{Unit: s.Label(), Result: err.Error()}, m.save(r))
	}
	if err := m.save(r); err != nil {
		return err
	}
	gone, err := waitGone(ctx, r.PID, r.Ticks, earlyExit)
	if err != nil {
		return err
	}
	if gone {
		return &service.StartError{Unit: s.Label(), Result: "its process ended at once", Detail: m.tail(s.Name, offset)}
	}
	return nil
}

func (m *Manager) openLog(name string) (*os.File, int64, error) {
	if err := os.MkdirAll(m.LogDir, 0o755); err != nil {
		return nil, 0, err
	}
	path := m.LogPath(name)
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// spawn starts the command in a session of its own. Nothing waits for it here:
// as a child that outlives us it belongs to init, as one that ends before us it
// is reaped when its state is next asked for.
func spawn(s service.Service, token string, log *os.File) (pid int, ticks uint64, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, 0, err
	}
	defer null.Close()
	env := []string{tokenVar + "=" + token}
	for _, k := range []string{"PATH", "HOME", "LANG", "TZ"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	dir := s.Dir
	if dir == "" {
		dir = "/"
	}
	p, err := os.StartProcess(s.Command[0], s.Command, &os.ProcAttr{
		Dir: dir, Env: append(env, s.Env...), Files: []*os.File{null, log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, 0, err
	}
	pid = p.Pid
	st, err := readStat(pid)
	if relErr := p.Release(); err == nil {
		err = relErr
	}
	return pid, st.ticks, err
}

// Stop ends the service: SIGTERM, and after the timeout SIGKILL to all that it
// started. It returns when nothing of it is left.
func (m *Manager) Stop(ctx context.Context, s service.Service, timeout time.Duration) (service.StopResult, error) {
	began := time.Now()
	r, err := m.find(s.Name)
	if err != nil || r.Token == "" {
		return service.StopResult{}, err
	}
	res := service.StopResult{}
	if !r.Stopped {
		r.Stopped = true
		if err := m.save(r); err != nil {
			return res, err
		}
	}
	session := r.PID
	if r.PID != 0 {
		if err := signal(r.PID, syscall.SIGTERM); err != nil {
			return res, fmt.Errorf("stop %s: %w", s.Label(), err)
		}
		gone, err := waitGone(ctx, r.PID, r.Ticks, timeout)
		if err != nil {
			return res, err
		}
		res.Forced = !gone
	}
	if r.BootID != bootID() {
		return res, nil
	}
	deadline := time.Now().Add(killExpect)
	for {
		left := members(session, r.Token)
		if len(left) == 0 {
			res.Took = time.Since(began)
			return res, nil
		}
		if time.Now().After(deadline) {
			return res, &service.StopError{Unit: s.Label(), PIDs: left}
		}
		for _, pid := range left {
			st, err := readStat(pid)
			if err != nil {
				continue
			}
			if err := signal(pid, syscall.SIGKILL); err != nil {
				return res, fmt.Errorf("kill %s: %w", s.Label(), err)
			}
			if _, err := waitGone(ctx, pid, st.ticks, killExpect); err != nil {
				return res, err
			}
		}
	}
}

func signal(pid int, sig syscall.Signal) error {
	err := syscall.Kill(pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// Restart stops and starts the service.
func (m *Manager) Restart(ctx context.Context, s service.Service, timeout time.Duration) error {
	if _, err := m.Stop(ctx, s, timeout); err != nil {
		return err
	}
	return m.Start(ctx, s)
}

// Reload is not something a plain process has.
func (m *Manager) Reload(_ context.Context, s service.Service) error {
	return fmt.Errorf("%s: the process manager has no reload; name reload.signal or reload.http in the definition", s.Label())
}

// Signal sends a signal to the main process.
func (m *Manager) Signal(_ context.Context, s service.Service, sig syscall.Signal) error {
	r, err := m.find(s.Name)
	if err != nil {
		return err
	}
	if r.PID == 0 {
		return fmt.Errorf("%s is not running", s.Label())
	}
	return signal(r.PID, sig)
}

// Logs returns the newest lines of the current start.
func (m *Manager) Logs(_ context.Context, s service.Service, _ time.Time, limit int) ([]service.LogLine, error) {
	r, err := m.load(s.Name)
	if err != nil {
		return nil, err
	}
	data, err := m.logSince(s.Name, r.LogOffset)
	if err != nil {
		return nil, err
	}
	var out []service.LogLine
	for _, line := range bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n")) {
		if len(line) > 0 {
			out = append(out, service.LogLine{Priority: -1, Message: string(line)})
		}
	}
	if limit > 0 && len(out) > limit {
		out = out[len(out)-limit:]
	}
	return out, nil
}

// logSince reads the last part of a log, from an offset on.
func (m *Manager) logSince(name string, offset int64) ([]byte, error) {
	f, err := os.Open(m.LogPath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	const most = 1 << 20
	if offset > st.Size() {
		offset = 0
	}
	offset = max(offset, st.Size()-most)
	return io.ReadAll(io.NewSectionReader(f, offset, most))
}

func (m *Manager) tail(name string, offset int64) string {
	data, err := m.logSince(name, offset)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	return strings.Join(lines, " | ")
}
