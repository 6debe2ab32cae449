package rig

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bootTimeout bounds a boot, which takes about a second.
const bootTimeout = 90 * time.Second

// Options say how Start makes a container. The zero value is a host that has
// only its loopback interface.
type Options struct {
	// Network connects the container; nil leaves it with loopback only.
	Network *Network
	// NspawnArgs are added to systemd-nspawn's own, such as
	// "--tmpfs=/srv:size=1M" or "--bind=/host/dir:/dir".
	NspawnArgs []string
	// BootTimeout replaces the default of 90 seconds.
	BootTimeout time.Duration
}

// Container is a host. Its methods are safe for concurrent use, except that
// PowerOff and Boot must not overlap with each other.
type Container struct {
	// Name is unique; it is the host name, and names the network namespace and
	// the cgroup.
	Name string
	// IP is the address in Options.Network, "" without one.
	IP string
	// BootTime is how long the last boot took, from start to default target.
	BootTime time.Duration

	kit  *Kit
	t    testing.TB
	opts Options
	dir  string // below the kit's run directory
	root string // the overlay's merged directory
	lock *os.File
	log  *slog.Logger

	destroyOnce sync.Once
	mu          sync.Mutex
	running     *running
}

// running is one boot of a container.
type running struct {
	leader int
	pidfd  int           // of leader; -1 before it is known
	exited chan struct{} // closed when systemd-nspawn has ended and was waited for
	output *os.File
}

// Start makes and boots a container, and ends the test when it cannot. It is
// destroyed at the end of the test or when ctx is done, whichever is first; when
// the test failed, the end of its journal is logged before.
func (k *Kit) Start(ctx context.Context, t testing.TB, opts Options) *Container {
	t.Helper()
	c := &Container{kit: k, t: t, opts: opts, log: k.log}
	t.Cleanup(c.destroy)
	if err := c.create(ctx); err != nil {
		t.Fatalf("create a container: %v", err)
	}
	stop := context.AfterFunc(ctx, c.destroy)
	t.Cleanup(func() { stop() })
	if err := c.Boot(ctx); err != nil {
		t.Fatalf("boot container %s: %v", c.Name, err)
	}
	return c
}

// create makes the overlay and the network namespace.
func (c *Container) create(ctx context.Context) error {
	if err := c.reserve(); err != nil {
		return err
	}
	c.root = filepath.Join(c.dir, "root")
	upper, work := filepath.Join(c.dir, "upper"), filepath.Join(c.dir, "work")
	for _, dir := range []string{c.dir, c.root, upper, work, filepath.Join(upper, "etc")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
			return err
		}
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	for name, text := range map[string]string{
		"hostname":   c.Name + "\n",
		"machine-id": hex.EncodeToString(id) + "\n",
	} {
		if err := os.WriteFile(filepath.Join(upper, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	data := "lowerdir=" + c.kit.Shared + ":" + c.kit.Image + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", c.root, "overlay", 0, data); err != nil {
		return fmt.Errorf("mount the overlay %s (%s): %w", c.root, data, err)
	}
	if err := addNetns(ctx, c.Name); err != nil {
		return err
	}
	if c.opts.Network != nil {
		ip, err := c.opts.Network.attach(ctx, c.Name)
		if err != nil {
			return err
		}
		c.IP = ip
	}
	return nil
}

// reserve finds a free name and locks it, so that other processes leave what
// belongs to it alone for as long as this process lives.
func (c *Container) reserve() error {
	for {
		id := make([]byte, 4)
		_, _ = rand.Read(id)
		c.Name = "rig-" + hex.EncodeToString(id)
		c.dir = filepath.Join(c.kit.runDir, c.Name)
		path := c.dir + ".lock"
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		// A sweep may have taken the file in between: then try another name.
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			f.Close()
			continue
		}
		if _, err := os.Stat(path); err != nil {
			f.Close()
			continue
		}
		c.lock = f
		return nil
	}
}

// Boot starts the container's systemd and returns when its default target is
// reached. The container must not be running.
func (c *Container) Boot(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return fmt.Errorf("container %s is running already", c.Name)
	}
	limit := c.opts.BootTimeout
	if limit == 0 {
		limit = bootTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not up after %v", limit))
	defer cancel()
	begin := time.Now()

	groups, err := c.makeCgroups(ctx)
	if err != nil {
		return err
	}
	notify, err := listenNotify(c.Name)
	if err != nil {
		return err
	}
	defer notify.Close()
	output, err := os.Create(filepath.Join(c.dir, "console"))
	if err != nil {
		return err
	}
	r := &running{pidfd: -1, exited: make(chan struct{}), output: output}
	if err := c.spawn(r, groups, notify.name); err != nil {
		output.Close()
		return err
	}
	c.running = r
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-r.exited:
		case <-ctx.Done():
		}
		notify.Close() // ends the wait for a message that will not come
	})
	r.leader, err = notify.await()
	if err == nil {
		r.pidfd, err = unix.PidfdOpen(r.leader, 0)
	}
	if err != nil {
		err = errors.Join(context.Cause(ctx), err)
		return fmt.Errorf("wait for systemd in the container: %w; console:\n%w", err,
			errors.Join(c.kill(context.WithoutCancel(ctx)), errors.New(c.console())))
	}
	c.BootTime = time.Since(begin)
	cancel()
	watch.Wait()
	return nil
}

