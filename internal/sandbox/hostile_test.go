package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The hostile program is this one, called with "hostile" and the name of an attack.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "hostile" {
		hostile(os.Args[2], os.Args[3:])
		return
	}
	goleak.VerifyTestMain(m)
}

// escaped is what an attack prints that had success.
const escaped = "ESCAPED"

// attacks are tried one by one: nil is a success of the attacker.
var attacks = map[string]func(args []string) error{
	"tcp": func(a []string) error { return dial("tcp", a[0]) },
	"udp": func(a []string) error {
		c, err := net.Dial("udp", a[0])
		if err == nil {
			_, err = c.Write([]byte("x"))
		}
		return err
	},
	"listen":      func([]string) error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err },
	"unix socket": func(a []string) error { return dial("unix", a[0]) },
	"abstract":    func(a []string) error { return dial("unix", a[0]) },
	"read":        func(a []string) error { return readAny(a) },
	"environ":     func(a []string) error { return readAny([]string{"/proc/" + a[0] + "/environ"}) },
	"write": func(a []string) error {
		var errs []error
		for _, path := range a {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
			if err == nil {
				f.Close()
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	},
	"itself": func([]string) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return os.Chmod(self, 0o777)
	},
	"kill": func(a []string) error {
		pid, _ := strconv.Atoi(a[0])
		return syscall.Kill(pid, syscall.SIGKILL)
	},
	"kill all": func([]string) error { // success is seen from outside
		_ = syscall.Kill(-1, syscall.SIGTERM)
		return errors.New("whatever it did")
	},
	"ptrace": func(a []string) error {
		pid, _ := strconv.Atoi(a[0])
		return unix.PtraceAttach(pid)
	},
	"memory of others": func(a []string) error {
		pid, _ := strconv.Atoi(a[0])
		_, err := os.ReadFile(fmt.Sprintf("/proc/%d/mem", pid))
		if errors.Is(err, unix.EIO) {
			return nil // it was opened: the first page is just not there
		}
		return err
	},
	"mount":    func([]string) error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") },
	"remount":  func([]string) error { return unix.Mount("", "/usr", "", unix.MS_REMOUNT|unix.MS_BIND, "") },
	"setuid":   func([]string) error { return syscall.Setuid(0) },
	"terminal": func([]string) error { _, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); return err },
	"device":   func([]string) error { return unix.Mknod("/tmp/disk", unix.S_IFBLK|0o666, 8<<8) },
	"clock":    func([]string) error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
	"memory": func([]string) error {
		for n := 0; n < 64; n++ { // 4 GiB
			b, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			if err != nil {
				return err
			}
			b[0] = 1
		}
		return nil
	},
	"core": func([]string) error {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil || l.Max == 0 {
			return errors.Join(err, errors.New("no core files"))
		}
		return nil
	},
	"big file": func([]string) error { return fill(filepath.Join(os.Getenv("TMPDIR"), "big"), 128<<20) },
	"fill tmp": func([]string) error {
		for n := 0; n < 8; n++ {
			if err := fill(fmt.Sprintf("%s/%d", os.Getenv("TMPDIR"), n), 32<<20); err != nil {
				return err
			}
		}
		return nil
	},
	"many files": func([]string) error {
		for n := 0; n < 100_000; n++ {
			f, err := os.Create(fmt.Sprintf("%s/%d", os.Getenv("TMPDIR"), n))
			if err != nil {
				return err
			}
			f.Close()
		}
		return nil
	},
	"processes": func([]string) error { // it gets as far as the limit
		for n := 0; n < 4*maxProcesses; n++ {
			if err := sleeper(false); err != nil {
				return err
			}
		}
		return nil
	},
}

// refusedCalls are those of the filter alone.
var refusedCalls = map[string]func() error{
	"unshare": func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
	"bpf":     func() error { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return denied(e) },
	"uring":   func() error { _, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return denied(e) },
	"handle": func() error {
		_, err := unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(1, make([]byte, 8)), 0)
		return denied(err)
	},
	"keys": func() error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true)
		return denied(err)
	},
	"namespaces by clone": func() error {
		pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if e == 0 && pid == 0 {
			unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		return denied(e)
	},
	"clone3": func() error {
		_, _, e := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
		if e == unix.ENOSYS {
			return e
		}
		return nil
	},
	"memory of others": func() error {
		_, err := unix.ProcessVMReadv(os.Getpid(), nil, nil, 0)
		return denied(err)
	},
}

