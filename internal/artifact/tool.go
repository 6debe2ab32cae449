package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/sandbox"
)

// runSandboxed runs a new program for its version where it sees the system's
// libraries and itself, and nothing else.
func runSandboxed(ctx context.Context, spec ProbeSpec) (string, error) {
	s := sandbox.Spec{Path: spec.Path, Args: spec.Args, Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C"}, Timeout: spec.Timeout, View: sandbox.Bare}
	if spec.Tree != "" {
		s.Show = []string{spec.Tree}
	}
	out, err := sandboxed(ctx, s, spec.Gaps)
	return out, explainEnd(spec.Path, out, err)
}

// NewTool says how a tool of the new release looks at the configuration in place.
type NewTool struct {
	Args    []string // the first is the tool's path
	Show    []string // the configuration, where it lies in a place that is not shown otherwise; see sandbox.Host
	Hide    []string // what it must not read: secrets, records
	Timeout time.Duration
	Gaps    func([]sandbox.Gap) // see ProbeSpec
}

// RunNewTool runs a tool that was verified and is not installed yet, in a sandbox
// that shows the host's configuration, and returns what it printed. Any exit code
// but 0 is an error.
func RunNewTool(ctx context.Context, t NewTool) (string, error) {
	return sandboxed(ctx, sandbox.Spec{
		Path: t.Args[0], Args: t.Args[1:], Env: []string{toolPath, "LANG=C"}, Timeout: t.Timeout,
		View: sandbox.Host, Show: t.Show, Hide: t.Hide, ReadAll: true,
	}, t.Gaps)
}

// sandboxed runs a program in a sandbox. Another thread that forked while its file
// was being written holds it open until its own exec, a moment later
// (golang.org/issue/22315).
func sandboxed(ctx context.Context, s sandbox.Spec, gaps func([]sandbox.Gap)) (string, error) {
	for {
		res, err := sandbox.Run(ctx, s)
		if errors.Is(err, unix.ETXTBSY) && ctx.Err() == nil {
			runtime.Gosched()
			continue
		}
		if len(res.Missing) > 0 && gaps != nil {
			gaps(res.Missing)
		}
		return res.Output, err
	}
}

const maxOutput = sandbox.MaxOutput

// limited keeps the first part of what is written to it.
type limited struct{ buf bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) String() string { return l.buf.String() }

// waitDelay is how long what a program printed may take to arrive once it has ended,
// on a host that is short of everything: longer where a child of it goes on.
const waitDelay = 5 * time.Second

// toolPath is where tools that are called by name are looked for.
const toolPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// RunTool runs a verified tool, as the caller, on this host's configuration and
// returns what it printed. Any exit code but 0 is an error.
func RunTool(ctx context.Context, args []string, timeout time.Duration) (string, error) {
	env := []string{toolPath, "LANG=C", "HOME=/nonexistent"}
	return RunCommand(ctx, args, env, timeout)
}

// RunCommand is RunTool with an environment of the caller's choice.
func RunCommand(ctx context.Context, args, env []string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = env
	cmd.Dir = "/"
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	err := cmd.Run()
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it did not end within %s", timeout)
	}
	return out.String(), err
}