// spawn starts systemd-nspawn within its cgroups.
func (c *Container) spawn(r *running, groups []string, notifySocket string) error {
	script := `for g in "$1"/cgroup.procs ${2:+"$2"/cgroup.procs}; do echo $$ >"$g" || exit 1; done
shift 2; exec systemd-nspawn "$@"`
	args := append([]string{"-c", script, "sh"}, groups...)
	if len(groups) == 1 {
		args = append(args, "")
	}
	args = append(args,
		"--quiet", "--boot", "--directory="+c.root, "--machine="+c.Name,
		"--register=no", "--keep-unit", "--network-namespace-path=/run/netns/"+c.Name,
		"--console=pipe", "--notify-ready=yes",
		"--link-journal=no", "--resolv-conf=off", "--timezone=off",
		// As on a host; nspawn before version 254 denies it.
		"--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self")
	args = append(args, c.opts.NspawnArgs...)
	cmd := exec.Command("/bin/sh", args...) //nolint:noctx // lives until it is killed by name
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "NOTIFY_SOCKET="+notifySocket)
	cmd.Stdout, cmd.Stderr = r.output, r.output
	// The container dies with the test process, even by SIGKILL. The signal is
	// bound to the thread that forks, so that thread is kept for as long.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			r.output.Close()
			close(r.exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start systemd-nspawn: %w", err)
	}
	return nil
}

// makeCgroups makes the container's cgroup in each hierarchy. Containers that
// shared one would see each other's units.
func (c *Container) makeCgroups(ctx context.Context) ([]string, error) {
	if err := emptyCgroups(ctx, c.Name); err != nil {
		return nil, err
	}
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	for i, root := range roots {
		roots[i] = filepath.Join(root, c.Name)
		if err := os.Mkdir(roots[i], 0o755); err != nil {
			return nil, err
		}
	}
	return roots, nil
}

// PowerOff cuts the power: every process of the container is killed at once, and
// nothing gets a chance to shut down. What was written but not synced stays, for
// the machine's page cache lives on. Boot starts the container again.
func (c *Container) PowerOff(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return fmt.Errorf("container %s is not running", c.Name)
	}
	return c.kill(ctx)
}

