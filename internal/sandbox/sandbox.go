// Package sandbox runs a program that nobody here has run before so that it can do
// no harm: in namespaces of its own, without network and without privileges, with a
// read-only view of the files it needs, a private directory for temporary ones, and
// limits on what it may use.
//
// This program starts itself again as a helper, which closes one door after the
// other and then becomes the program (see helper.go). A layer that the kernel does
// not give is left out and named in Outcome.Missing; the others hold all the same:
//
//   - namespaces for mounts, processes, network and IPC, and for users when the
//     caller is not root: namespaces(7)
//   - a view of files: Bare or Host, made of read-only bind mounts: mount_setattr(2)
//   - Landlock: no writing, and no network, whatever the view is: landlock(7)
//   - the user nobody, no capabilities, no way to new ones: capabilities(7)
//   - a filter of system calls: no sockets, no tracing, no mounts: seccomp(2)
//   - limits on memory, processes, files and time, and the first to go when memory
//     is short: getrlimit(2), proc_pid_oom_score_adj(5)
package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// View is what a program sees of the host's files; none of them can it change.
type View int

// The views.
const (
	// Bare shows the system's programs and libraries, and Spec.Show.
	Bare View = iota
	// Host shows everything but what changes, what is secret (Spec.Hide and the
	// host's own keys and password hashes), and the directories of users.
	Host
)

// Spec says what to run.
type Spec struct {
	Path    string   // of the program, absolute
	Args    []string // without its name
	Env     []string // HOME and TMPDIR are added
	Timeout time.Duration
	View    View
	Show    []string // absolute paths to be seen as well; those that are not there are left out
	Hide    []string // absolute paths to be empty; stronger than Show
	// ReadAll lets it read what only other users may, as configuration often is, when
	// the caller is root. Otherwise it reads what everybody may.
	ReadAll bool
	// Without leaves layers out, as on a kernel that does not give them. For tests.
	Without []Layer
}

// Layer is one of the protections.
type Layer string

// The layers that a kernel, or who configured it, may not give.
const (
	Namespaces Layer = "namespaces"
	Files      Layer = "view of files"
	Proc       Layer = "process list"
	Landlock   Layer = "Landlock"
	Filter     Layer = "system call filter"
	Limits     Layer = "limits"
)

// Gap is a layer that was not there, and why.
type Gap struct {
	Layer Layer
	Why   string
}

// String is LAYER (WHY).
func (g Gap) String() string { return fmt.Sprintf("%s (%s)", g.Layer, g.Why) }

// Outcome is what came of it.
type Outcome struct {
	Output  string // both streams, the first MaxOutput bytes
	Missing []Gap  // layers that were not there; empty where all were
}

// Sizes in bytes.
const (
	MaxOutput = 64 << 10 // kept of what it prints
	maxFlood  = 16 << 20 // printed, before it is ended
)

// StartError says that a program could not be started. What it wraps is the error
// of execve(2), as EACCES on a file system mounted noexec.
type StartError struct {
	Path string
	Err  error
}

func (e *StartError) Error() string { return fmt.Sprintf("start %s: %v", e.Path, e.Err) }

// Unwrap is the error of the system.
func (e *StartError) Unwrap() error { return e.Err }

// ErrFlood says that a program was ended because it printed too much.
var ErrFlood = fmt.Errorf("it printed more than %d MiB and was ended", maxFlood>>20)

// Prefix begins the names of the directories that a killed caller may leave in the
// directory for temporary files; digits follow.
const Prefix = "observability-upgrade-probe-"

