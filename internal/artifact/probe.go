package artifact

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/custody"
	"github.com/observability-upgrade/observability-upgrade/internal/sandbox"
)

// ErrVersionUnknown says that a program ran but told no version.
var ErrVersionUnknown = errors.New("it tells no version")

// ProbeSpec says how to ask a program for its version.
type ProbeSpec struct {
	Path    string
	Args    []string      // default --version
	Regexp  string        // first group is the version
	Timeout time.Duration // default 10 s
	// Tree is the directory that a program out of a tree needs to be there; it is
	// shown with it.
	Tree string
	// Gaps is told which layers of the sandbox this host does not give; may be nil.
	Gaps func([]sandbox.Gap)
	// Installed marks a program that runs on this host anyway. It is asked without a
	// sandbox, which takes longer than its answer: as nobody, or as the caller where
	// that user may not run it.
	Installed bool
}

var (
	defaultVersion = regexp.MustCompile(`(?i)version[ =:"]+v?(\d+\.\d+(?:\.\d+)?[^\s",)]*)`)
	anySemver      = regexp.MustCompile(`\bv?(\d+\.\d+\.\d+[^\s",)]*)`)
)

const nobody = 65534

// Probe runs a program for its version: bounded in time, with a bare
// environment, both streams read (which one it is differs by version). A new one
// runs in a sandbox; an installed one, where the caller is root, as nobody, without
// new privileges, in a network namespace of its own.
func Probe(ctx context.Context, spec ProbeSpec) (component.Version, string, error) {
	if len(spec.Args) == 0 {
		spec.Args = []string{"--version"}
	}
	if spec.Timeout == 0 {
		spec.Timeout = 10 * time.Second
	}
	out, err := runConfined(ctx, spec)
	if err != nil {
		return component.Version{}, out, err
	}
	v, err := FindVersion(out, spec.Regexp)
	return v, out, err
}

// FindVersion reads the version from what a program printed on both streams. The
// first group of expr is the version; without expr the usual forms are tried.
func FindVersion(out, expr string) (component.Version, error) {
	res := []*regexp.Regexp{defaultVersion, anySemver}
	if expr != "" {
		re, err := regexp.Compile(expr)
		if err != nil {
			return component.Version{}, fmt.Errorf("version.regexp: %w", err)
		}
		res = []*regexp.Regexp{re}
	}
	for _, re := range res {
		m := re.FindStringSubmatch(out)
		if len(m) < 2 || strings.Trim(m[1], "(") == "" {
			continue
		}
		v, err := component.ParseVersion(m[1])
		if err == nil {
			return v, nil
		}
	}
	return component.Version{}, fmt.Errorf("%w in %.120q", ErrVersionUnknown, strings.TrimSpace(out))
}

// probeAge is how old the home of a probe is that cannot be running any more.
const probeAge = time.Hour

// ClearProbes removes the homes of probes that were killed: directories with such a
// name that are the caller's, or as root were given to nobody, and old.
func ClearProbes(now time.Time) error {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), sandbox.Prefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range found {
		st, err := os.Lstat(path)
		if err != nil || !st.IsDir() || now.Sub(st.ModTime()) < probeAge || strings.Trim(filepath.Base(path)[len(sandbox.Prefix):], "0123456789") != "" {
			continue
		}
		uid := custody.UID(st)
		if uid == os.Geteuid() || os.Geteuid() == 0 && uid == nobody {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

func runConfined(ctx context.Context, spec ProbeSpec) (string, error) {
	if !spec.Installed {
		return runSandboxed(ctx, spec)
	}
	f, err := os.Open(spec.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	home, err := os.MkdirTemp("", sandbox.Prefix)
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(home) }() // a temporary directory; nothing depends on its end
	if os.Geteuid() != 0 {
		return runOnce(ctx, spec, f, home, nil)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		return "", err
	}
	attr := &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{}},
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
	}
	out, err := runOnce(ctx, spec, f, home, attr)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Perhaps the kernel gives no namespaces here; the user stays nobody.
		attr.Cloneflags = 0
		out, err = runOnce(ctx, spec, f, home, attr)
	}
	if errors.Is(err, fs.ErrPermission) {
		out, err = runOnce(ctx, spec, f, home, nil)
	}
	return out, err
}

