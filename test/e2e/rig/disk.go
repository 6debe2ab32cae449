package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// diskSize is room for the backup points of a whole campaign; the image has holes.
const diskSize = 600 << 20

// goingDown is XFS_IOC_GOINGDOWN of xfs_fs.h, _IOR('X', 125, uint32): ioctl_xfs_goingdown(2).
const (
	goingDown  = 0x8004587d
	noLogFlush = 2 // XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
)

// Disk is an xfs file system of its own that can be taken away from a container,
// as a disk that breaks is. It is not safe for concurrent use.
type Disk struct {
	// At is where the container has it.
	At string

	c    *Container // name, lock and clean-up only; there is nothing to boot
	dir  string     // mounted here, on the machine, while a container boots
	file string
	open *os.File // the disk itself, while it is hidden
}

// DiskAvailable returns "" when StartDisk can work here, else the reason.
func DiskAvailable() string {
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		return "a disk needs mkfs.xfs: apt-get install xfsprogs"
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err == nil && !strings.Contains(string(known), "\txfs\n") && exec.Command("modprobe", "xfs").Run() != nil {
		return "this kernel does not offer xfs"
	}
	return ""
}

// StartDisk makes a disk that holds what the image has at a path, to be given to
// Start by Args. It ends the test when it cannot. Call it before Start, so that
// it is removed after the container.
func (k *Kit) StartDisk(ctx context.Context, t testing.TB, at string) *Disk {
	t.Helper()
	d := &Disk{At: at, c: &Container{kit: k, t: t, log: k.log}}
	t.Cleanup(d.c.destroy)
	t.Cleanup(func() { _ = d.open.Close() })
	if err := d.create(ctx, filepath.Join(k.Image, at)); err != nil {
		t.Fatalf("create a disk: %v", err)
	}
	return d
}

// Args are what makes a container have it.
func (d *Disk) Args() []string { return []string{"--bind=" + d.dir + ":" + d.At} }

func (d *Disk) create(ctx context.Context, from string) error {
	if err := d.c.reserve(); err != nil {
		return err
	}
	d.dir, d.file = filepath.Join(d.c.dir, "disk"), filepath.Join(d.c.dir, "disk.img")
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(d.file)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return err
	}
	if _, err := host(ctx, "mkfs.xfs", "-q", d.file); err != nil {
		return err
	}
	if err := d.mount(ctx); err != nil {
		return err
	}
	if isDir(from) {
		if _, err := host(ctx, "cp", "-a", from+"/.", d.dir); err != nil {
			return err
		}
	}
	return syncFS(d.dir)
}

func (d *Disk) mount(ctx context.Context) error {
	_, err := host(ctx, "mount", "-o", "loop,nouuid", d.file, d.dir)
	return err
}

// Hide takes the disk off the machine, so that only the container that was booted
// with it has it: a broken one would be in the way of other containers that boot.
func (d *Disk) Hide() error {
	var err error
	if d.open, err = os.Open(d.dir); err != nil {
		return err
	}
	return os.NewSyscallError("umount "+d.dir, unix.Unmount(d.dir, unix.MNT_DETACH))
}

// Break makes a hidden disk fail: from now on every access to it is an
// input/output error, and what was not synced is lost.
func (d *Disk) Break() error {
	flags := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.open.Fd(), goingDown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return fmt.Errorf("shut down the file system %s: %w", d.dir, errno)
	}
	return nil
}

// Repair makes a hidden disk work again, with what was synced, for the next boot.
// The container must be off.
func (d *Disk) Repair(ctx context.Context) error {
	if err := d.open.Close(); err != nil {
		return err
	}
	// The broken one may live on in mount namespaces of others, and would be
	// mounted again: what it holds goes to a new one of the same UUID.
	old := d.file
	d.file += "+"
	if _, err := host(ctx, "cp", "--sparse=always", old, d.file); err != nil {
		return err
	}
	return errors.Join(d.mount(ctx), os.Remove(old))
}