// kill ends the container's processes. c.mu must be held.
func (c *Container) kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("not dead after 30 s"))
	defer cancel()
	r := c.running
	if r != nil && r.leader != 0 {
		// First what Command started, which is in no cgroup of the container: no power
		// cut lets a program find that systemd is dead, and write that down.
		if err := killOutside(c.Name, r.leader); err != nil {
			return fmt.Errorf("cut the power of container %s: %w", c.Name, err)
		}
	}
	if err := emptyCgroups(ctx, c.Name); err != nil {
		return fmt.Errorf("cut the power of container %s: %w", c.Name, err)
	}
	if r != nil {
		select {
		case <-r.exited:
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of container %s: %w", c.Name, context.Cause(ctx))
		}
	}
	if r != nil && r.pidfd >= 0 {
		// The first process of a process namespace is dead when all in it are,
		// those included that Command started and no cgroup of ours holds.
		err := poll(ctx, func() bool {
			fds := []unix.PollFd{{Fd: int32(r.pidfd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, 0)
			return err == nil && n == 1
		})
		if err != nil {
			return fmt.Errorf("wait for the end of all processes in container %s: %w", c.Name, err)
		}
		unix.Close(r.pidfd)
	}
	c.running = nil
	return nil
}

// Leader is the process id, on the machine, of the container's first process. It
// is an error when the container is not running.
func (c *Container) Leader() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil || c.running.leader == 0 {
		return 0, fmt.Errorf("container %s is not running", c.Name)
	}
	return c.running.leader, nil
}

// destroy ends the container and removes all that belongs to it. It runs once;
// later callers wait for the first.
func (c *Container) destroy() {
	c.destroyOnce.Do(func() {
		if c.lock == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.t.Failed() {
			c.t.Logf("journal of container %s:\n%s", c.Name, c.journalTail(ctx))
		}
		if err := c.kill(ctx); err != nil {
			c.t.Errorf("%v", err)
		}
		if err := remove(ctx, c.kit.runDir, c.Name); err != nil {
			c.t.Errorf("clean up container %s: %v", c.Name, err)
		}
		c.lock.Close()
	})
}

// journalTail returns the end of the journal, read from the disk: it works for
// living and dead containers.
func (c *Container) journalTail(ctx context.Context) string {
	out, err := host(ctx, "chroot", c.root, "journalctl", "--directory=/var/log/journal",
		"--no-pager", "--output=short-monotonic", "--lines=150")
	if err != nil {
		return fmt.Sprintf("%s%v\nconsole:\n%s", out, err, c.console())
	}
	return out
}

func (c *Container) console() string {
	data, _ := os.ReadFile(filepath.Join(c.dir, "console"))
	return tail(data, 4000)
}

// remove clears away what belongs to the name of a dead container. It is
// idempotent.
func remove(ctx context.Context, runDir, name string) error {
	errs := []error{emptyCgroups(ctx, name), deleteNetns(ctx, name)}
	dir := filepath.Join(runDir, name)
	mounts, err := mountsBelow(dir)
	errs = append(errs, err)
	for _, m := range mounts {
		errs = append(errs, os.NewSyscallError("umount "+m, unmount(ctx, m)))
	}
	errs = append(errs, removeTree(dir))
	for _, left := range []string{"/run/systemd/nspawn/propagate/" + name, "/run/systemd/nspawn/unix-export/" + name} {
		if err := os.Remove(left); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // the lock file stays, so that the next sweep tries again
	}
	if err := os.Remove(dir + ".lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unmount waits until the last user of a mount is gone: processes that were
// killed give up their files a moment after they have left their cgroup.
func unmount(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var err error
	_ = poll(ctx, func() bool {
		err = unix.Unmount(dir, 0)
		return !errors.Is(err, unix.EBUSY)
	})
	return err
}

// sweep removes what processes that are gone left behind. The cache's lock must
// be held.
func sweep(ctx context.Context, runDir string, log *slog.Logger) {
	locks, _ := filepath.Glob(filepath.Join(runDir, "*.lock"))
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			name := strings.TrimSuffix(filepath.Base(path), ".lock")
			if err := remove(ctx, runDir, name); err != nil {
				log.Warn("Cannot clear away a container that a test left.", "container", name, "error", err)
			} else {
				log.Info("Cleared away a container that a test left.", "container", name)
			}
		}
		f.Close()
	}
}
