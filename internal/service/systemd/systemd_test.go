package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// These tests need root in a container whose first process is systemd, and are
// skipped elsewhere, so that nobody's own machine is changed. TestPackagesInContainer
// of test/e2e runs them:
//
//	go test -count=1 -run TestPackagesInContainer ./test/e2e

func TestMain(m *testing.M) { servicetest.Main(m) }

const unitDir = "/run/systemd/system"

func newManager(t *testing.T) *Manager {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes units")
	}
	if comm, err := os.ReadFile("/proc/1/comm"); err != nil || strings.TrimSpace(string(comm)) != "systemd" {
		t.Skip("needs systemd as the first process")
	}
	if _, err := os.Stat("/run/systemd/container"); err != nil {
		t.Skip("runs in a container only: it adds units to the host")
	}
	m, err := New(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// install makes a unit of the given text and removes it after the test.
func install(t *testing.T, m *Manager, name, text string) service.Service {
	t.Helper()
	s := service.Service{Name: name, Unit: name + ".service"}
	path := filepath.Join(unitDir, s.Unit)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := m.Stop(ctx, s, 0); err != nil {
			t.Error(err)
		}
		if err := errors.Join(os.RemoveAll(path), os.RemoveAll(path+".d"), m.DaemonReload(ctx)); err != nil {
			t.Error(err)
		}
	})
	write(t, m, path, text)
	return s
}

func write(t *testing.T, m *Manager, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.DaemonReload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// text is a unit that runs the test service, with further lines of [Service].
func text(t *testing.T, mode servicetest.Mode, more ...string) string {
	return fmt.Sprintf("[Service]\nExecStart=%s\nEnvironment=%s\n%s\n", servicetest.Program(t), servicetest.ModeEnv(mode), strings.Join(more, "\n"))
}

func TestContract(t *testing.T) {
	newManager(t)
	servicetest.Run(t, func(t *testing.T) *servicetest.Fixture {
		m := newManager(t)
		return &servicetest.Fixture{
			Manager: m, Restarts: true, Missing: service.Service{Name: "missing", Unit: "surely-missing.service"},
			Define: func(t *testing.T, d servicetest.Definition) service.Service {
				unit := "[Service]\nExecStart=" + strings.Join(d.Command, " ") + "\n"
				for _, e := range d.Env {
					unit += "Environment=" + e + "\n"
				}
				if d.RestartsAlways {
					unit += "Restart=always\nRestartSec=10ms\n[Unit]\nStartLimitIntervalSec=0\n"
				}
				return install(t, m, d.Name, unit)
			},
			Mask: func(t *testing.T, s service.Service) {
				path := filepath.Join(unitDir, s.Unit)
				if err := errors.Join(os.Remove(path), os.Symlink(os.DevNull, path), m.DaemonReload(t.Context())); err != nil {
					t.Fatal(err)
				}
			},
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
		t.Fatalf("%+v, %v, expected an active unit", st, err)
	}
	return st
}

// Whatever the unit says about stopping, nothing is left after Stop.
func TestStopSettings(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		name    string
		mode    servicetest.Mode
		more    []string
		timeout time.Duration
		most    time.Duration
		forced  bool
	}{
		{"systemd kills first", servicetest.Stubborn, []string{"TimeoutStopSec=300ms"}, 20 * time.Second, 8 * time.Second, true},
		{"we kill first", servicetest.Stubborn, []string{"TimeoutStopSec=60s", "Restart=always"}, 300 * time.Millisecond, 8 * time.Second, true},
		{"SIGKILL forbidden", servicetest.Stubborn, []string{"SendSIGKILL=no", "TimeoutStopSec=300ms"}, 20 * time.Second, 8 * time.Second, true},
		{"KillMode=process", servicetest.Family, []string{"KillMode=process"}, 20 * time.Second, 8 * time.Second, true},
		{"KillMode=mixed", servicetest.Family, []string{"KillMode=mixed"}, 20 * time.Second, 8 * time.Second, false},
		{"KillMode=none", servicetest.Family, []string{"KillMode=none"}, 500 * time.Millisecond, 8 * time.Second, true},
		{"ExecStop hangs", servicetest.Serve, []string{"ExecStop=/bin/sleep 60"}, 300 * time.Millisecond, 8 * time.Second, true},
		{"ExecStopPost hangs", servicetest.Serve, []string{"ExecStopPost=/bin/sleep 60"}, 300 * time.Millisecond, 8 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := install(t, m, "svctest-stop", text(t, c.mode, c.more...))
			start(t, m, s)
			u, err := m.look(t.Context(), s.Unit)
			if err != nil {
				t.Fatal(err)
			}
			group := u.str("ControlGroup")
			if pids, err := m.processes(group); err != nil || len(pids) == 0 {
				t.Fatalf("control group %q: %v, %v, expected processes", group, pids, err)
			}
			res, err := m.Stop(t.Context(), s, c.timeout)
			if err != nil || res.Forced != c.forced || res.Took > c.most {
				t.Errorf("%+v, %v, expected forced %v within %v", res, err, c.forced, c.most)
			}
			if pids, err := m.processes(group); err != nil || len(pids) > 0 {
				t.Errorf("%v, %v are left", pids, err)
			}
			if st, err := m.Status(t.Context(), s); err != nil || st.Failed || st.Active || st.Activating {
				t.Errorf("%+v, %v, expected inactive", st, err)
			}
		})
	}
}

func TestStartKinds(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		name, text string
		err        string // part of the StartError, "" for success
		active     bool
	}{
		{"oneshot", "[Service]\nType=oneshot\nExecStart=/bin/true\n", "", false},
		{"oneshot stays", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n", "", true},
		{"oneshot fails", "[Service]\nType=oneshot\nExecStart=/bin/false\n", "job failed: exit-code, exit status 1", false},
		{"exec", text(t, servicetest.Serve, "Type=exec"), "", true},
		{"ends well at once", "[Service]\nExecStart=/bin/true\n", "ended at once", false},
		{"ends well at once and remains", "[Service]\nRemainAfterExit=yes\nExecStart=/bin/true\n", "active (exited)", false},
		{"ends and is restarted", "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=60s\n", "exit status 1", false},
		{"no such user", text(t, servicetest.Serve, "User=surely-missing"), "User= does not exist", false},
		{"no such directory", text(t, servicetest.Serve, "WorkingDirectory=/surely/missing"), "WorkingDirectory= is missing", false},
		{"condition", "[Unit]\nConditionPathExists=/surely/missing\n" + text(t, servicetest.Serve), "unmet condition check (ConditionPathExists=/surely/missing)", false},
		{"dependency", "[Unit]\nRequires=surely-missing.service\nAfter=surely-missing.service\n" + text(t, servicetest.Serve), "surely-missing.service", false},
		{"never ready", text(t, servicetest.Serve, "Type=notify", "TimeoutStartSec=300ms"), "timeout", false},
		{"killed", "[Service]\nExecStart=/bin/sh -c 'kill -SEGV $$$$'\n", "SIGSEGV", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := install(t, m, "svctest-kind", c.text)
			err := m.Start(t.Context(), s)
			var failed *service.StartError
			var missing *service.NotFoundError
			switch {
			case c.err == "" && err != nil:
				t.Fatal(err)
			case c.err != "" && !errors.As(err, &failed) && !errors.As(err, &missing):
				t.Fatalf("%v, expected a StartError", err)
			case c.err != "" && !strings.Contains(err.Error(), c.err):
				t.Errorf("%v, expected %q", err, c.err)
			}
			if st, err := m.Status(t.Context(), s); err != nil || st.Active != c.active {
				t.Errorf("%+v, %v, expected active %v", st, err, c.active)
			}
		})
	}
}

