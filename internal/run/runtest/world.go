// Package runtest is a host on which runs are tried: the files are real, the
// services and the load balancer are played. Tests kill a run on it at any effect,
// cut its power, and ask whether the promises were kept.
package runtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/xattr"

	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// World is a host below a directory. A service "runs" the content its executable
// had when it was started; that content is "NAME VERSION" with words that make it
// misbehave. It is safe for concurrent use but for its fields, which are set before.
type World struct {
	T        testing.TB // told what keeps a world from being made
	Root     layout.Root
	Server   *httptest.Server // answers for the services: /NAME/-/ready, /NAME/metrics, /NAME/samples
	Balancer *Balancer        // nil: no instances
	Wrong    []string         // what must never happen, and did
	Stops    int              // of services

	Settle time.Duration // of each health check; next to nothing when 0, which saves a poll each
	// Wait bounds a start, a stop and the wait for health; 60 ms to be ready and a
	// second for the rest when 0.
	Wait    time.Duration
	Now     func() time.Time            // time.Now when nil
	SyncFS  func(path string) error     // see hostfs.Host
	Changed func(what string)           // told after a service or the balancer changed; may be nil
	Refuse  func(op, unit string) error // asked before the service manager does anything; may be nil
	Rebuild bool                        // a state file that cannot be read is made anew
	// Retain and RetainRuns are how many backup points and runs are kept; 5 points and
	// all runs when 0.
	Retain, RetainRuns int

	mu      sync.Mutex
	running map[string]*proc // by unit
	pids    int
	kept    map[string]attributes // of installed files, by path
}

type proc struct {
	pid     int
	content string
	dead    bool

	restarts int // by itself, since it was started
	started  time.Time
}

// attributes are those that a swap and a restore must keep.
type attributes struct {
	mode   fs.FileMode
	origin string // user.origin; "" where the file system has no extended attributes
}

const origin = "user.origin"

// Words in an executable's content and what they make it do. With an instance
// before it and a dash, as in "b-nostart", a word is for that instance alone.
const (
	WordNoStart  = "nostart"  // its start fails
	WordNotReady = "notready" // it runs, but never answers that it is ready
	WordDies     = "dies"     // it is ready once, then its process ends
	WordForgets  = "forgets"  // it is ready, and answers as if it had no data
)

// New makes a world below a temporary directory, in memory where it can be: these
// tests sync thousands of times.
func New(t testing.TB) *World {
	t.Helper()
	return At(t, tempDir(t))
}

// At makes a world below a directory.
func At(t testing.TB, dir string) *World {
	t.Helper()
	w := &World{T: t, Root: layout.Root(dir), running: map[string]*proc{}, kept: map[string]attributes{}}
	w.Server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.Server.Close)
	return w
}

