package rig

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestNothingIsLeft(t *testing.T) {
	k := kit(t)
	var names []string
	t.Run("use", func(t *testing.T) {
		ctx := deadline(t)
		n := k.StartNetwork(ctx, t)
		c := k.Start(ctx, t, Options{Network: n})
		names = append(names, n.c.Name, c.Name)
		c.MustRun(ctx, "systemd-run", "--quiet", "sleep", "600")
		if err := c.Command(ctx, "sleep", "600").Start(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(deadline(t))
		c := k.Start(ctx, t, Options{})
		names = append(names, c.Name)
		cancel()
		c.destroy() // waits for the one that cancelling began
		assertGone(t, k, c.Name)
	})
	for _, name := range names {
		assertGone(t, k, name)
	}
}

// TestOwnerKilled kills a test process that has a container: the container dies
// with it, the rest is cleared away by the next to prepare, and what is in use
// stays.
func TestOwnerKilled(t *testing.T) {
	k, ctx := kit(t), deadline(t)
	if os.Getenv("RIG_TEST_OWNER") != "" {
		c := k.Start(ctx, t, Options{})
		fmt.Println("\ncontainer", c.Name)
		<-ctx.Done()
		return
	}
	mine := k.Start(ctx, t, Options{})
	owner := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestOwnerKilled$")
	owner.Env = append(os.Environ(), "RIG_TEST_OWNER=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	name := ""
	for lines := bufio.NewScanner(out); name == "" && lines.Scan(); {
		name, _ = strings.CutPrefix(lines.Text(), "container ")
		if !strings.HasPrefix(name, "rig-") {
			name = ""
		}
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	if name == "" {
		t.Fatal("the owner started no container")
	}
	if err := poll(ctx, func() bool { return len(processesNaming(name)) == 0 }); err != nil {
		t.Fatalf("processes outlive their owner: %q", processesNaming(name))
	}
	if _, err := Prepare(ctx, nil); err != nil {
		t.Fatal(err)
	}
	assertGone(t, k, name)
	mine.MustRun(ctx, "true")
}

func assertGone(t *testing.T, k *Kit, name string) {
	t.Helper()
	if mounts, err := mountsBelow(filepath.Join(k.runDir, name)); err != nil || len(mounts) > 0 {
		t.Errorf("%s left mounts %v (%v)", name, mounts, err)
	}
	if left, _ := filepath.Glob(filepath.Join(k.runDir, name) + "*"); len(left) > 0 {
		t.Errorf("%s left files %v", name, left)
	}
	if _, err := os.Stat("/run/netns/" + name); err == nil {
		t.Errorf("%s left its network namespace", name)
	}
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range roots {
		if isDir(filepath.Join(root, name)) {
			t.Errorf("%s left its cgroup in %s", name, root)
		}
	}
	if left := processesNaming(name); len(left) > 0 {
		t.Errorf("%s left processes: %q", name, left)
	}
}

func processesNaming(name string) []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		if data, _ := os.ReadFile(path); bytes.Contains(data, []byte(name)) {
			found = append(found, strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return found
}