// Run runs a program and returns when it, and all it started, is gone. A program
// that ends with another code than 0 is an *exec.ExitError, one that could not be
// started a StartError. Cancelling ctx kills it. It is safe for concurrent use.
func Run(ctx context.Context, spec Spec) (Outcome, error) {
	f, err := os.Open(spec.Path)
	if err != nil {
		return Outcome{}, err
	}
	defer f.Close()
	real, err := filepath.EvalSymlinks(spec.Path)
	if err != nil {
		return Outcome{}, err
	}
	base, err := os.MkdirTemp("", Prefix)
	if err != nil {
		return Outcome{}, err
	}
	defer func() { _ = os.RemoveAll(base) }() // a temporary directory; nothing depends on its end
	home := filepath.Join(base, "home")       // where there is no view
	if err := os.Mkdir(home, 0o700); err != nil {
		return Outcome{}, err
	}
	root := os.Geteuid() == 0
	if root {
		switch err := os.Chown(home, nobody, nobody); {
		case errors.Is(err, unix.EINVAL):
			root = false // of a user namespace that has nobody else
		case err != nil:
			return Outcome{}, err
		default:
			// Its own directory lies in one that nobody else can enter but by name.
			if err := os.Chmod(base, 0o711); err != nil {
				return Outcome{}, err
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	// From the strongest to what every kernel has.
	var gaps []Gap
	for _, a := range []struct{ namespaces, view bool }{{true, true}, {true, false}, {false, false}} {
		o := order{Spec: spec, Real: real, Base: base, Home: home, Namespaces: a.namespaces, Files: a.view, Root: root}
		var gap *Gap
		switch {
		case a.namespaces && slices.Contains(spec.Without, Namespaces):
			gap = &Gap{Namespaces, "left out"}
		case a.view && slices.Contains(spec.Without, Files):
			gap = &Gap{Files, "left out"}
		}
		if gap == nil {
			out, err := attempt(ctx, o, f)
			var failed *gapError
			if !errors.As(err, &failed) {
				out.Missing = append(gaps, out.Missing...)
				return out, told(ctx, err, spec.Timeout)
			}
			gap = &failed.Gap
		}
		if !slices.ContainsFunc(gaps, func(g Gap) bool { return g.Layer == gap.Layer }) {
			gaps = append(gaps, *gap)
		}
		if gap.Layer == Namespaces && !slices.ContainsFunc(gaps, func(g Gap) bool { return g.Layer == Files }) {
			gaps = append(gaps, Gap{Files, "it takes a mount namespace"})
		}
	}
	return Outcome{Missing: gaps}, fmt.Errorf("no sandbox for %s: %v", spec.Path, gaps)
}

// told words the end by a deadline.
func told(ctx context.Context, err error, limit time.Duration) error {
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, ErrFlood) {
		return fmt.Errorf("it did not end within %s", limit)
	}
	return err
}

// gapError says that a layer is missing which another attempt can do without.
type gapError struct{ Gap }

func (e *gapError) Error() string { return e.String() }

// namespaces are those of a sandbox of root's.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC

// attempt starts the helper once.
func attempt(ctx context.Context, o order, program *os.File) (Outcome, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return Outcome{}, err
	}
	orderR, orderW, err := os.Pipe()
	if err != nil {
		return Outcome{}, err
	}
	defer orderR.Close()
	defer orderW.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return Outcome{}, err
	}
	defer reportR.Close()
	defer reportW.Close()

	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(inner, "/proc/self/exe")
	cmd.Args = []string{helperName}
	cmd.ExtraFiles = []*os.File{orderR, reportW, program} // 3, 4, 5
	cmd.Env = []string{"GOMAXPROCS=1", "GOTRACEBACK=none"}
	cmd.Dir = "/"
	out := &limited{over: func() { cancel(ErrFlood) }}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 5 * time.Second // a host may be short of everything
	// A session of its own has no terminal whose input it could fake.
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if o.Namespaces {
		attr.Cloneflags = namespaces
		if !o.Root {
			attr.Cloneflags |= unix.CLONE_NEWUSER
			// Within its own namespace: to make the view, and to give them up.
			attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP}
			attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
			attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		}
	}
	cmd.SysProcAttr = attr
	cmd.Cancel = func() error { return killAll(cmd.Process.Pid) }

	reports := make(chan report, 1)
	started := func() {
		_ = orderR.Close()
		_ = reportW.Close()
		go func() { // ends with the helper: by then nobody has the other end
			_, _ = orderW.Write(text) // one that did not read its order reports that
			_ = orderW.Close()
			reports <- readReport(reportR)
		}()
	}
	err = runTied(cmd, started)
	switch {
	case cmd.Process == nil && ctx.Err() != nil:
		return Outcome{}, err
	case cmd.Process == nil:
		return Outcome{}, &gapError{Gap{Namespaces, plain(err)}}
	}
	rep := <-reports
	res := Outcome{Output: out.String(), Missing: rep.Missing}
	switch cause := context.Cause(inner); {
	case errors.Is(cause, ErrFlood):
		return res, ErrFlood
	case ctx.Err() != nil:
		return res, err
	case rep.Gap != nil:
		return res, &gapError{*rep.Gap}
	case rep.Errno != 0:
		return res, &StartError{o.Path, syscall.Errno(rep.Errno)}
	case rep.Failed != "":
		return res, fmt.Errorf("the sandbox for %s: %s", o.Path, rep.Failed)
	case !rep.Ready && err != nil:
		return res, fmt.Errorf("the sandbox for %s ended before it was ready: %w: %.200s", o.Path, err, strings.TrimSpace(res.Output))
	}
	return res, err
}

// plain is an error of starting the helper without the helper's own path.
func plain(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// runTied runs a command on a thread that lives as long as it does, since it gets
// the parent's death signal when the thread that started it ends (prctl(2)), and
// leaves none of its group behind.
func runTied(cmd *exec.Cmd, started func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := cmd.Start(); err != nil {
			done <- err
			return
		}
		started()
		err := cmd.Wait()
		endGroup(cmd.Process.Pid) // what it left in the background
		done <- err
	}()
	return <-done
}

// endGroup kills what is left of a group and returns when it is gone, which takes a
// moment where there are many, or after a few seconds at the most.
func endGroup(pid int) {
	for deadline := time.Now().Add(5 * time.Second); killAll(pid) == nil && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
	}
}

// killAll ends a helper, with which its process namespace ends, and its group, which
// without a namespace is all that it could start (see filter).
func killAll(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// report is what the helper tells before it becomes the program.
type report struct {
	Missing []Gap
	Ready   bool   // everything is closed; what follows is the program
	Gap     *Gap   // it could not make this one
	Errno   int    // the program could not be started
	Failed  string // anything else
}

// readReport reads what the helper wrote, to the end.
func readReport(r io.Reader) report {
	var all report
	for dec := json.NewDecoder(io.LimitReader(r, 1<<20)); ; {
		var one report
		if err := dec.Decode(&one); err != nil {
			if !errors.Is(err, io.EOF) {
				all.Failed = err.Error()
			}
			return all
		}
		all.Missing = append(all.Missing, one.Missing...)
		all.Ready = all.Ready || one.Ready
		if one.Gap != nil {
			all.Gap = one.Gap
		}
		if one.Errno != 0 {
			all.Errno = one.Errno
		}
		if one.Failed != "" {
			all.Failed = one.Failed
		}
	}
}

// limited keeps the first part of what is written to it, and has the writer ended
// when it is far too much. One goroutine writes.
type limited struct {
	buf  bytes.Buffer
	seen int
	over func()
}

// Write never fails.
func (l *limited) Write(p []byte) (int, error) {
	if room := MaxOutput - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	if l.seen += len(p); l.seen > maxFlood && l.over != nil {
		l.over()
		l.over = nil
	}
	return len(p), nil
}

// String is what was kept.
func (l *limited) String() string { return l.buf.String() }
