package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Result is what a command did.
type Result struct {
	Stdout, Stderr string
	// ExitCode is -1 when Signal ended the command.
	ExitCode int
	Signal   syscall.Signal
}

// String shows all of a result, for failure messages.
func (r Result) String() string {
	return fmt.Sprintf("exit code %d, signal %v\nstdout: %s\nstderr: %s", r.ExitCode, int(r.Signal), r.Stdout, r.Stderr)
}

// Command prepares a command inside the container, with an environment of its
// own (PATH, HOME, LANG; use "env", "A=B", … for more). Cancelling ctx kills the
// real process. cmd.Process is nsenter, its parent: use Kill to send signals to
// the command. The command is in no cgroup of the container; it ends with the
// container. When the container is not running, starting the command fails.
func (c *Container) Command(ctx context.Context, args ...string) *exec.Cmd {
	leader, err := c.Leader()
	all := append([]string{
		"--target", strconv.Itoa(leader), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"--root", "--wd", "--", "env", "-i",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8",
	}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...)
	// As one of a login has: the kernel shares the processor out among sessions
	// (sched(7), autogroup), and a hundred containers' commands are not one of them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error {
		return errors.Join(c.Kill(cmd, syscall.SIGKILL), cmd.Process.Kill())
	}
	cmd.WaitDelay = 5 * time.Second
	if err != nil {
		cmd.Err = err
	}
	return cmd
}

// Kill sends a signal to the process that a started Command runs, which is
// nsenter's child. A process that is gone is no error.
func (c *Container) Kill(cmd *exec.Cmd, sig syscall.Signal) error {
	// Right after its start nsenter has no child yet.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var (
		pid int
		err error
	)
	_ = poll(ctx, func() bool {
		pid, err = childOf(cmd.Process.Pid)
		return err != nil || pid != 0 || ended(cmd.Process.Pid)
	})
	if err != nil || pid == 0 {
		return err
	}
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, pid, err)
	}
	return nil
}

// ended reports whether a process is gone, or is a zombie. See proc(5).
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, ok := strings.Cut(string(stat), ") ")
	return err != nil || !ok || strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// childOf returns the only child of a process, 0 when it has none.
func childOf(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	list := strings.Fields(string(data))
	if len(list) == 0 {
		return 0, nil
	}
	return strconv.Atoi(list[0])
}

// HostPID translates a process id inside the container to the machine's.
func (c *Container) HostPID(inside int) (int, error) {
	leader, err := c.Leader()
	if err != nil {
		return 0, err
	}
	pids, err := namespaceProcs(leader)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			ids, ok := strings.CutPrefix(line, "NSpid:")
			if w := strings.Fields(ids); ok && len(w) > 0 && w[len(w)-1] == strconv.Itoa(inside) {
				return pid, nil
			}
		}
	}
	return 0, fmt.Errorf("container %s has no process %d", c.Name, inside)
}

// namespaceProcs lists the processes in the process namespace of one of them.
func namespaceProcs(leader int) ([]int, error) {
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", leader))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err == nil && ns == namespace {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// MainPID returns the main process of a unit, as the container counts; 0 when
// the unit does not run.
func (c *Container) MainPID(ctx context.Context, unit string) (int, error) {
	r, err := c.Run(ctx, "systemctl", "show", "--value", "--property=MainPID", unit)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(r.Stdout))
}

// Run runs a command inside the container. A command that fails is no error: see
// Result. It is an error when it could not be run or ctx ended it.
func (c *Container) Run(ctx context.Context, args ...string) (Result, error) {
	return collect(ctx, c.Command(ctx, args...), args)
}

// RunIn runs a command as a transient unit inside the container, so that it has
// a cgroup of its own as commands of a login or a timer have. The exit code is
// the command's. properties are systemd-run's, such as "--property=User=nobody".
func (c *Container) RunIn(ctx context.Context, properties []string, args ...string) (Result, error) {
	all := append([]string{"systemd-run", "--wait", "--pipe", "--quiet", "--collect"}, properties...)
	all = append(append(all, "--"), args...)
	return collect(ctx, c.Command(ctx, all...), args)
}

// MustRun is Run for commands that must succeed: else the test ends. It returns
// what they print on standard output.
func (c *Container) MustRun(ctx context.Context, args ...string) string {
	c.t.Helper()
	r, err := c.Run(ctx, args...)
	if err != nil {
		c.t.Fatalf("container %s: %v", c.Name, err)
	}
	if r.ExitCode != 0 {
		c.t.Fatalf("container %s: %s: %v", c.Name, strings.Join(args, " "), r)
	}
	return r.Stdout
}

func collect(ctx context.Context, cmd *exec.Cmd, args []string) (Result, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		r.ExitCode = -1
		return r, fmt.Errorf("run %s: %w\nstdout: %s\nstderr: %s", strings.Join(args, " "),
			errors.Join(err, context.Cause(ctx)), r.Stdout, r.Stderr)
	}
	r.ExitCode = cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.Signal = ws.Signal()
	}
	return r, nil
}
