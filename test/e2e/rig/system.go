package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const pollEvery = 10 * time.Millisecond

// poll calls done until it says yes or ctx ends.
func poll(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// lockFile takes an exclusive lock; closing the file gives it back, as does the
// end of the process.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func() bool { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil })
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", path, err)
	}
	return nil
}

// mountPoints lists what is mounted, in mount order.
func mountPoints() ([]mount, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []mount
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 4 {
			continue
		}
		list = append(list, mount{dir: unescapeMount(w[1]), kind: w[2], options: w[3]})
	}
	return list, lines.Err()
}

type mount struct{ dir, kind, options string }

// unescapeMount undoes the octal escapes of proc(5)'s mounts file.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mountsBelow lists the mounts at or below dir, newest first.
func mountsBelow(dir string) ([]string, error) {
	all, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var below []string
	for _, m := range all {
		if m.dir == dir || strings.HasPrefix(m.dir, dir+"/") {
			below = append([]string{m.dir}, below...)
		}
	}
	return below, nil
}

// cgroupRoots finds the hierarchies that a systemd container lives in: the
// unified one and, on machines that have both, the one named systemd.
func cgroupRoots() ([]string, error) {
	all, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var unified, named []string
	for _, m := range all {
		switch {
		case m.kind == "cgroup2" && len(unified) == 0:
			unified = append(unified, m.dir)
		case m.kind == "cgroup" && len(named) == 0 && strings.Contains(","+m.options+",", ",name=systemd,"):
			named = append(named, m.dir)
		}
	}
	if len(named) == 0 {
		// /proc/self/mounts leaves the name out on some kernels.
		for _, m := range all {
			if m.kind == "cgroup" && filepath.Base(m.dir) == "systemd" {
				named = append(named, m.dir)
				break
			}
		}
	}
	if len(unified) == 0 {
		return nil, errors.New("no cgroup2 file system is mounted")
	}
	return append(unified, named...), nil
}

// cgroupProcs lists the processes in a cgroup and all cgroups below it.
func cgroupProcs(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // cgroups vanish while they are walked
		}
		if d.Name() != "cgroup.procs" {
			return nil
		}
		data, _ := os.ReadFile(path)
		for _, w := range bytes.Fields(data) {
			if pid, err := strconv.Atoi(string(w)); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// killOutside kills the processes in the process namespace of leader that are not in
// the named cgroup.
func killOutside(name string, leader int) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	pids, err := namespaceProcs(leader)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is dead already
	}
	within := cgroupProcs(filepath.Join(roots[0], name))
	for _, pid := range pids {
		if !slices.Contains(within, pid) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	return err
}

// emptyCgroups kills all processes in the named cgroup of each hierarchy, waits
// until they are gone and removes the cgroups.
func emptyCgroups(ctx context.Context, name string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	for _, root := range roots {
		top := filepath.Join(root, name)
		err := poll(ctx, func() bool {
			pids := cgroupProcs(top)
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			return len(pids) == 0
		})
		if err != nil {
			return fmt.Errorf("processes %v in cgroup %s do not die: %w", cgroupProcs(top), top, err)
		}
		// A process that is gone from cgroup.procs may still be on its way out.
		var busy error
		if err := poll(ctx, func() bool {
			busy = removeCgroup(top)
			return !errors.Is(busy, unix.EBUSY)
		}); err != nil || busy != nil {
			return errors.Join(busy, err)
		}
	}
	return nil
}

// removeCgroup removes an empty cgroup with those below it, deepest first.
func removeCgroup(top string) error {
	var dirs []string
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := unix.Rmdir(dirs[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", dirs[i], err)
		}
	}
	return nil
}

// host runs a program of the machine itself and returns its output.
func host(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	// Cancelling reaches the program's children too; the end of this process
	// reaches the program. That signal is bound to the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(stderr.Bytes(), 2000))
	}
	return stdout.String(), nil
}