// self is the open program as its own process sees it.
const self = "/proc/self/fd/3"

// runOnce executes the open file through /proc/self/fd, so that the unprivileged
// user needs no way through the closed staging directory.
func runOnce(ctx context.Context, spec ProbeSpec, f *os.File, home string, attr *syscall.SysProcAttr) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, spec.Timeout)
	defer cancel()
	for {
		out, err := execute(ctx, spec, f, home, attr)
		// Another thread that forked while the file was being written holds it open
		// until its own exec, a moment later (golang.org/issue/22315).
		if !errors.Is(err, unix.ETXTBSY) || ctx.Err() != nil {
			return out, err
		}
		runtime.Gosched()
	}
}

func execute(ctx context.Context, spec ProbeSpec, f *os.File, home string, attr *syscall.SysProcAttr) (string, error) {
	cmd := exec.CommandContext(ctx, self, spec.Args...)
	cmd.Args[0] = spec.Path
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C", "HOME=" + home, "TMPDIR=" + home}
	cmd.Dir = "/"
	var out limited
	cmd.Stdout, cmd.Stderr = &out, &out
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	a := *attr
	a.Setsid = true // without a terminal whose input it could fake
	a.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr = &a
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	err := runUnprivileged(cmd)
	text := out.String()
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return text, fmt.Errorf("%s did not end within %s", spec.Path, spec.Timeout)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well, and only its output is held open by another: that tells, or not
	}
	return text, explainEnd(spec.Path, text, err)
}

// explainEnd words how a program that was asked for its version ended.
func explainEnd(path, text string, err error) error {
	var exit *exec.ExitError
	var start *fs.PathError
	if errors.As(err, &start) && start.Path == self {
		err = fmt.Errorf("%s cannot be run: %w", path, start.Err)
	}
	switch {
	case errors.As(err, &exit):
		return fmt.Errorf("it ended with %s: %.200s", exit.ProcessState, strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " | "))
	case errors.Is(err, unix.EACCES) && mountedNoexec(path):
		return fmt.Errorf("%w; %s is on a file system mounted noexec; move it with paths.staging in the policy, or `mount -o remount,exec`", err, filepath.Dir(path))
	}
	return err
}

// runUnprivileged runs a command that can gain no privileges by what it executes
// (PR_SET_NO_NEW_PRIVS, prctl(2)), and leaves none of its group behind. The
// setting is a thread's and cannot be undone, and the parent's death signal is
// the thread's too: the command gets a thread that lives as long as it does.
func runUnprivileged(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- fmt.Errorf("no_new_privs: %w", err)
			return
		}
		err := cmd.Run()
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left in the background
		}
		done <- err
	}()
	return <-done
}

func mountedNoexec(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

// checkExecutable refuses what cannot run here: neither a program for this
// architecture nor a script.
func checkExecutable(path, goarch string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 20)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is empty: %w", err)
	}
	head = head[:n]
	if bytes.HasPrefix(head, []byte("#!")) {
		return nil
	}
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return fmt.Errorf("it is neither a program nor a script (it begins with %q)", head[:min(n, 8)])
	}
	want := map[string]elf.Machine{
		"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM,
		"386": elf.EM_386, "riscv64": elf.EM_RISCV, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390, "loong64": elf.EM_LOONGARCH,
	}[goarch]
	if want == elf.EM_NONE {
		return nil // its own --version will tell
	}
	if len(head) < 20 {
		return errors.New("it is cut off within its ELF header")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	if got := elf.Machine(order.Uint16(head[18:])); got != want {
		return fmt.Errorf("it is a program for %s, this host is %s", got, goarch)
	}
	return nil
}
