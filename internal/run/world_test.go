package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// world is a host in a temporary directory: files are real, the services are
// played. A service "runs" the content its executable had when it was started;
// that content is "NAME VERSION" with words that make it misbehave.
type world struct {
	t    *testing.T
	root layout.Root

	mu      sync.Mutex
	running map[string]*proc // by unit
	pids    int
	stops   int
	server  *httptest.Server
	lb      *fakeBalancer // nil: no instances
	wrong   []string      // what must never happen, and did
}

type proc struct {
	pid     int
	content string
	started time.Time
	dead    bool

	restarts int // by itself, since it was started
}

// Words in an executable's content and what they make it do.
const (
	wordNoStart  = "nostart"  // its start fails
	wordNotReady = "notready" // it runs, but never answers that it is ready
	wordDies     = "dies"     // it is ready once, then its process ends
	wordForgets  = "forgets"  // it is ready, and answers as if it had no data
)

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

// data is where a unit keeps its data.
func (w *world) data(unit string) string {
	return w.root.Path("var/lib", strings.TrimSuffix(unit, ".service"))
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, root: layout.Root(tempDir(t)), running: map[string]*proc{}}
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.server.Close)
	return w
}

// tempDir is in memory where it can be: these tests sync thousands of times.
func tempDir(t *testing.T) string {
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

func (w *world) serve(rw http.ResponseWriter, req *http.Request) {
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
		if has(p.content, name, wordDies) {
			p.dead = true
		}
		return
	}
	if strings.HasSuffix(req.URL.Path, "/samples") {
		samples, _ := os.ReadFile(filepath.Join(w.data(name), "samples"))
		if has(p.content, name, wordForgets) {
			samples = nil
		}
		fmt.Fprintf(rw, "samples %d\n", len(samples))
		return
	}
	if has(p.content, name, wordNotReady) {
		http.Error(rw, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(rw, "ready")
}

func (w *world) bin(name string) string { return w.root.Path("usr/local/bin", name) }

// Status, Start, Stop, Logs and DaemonReload play the service manager.
func (w *world) Status(_ context.Context, s service.Service) (service.Status, error) {
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
		st.ExecPath, st.Restarts = w.bin(program(s.Unit)), p.restarts
	}
	return st, nil
}

func (w *world) Start(_ context.Context, s service.Service) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.running[s.Unit]; p != nil && !p.dead {
		return nil
	}
	data, err := os.ReadFile(w.bin(program(s.Unit)))
	if err != nil {
		return err
	}
	w.touchData(s.Unit, string(data))
	if has(string(data), s.Unit, wordNoStart) {
		w.running[s.Unit] = &proc{content: string(data), dead: true}
		return errors.New("main process exited, code=exited, status=2")
	}
	w.pids++
	w.running[s.Unit] = &proc{pid: w.pids, content: string(data), started: time.Now()}
	return nil
}

// touchData has a program that starts write its format into its data, and notes
// when an old one starts on what a new one wrote.
func (w *world) touchData(unit, content string) {
	format := filepath.Join(w.data(unit), "format")
	have, err := os.ReadFile(format)
	if err != nil {
		return // it keeps no data here
	}
	version := component.MustParseVersion(strings.Fields(content)[1])
	if wrote := component.MustParseVersion(strings.TrimSpace(string(have))); version.Less(wrote) {
		w.wrong = append(w.wrong, fmt.Sprintf("%s started on the data of %s", version, wrote))
	}
	if err := os.WriteFile(format, []byte(version.String()), 0o644); err != nil {
		w.t.Error(err)
	}
}

func (w *world) Stop(_ context.Context, s service.Service, _ time.Duration) (service.StopResult, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stops++
	if w.lb != nil && w.lb.takesTraffic(s.Unit) && w.running[s.Unit] != nil && !w.running[s.Unit].dead {
		w.wrong = append(w.wrong, s.Unit+" was stopped while it took traffic")
	}
	delete(w.running, s.Unit)
	return service.StopResult{}, nil
}

func (w *world) Restart(ctx context.Context, s service.Service, timeout time.Duration) error {
	if _, err := w.Stop(ctx, s, timeout); err != nil {
		return err
	}
	return w.Start(ctx, s)
}

