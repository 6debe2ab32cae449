package servicetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// define makes a service of the given behaviour.
func (f *Fixture) define(t *testing.T, mode Mode) service.Service {
	t.Helper()
	command := []string{Program(t)}
	if mode == Exit { // a test binary may take longer to begin than a manager watches
		script := filepath.Join(t.TempDir(), "exit.sh")
		if err := os.WriteFile(script, fmt.Appendf(nil, "echo %q\nexit %d\n", complaint, exitStatus), 0o644); err != nil {
			t.Fatal(err)
		}
		command = []string{"/bin/sh", script}
	}
	return f.Define(t, Definition{
		Name:    "svctest-" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-", "#", "-").Replace(t.Name())),
		Command: command, Env: []string{modeVar + "=" + string(mode)},
		RestartsAlways: mode == Crash,
	})
}

// Program is the test binary's own path.
func Program(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// ModeEnv is the environment entry that makes Program behave as the service.
func ModeEnv(mode Mode) string { return modeVar + "=" + string(mode) }

func (f *Fixture) status(t *testing.T, s service.Service) service.Status {
	t.Helper()
	st, err := f.Manager.Status(t.Context(), s)
	if err != nil {
		t.Fatalf("Status: %v", err)
	}
	return st
}

func (f *Fixture) start(t *testing.T, s service.Service, mode Mode) service.Status {
	t.Helper()
	if err := f.Manager.Start(t.Context(), s); err != nil {
		t.Fatalf("Start: %v", err)
	}
	st := f.status(t, s)
	if !st.Exists || !st.Active || st.Failed || st.MainPID <= 0 {
		t.Fatalf("after Start: %+v, expected an active service with a process", st)
	}
	AwaitLog(t, f.Manager, s, "ready "+string(mode))
	return st
}

func (f *Fixture) stop(t *testing.T, s service.Service, timeout time.Duration, forced bool) {
	t.Helper()
	before := f.status(t, s)
	res, err := f.Manager.Stop(t.Context(), s, timeout)
	if err != nil {
		t.Fatalf("Stop: %v", err)
	}
	if res.Forced != forced {
		t.Errorf("Stop: forced %v, expected %v", res.Forced, forced)
	}
	if stands := before.Idle() && !before.Activating; res.Idle && !before.Idle() || !res.Idle && stands && !forced {
		t.Errorf("Stop: nothing to stop %v, after %+v", res.Idle, before)
	}
	if st := f.status(t, s); st.Active || st.Activating || st.Failed || st.MainPID != 0 {
		t.Errorf("after Stop: %+v, expected inactive and not failed", st)
	}
}

// AwaitLog waits until a service has logged a line.
func AwaitLog(t *testing.T, m service.Manager, s service.Service, want string) []service.LogLine {
	t.Helper()
	var lines []service.LogLine
	Await(t, fmt.Sprintf("log line %q", want), func() bool {
		var err error
		if lines, err = m.Logs(t.Context(), s, time.Time{}, 0); err != nil {
			t.Fatalf("Logs: %v", err)
		}
		return count(lines, want) > 0
	})
	return lines
}

// Await polls until done, and ends the test when that takes too long.
func Await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %v", what, patience)
		}
	}
}

func count(lines []service.LogLine, want string) int {
	n := 0
	for _, l := range lines {
		if strings.Contains(l.Message, want) {
			n++
		}
	}
	return n
}

// Alive tells whether a process runs; a zombie does not.
func Alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
