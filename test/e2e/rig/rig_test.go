package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// prepared is shared by the tests of this package: the cache is made once.
var prepared = sync.OnceValues(func() (*Kit, error) {
	return Prepare(context.Background(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
})

func kit(t *testing.T) *Kit {
	t.Helper()
	if reason := Available(); reason != "" {
		t.Skip(reason)
	}
	k, err := prepared()
	if err != nil {
		t.Fatalf("prepare the rig: %v", err)
	}
	return k
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

var newStack = map[string]string{"prometheus": "2.53", "alertmanager": "0.28", "node_exporter": "1.9"}

func TestUpstreamVersion(t *testing.T) {
	for full, want := range map[string][2]string{
		"2.42.0+ds-5+deb12u1": {"2.42.0", "2.42.0+ds"},
		"2.53.3+ds1-2":        {"2.53.3", "2.53.3+ds1"},
		"0.25.0-1+b4":         {"0.25.0", "0.25.0"},
		"1:1.2.3~rc1-1":       {"1.2.3", "1.2.3~rc1"},
		"3.5.3":               {"3.5.3", "3.5.3"},
	} {
		if up, deb := upstreamVersion(full); up != want[0] || deb != want[1] {
			t.Errorf("upstreamVersion(%q) = %q, %q, want %q", full, up, deb, want)
		}
	}
}

func TestReleasesAreComplete(t *testing.T) {
	k := kit(t)
	for _, r := range k.Releases {
		t.Logf("%s %s (Debian %s, %s)", r.Component, r.Version, r.DebianVersion, r.Suite)
		for _, name := range r.Binaries() {
			if st, err := os.Stat(filepath.Join(r.Dir, name)); err != nil || st.Mode().Perm() != 0o755 {
				t.Errorf("%s %s: program %s: %v %v", r.Component, r.Version, name, st, err)
			}
		}
	}
	for component, lines := range map[string][]string{
		"prometheus": {"2.42", "2.53"}, "alertmanager": {"0.25", "0.28"}, "node_exporter": {"1.5", "1.9"},
	} {
		for _, line := range lines {
			if _, err := k.Release(component, line); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := k.Release("prometheus", "9.9"); err == nil || !strings.Contains(err.Error(), "2.53") {
		t.Errorf("a version that is not there: error %v, want one that names those that are", err)
	}
}

func TestReleaseDir(t *testing.T) {
	k := kit(t)
	dest := t.TempDir()
	if err := k.ReleaseDir(dest, map[string][]string{"prometheus": {"2.42", "2.53"}, "node_exporter": {"1.9"}}); err != nil {
		t.Fatal(err)
	}
	r, err := k.Release("prometheus", "2.42")
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dest, "github/prometheus/prometheus/v"+r.Version, filepath.Base(r.Archive))
	if _, err := os.Stat(want); err != nil {
		t.Error(err)
	}
	out, err := host(t.Context(), "tar", "-tzf", want)
	if err != nil {
		t.Fatal(err)
	}
	top := strings.TrimSuffix(filepath.Base(r.Archive), ".tar.gz")
	for _, name := range []string{"prometheus", "promtool", "prometheus.yml", "LICENSE"} {
		if !slices.Contains(strings.Split(out, "\n"), top+"/"+name) {
			t.Errorf("%s is not in the archive:\n%s", name, out)
		}
	}
}

func TestContainer(t *testing.T) {
	t.Parallel()
	k, ctx := kit(t), deadline(t)
	c := k.Start(ctx, t, Options{})
	t.Logf("booted in %v", c.BootTime)

	r, err := c.Run(ctx, "systemctl", "is-system-running")
	if err != nil {
		t.Fatal(err)
	}
	if state := strings.TrimSpace(r.Stdout); state != "running" {
		t.Errorf("systemctl is-system-running: %s; failed: %s", state, c.MustRun(ctx, "systemctl", "--failed", "--plain"))
	}
	out := c.MustRun(ctx, "busctl", "get-property", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
		"org.freedesktop.systemd1.Manager", "Version")
	if !strings.HasPrefix(out, "s \"") {
		t.Errorf("D-Bus answers %q", out)
	}
	if got := strings.TrimSpace(c.MustRun(ctx, "hostname")); got != c.Name {
		t.Errorf("host name %q, want %q", got, c.Name)
	}
	if out := c.MustRun(ctx, "ip", "-brief", "link"); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "lo") {
		t.Errorf("interfaces, want lo only:\n%s", out)
	}

	t.Run("exit codes and signals", func(t *testing.T) {
		if r, err = c.Run(ctx, "sh", "-c", "echo out; echo err >&2; exit 3"); err != nil || r != (Result{"out\n", "err\n", 3, 0}) {
			t.Errorf("Run: %v, %v", r, err)
		}
		if r, err = c.Run(ctx, "sh", "-c", "kill -9 $$"); err != nil || r.Signal != syscall.SIGKILL || r.ExitCode != -1 {
			t.Errorf("Run of what is killed: %v, %v", r, err)
		}
		if r, err = c.RunIn(ctx, []string{"--property=User=nobody"}, "sh", "-c", "id -un; grep ^0:: /proc/self/cgroup; exit 4"); err != nil || r.ExitCode != 4 {
			t.Errorf("RunIn: %v, %v", r, err)
		}
		if !strings.HasPrefix(r.Stdout, "nobody\n0::/system.slice/run-") {
			t.Errorf("RunIn ran as and in %q", r.Stdout)
		}
	})
	t.Run("killing the real process", func(t *testing.T) {
		cmd := c.Command(ctx, "sh", "-c", "echo up; exec sleep 600")
		up, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := up.Read(make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		inside := strings.TrimSpace(c.MustRun(ctx, "pgrep", "-x", "sleep|sh"))
		var pid int
		if _, err := fmt.Sscan(inside, &pid); err != nil {
			t.Fatalf("pgrep: %q: %v", inside, err)
		}
		outside, err := c.HostPID(pid)
		if err != nil {
			t.Fatal(err)
		}
		if child, err := childOf(cmd.Process.Pid); err != nil || child != outside {
			t.Errorf("HostPID(%d) = %d, nsenter's child is %d (%v)", pid, outside, child, err)
		}
		if err := c.Kill(cmd, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
			t.Errorf("ended by %v, want SIGKILL", cmd.ProcessState)
		}
	})
	t.Run("cancelling kills the real process", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := c.Run(short, "sleep", "601"); err == nil {
			t.Error("no error from a command that was cancelled")
		}
		if r, err := c.Run(ctx, "pgrep", "-f", "sleep 601"); err != nil || r.ExitCode != 1 {
			t.Errorf("sleep is still there: %v %v", r, err)
		}
	})
	t.Run("files", func(t *testing.T) {
		c.MustRun(ctx, "ln", "-s", "/etc", "/srv/link")
		if err := c.WriteFile("/srv/link/deep/er/file", []byte("text"), 0o640); err != nil {
			t.Fatal(err)
		}
		if got := c.MustRun(ctx, "stat", "-c", "%a %U %s", "/etc/deep/er/file"); got != "640 root 4\n" {
			t.Errorf("stat: %q", got)
		}
		if _, err := os.Stat("/etc/deep"); err == nil {
			t.Error("a link led out of the container")
		}
		if err := c.WriteFile("/run/volatile", []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := c.MustRun(ctx, "cat", "/run/volatile"); got != "text" {
			t.Errorf("a file in /run: %q", got)
		}
		before, err := c.TreeListing(ctx, "/etc/deep", "/nowhere")
		if err != nil || len(before) != 4 || before[3] != "/nowhere absent" {
			t.Fatalf("TreeListing: %q, %v", before, err)
		}
		digest, err := c.TreeDigest(ctx, "/etc/deep")
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range []string{"chmod 600", "chown 1:1", "touch", "echo x >>"} {
			c.MustRun(ctx, "sh", "-c", change+" /etc/deep/er/file")
			now, err := c.TreeDigest(ctx, "/etc/deep")
			if err != nil || now == digest {
				t.Errorf("after %s the digest is the same (%v)", change, err)
			}
			digest = now
		}
	})
	t.Run("listening inside", func(t *testing.T) {
		l, err := c.Listen(ctx, "tcp", "127.0.0.1:8080")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }),
		}
		done := make(chan error, 1)
		go func() { done <- srv.Serve(l) }()
		if got := c.MustRun(ctx, "curl", "-sS", "http://127.0.0.1:8080/"); got != "hello" {
			t.Errorf("curl: %q", got)
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

func TestEveryProgramRuns(t *testing.T) {
	t.Parallel()
	k, ctx := kit(t), deadline(t)
	c := k.Start(ctx, t, Options{})
	for _, r := range k.Releases {
		for _, name := range r.Binaries() {
			if err := c.CopyIn(filepath.Join(r.Dir, name), "/opt/"+name, 0o755); err != nil {
				t.Fatal(err)
			}
			res, err := c.Run(ctx, "/opt/"+name, "--version")
			if want := name + ", version " + r.DebianVersion + " ("; err != nil || !strings.HasPrefix(res.Stdout+res.Stderr, want) {
				t.Errorf("%s of %s: %v, %v; want %q", name, r.Version, res, err, want)
			}
		}
	}
}

// query answers an instant query that gives one value.
func query(ctx context.Context, c *Container, expr string) (string, error) {
	_, body, err := c.Get(ctx, "http://127.0.0.1:9090/api/v1/query?query="+expr)
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("%w: %s", err, body)
	}
	if len(answer.Data.Result) == 0 {
		return "", nil
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1]), nil
}

func waitAllUp(ctx context.Context, t *testing.T, c *Container) {
	t.Helper()
	last := ""
	err := poll(ctx, func() bool {
		value, err := query(ctx, c, "sum(up)")
		last = fmt.Sprint(value, err)
		return value == "3"
	})
	if err != nil {
		t.Fatalf("sum(up) did not become 3: %v; last %s", err, last)
	}
}

func TestStackSurvivesPowerCut(t *testing.T) {
	t.Parallel()
	k, ctx := kit(t), deadline(t)
	c := k.Start(ctx, t, Options{})
	begin := time.Now()
	if err := c.InstallStack(ctx, newStack); err != nil {
		t.Fatal(err)
	}
	t.Logf("stack ready in %v", time.Since(begin))
	waitAllUp(ctx, t, c)
	t.Logf("all targets scraped after %v", time.Since(begin))
	if err := c.WriteFile("/etc/mark", []byte("here"), 0o600); err != nil {
		t.Fatal(err)
	}
	digest, err := c.TreeDigest(ctx, "/usr/local/bin", "/etc/prometheus", "/etc/mark")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := c.MainPID(ctx, "prometheus.service")
	if err != nil || pid == 0 {
		t.Fatalf("main process of prometheus: %d, %v", pid, err)
	}
	if outside, err := c.HostPID(pid); err != nil {
		t.Error(err)
	} else if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", outside)); err != nil || exe != "/usr/local/bin/prometheus" {
		t.Errorf("program of prometheus.service: %q, %v", exe, err)
	}

	if err := c.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Get(ctx, "http://127.0.0.1:9090/-/ready"); err == nil {
		t.Error("Prometheus answers without power")
	}
	if _, err := c.Run(ctx, "true"); err == nil {
		t.Error("a command runs without power")
	}
	if data, err := c.ReadFile("/etc/mark"); err != nil || string(data) != "here" {
		t.Errorf("the disk of a host without power: %q, %v", data, err)
	}
	if err := c.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("booted again in %v", c.BootTime)
	if err := c.WaitStack(ctx, newStack); err != nil {
		t.Fatal(err)
	}
	if after, err := c.TreeDigest(ctx, "/usr/local/bin", "/etc/prometheus", "/etc/mark"); err != nil || after != digest {
		t.Errorf("files changed across the power cut: %s, was %s (%v)", after, digest, err)
	}
	if value, err := query(ctx, c, "max(count_over_time(up[5m]))"); err != nil || value == "" || value == "0" {
		t.Errorf("samples from before the power cut: %q, %v", value, err)
	}
	if out := c.MustRun(ctx, "journalctl", "--list-boots", "--no-pager"); strings.Count(out, "\n") < 2 {
		t.Errorf("boots in the journal, want two:\n%s", out)
	}
}

// TestEveryStackStarts proves that each version works with the shared files of
// the base suite.
func TestEveryStackStarts(t *testing.T) {
	t.Parallel()
	k := kit(t)
	for _, r := range k.Releases {
		t.Run(r.Component+" "+r.Version, func(t *testing.T) {
			ctx := deadline(t)
			c := k.Start(ctx, t, Options{})
			if err := c.InstallStack(ctx, map[string]string{r.Component: r.Version}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestContainersAreApart(t *testing.T) {
	t.Parallel()
	k, ctx := kit(t), deadline(t)
	n := k.StartNetwork(ctx, t)
	a, b := k.Start(ctx, t, Options{Network: n}), k.Start(ctx, t, Options{Network: n})
	a.MustRun(ctx, "systemd-run", "--quiet", "--unit=only-in-a", "sleep", "600")
	if out := b.MustRun(ctx, "systemctl", "list-units", "--all", "--plain", "--no-legend"); strings.Contains(out, "only-in-a") {
		t.Error("b sees a's unit")
	}
	if r, err := b.Run(ctx, "pgrep", "-x", "sleep"); err != nil || r.ExitCode != 1 {
		t.Errorf("b sees a's process: %v %v", r, err)
	}
	if out := b.MustRun(ctx, "sh", "-c", "find /sys/fs/cgroup | grep only-in-a || true"); out != "" {
		t.Errorf("b sees a's cgroup: %s", out)
	}
	if err := b.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if out := a.MustRun(ctx, "systemctl", "is-active", "only-in-a"); out != "active\n" {
		t.Errorf("cutting b's power reached a: %s", out)
	}
	if err := b.Boot(ctx); err != nil {
		t.Fatal(err)
	}

	l, err := n.Listen(ctx, "tcp", GatewayIP+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if r, err := a.Run(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+GatewayIP+"/80"); err != nil || r.ExitCode != 0 {
		t.Errorf("a does not reach the bridge: %v %v", r, err)
	}
	reach := []string{"timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/" + b.IP + "/7000"}
	lb, err := b.Listen(ctx, "tcp", b.IP+":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer lb.Close()
	if r, err := a.Run(ctx, reach...); err != nil || r.ExitCode != 0 {
		t.Errorf("a does not reach b: %v %v", r, err)
	}
	if err := n.Cut(ctx, b, true); err != nil {
		t.Fatal(err)
	}
	if r, err := a.Run(ctx, reach...); err != nil || r.ExitCode == 0 {
		t.Errorf("a reaches b over a cut link: %v %v", r, err)
	}
}