func (w *world) DaemonReload(context.Context) error { return nil }

func (w *world) Usage(context.Context, service.Service) (service.Usage, error) {
	return service.Usage{}, errors.New("not accounted for")
}

func (w *world) Logs(context.Context, service.Service, time.Time, int) ([]service.LogLine, error) {
	return []service.LogLine{{Priority: 6, Message: "a line"}}, nil
}

// install puts a component at a version, running, with its configuration.
func (w *world) install(name, version string) {
	w.t.Helper()
	for path, content := range map[string]string{
		w.bin(name): name + " " + version, w.bin(name + "tool"): name + "tool " + version,
		w.root.Path("etc", name, "config.yml"): "config of " + version + "\n",
	} {
		w.write(path, content, 0o755)
	}
	if err := w.Start(context.Background(), service.Service{Unit: name + ".service"}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(path, content string, mode fs.FileMode) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		w.t.Fatal(err)
	}
}

// upgrade makes a request that brings components to new contents.
func (w *world) upgrade(to map[string]string, order ...string) Request {
	w.t.Helper()
	var contents []string
	for _, name := range order {
		contents = append(contents, to[name])
	}
	return w.steps(contents...)
}

// steps makes a request of contents in their order; a component may come again.
func (w *world) steps(contents ...string) Request {
	w.t.Helper()
	req := Request{Operation: Apply, Trigger: "manual", Plan: map[string]string{"note": "a plan"}}
	at := map[string]component.Version{}
	placed := map[string]string{}
	for _, content := range contents {
		words := strings.Fields(content)
		name := words[0]
		from, again := at[name]
		if !again {
			from = w.version(name)
		}
		at[name] = component.MustParseVersion(words[1])
		staged := w.root.Path("tmp/observability-upgrade", name+"-"+words[1])
		w.write(filepath.Join(staged, name), content, 0o755)
		w.write(filepath.Join(staged, name+"tool"), name+"tool "+words[1], 0o755)
		req.StagingDirs = append(req.StagingDirs, staged)
		ch := Change{
			Component: name, From: from, To: component.MustParseVersion(words[1]), WasActive: true,
			Service: service.Service{Name: name, Unit: name + ".service"}, Executable: w.bin(name), RunsBinary: true,
			Binaries: map[string]string{name: w.bin(name), name + "tool": w.bin(name + "tool")},
			Health: Health{Spec: health.Spec{Health: component.Health{
				URL: w.server.URL + "/" + name + "/-/ready", MetricsURL: w.server.URL + "/" + name + "/metrics",
				ExpectedMetric: name + "_build_info", Timeout: component.Duration(60 * time.Millisecond), Settle: component.Duration(time.Millisecond),
			}}},
			Signature: &state.SignatureVerified{Type: "gpg", Key: "K", Version: words[1]},
		}
		for _, b := range []string{name, name + "tool"} {
			old, err := hostfs.Digest(w.bin(b))
			if err != nil {
				w.t.Fatal(err)
			}
			if sum, ok := placed[b]; ok {
				old = sum
			}
			fresh, err := hostfs.Digest(filepath.Join(staged, b))
			if err != nil {
				w.t.Fatal(err)
			}
			placed[b] = fresh
			ch.Swaps = append(ch.Swaps, Swap{
				Kind: backup.Binary, Name: b, Path: w.bin(b), Source: filepath.Join(staged, b), Beside: hostfs.Beside(w.bin(b), "new"), Old: old, New: fresh,
			})
		}
		req.Changes = append(req.Changes, ch)
		if again {
			continue
		}
		req.Subjects = append(req.Subjects, backup.Subject{
			Name: name, Version: ch.From.String(), Configs: []string{w.root.Path("etc", name)},
			Binaries: []backup.Source{{Name: name, Path: w.bin(name)}, {Name: name + "tool", Path: w.bin(name + "tool")}},
		})
	}
	return req
}

