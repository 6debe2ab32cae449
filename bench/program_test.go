package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// built is where the release build of the program is kept while the benchmarks run.
var built string

// program is the program as it is released, built once.
var program = sync.OnceValues(func() (string, error) {
	var err error
	if built, err = os.MkdirTemp("", "obsup-bench-"); err != nil {
		return "", err
	}
	path := filepath.Join(built, "observability-upgrade")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "../cmd/observability-upgrade") //nolint:noctx // as long as it takes
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// TestMain removes the program again, and is what a benchmark
// starts it as.
func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(child(role))
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

// cost is what a command took.
type cost struct {
	time time.Duration // on the wall
	peak int64         // resident memory in bytes of its largest process
}

// timed runs a command that must end well.
func timed(b *testing.B, env []string, name string, args ...string) cost {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err := cmd.Run()
	took := time.Since(begin)
	if err != nil {
		b.Fatalf("%s %v: %v\n%s", name, args, err, out.String())
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		b.Fatal("no usage of " + name)
	}
	return cost{took, usage.Maxrss << 10}
}

// samples are the costs of one thing, measured in turns with others.
type samples []cost

func (s samples) time() time.Duration {
	var all []time.Duration
	for _, c := range s {
		all = append(all, c.time)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func (s samples) peak() int64 {
	var most int64
	for _, c := range s {
		most = max(most, c.peak)
	}
	return most
}

// ratio is one median by another.
func ratio(a, b samples) float64 { return a.time().Seconds() / b.time().Seconds() }

// mib is bytes in MiB, for a metric.
func mib(n int64) float64 { return float64(n) / (1 << 20) }

// tool skips a comparison with a program that is not there.
func tool(b *testing.B, name string) bool {
	b.Helper()
	if _, err := exec.LookPath(name); err != nil {
		b.Logf("not compared with %s: it is not installed (scripts/deps bench)", name)
		return false
	}
	return true
}

// newRoot is an empty root with a policy.
func newRoot(b *testing.B, policy string) layout.Root {
	b.Helper()
	r := layout.Root(b.TempDir())
	put(b, r.Policy(), policy, 0o644)
	return r
}

func put(b *testing.B, path, content string, mode os.FileMode) {
	b.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		b.Fatal(err)
	}
}

// upgrade runs the program on a root.
func upgrade(b *testing.B, r layout.Root, env []string, args ...string) cost {
	b.Helper()
	path, err := program()
	if err != nil {
		b.Fatal(err)
	}
	return timed(b, env, path, append([]string{"--root=" + string(r)}, args...)...)
}

// until asks again and again, as long as a test would.
func until(ctx context.Context, yes func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !yes() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
