package process

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/service/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

func newManager(t *testing.T) *Manager {
	t.Helper()
	dir := t.TempDir()
	m := New(Options{Dir: filepath.Join(dir, "process"), LogDir: filepath.Join(dir, "log")})
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// define cleans up with a manager of its own, as another process would.
func define(t *testing.T, m *Manager, d servicetest.Definition) service.Service {
	t.Helper()
	s := service.Service{Name: d.Name, Command: d.Command, Env: d.Env}
	t.Cleanup(func() {
		other := New(Options{Dir: m.dir, LogDir: m.logDir})
		defer other.Close()
		if _, err := other.Stop(context.WithoutCancel(t.Context()), s, 0); err != nil {
			t.Error(err)
		}
	})
	return s
}

func serveDefinition(t *testing.T, mode servicetest.Mode) servicetest.Definition {
	return servicetest.Definition{Name: "svc", Command: []string{servicetest.Program(t)}, Env: []string{servicetest.ModeEnv(mode)}}
}

func TestContract(t *testing.T) {
	servicetest.Run(t, func(t *testing.T) *servicetest.Fixture {
		m := newManager(t)
		return &servicetest.Fixture{
			Manager: m,
			Define:  func(t *testing.T, d servicetest.Definition) service.Service { return define(t, m, d) },
			Missing: service.Service{Name: "missing"},
		}
	})
}

func start(t *testing.T, m *Manager, s service.Service) service.Status {
	t.Helper()
	if err := m.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	servicetest.AwaitLog(t, m, s, "ready")
	st, err := m.Status(t.Context(), s)
	if err != nil || !st.Active {
		t.Fatalf("%+v, %v, expected an active service", st, err)
	}
	return st
}

// rewrite changes a service's record as a crash or another boot would have.
func rewrite(t *testing.T, m *Manager, name string, change func(*record)) {
	t.Helper()
	r, err := m.load(name)
	if err != nil {
		t.Fatal(err)
	}
	change(&r)
	if err := m.save(r); err != nil {
		t.Fatal(err)
	}
}

// A number that now belongs to another process must never be taken for ours.
func TestReusedNumber(t *testing.T) {
	for name, change := range map[string]func(r *record, self proc){
		"other start time": func(r *record, self proc) { r.PID, r.Ticks = self.pid, self.ticks-1 },
		"other boot": func(r *record, self proc) {
			r.PID, r.Ticks, r.BootID = self.pid, self.ticks, "00000000-0000-0000-0000-000000000000"
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			stranger := define(t, m, servicetest.Definition{Name: "stranger", Command: []string{servicetest.Program(t)}, Env: []string{servicetest.ModeEnv(servicetest.Serve)}})
			pid := start(t, m, stranger).MainPID
			p, err := readStat(pid)
			if err != nil {
				t.Fatal(err)
			}
			s := define(t, m, serveDefinition(t, servicetest.Serve))
			start(t, m, s)
			if _, err := m.Stop(t.Context(), s, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			rewrite(t, m, s.Name, func(r *record) { r.Stopped = false; change(r, p) })
			if st, err := m.Status(t.Context(), s); err != nil || st.Active || st.MainPID != 0 {
				t.Errorf("%+v, %v, expected not running", st, err)
			}
			var idle *service.NotRunningError
			if err := m.Signal(t.Context(), s, syscall.SIGKILL); !errors.As(err, &idle) {
				t.Errorf("Signal: %v, expected a NotRunningError", err)
			}
			if _, err := m.Stop(t.Context(), s, 0); err != nil {
				t.Error(err)
			}
			if h, err := openHandle(p.pid, p.ticks-1); h != nil || err != nil {
				t.Errorf("a handle on another process: %v, %v", h, err)
			}
			if !alive(p.pid, p.ticks) {
				t.Fatal("the stranger was killed")
			}
			if got := start(t, m, s).MainPID; got == pid {
				t.Errorf("process %d twice", got)
			}
		})
	}
}

// Between fork and the second record the starter may die: the token finds what
// it started.
func TestCrashWindow(t *testing.T) {
	m := newManager(t)
	s := define(t, m, serveDefinition(t, servicetest.Family))
	pid := start(t, m, s).MainPID
	rewrite(t, m, s.Name, func(r *record) { r.PID, r.Ticks, r.PGID = 0, 0, 0 })
	next := New(Options{Dir: m.dir, LogDir: m.logDir})
	defer next.Close()
	st, err := next.Status(t.Context(), s)
	if err != nil || !st.Active || st.MainPID != pid {
		t.Fatalf("%+v, %v, expected process %d", st, err, pid)
	}
	if err := next.Start(t.Context(), s); err != nil {
		t.Error(err)
	}
	if res, err := next.Stop(t.Context(), s, 10*time.Second); err != nil || !res.Forced {
		t.Errorf("%+v, %v, expected its children to be killed", res, err)
	}
	if left, err := members(pid, "", nil); err != nil || len(left) > 0 {
		t.Errorf("%v, %v, expected nothing left", left, err)
	}
}

// An intent record whose process never came to be is a failed start, and no
// hindrance to the next.
func TestIntentOnly(t *testing.T) {
	m := newManager(t)
	s := define(t, m, serveDefinition(t, servicetest.Serve))
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.save(record{Name: s.Name, BootID: boot, Token: strings.Repeat("ab", 16), Command: s.Command}); err != nil {
		t.Fatal(err)
	}
	if st, err := m.Status(t.Context(), s); err != nil || st.Active || !st.Failed {
		t.Errorf("%+v, %v, expected failed", st, err)
	}
	start(t, m, s)
}

// When the main process died alone, what it started is in the way of the next
// start.
func TestLeftovers(t *testing.T) {
	m := newManager(t)
	s := define(t, m, serveDefinition(t, servicetest.Family))
	pid := start(t, m, s).MainPID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r, err := m.load(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	servicetest.Await(t, "failed state with its reason", func() bool {
		st, err := m.Status(t.Context(), s)
		return err == nil && st.Failed && st.Result == "signal: killed"
	})
	if left, err := members(0, r.Token, nil); err != nil || len(left) != 2 {
		t.Fatalf("%v, %v, expected 2 children", left, err)
	}
	start(t, m, s)
	if left, err := members(0, r.Token, nil); err != nil || len(left) != 0 {
		t.Errorf("%v, %v, expected the earlier start's children to be gone", left, err)
	}
}

func TestOtherCommandRuns(t *testing.T) {
	m := newManager(t)
	s := define(t, m, serveDefinition(t, servicetest.Serve))
	start(t, m, s)
	s.Command = append(slices.Clone(s.Command), "-other")
	var refused *service.StartError
	if err := m.Start(t.Context(), s); !errors.As(err, &refused) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("%v, expected a StartError", err)
	}
}

// A service outlives its manager, which leaves no goroutine behind.
func TestClose(t *testing.T) {
	defer goleak.VerifyNone(t)
	m := newManager(t)
	s := define(t, m, serveDefinition(t, servicetest.Serve))
	pid := start(t, m, s).MainPID
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !servicetest.Alive(pid) {
		t.Fatal("the service ended with its manager")
	}
	goleak.VerifyNone(t)
	next := New(Options{Dir: m.dir, LogDir: m.logDir})
	defer next.Close()
	if res, err := next.Stop(t.Context(), s, 10*time.Second); err != nil || res.Forced {
		t.Errorf("%+v, %v", res, err)
	}
}

// The service gets its own session, no descriptors of ours, and a small
// environment in which its own entries win.
func TestSurroundings(t *testing.T) {
	t.Setenv("PATH", "/ours")
	t.Setenv("OURS", "secret")
	leak, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(leak)
	m := newManager(t)
	d := serveDefinition(t, servicetest.Serve)
	d.Env = append(d.Env, "PATH=/theirs", tokenVar+"=forged")
	s := define(t, m, d)
	s.Dir = t.TempDir()
	pid := start(t, m, s).MainPID
	p, err := readStat(pid)
	if err != nil || p.session != pid || p.group != pid {
		t.Errorf("%+v, %v, expected a session of its own", p, err)
	}
	proc := filepath.Join("/proc", itoa(pid))
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != s.Dir {
		t.Errorf("working directory %s, %v", cwd, err)
	}
	if in, err := os.Readlink(proc + "/fd/0"); err != nil || in != os.DevNull {
		t.Errorf("standard input %s, %v", in, err)
	}
	entries, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink(proc + "/fd/" + e.Name()); err == nil && target == os.DevNull && e.Name() != "0" {
			t.Errorf("descriptor %s is %s: inherited", e.Name(), target)
		}
	}
	data, err := os.ReadFile(proc + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	env := strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
	r, err := m.load(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, e := range env {
		if strings.HasPrefix(e, "PATH=") || strings.HasPrefix(e, "OURS=") || strings.HasPrefix(e, nameVar+"=") || strings.HasPrefix(e, tokenVar+"=") {
			ours = append(ours, e)
		}
	}
	if want := []string{"PATH=/theirs", nameVar + "=svc", tokenVar + "=" + r.Token}; !slices.Equal(ours, want) {
		t.Errorf("environment %q, expected %q", ours, want)
	}
}

func TestExecutable(t *testing.T) {
	m := newManager(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho ready\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Skip(err)
	}
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		command []string
		remove  bool
		path    string
		deleted bool
	}{
		{"script", []string{script}, false, script, false},
		{"program", []string{program, "600"}, false, program, false},
		{"removed", []string{program, "600"}, true, program, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := define(t, m, servicetest.Definition{Name: c.name, Command: c.command})
			if err := m.Start(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if c.remove {
				if err := os.Remove(c.command[0]); err != nil {
					t.Fatal(err)
				}
			}
			if st, err := m.Status(t.Context(), s); err != nil || st.ExecPath != c.path || st.ExecDeleted != c.deleted {
				t.Errorf("%+v, %v, expected %s, deleted %v", st, err, c.path, c.deleted)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	m := newManager(t)
	s := define(t, m, serveDefinition(t, servicetest.Serve))
	if err := os.MkdirAll(m.logDir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := m.LogPath(s.Name)
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxLog+1); err != nil {
		t.Fatal(err)
	}
	start(t, m, s)
	if st, err := os.Stat(path + ".1"); err != nil || st.Size() != maxLog+1 {
		t.Errorf("%v, %v, expected the old log", st, err)
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 1000 || st.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v, expected a new log with mode 0640", st, err)
	}
	if _, err := m.Stop(t.Context(), s, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", path); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), s); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("%v, expected a refusal to log to a link", err)
	}
}

func TestLongLog(t *testing.T) {
	m := newManager(t)
	if err := os.MkdirAll(m.logDir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "early\n" + strings.Repeat(strings.Repeat("x", 99)+"\n", maxRead/100+10) + "bad \xff\n\nlast"
	if err := os.WriteFile(m.LogPath("svc"), []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	lines, err := m.logSince("svc", 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(lines); n < maxRead/100-10 || lines[n-1].Message != "last" || lines[n-2].Message != "bad \uFFFD" || len(lines[0].Message) != 99 {
		t.Errorf("%d lines from %q to %q", n, lines[0].Message, lines[n-1].Message)
	}
	if lines, err = m.logSince("svc", int64(len(text)-4), 10); err != nil || len(lines) != 1 {
		t.Errorf("%v, %v, expected the last line", lines, err)
	}
	if lines, err = m.logSince("svc", 1<<40, 2); err != nil || len(lines) != 2 {
		t.Errorf("%v, %v, expected the end of a truncated log", lines, err)
	}
}

func TestRefusals(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		s    service.Service
		want string
	}{
		{service.Service{Name: "a", Command: []string{"bin/prometheus"}}, "relative path"},
		{service.Service{Name: "a", Command: []string{"surely-not-in-path"}}, "executable file not found"},
		{service.Service{Name: "a", Command: []string{"/bin/true"}, Dir: "/nonexistent"}, "working directory /nonexistent"},
		{service.Service{Name: "../a", Command: []string{"/bin/true"}}, "cannot name a service"},
		{service.Service{Name: "", Command: []string{"/bin/true"}}, "cannot name a service"},
		{service.Service{Name: "a"}, "process.command"},
	} {
		if err := m.Start(t.Context(), c.s); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, expected %q", c.s, err, c.want)
		}
	}
}

func TestBrokenRecord(t *testing.T) {
	m := newManager(t)
	s := service.Service{Name: "svc", Command: []string{"/bin/true"}}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut": `{"name":"svc","pid":12`, "of another": `{"name":"other"}`,
		"token":         `{"name":"svc","boot_id":"b","token":"xyz"}`,
		"no start time": `{"name":"svc","boot_id":"b","token":"` + strings.Repeat("0", 32) + `","pid":77}`,
		"init":          `{"name":"svc","boot_id":"b","token":"` + strings.Repeat("0", 32) + `","pid":1,"start_ticks":3}`,
	} {
		if err := os.WriteFile(m.recordPath("svc"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := m.Status(t.Context(), s)
		if startErr := m.Start(t.Context(), s); err == nil || startErr == nil || !strings.Contains(err.Error(), m.recordPath("svc")) {
			t.Errorf("%s: %v and %v, expected errors naming the file", name, err, startErr)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"name":"svc","pid":5,"start_ticks":9,"boot_id":"b","token":"00112233445566778899aabbccddeeff"}`))
	f.Add([]byte(`{"pid":-1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data, "svc")
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRecord(again, "svc"); err != nil {
			t.Errorf("%s became %s: %v", data, again, err)
		}
	})
}

// A service that takes its time to end, and whose stop was cut off, is ended before
// it is started: else it would be gone a moment after it was found running.
func TestStartAfterAStopThatWasCutOff(t *testing.T) {
	m := newManager(t)
	s := define(t, m, servicetest.Definition{Name: "svc", Command: []string{"/bin/sh", "-c", "trap 'sleep 1; exit 0' TERM; echo ready; while :; do sleep 0.1; done"}})
	was := start(t, m, s)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Stop(ctx, s, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	other := New(Options{Dir: m.dir, LogDir: m.logDir}) // that of the recovery
	defer other.Close()
	if st, err := other.Status(t.Context(), s); err != nil || st.Active || st.MainPID != was.MainPID {
		t.Errorf("%+v, %v, expected process %d on its way down", st, err, was.MainPID)
	}
	if is := start(t, other, s); is.MainPID == was.MainPID || servicetest.Alive(was.MainPID) {
		t.Errorf("process %d became %d", was.MainPID, is.MainPID)
	}
}
