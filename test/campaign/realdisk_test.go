package campaign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
)

// realDisk is a file system of the kernel on a loop device, whose power can be cut.
type realDisk struct {
	kind, device, dir string
}

// newRealDisk makes one; it skips the test where that cannot be.
func newRealDisk(t *testing.T, kind string) *realDisk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a loop device needs root")
	}
	mkfs, err := exec.LookPath("mkfs." + kind)
	if err != nil {
		t.Skipf("%v; apt-get install xfsprogs e2fsprogs", err)
	}
	base, err := os.MkdirTemp("/dev/shm", "obsup-disk-")
	if err != nil {
		t.Skipf("no memory for a disk: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	image := filepath.Join(base, "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 320<<20)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device here: %v: %s", err, out)
	}
	d := &realDisk{kind: kind, device: strings.TrimSpace(string(out)), dir: filepath.Join(base, "mnt")}
	t.Cleanup(func() {
		_ = unix.Unmount(d.dir, unix.MNT_DETACH)
		if out, err := exec.Command("losetup", "--detach", d.device).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	if out, err := exec.Command(mkfs, "-q", d.device).CombinedOutput(); err != nil {
		t.Skipf("%s: %v: %s", mkfs, err, out)
	}
	if err := errors.Join(os.Mkdir(d.dir, 0o700), d.mount()); err != nil {
		t.Skipf("mount a loop device with %s: %v", kind, err)
	}
	return d
}

func (d *realDisk) mount() error { return unix.Mount(d.device, d.dir, d.kind, 0, "") }

// cut shuts the file system down: nothing more reaches the disk, not even the log
// that is in memory. EXT4_IOC_SHUTDOWN is the same number.
func (d *realDisk) cut() error {
	const goingDown, noLogFlush = 0x8004587d, 2 // XFS_IOC_GOINGDOWN, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), goingDown, noLogFlush)
}

// reboot mounts the file system again, which replays its log.
func (d *realDisk) reboot() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := unix.Unmount(d.dir, 0)
		if err == nil {
			return d.mount()
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("unmount: %w", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// The power is cut on real file systems at every effect of an operation: at that
// instant the process is dead, or it goes on for a while on a disk that answers
// nothing but errors.
func TestRealDisks(t *testing.T) {
	if os.Geteuid() == 0 && os.Getenv(ownMounts) == "" {
		inOwnNamespace(t)
		return
	}
	c := configured(t)
	for i, kind := range []string{"xfs", "ext4"} {
		t.Run(kind, func(t *testing.T) {
			d := newRealDisk(t, kind)
			end := time.Now().Add(c.limit / realShare / 2)
			rng := rand.New(rand.NewPCG(c.seed, uint64(i)))
			points := 0
			try := func(sc scenario, n int, dying bool) bool {
				went, err := d.point(t, sc, n, dying)
				if err != nil {
					t.Errorf("CAMPAIGN_SEED=%d, %s on %s, effect %d, goes on %v: %v", c.seed, sc.name, kind, n, dying, err)
				}
				if went {
					points++
				}
				return went
			}
			for !c.all && time.Now().Before(end) {
				try(c.scenarios[rng.IntN(len(c.scenarios))], 1+rng.IntN(90), rng.IntN(3) == 0)
			}
			for _, sc := range c.scenarios {
				for n := 1; c.all && try(sc, n, false) && try(sc, n, true); n++ {
				}
			}
			t.Logf("%d points on %s", points, kind)
			if points == 0 {
				t.Error("nothing was tried")
			}
		})
	}
}

// realShare is the part of the time that is spent on real disks: one of so many.
const realShare = 5

// ownMounts tells a process that nobody else sees what it mounts.
const ownMounts = "CAMPAIGN_OWN_MOUNTS"

// inOwnNamespace runs a test in a process with a mount namespace of its own. A
// container that is started meanwhile would hold a copy of each mount, and a file
// system that is still mounted there is not read anew from its disk.
func inOwnNamespace(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=0")
	cmd.Env = append(os.Environ(), ownMounts+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGTERM}
	var out strings.Builder
	cmd.Stdout = io.MultiWriter(&out, os.Stdout) // as it goes on
	cmd.Stderr = os.Stderr
	err = cmd.Run()
	switch {
	case errors.Is(err, unix.EPERM):
		t.Skipf("no mount namespace here: %v", err)
	case err != nil:
		t.Errorf("%v", err)
	case strings.Contains(out.String(), "--- SKIP: "+t.Name()):
		t.Skip("skipped in its own namespace, see above")
	}
}

// point cuts the power at the n-th effect of a scenario; went is false once that
// has no more.
func (d *realDisk) point(t *testing.T, sc scenario, n int, dying bool) (went bool, err error) {
	ctx := t.Context()
	dir, err := os.MkdirTemp(d.dir, "host-")
	if err != nil {
		return false, err
	}
	w := runtest.At(t, dir)
	w.T = thrower{t}
	clock := &clock{}
	clock.set(1)
	w.Settle, w.Wait, w.Now = 1, 25*time.Millisecond, clock.Now
	if sc.set != nil {
		sc.set(w)
	}
	var req run.Request
	err = caught(func() error {
		if err := sc.setup(ctx, w); err != nil {
			return err
		}
		clock.set(2)
		req = sc.request(w)
		return (&hostfs.Host{}).SyncAll(dir)
	})
	if err != nil {
		return false, fmt.Errorf("set up: %w", err)
	}
	before := w.Snapshot()
	var cut error
	c := &runtest.CrashAt{N: n, Do: func() { cut = d.cut() }}
	guard := c.Guard
	if dying {
		guard = func(op, target string) error {
			_ = c.Guard(op, target) // the disk is gone, and the process does not know
			return nil
		}
	}
	_, runErr := w.Engine(guard).Execute(ctx, req)
	if !c.Crashed() {
		return false, os.RemoveAll(dir)
	}
	if cut != nil {
		t.Skipf("this kernel cannot shut %s down: %v", d.kind, cut)
	}
	if err := d.reboot(); err != nil {
		return true, err
	}
	w.PowerOff()
	if n%2 == 0 {
		sc.boot(ctx, w, before.Units())
	}
	clock.set(3)
	if err := d.mended(ctx, w, sc, before); err != nil {
		return true, fmt.Errorf("%s (%w); the run had ended with: %v", c.Op, err, runErr) //nolint:errorlint // there may be none
	}
	w.Server.Close()
	return true, os.RemoveAll(dir)
}

// mended recovers and asks for the promises.
func (d *realDisk) mended(ctx context.Context, w *runtest.World, sc scenario, before runtest.Snapshot) error {
	_, err := recovered(ctx, w)
	if err != nil && (!sc.stopped || !errors.As(err, new(*run.NotStartedError))) {
		return fmt.Errorf("recover: %w", err)
	}
	sc.boot(ctx, w, before.Units())
	return caught(func() error {
		at, err := w.Whole(sc.allowed)
		if err != nil {
			return err
		}
		if err := w.Clean(); err != nil || sc.check == nil {
			return err
		}
		return sc.check(w, at)
	})
}
