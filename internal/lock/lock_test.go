package lock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// The test binary also plays another process: it takes the lock, says so, and
// keeps it until its standard input ends.
func TestMain(m *testing.M) {
	if path := os.Getenv("LOCK_TEST_HOLD"); path != "" {
		l, err := Acquire(path, "another command")
		fmt.Println(err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = l.Release()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func file(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "var", "lock", "x.lock")
}

func mustAcquire(t *testing.T, path string) *Lock {
	t.Helper()
	l, err := Acquire(path, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Release() })
	return l
}

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAcquireAndRelease(t *testing.T) {
	path := file(t)
	old := syscall.Umask(0o077)
	l, err := Acquire(path, "observability-upgrade apply\n--yes")
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(t, path), fmt.Sprintf("%d observability-upgrade apply --yes\n", os.Getpid()); got != want {
		t.Errorf("file says %q, want %q", got, want)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if pid, held := Holder(path); !held || pid != os.Getpid() {
		t.Errorf("holder %d, %v", pid, held)
	}
	_, err = Acquire(path, "second")
	var heldErr *HeldError
	if !errors.As(err, &heldErr) || *heldErr != (HeldError{os.Getpid(), "observability-upgrade apply --yes", path}) {
		t.Errorf("taken lock: %v", err)
	}
	if err := errors.Join(l.Release(), l.Release(), (*Lock)(nil).Release()); err != nil {
		t.Error(err)
	}
	if got := text(t, path); got != "" {
		t.Errorf("released file says %q", got)
	}
	if pid, held := Holder(path); held {
		t.Errorf("released lock is held by %d", pid)
	}
	mustAcquire(t, path)
}

func TestOtherProcess(t *testing.T) {
	path := file(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "LOCK_TEST_HOLD="+path)
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "<nil>\n" {
		t.Fatalf("the process said %q, %v", line, err)
	}
	_, err := Acquire(path, "test")
	want := fmt.Sprintf("another run is in progress: process %d (another command) holds %s", cmd.Process.Pid, path)
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if pid, held := Holder(path); !held || pid != cmd.Process.Pid {
		t.Errorf("holder %d, %v", pid, held)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if pid, held := Holder(path); held {
		t.Errorf("held by %d, which was killed", pid)
	}
	mustAcquire(t, path)
}

func TestChildrenDoNotInheritIt(t *testing.T) {
	path := file(t)
	l := mustAcquire(t, path)
	child := exec.CommandContext(t.Context(), "cat")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Skipf("no child process can be started: %v", err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", child.Process.Pid))
	if err != nil || len(fds) == 0 {
		t.Errorf("open files of the child: %v, %v", fds, err)
	}
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); target == path {
			t.Errorf("the child has the lock file open as %s", fd)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, path)
	if err := errors.Join(stdin.Close(), child.Wait()); err != nil {
		t.Error(err)
	}
}

func TestOnlyOneAtATime(t *testing.T) {
	path := file(t)
	var inside, taken atomic.Int32
	var all sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		all.Go(func() {
			for range 20 {
				l, err := Acquire(path, "test")
				var held *HeldError
				if errors.As(err, &held) {
					continue
				}
				if err != nil {
					errs[i] = err
					return
				}
				if inside.Add(1) != 1 {
					errs[i] = errors.New("two are inside")
				}
				taken.Add(1)
				inside.Add(-1)
				if err := l.Release(); err != nil {
					errs[i] = err
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil || taken.Load() == 0 {
		t.Errorf("taken %d times: %v", taken.Load(), err)
	}
}

func TestLookingDoesNotTurnAway(t *testing.T) {
	path := file(t)
	if err := mustAcquire(t, path).Release(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var looker sync.WaitGroup
	looker.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				Holder(path)
			}
		}
	})
	for range 100 {
		l, err := Acquire(path, "test")
		if err != nil {
			t.Errorf("turned away by somebody who only looked: %v", err)
			break
		}
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	looker.Wait()
}

func TestRemovedWhileHeld(t *testing.T) {
	path := file(t)
	first := mustAcquire(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second := mustAcquire(t, path) // a person's rm cannot be prevented
	if err := first.Release(); err != nil {
		t.Error(err)
	}
	if got := text(t, path); !strings.HasPrefix(got, fmt.Sprint(os.Getpid())) {
		t.Errorf("the second's text is %q after the first was released", got)
	}
	if err := second.Release(); err != nil {
		t.Error(err)
	}
}

func TestUnsafe(t *testing.T) {
	for want, plant := range map[string]func(t *testing.T, path string) error{
		"is a link": func(t *testing.T, path string) error {
			return os.Symlink(path+".target", path)
		},
		"is not a regular file": func(t *testing.T, path string) error { return syscall.Mkfifo(path, 0o644) },
		"has 2 names": func(t *testing.T, path string) error {
			return errors.Join(os.WriteFile(path+".other", []byte("precious"), 0o600), os.Link(path+".other", path))
		},
		"belongs to uid 1234": func(t *testing.T, path string) error {
			if os.Geteuid() != 0 {
				t.Skip("giving a file away needs root")
			}
			return errors.Join(os.WriteFile(path, []byte("precious"), 0o600), os.Chown(path, 1234, -1))
		},
	} {
		t.Run(want, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.lock")
			if err := plant(t, path); err != nil {
				t.Fatal(err)
			}
			_, err := Acquire(path, "test")
			var unsafe *UnsafeError
			if !errors.As(err, &unsafe) || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "rm "+path) {
				t.Errorf("got %v", err)
			}
			if pid, held := Holder(path); held {
				t.Errorf("held by %d", pid)
			}
			for _, other := range []string{path, path + ".other"} {
				st, err := os.Stat(other)
				if err != nil || !st.Mode().IsRegular() { // reading the pipe would wait for a writer
					continue
				}
				if got := text(t, other); got != "precious" {
					t.Errorf("%s was changed to %q", other, got)
				}
			}
			if _, err := os.Lstat(path + ".target"); err == nil {
				t.Error("the link was followed")
			}
		})
	}
}

func TestPlantedInAStickyDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a file away needs root")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "x.lock")
	err := errors.Join(os.Chmod(dir, os.ModeSticky|0o777), os.Chown(dir, 1000, -1), os.WriteFile(path, nil, 0o666), os.Chown(path, 1234, -1))
	if err != nil {
		t.Fatal(err)
	}
	var unsafe *UnsafeError
	if _, err := Acquire(path, "test"); !errors.As(err, &unsafe) {
		t.Errorf("got %v", err)
	}
}

func TestLinkedDirectory(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "run", "lock"), 0o755), os.Mkdir(filepath.Join(root, "var"), 0o755),
		os.Symlink("../run/lock", filepath.Join(root, "var", "lock"))); err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, filepath.Join(root, "var", "lock", "x.lock"))
	if _, held := Holder(filepath.Join(root, "run", "lock", "x.lock")); !held {
		t.Error("the lock is not where the link leads")
	}
}

func TestWithoutRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(filepath.Join(dir, "x.lock"), "test"); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "usually root") {
		t.Errorf("got %v", err)
	}
}

func TestHolderOfNothing(t *testing.T) {
	if pid, held := Holder(file(t)); held {
		t.Errorf("a missing file is held by %d", pid)
	}
}

func TestUnknownHolder(t *testing.T) {
	path := file(t)
	l := mustAcquire(t, path)
	if err := l.f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	_, err := Acquire(path, "test")
	var held *HeldError
	if !errors.As(err, &held) || held.PID != 0 || !strings.Contains(err.Error(), "fuser "+path) {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"12345 observability-upgrade apply\n", "", "\n", "-1 x", "99999999999999999999 x", "7", "x y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pid, cmd := parse(s)
		if pid < 0 || strings.Contains(cmd, "\n") || pid == 0 && cmd != "" {
			t.Errorf("%q gives %d %q", s, pid, cmd)
		}
	})
}