func tempDir(t testing.TB) string {
	t.Helper()
	if st, err := os.Stat("/dev/shm"); err != nil || !st.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "obsup-run-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// has reports whether content tells the program, or this instance of it, to
// misbehave so.
func has(content, unit, word string) bool {
	_, instance, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	for _, f := range strings.Fields(content) {
		if f == word || instance != "" && f == instance+"-"+word {
			return true
		}
	}
	return false
}

// program is the name of what a unit runs.
func program(unit string) string {
	name, _, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	return name
}

// Bin is where a program is installed.
func (w *World) Bin(name string) string { return w.Root.Path("usr/local/bin", name) }

// Data is where a unit keeps its data.
func (w *World) Data(unit string) string {
	return w.Root.Path("var/lib", strings.TrimSuffix(unit, ".service"))
}

func (w *World) serve(rw http.ResponseWriter, req *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := strings.Split(strings.Trim(req.URL.Path, "/"), "/")[0]
	p := w.running[name+".service"]
	if p == nil || p.dead {
		http.Error(rw, "nothing runs", http.StatusBadGateway)
		return
	}
	words := strings.Fields(p.content)
	if strings.HasSuffix(req.URL.Path, "/metrics") {
		fmt.Fprintf(rw, "%s_build_info{version=%q} 1\n", program(name), words[1])
		if has(p.content, name, WordDies) {
			p.dead = true
			w.changed("dies " + name)
		}
		return
	}
	if strings.HasSuffix(req.URL.Path, "/samples") {
		samples, _ := os.ReadFile(filepath.Join(w.Data(name), "samples"))
		if has(p.content, name, WordForgets) {
			samples = nil
		}
		fmt.Fprintf(rw, "samples %d\n", len(samples))
		return
	}
	if has(p.content, name, WordNotReady) {
		http.Error(rw, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(rw, "ready")
}

// changed tells that a service changed; the caller holds the lock.
func (w *World) changed(what string) {
	if w.Changed != nil {
		w.Changed(what)
	}
}

func (w *World) refused(op, unit string) error {
	if w.Refuse == nil {
		return nil
	}
	return w.Refuse(op, unit)
}

// Status plays the service manager, as do the other methods of run.Services.
func (w *World) Status(_ context.Context, s service.Service) (service.Status, error) {
	if err := w.refused("status", s.Unit); err != nil {
		return service.Status{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.running[s.Unit]
	st := service.Status{Exists: true}
	switch {
	case p == nil:
		st.SubState = "dead"
	case p.dead:
		st.Failed, st.SubState, st.Result = true, "failed", "exit-code"
	default:
		st.Active, st.MainPID, st.SubState = true, p.pid, "running"
		st.StartedAt = p.started
		st.ExecPath, st.Restarts = w.Bin(program(s.Unit)), p.restarts
	}
	return st, nil
}

// Start starts what lies where the unit's executable belongs.
func (w *World) Start(_ context.Context, s service.Service) error {
	if err := w.refused("start", s.Unit); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.running[s.Unit]; p != nil && !p.dead {
		return nil
	}
	defer w.changed("start " + s.Unit)
	data, err := os.ReadFile(w.Bin(program(s.Unit)))
	if err == nil && !whole(string(data), program(s.Unit)) {
		err = fmt.Errorf("exec %s: exec format error: %q", w.Bin(program(s.Unit)), data)
	}
	if err != nil {
		w.running[s.Unit] = &proc{dead: true}
		return err
	}
	w.touchData(s.Unit, string(data))
	if has(string(data), s.Unit, WordNoStart) {
		w.running[s.Unit] = &proc{content: string(data), dead: true}
		return errors.New("main process exited, code=exited, status=2")
	}
	w.pids++
	w.running[s.Unit] = &proc{pid: w.pids, content: string(data), started: w.now()}
	return nil
}

// whole reports whether a file has all of a program.
func whole(content, name string) bool {
	words := strings.Fields(content)
	if len(words) < 2 || words[0] != name {
		return false
	}
	_, err := component.ParseVersion(words[1])
	return err == nil && !strings.Contains(content, "\x00")
}

// touchData has a program that starts write its format into its data, as a good
// database does, and notes when an old one starts on what a new one wrote.
func (w *World) touchData(unit, content string) {
	format := filepath.Join(w.Data(unit), "format")
	have, err := os.ReadFile(format)
	if err != nil {
		return // it keeps no data here
	}
	version := component.MustParseVersion(strings.Fields(content)[1])
	wrote, err := component.ParseVersion(strings.TrimSpace(string(have)))
	if err != nil {
		w.Wrong = append(w.Wrong, fmt.Sprintf("%s started on data without a format: %q", version, have))
		return
	}
	if version.Less(wrote) {
		w.Wrong = append(w.Wrong, fmt.Sprintf("%s started on the data of %s", version, wrote))
	}
	if version.Equal(wrote) {
		return
	}
	if err := (&hostfs.Host{}).WriteFile(format, []byte(version.String()), 0o644); err != nil {
		w.Wrong = append(w.Wrong, fmt.Sprintf("%s: %v", unit, err))
	}
}

// Stop ends a unit's process.
func (w *World) Stop(_ context.Context, s service.Service, _ time.Duration) (service.StopResult, error) {
	if err := w.refused("stop", s.Unit); err != nil {
		return service.StopResult{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Stops++
	p := w.running[s.Unit]
	if w.Balancer != nil && w.Balancer.takesTraffic(s.Unit) && p != nil && !p.dead {
		w.Wrong = append(w.Wrong, s.Unit+" was stopped while it took traffic")
	}
	delete(w.running, s.Unit)
	w.changed("stop " + s.Unit)
	return service.StopResult{Idle: p == nil || p.dead}, nil
}

// Restart stops and starts a unit.
func (w *World) Restart(ctx context.Context, s service.Service, timeout time.Duration) error {
	if _, err := w.Stop(ctx, s, timeout); err != nil {
		return err
	}
	return w.Start(ctx, s)
}

// DaemonReload does nothing: no unit file is played.
func (w *World) DaemonReload(context.Context) error { return w.refused("daemon-reload", "") }

// Usage is not accounted for.
func (w *World) Usage(context.Context, service.Service) (service.Usage, error) {
	return service.Usage{}, errors.New("not accounted for")
}

// Logs has one line of every unit.
func (w *World) Logs(context.Context, service.Service, time.Time, int) ([]service.LogLine, error) {
	return []service.LogLine{{Priority: 6, Message: "a line"}}, nil
}

// Write writes a file, with its directories.
func (w *World) Write(path, content string, mode fs.FileMode) {
	w.T.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil {
		w.T.Fatal(err)
	}
}

// Install puts a component at a version, running, with its configuration. Its files
// have a mode and an extended attribute that must stay.
func (w *World) Install(name, version string) {
	w.T.Helper()
	for path, content := range map[string]string{
		w.Bin(name): name + " " + version, w.Bin(name + "tool"): name + "tool " + strings.Fields(version)[0],
		w.Root.Path("etc", name, "config.yml"): "config of " + version + "\n",
	} {
		w.Write(path, content, 0o755)
	}
	if err := os.Chmod(w.Bin(name+"tool"), 0o750); err != nil {
		w.T.Fatal(err)
	}
	for _, path := range []string{w.Bin(name), w.Bin(name + "tool")} {
		at := attributes{mode: 0o755}
		if strings.HasSuffix(path, "tool") {
			at.mode = 0o750
		}
		if xattr.Set(path, origin, []byte(name)) == nil {
			at.origin = name
		}
		w.kept[path] = at
	}
	if err := w.Start(context.Background(), service.Service{Unit: name + ".service"}); err != nil {
		w.T.Fatal(err)
	}
}

// Version is what the installed binary says.
func (w *World) Version(name string) component.Version {
	w.T.Helper()
	data, err := os.ReadFile(w.Bin(name))
	if err != nil || !whole(string(data), name) {
		w.T.Fatalf("%s is %q, %v", name, data, err)
	}
	return component.MustParseVersion(strings.Fields(string(data))[1])
}

// Running is the version that a unit's process was started from; "" when none runs.
func (w *World) Running(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.running[name+".service"]
	if p == nil || p.dead {
		return ""
	}
	return strings.Fields(p.content)[1]
}

// Instance is the version that an instance of prom runs.
func (w *World) Instance(i string) string { return w.Running("prom@" + i) }

// PID is that of a unit's process; 0 when none runs.
func (w *World) PID(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.running[name+".service"]; p != nil && !p.dead {
		return p.pid
	}
	return 0
}

// CrashOnce has a unit's process crash and be restarted by its manager.
func (w *World) CrashOnce(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[name+".service"].restarts++
}

// Kill ends the processes of instances of prom, as kill -9 does.
func (w *World) Kill(instances ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range instances {
		w.running["prom@"+i+".service"].dead = true
	}
}

func (w *World) now() time.Time {
	if w.Now != nil {
		return w.Now()
	}
	return time.Now()
}

// Engine makes an engine on this world.
func (w *World) Engine(guard hostfs.Guard) *run.Engine {
	host := &hostfs.Host{Guard: guard, SyncFS: w.SyncFS}
	now, wait, retain := w.now, w.Wait, w.Retain
	if wait == 0 {
		wait = time.Second
	}
	if retain == 0 {
		retain = 5
	}
	books := &run.Books{Root: w.Root, Host: host, Now: now, Retain: retain, RetainRuns: w.RetainRuns}
	if w.Rebuild {
		books.Rebuild = w.rebuildState
	}
	e := &run.Engine{
		Root: w.Root, Host: host, Services: w, Prober: &health.Prober{Services: w, Patience: min(wait, 50*time.Millisecond)}, Recorder: books,
		Timeouts: run.Timeouts{Stop: wait, Start: wait, Health: wait, Compare: min(wait, 50*time.Millisecond)},
		Now:      now, Logger: slog.New(slog.DiscardHandler),
	}
	if w.Balancer != nil {
		e.Balancer = func(_ component.Balancer, server string) (balancer.Balancer, error) {
			return w.Balancer.of(server), nil
		}
	}
	return e
}

// Snapshot is what a world has besides its files.
type Snapshot struct {
	running  map[string]proc
	pids     int
	admitted map[string]bool
	open     map[string]int
	kept     map[string]attributes
}

// Units are those that run.
func (s Snapshot) Units() []string {
	var units []string
	for unit, p := range s.running {
		if !p.dead {
			units = append(units, unit)
		}
	}
	slices.Sort(units)
	return units
}

// Snapshot takes one. It may be called by Changed.
func (w *World) Snapshot() Snapshot {
	s := Snapshot{running: map[string]proc{}, pids: w.pids, kept: maps.Clone(w.kept)}
	for unit, p := range w.running {
		s.running[unit] = *p
	}
	if w.Balancer != nil {
		s.admitted, s.open = maps.Clone(w.Balancer.Admitted), maps.Clone(w.Balancer.open)
	}
	return s
}

// Restore makes services and balancer what they were, and forgets what went wrong.
func (w *World) Restore(s Snapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running, w.pids, w.kept, w.Wrong, w.Stops = map[string]*proc{}, s.pids, map[string]attributes{}, nil, 0
	maps.Copy(w.kept, s.kept)
	for unit, p := range s.running {
		w.running[unit] = &p
	}
	if w.Balancer != nil {
		w.Balancer.restore(s)
	}
}

// PowerOff ends all processes of this host.
func (w *World) PowerOff() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.running)
	if w.Balancer != nil {
		w.Balancer.forget()
	}
}

// Boot starts units, as their manager does when the host comes up. One that cannot
// be started stays as it is.
func (w *World) Boot(ctx context.Context, units []string) {
	for _, unit := range units {
		_ = w.Start(ctx, service.Service{Unit: unit})
	}
}