// version is what the installed binary says.
func (w *world) version(name string) component.Version {
	w.t.Helper()
	data, err := os.ReadFile(w.bin(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return component.MustParseVersion(strings.Fields(string(data))[1])
}

func (w *world) runningVersion(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.running[name+".service"]
	if p == nil || p.dead {
		return ""
	}
	return strings.Fields(p.content)[1]
}

func (w *world) engine(guard hostfs.Guard) *Engine {
	host := &hostfs.Host{Guard: guard}
	e := &Engine{
		Root: w.root, Host: host, Services: w, Prober: &health.Prober{Services: w},
		Recorder: &Books{Root: w.root, Host: host, Now: time.Now, Retain: 5},
		Timeouts: Timeouts{Stop: time.Second, Start: time.Second, Health: time.Second, Compare: 50 * time.Millisecond},
		Now:      time.Now, Logger: slog.New(slog.DiscardHandler),
	}
	if w.lb != nil {
		e.Balancer = func(_ component.Balancer, server string) (balancer.Balancer, error) { return w.lb.of(server), nil }
	}
	return e
}

// crashAt fails the n-th effect (from 1) and everything after it, as if the
// process had been killed there. It reports how many effects were asked for.
type crashAt struct {
	mu    sync.Mutex
	n     int
	count int
	op    string
}

func (c *crashAt) guard(op, target string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	if c.n > 0 && c.count >= c.n {
		if c.op == "" {
			c.op = op + " " + filepath.Base(target)
		}
		return hostfs.ErrCrashed
	}
	return nil
}

func (c *crashAt) crashed() bool { return c.op != "" }

// whole asserts the promises of docs/reference.md for the components, each
// of which must be at one of the versions given, and returns where each is.
func (w *world) whole(what string, allowed map[string][]string) map[string]string {
	w.t.Helper()
	at := map[string]string{}
	f, stateErr := state.Load(w.root.State())
	db, err := history.OpenReadOnly(context.Background(), w.root.History())
	if err != nil {
		w.t.Fatalf("%s: history: %v", what, err)
	}
	defer db.Close()
	for name, versions := range allowed {
		v := w.version(name).String()
		at[name] = v
		if !contains(versions, v) {
			w.t.Fatalf("%s: %s is at %s, want one of %v", what, name, v, versions)
		}
		tool, err := os.ReadFile(w.bin(name + "tool"))
		if err != nil || string(tool) != name+"tool "+v {
			w.t.Fatalf("%s: half state: %s is %s, its tool is %q (%v)", what, name, v, tool, err)
		}
		if got := w.runningVersion(name); got != v {
			w.t.Fatalf("%s: %s: binary %s, running %q", what, name, v, got)
		}
		rows, err := db.List(context.Background(), history.Filter{Components: []string{name}, Status: history.Success})
		if err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
		recorded := versions[0] // the old version: what it is when nothing was recorded
		if len(rows) > 0 {
			recorded = rows[0].NewVersion
		}
		if recorded != v {
			w.t.Fatalf("%s: %s is at %s, its history says %s", what, name, v, recorded)
		}
		if stateErr == nil {
			if c := f.Components[name]; c.CurrentVersion != "" && c.CurrentVersion != v {
				w.t.Fatalf("%s: %s is at %s, the state file says %s", what, name, v, c.CurrentVersion)
			}
			if s := f.Components[name].SignatureVerified; recorded != versions[0] && (s == nil || s.Version != v) {
				w.t.Fatalf("%s: %s is at %s, which was verified by a signature, the state file says %v", what, name, v, s)
			}
		} else if !errors.Is(stateErr, fs.ErrNotExist) {
			w.t.Fatalf("%s: state: %v", what, stateErr)
		}
	}
	if p, err := journal.Pending(w.root.JournalDir()); err != nil || len(p) > 0 {
		w.t.Fatalf("%s: journal still open: %v %v", what, p, err)
	}
	left, err := filepath.Glob(w.root.Path("usr/local/bin", ".*"))
	if err != nil || len(left) > 0 {
		w.t.Fatalf("%s: left beside the binaries: %v %v", what, left, err)
	}
	points, err := backup.List(w.root.Backups())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range points {
		if err := backup.Verify(context.Background(), p); err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
	}
	return at
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