// denied is the error when it is the filter's.
func denied(err error) error {
	if errors.Is(err, unix.EPERM) {
		return err
	}
	return nil
}

func dial(network, address string) error {
	c, err := net.DialTimeout(network, address, 2*time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

func readAny(paths []string) error {
	var errs []error
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil && len(b) > 0 {
			fmt.Printf("%s: %.20q ", path, b)
			return nil
		}
		errs = append(errs, err, fmt.Errorf("%s is empty", path))
	}
	return errors.Join(errs...)
}

func fill(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for ; size > 0; size -= len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// sleeper starts a process that stays, in a session of its own if it can.
func sleeper(session bool) error {
	cmd := exec.Command("/bin/sleep", marker)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	return cmd.Start()
}

// marker is how long they sleep, and what they are known by.
const marker = "7354"

// sleepers are the processes of that kind on this host.
func sleepers(t *testing.T) (pids []string) {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if b, err := os.ReadFile(path); err == nil && bytes.Equal(b, []byte("/bin/sleep\x00"+marker+"\x00")) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// hostile makes one attack.
func hostile(name string, args []string) {
	switch name {
	case "hang":
		time.Sleep(time.Hour)
	case "flood":
		line := bytes.Repeat([]byte("x"), 1<<20)
		for n := 0; n < 1024; n++ {
			_, _ = os.Stdout.Write(line)
		}
	case "daemon":
		if err := sleeper(true); err != nil {
			_ = sleeper(false)
		}
		fmt.Println("left")
	case "calls":
		for _, n := range args {
			if err := refusedCalls[n](); err == nil {
				fmt.Println(escaped, n)
			}
		}
	case "who":
		b, err := os.ReadFile("/proc/self/status")
		fmt.Println(string(b), err, os.Getpid(), os.Getppid(), os.Environ())
	case "look":
		entries, err := os.ReadDir(args[0])
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		fmt.Println(err)
	case "read file":
		b, err := os.ReadFile(args[0])
		fmt.Printf("%s %v\n", b, err)
	default:
		if err := attacks[name](args); err == nil {
			fmt.Println(escaped, name)
		} else {
			fmt.Println("denied:", err)
		}
	}
}

// target is what is attacked: a socket, a secret, a process.
type target struct {
	spec   Spec
	args   map[string][]string
	victim *exec.Cmd
	dir    string
}

func newTarget(t *testing.T) *target {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// As it is staged: where only its owner comes.
	program := filepath.Join(dir, "staging", "program")
	secret := filepath.Join(dir, "secret")
	config := filepath.Join(dir, "config", "prometheus.yml")
	copyFile(t, self, program)
	for path, text := range map[string]string{secret: "planted", config: "global: {}"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sock, err := os.MkdirTemp("", "s") // short, as a socket's path must be
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(sock, 0o777); err != nil {
		t.Fatal(err)
	}
	path, err := net.Listen("unix", filepath.Join(sock, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(sock, "sock"), 0o777); err != nil {
		t.Fatal(err)
	}
	abstract, err := net.Listen("unix", "@observability-upgrade-test-"+filepath.Base(sock))
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.Command("/bin/sleep", "600")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []io.Closer{tcp, path, abstract} {
			_ = c.Close()
		}
		_ = os.RemoveAll(sock)
		_ = victim.Process.Kill()
		_ = victim.Wait()
	})
	pid := strconv.Itoa(victim.Process.Pid)
	return &target{
		spec:   Spec{Path: program, Timeout: 30 * time.Second, Env: []string{"PATH=/usr/bin:/bin"}, Show: []string{filepath.Dir(config)}, Hide: []string{secret}},
		victim: victim, dir: dir,
		args: map[string][]string{
			"tcp": {tcp.Addr().String()}, "udp": {"192.0.2.1:53"}, "unix socket": {path.Addr().String()}, "abstract": {abstract.Addr().String()},
			"read":    {secret, "/etc/shadow", "/etc/gshadow", "/root/.bashrc"},
			"write":   {"/usr/local/planted", "/usr/local/bin/planted", "/etc/planted", "/var/lib/planted", "/planted", program, config, "/proc/sys/kernel/core_pattern"},
			"environ": {pid}, "kill": {pid}, "ptrace": {pid}, "memory of others": {pid},
		},
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(dst, src)
	if err := errors.Join(err, dst.Close()); err != nil {
		t.Fatal(err)
	}
}

func (g *target) alive(t *testing.T) {
	t.Helper()
	if err := g.victim.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process of the host was ended: %v", err)
	}
}

// run tries one thing.
func (g *target) run(t *testing.T, spec Spec, name string, args ...string) (Outcome, error) {
	t.Helper()
	spec.Args = append([]string{"hostile", name}, args...)
	return Run(t.Context(), spec)
}

// supported skips layers of which this kernel, or this user, has nothing.
func supported(t *testing.T, spec Spec) {
	t.Helper()
	out, err := Run(t.Context(), Spec{Path: "/bin/true", Timeout: 30 * time.Second, View: spec.View, ReadAll: spec.ReadAll})
	if err != nil {
		t.Fatal(err)
	}
	for _, gap := range out.Missing {
		if !slices.Contains(spec.Without, gap.Layer) {
			t.Skipf("not here: %s", gap)
		}
	}
}

// Whatever a new program tries, it is denied; and one missing layer opens nothing
// that another can keep closed.
func TestHostile(t *testing.T) {
	for name, tc := range map[string]struct {
		view    View
		readAll bool
		without []Layer
		open    []string // what cannot be denied so
	}{
		"bare": {view: Bare},
		"host": {view: Host, readAll: true},
		// Without a view there is no directory of limited size, and nothing is hidden
		// from who may read everything.
		"bare, without a view":                  {view: Bare, without: []Layer{Files}, open: []string{"fill tmp", "many files"}},
		"host, without a view":                  {view: Host, without: []Layer{Files}, open: []string{"fill tmp", "many files", "unix socket", "read"}},
		"bare, no namespaces":                   {view: Bare, without: []Layer{Namespaces}, open: []string{"fill tmp", "many files"}},
		"bare, no Landlock":                     {view: Bare, without: []Layer{Landlock}},
		"host, no Landlock":                     {view: Host, readAll: true, without: []Layer{Landlock}},
		"bare, no filter":                       {view: Bare, without: []Layer{Filter}, open: []string{"listen"}}, // to nobody
		"bare, no filter, no Landlock, no list": {view: Bare, without: []Layer{Filter, Landlock, Proc}, open: []string{"listen"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTarget(t)
			spec := g.spec
			spec.View, spec.ReadAll, spec.Without = tc.view, tc.readAll, tc.without
			supported(t, spec)
			for attack := range attacks {
				if slices.Contains(tc.open, attack) {
					continue
				}
				if attack == "itself" && os.Geteuid() != 0 && len(tc.open) > 1 {
					continue // it belongs to the user, and no rule is about modes
				}
				out, err := g.run(t, spec, attack, g.args[attack]...)
				if strings.Contains(out.Output, escaped) {
					t.Errorf("%s: %s", attack, out.Output)
				}
				if err == nil && !strings.Contains(out.Output, "denied") {
					t.Errorf("%s was not tried: %q", attack, out.Output)
				}
				g.alive(t)
			}
			for _, path := range g.args["write"] {
				if b, err := os.ReadFile(path); strings.HasSuffix(path, "planted") && err == nil {
					t.Errorf("%s was written: %q", path, b)
				}
			}
			if left := sleepers(t); len(left) > 0 {
				t.Errorf("%d processes are left", len(left))
			}
		})
	}
}

// What the filter alone refuses, it does refuse.
func TestFilter(t *testing.T) {
	g := newTarget(t)
	supported(t, g.spec)
	names := make([]string, 0, len(refusedCalls))
	for n := range refusedCalls {
		names = append(names, n)
	}
	out, err := g.run(t, g.spec, "calls", names...)
	if err != nil || strings.Contains(out.Output, escaped) {
		t.Errorf("%v %s", err, out.Output)
	}
	spec := g.spec
	spec.Without = []Layer{Filter}
	if out, err := g.run(t, spec, "calls", names...); err != nil || strings.Count(out.Output, escaped) < 5 {
		t.Errorf("without a filter something else refuses: %v %s", err, out.Output)
	}
}

// The calls of another architecture are refused with the program.
func TestFilterOtherArchitecture(t *testing.T) {
	insts := program(unix.AUDIT_ARCH_X86_64, false)
	if len(insts) > 255*4 {
		t.Errorf("%d instructions", len(insts))
	}
	if strconv.IntSize != 64 || unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("needs a 64-bit machine")
	}
	as, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc to make the call")
	}
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "call.c"), filepath.Join(dir, "call")
	// socket(AF_INET, SOCK_STREAM, 0), as a 32-bit program calls it.
	const call = "int main(void){long r; __asm__ volatile(\"int $0x80\":\"=a\"(r):\"a\"(359),\"b\"(2),\"c\"(1),\"d\"(0):\"memory\"); return r>=0?7:8;}"
	if err := os.WriteFile(src, []byte(call), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(as, "-o", bin, src).CombinedOutput(); err != nil {
		t.Skipf("gcc: %v %s", err, out)
	}
	_, err = Run(t.Context(), Spec{Path: bin, Timeout: 30 * time.Second})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(exit.String(), "bad system call") {
		t.Errorf("err = %v", err)
	}
}

func TestHang(t *testing.T) {
	g := newTarget(t)
	g.spec.Timeout = 300 * time.Millisecond
	began := time.Now()
	_, err := g.run(t, g.spec, "hang")
	if err == nil || !strings.Contains(err.Error(), "did not end within 300ms") || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestFlood(t *testing.T) {
	g := newTarget(t)
	out, err := g.run(t, g.spec, "flood")
	if !errors.Is(err, ErrFlood) || len(out.Output) != MaxOutput {
		t.Errorf("%d bytes, %v", len(out.Output), err)
	}
}

// A daemon ends with the program that left it, in a session of its own or not.
func TestDaemon(t *testing.T) {
	g := newTarget(t)
	for _, without := range [][]Layer{nil, {Files}, {Namespaces}} {
		spec := g.spec
		spec.Without = without
		out, err := g.run(t, spec, "daemon")
		if err != nil || !strings.Contains(out.Output, "left") {
			t.Fatalf("without %v: %v %s", without, err, out.Output)
		}
		for deadline := time.Now().Add(10 * time.Second); len(sleepers(t)) > 0; {
			if time.Now().After(deadline) {
				t.Fatalf("without %v: %v still run", without, sleepers(t))
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// It is nobody, alone, without rights and without our environment.
func TestWho(t *testing.T) {
	t.Setenv("PLANTED", "planted")
	g := newTarget(t)
	supported(t, g.spec)
	out, err := g.run(t, g.spec, "who")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "Seccomp:\t2", " 1 0 [", "HOME=/tmp", "TMPDIR=/tmp"} {
		if !strings.Contains(out.Output, want) {
			t.Errorf("no %q in %s", want, out.Output)
		}
	}
	if os.Geteuid() == 0 && (!strings.Contains(out.Output, "Uid:\t65534\t65534\t65534\t65534") || !strings.Contains(out.Output, "Groups:\t \n")) {
		t.Errorf("it is %s", out.Output)
	}
	if strings.Contains(out.Output, "PLANTED") {
		t.Errorf("it has our environment: %s", out.Output)
	}
	out, err = g.run(t, g.spec, "look", "/proc/self/fd")
	if err != nil || strings.Contains(out.Output, "\n5\n") {
		t.Errorf("a file of the helper's is left open: %v %s", err, out.Output)
	}
}

// A bare view has the system's programs and nothing else; the host's view the
// configuration, also what only its owner reads.
func TestViews(t *testing.T) {
	g := newTarget(t)
	supported(t, g.spec)
	config := filepath.Join(g.dir, "config", "prometheus.yml")
	out, err := g.run(t, g.spec, "look", "/")
	if err != nil || strings.Contains(out.Output, "var") || strings.Contains(out.Output, "root") || !strings.Contains(out.Output, "usr") {
		t.Errorf("%v %s", err, out.Output)
	}
	g.spec.View, g.spec.ReadAll = Host, true
	out, err = g.run(t, g.spec, "read file", config)
	if err != nil || !strings.Contains(out.Output, "global: {}") {
		t.Errorf("%v %s", err, out.Output)
	}
	for _, dir := range []string{"/root", "/home", "/run"} {
		out, err := g.run(t, g.spec, "look", dir)
		if err != nil || strings.TrimSpace(out.Output) != "<nil>" && !strings.Contains(out.Output, "no such") {
			t.Errorf("%s: %v %s", dir, err, out.Output)
		}
	}
	if got, err := os.ReadDir(filepath.Dir(g.spec.Path)); err != nil || len(got) != 1 {
		t.Errorf("something was left on the host: %v %v", got, err)
	}
}

// Paths that are links show what they lead to, and hide it.
func TestLinks(t *testing.T) {
	g := newTarget(t)
	supported(t, g.spec)
	link := func(name, to string) string {
		path := filepath.Join(g.dir, name)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config, secret := link("linked", filepath.Join(g.dir, "config")), link("hidden", filepath.Join(g.dir, "secret"))
	g.spec.Path = link("program", g.spec.Path)
	g.spec.View, g.spec.ReadAll = Host, true
	g.spec.Show, g.spec.Hide = []string{config, filepath.Join(g.dir, "secret")}, []string{secret}
	if out, err := g.run(t, g.spec, "read file", filepath.Join(g.dir, "config", "prometheus.yml")); err != nil || !strings.Contains(out.Output, "global") {
		t.Errorf("%v %s", err, out.Output)
	}
	if out, err := g.run(t, g.spec, "read file", filepath.Join(g.dir, "secret")); err != nil || strings.Contains(out.Output, "planted") {
		t.Errorf("%v %s", err, out.Output)
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "no")
	if _, err := Run(t.Context(), Spec{Path: path, Timeout: time.Second}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
	if err := os.WriteFile(path, []byte("neither program nor script"), 0o755); err != nil {
		t.Fatal(err)
	}
	var start *StartError
	if _, err := Run(t.Context(), Spec{Path: path, Timeout: 30 * time.Second}); !errors.As(err, &start) || !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("err = %v", err)
	}
	_, err := Run(t.Context(), Spec{Path: "/bin/sh", Args: []string{"-c", "exit 3"}, Timeout: 30 * time.Second})
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("err = %v", err)
	}
}

// What is missing is told, each layer once.
func TestMissing(t *testing.T) {
	spec := Spec{Path: "/bin/true", Timeout: 30 * time.Second, Without: []Layer{Namespaces, Landlock, Filter, Limits}}
	out, err := Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	var got []Layer
	for _, g := range out.Missing {
		got = append(got, g.Layer)
	}
	if want := []Layer{Namespaces, Files, Limits, Landlock, Filter}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// A kernel that gives no namespaces is told from a sandbox that fails.
func TestNoNamespacesHere(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("NO_NAMESPACES") != "" {
		out, err := Run(t.Context(), Spec{Path: "/bin/true", Timeout: 30 * time.Second})
		if err != nil || len(out.Missing) < 2 || out.Missing[0].Layer != Namespaces {
			t.Errorf("%v %v", out, err)
		}
		return
	}
	const never = "echo 0 >/proc/sys/user/max_mnt_namespaces && echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" -test.run=TestNoNamespacesHere -test.v"
	cmd := exec.Command("unshare", "-Ur", "sh", "-c", never, self)
	cmd.Env = append(os.Environ(), "NO_NAMESPACES=1")
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "=== RUN") {
		t.Skipf("no user namespace to take them away in: %v %s", err, out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNoNamespacesHere") {
		t.Errorf("%v %s", err, out)
	}
}

// Everything holds for a plain user too.
func TestAsPlainUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests are it")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "plain")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "sandbox.test")
	copyFile(t, self, path)
	if err := errors.Join(os.Chmod(path, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-test.v")
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345, Groups: []uint32{}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "not here:") || strings.Contains(line, "--- SKIP") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\`: `/a\`, `/a\99z`: `/a\99z`, "/plain": "/plain", `\134\011`: "\\\t"} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// The mounts are closed one by one where the kernel cannot close them at once.
func TestReadOnlyEach(t *testing.T) {
	if os.Getenv("READ_ONLY_EACH") == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("unshare", "-Urm", self, "-test.run=TestReadOnlyEach", "-test.v")
		cmd.Env = append(os.Environ(), "READ_ONLY_EACH=1")
		out, err := cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "=== RUN") {
			t.Skipf("no namespaces to mount in: %v %s", err, out)
		}
		if err != nil {
			t.Errorf("%v %s", err, out)
		}
		return
	}
	dir := t.TempDir()
	below := filepath.Join(dir, "a b")
	if err := unix.Mount("t", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("t", below, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	if err := readOnlyEach(dir); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, below} {
		if err := os.WriteFile(filepath.Join(d, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", d, err)
		}
	}
	if err := errors.Join(unix.Unmount(below, 0), unix.Unmount(dir, 0)); err != nil {
		t.Error(err)
	}
}