// A start between two automatic restarts must not wait for the next.
func TestStartWhileWaitingToRestart(t *testing.T) {
	m := newManager(t)
	flag := filepath.Join(t.TempDir(), "flag")
	s := install(t, m, "svctest-waiting", "[Service]\nExecStart=/bin/sh -c 'test -e "+flag+" && echo ready && exec sleep 600'\nRestart=always\nRestartSec=300s\n")
	if err := m.Start(t.Context(), s); err == nil {
		t.Fatal("it started without its flag")
	}
	if st, err := m.Status(t.Context(), s); err != nil || !st.Activating || st.SubState != "auto-restart" {
		t.Fatalf("%+v, %v, expected auto-restart", st, err)
	}
	if err := os.WriteFile(flag, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := m.Start(ctx, s); err != nil {
		t.Fatal(err)
	}
	if st, err := m.Status(ctx, s); err != nil || !st.Active || st.Restarts != 0 {
		t.Errorf("%+v, %v, expected active without a restart of its own", st, err)
	}
}

// A unit that ran into its start limit starts at once when a person asks.
func TestStartLimit(t *testing.T) {
	m := newManager(t)
	s := install(t, m, "svctest-limit", text(t, servicetest.Exit, "Restart=always", "RestartSec=1ms", "[Unit]", "StartLimitIntervalSec=1h", "StartLimitBurst=3"))
	if err := m.Start(t.Context(), s); err == nil {
		t.Fatal("it started")
	}
	servicetest.Await(t, "start limit", func() bool {
		st, err := m.Status(t.Context(), s)
		return err == nil && st.Failed
	})
	write(t, m, filepath.Join(unitDir, s.Unit), text(t, servicetest.Serve, "[Unit]", "StartLimitIntervalSec=1h", "StartLimitBurst=3"))
	start(t, m, s)
}

// The last words of a process that fails before journald looks at it are kept: by
// then systemd has forgotten to which start of the unit they belong.
func TestLastWords(t *testing.T) {
	m := newManager(t)
	s := install(t, m, "svctest-words", "[Service]\nExecStart=/bin/sh -c 'echo I will not >&2; exit 1'\n")
	journald, err := m.look(t.Context(), "systemd-journald.service")
	if err != nil || journald.mainPID() == 0 {
		t.Fatalf("%+v, %v, expected a journald that runs", journald, err)
	}
	signal := func(sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(journald.mainPID(), sig); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the second finds the lines of the first
		signal(syscall.SIGSTOP)
		if out, err := exec.CommandContext(t.Context(), "systemctl", "start", "--no-block", s.Unit).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		servicetest.Await(t, "the failure", func() bool {
			st, err := m.Status(t.Context(), s)
			return err == nil && st.Failed
		})
		signal(syscall.SIGCONT)
		lines, err := m.Logs(t.Context(), s, time.Time{}, 0)
		words := 0
		for _, l := range lines {
			if l.Message == "I will not" {
				words++
			}
		}
		if err != nil || words != 1 {
			t.Errorf("%v, %v, expected the process's words once", lines, err)
		}
		if out, err := exec.CommandContext(t.Context(), "systemctl", "reset-failed", s.Unit).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// What a process that its manager replaced said last is there for who asks since when.
func TestLogsSince(t *testing.T) {
	m := newManager(t)
	flag := filepath.Join(t.TempDir(), "flag")
	s := install(t, m, "svctest-since", "[Service]\nRestart=always\nRestartSec=10ms\nExecStart=/bin/sh -c 'mkdir "+flag+" || { echo second; exec sleep 600; }; echo first; sleep 0.3; exit 3'\n")
	began := time.Now()
	if err := m.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	servicetest.AwaitLog(t, m, s, "second")
	for _, c := range []struct {
		since time.Time
		want  []string
	}{{time.Time{}, []string{"second"}}, {began, []string{"first", "status=3/", "second"}}} {
		lines, err := m.Logs(t.Context(), s, c.since, 0)
		var got []string
		for _, l := range lines {
			for _, word := range []string{"first", "status=3/", "second"} {
				if strings.Contains(l.Message, word) {
					got = append(got, word)
				}
			}
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("since %v: %q, %v, expected %q, in %v", c.since, got, err, c.want, lines)
		}
	}
}

func TestStatusFields(t *testing.T) {
	m := newManager(t)
	s := install(t, m, "svctest-fields", text(t, servicetest.Serve, "User=root"))
	path := filepath.Join(unitDir, s.Unit)
	dropIn := path + ".d/10-extra.conf"
	write(t, m, dropIn, "[Service]\nExecStart=\nExecStart="+servicetest.Program(t)+" --first \"second argument\"\n")
	st := start(t, m, s)
	if st.FragmentPath != path || !slices.Equal(st.DropIns, []string{dropIn}) || st.User != "root" || st.NeedDaemonReload || len(st.InvocationID) != 32 {
		t.Errorf("%+v", st)
	}
	if want := []string{servicetest.Program(t), "--first", "second argument"}; !slices.Equal(st.ExecStart, want) {
		t.Errorf("%q, expected %q", st.ExecStart, want)
	}
	if err := os.Remove(dropIn); err != nil {
		t.Fatal(err)
	}
	if st, err := m.Status(t.Context(), s); err != nil || !st.NeedDaemonReload {
		t.Errorf("%+v, %v, expected that a daemon-reload is needed", st, err)
	}
}

// A unit that was broken, or removed, while it runs must still be stoppable:
// that is what an undo finds.
func TestBrokenWhileRunning(t *testing.T) {
	m := newManager(t)
	for name, broken := range map[string]string{"bad setting": "[Service]\nType=nonsense\n", "removed": ""} {
		t.Run(name, func(t *testing.T) {
			s := install(t, m, "svctest-broken", text(t, servicetest.Serve))
			st := start(t, m, s)
			path := filepath.Join(unitDir, s.Unit)
			if broken == "" {
				if err := errors.Join(os.Remove(path), m.DaemonReload(t.Context())); err != nil {
					t.Fatal(err)
				}
				if st, err := m.Status(t.Context(), s); err != nil || st.Exists || !st.Active {
					t.Errorf("%+v, %v, expected a missing unit that runs", st, err)
				}
			} else {
				write(t, m, path, broken)
				var load *service.LoadError
				if st, err := m.Status(t.Context(), s); !errors.As(err, &load) || load.State != "bad-setting" {
					t.Errorf("%+v, %v, expected a LoadError", st, err)
				}
				if err := m.Restart(t.Context(), s, time.Second); !errors.As(err, &load) {
					t.Errorf("Restart: %v, expected a LoadError", err)
				}
			}
			if _, err := m.Stop(t.Context(), s, 20*time.Second); err != nil {
				t.Fatal(err)
			}
			if servicetest.Alive(st.MainPID) {
				t.Error("its process is still there")
			}
		})
	}
}

func TestReload(t *testing.T) {
	m := newManager(t)
	s := install(t, m, "svctest-reload", text(t, servicetest.Serve, "ExecReload=/bin/kill -HUP $MAINPID"))
	var idle *service.NotRunningError
	if err := m.Reload(t.Context(), s); !errors.As(err, &idle) {
		t.Errorf("%v, expected a NotRunningError", err)
	}
	start(t, m, s)
	if err := m.Reload(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	servicetest.AwaitLog(t, m, s, "reloaded")
	s = install(t, m, "svctest-reload-fails", text(t, servicetest.Serve, "ExecReload=/bin/false"))
	start(t, m, s)
	if err := m.Reload(t.Context(), s); err == nil || !strings.Contains(err.Error(), "job failed") {
		t.Errorf("%v, expected the job to fail", err)
	}
}

// When the bus is restarted, or systemd is executed anew, connections break, and
// the news of a job is lost with them; the job itself goes on.
func TestReconnect(t *testing.T) {
	m := newManager(t)
	for name, disturb := range map[string]func(t *testing.T){
		"connection lost": func(t *testing.T) {
			conn, err := m.bus(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		},
		"daemon-reexec": func(t *testing.T) {
			if out, err := exec.CommandContext(t.Context(), "systemctl", "daemon-reexec").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		},
	} {
		for _, timeout := range []time.Duration{time.Second, 20 * time.Second} {
			t.Run(fmt.Sprint(name, " ", timeout), func(t *testing.T) {
				s := install(t, m, "svctest-reconnect", text(t, servicetest.Stubborn, "TimeoutStopSec=3s"))
				start(t, m, s)
				stopped := make(chan error, 1)
				go func() {
					_, err := m.Stop(t.Context(), s, timeout)
					stopped <- err
				}()
				servicetest.Await(t, "stop job", func() bool {
					u, err := m.look(t.Context(), s.Unit)
					return err == nil && u.activeState() == "deactivating"
				})
				disturb(t)
				if err := <-stopped; err != nil {
					t.Errorf("Stop over a lost connection: %v", err)
				}
				if st, err := m.Status(t.Context(), s); err != nil || st.Active || st.Activating {
					t.Errorf("%+v, %v, expected inactive", st, err)
				}
			})
		}
	}
}

func TestClosed(t *testing.T) {
	defer goleak.VerifyNone(t)
	m := newManager(t)
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := m.Status(t.Context(), service.Service{Unit: "a.service"}); !errors.Is(err, errClosed) {
		t.Errorf("%v, expected %v", err, errClosed)
	}
	goleak.VerifyNone(t)
}

// What programs print need not be short, or text.
func TestStrangeLogs(t *testing.T) {
	m := newManager(t)
	s := install(t, m, "svctest-logs", "[Service]\nExecStart=/bin/sh -c 'printf \"\\\\377\\\\376 bytes\\\\n\"; head -c 20000 /dev/zero | tr \"\\\\0\" x; echo; echo \"<3>an error\"; echo ready; exec sleep 600'\n")
	start(t, m, s)
	lines := servicetest.AwaitLog(t, m, s, "ready")
	var bytes, long, priority bool
	for _, l := range lines {
		bytes = bytes || strings.HasSuffix(l.Message, " bytes") && strings.HasPrefix(l.Message, "\uFFFD")
		long = long || len(l.Message) == 20000
		priority = priority || l.Message == "an error" && l.Priority == 3 && time.Since(l.Time) < time.Minute
	}
	if !bytes || !long || !priority {
		t.Errorf("bytes %v, long %v, priority %v in %.300v", bytes, long, priority, lines)
	}
	future, err := m.Logs(t.Context(), s, time.Now().Add(time.Hour), 10)
	if err != nil || len(future) > 0 {
		t.Errorf("%v, %v, expected nothing from the future", future, err)
	}
}
