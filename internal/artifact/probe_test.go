package artifact

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/sandbox"
)

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, tc := range map[string]struct {
		spec ProbeSpec
		want string // version, or part of the error when it begins with "!"
	}{
		"stderr":         {ProbeSpec{Path: write("stderr", "echo 'tool, version 1.2.3 (branch: )' >&2\n")}, "1.2.3"},
		"stdout":         {ProbeSpec{Path: write("stdout", "echo 'tool, version 1.2.3+ds1 (branch: )'\n")}, "1.2.3+ds1"},
		"own arguments":  {ProbeSpec{Path: write("args", "echo \"v$1$2\"\n"), Args: []string{"4.5", ".6"}}, "4.5.6"},
		"own expression": {ProbeSpec{Path: write("vm", "echo victoria-metrics-2026-tags-v1.148.0-0-gabc\n"), Regexp: `tags-v(\d+\.\d+\.\d+)`}, "1.148.0"},
		"fails":          {ProbeSpec{Path: write("fails", "echo no >&2; exit 3\n")}, "!exit status 3: no"},
		"hangs":          {ProbeSpec{Path: write("hangs", "sleep 60 & sleep 60\n"), Timeout: 200 * time.Millisecond}, "!did not end within 200ms"},
		"mute":           {ProbeSpec{Path: write("mute", "echo hello\n")}, "!it tells no version"},
		"empty version":  {ProbeSpec{Path: write("empty", "echo 'x, version  (branch: )'\n"), Regexp: `version (\S*) `}, "!it tells no version"},
		"floods":         {ProbeSpec{Path: write("floods", "echo version 1.2.3; head -c 10000000 /dev/zero\n")}, "1.2.3"},
		"bad expression": {ProbeSpec{Path: write("ok", "echo 1.2.3\n"), Regexp: "("}, "!version.regexp"},
		"missing":        {ProbeSpec{Path: filepath.Join(dir, "missing")}, "!no such file"},
		"reads input":    {ProbeSpec{Path: write("cat", "cat; echo 1.2.3\n")}, "1.2.3"},
		"environment":    {ProbeSpec{Path: write("env", `[ -w "$HOME" ] && [ "$HOME" = "$TMPDIR" ] && [ "$LANG" = C ] && [ -z "$OBS_SECRET" ] && echo 1.2.3`+"\n")}, "1.2.3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OBS_SECRET", "x")
			v, out, err := Probe(t.Context(), tc.spec)
			if want, isErr := strings.CutPrefix(tc.want, "!"); isErr {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Fatalf("err = %v, want %q", err, want)
				}
				return
			}
			if err != nil || v.String() != tc.want || len(out) > maxOutput {
				t.Fatalf("%q, %d bytes, %v; want %s", v, len(out), err, tc.want)
			}
		})
	}
	if _, _, err := Probe(t.Context(), ProbeSpec{Path: filepath.Join(dir, "mute")}); !errors.Is(err, ErrVersionUnknown) {
		t.Fatalf("err = %v", err)
	}
}

// An installed program is asked as nobody, and leaves nothing behind; a new one is
// kept in by the sandbox.
func TestProbeIsConfined(t *testing.T) {
	path := filepath.Join(t.TempDir(), "who")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nid -u; id -G; grep NoNewPrivs /proc/self/status; grep -c : /proc/net/dev; sleep 600 >/dev/null 2>&1 & echo $!\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := runConfined(t.Context(), ProbeSpec{Path: path, Timeout: 5 * time.Second, Installed: true})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(out)
	if !strings.Contains(out, "NoNewPrivs:\t1") {
		t.Fatalf("it may gain privileges: %q", out)
	}
	left := lines[len(lines)-1]
	for deadline := time.Now().Add(5 * time.Second); ; {
		state, err := os.ReadFile("/proc/" + left + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %s, left in the background, still runs: %s", left, state)
		}
	}
	if b, err := os.ReadFile("/proc/thread-self/status"); err != nil || strings.Contains(string(b), "NoNewPrivs:\t1") {
		t.Fatalf("this process lost its own privileges: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("the rest needs root")
	}
	if lines[0] != "65534" || lines[1] != "65534" {
		t.Fatalf("runs as uid %s, groups %s", lines[0], lines[1])
	}
	if lines[4] != "1" {
		t.Logf("this kernel gives no network namespace: %s interfaces", lines[4])
	}
}

// A new program sees the system's own and, of a tree, what it came with.
func TestNewProgramSeesLittle(t *testing.T) {
	tree := t.TempDir()
	path := filepath.Join(tree, "bin", "tool")
	for name, text := range map[string]string{path: "#!/bin/sh\ncat " + tree + "/VERSION; ls /; ls " + filepath.Dir(tree) + "\n", filepath.Join(tree, "VERSION"): "version 1.2.3\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(tree, 0o755), os.Chmod(filepath.Join(tree, "bin"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(tree), "beside"), 0o755); err != nil {
		t.Fatal(err)
	}
	var gaps []sandbox.Gap
	v, out, err := Probe(t.Context(), ProbeSpec{Path: path, Tree: tree, Gaps: func(g []sandbox.Gap) { gaps = g }})
	if len(gaps) > 0 {
		t.Skipf("not here: %v", gaps)
	}
	if err != nil || v.String() != "1.2.3" {
		t.Fatalf("%q, %v\n%s", v, err, out)
	}
	if strings.Contains(out, "var\n") || strings.Contains(out, "beside") {
		t.Errorf("it sees the host:\n%s", out)
	}
}

// A new release's tool reads the configuration, also where nobody else may, and
// neither secrets nor the network, and it writes nothing.
func TestNewToolIsSandboxed(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config, secret := write("config/x.yml", "good: yes\n", 0o600), write("secrets/token", "PLANTED\n", 0o600)
	tool := write("staging/tool", `#!/bin/sh
cat "$1"
cat "$2" /etc/shadow 2>/dev/null
echo planted 2>/dev/null >"$1"
cat /proc/net/dev 2>/dev/null | grep -c :
`, 0o755)
	var gaps []sandbox.Gap
	out, err := RunNewTool(t.Context(), NewTool{
		Args: []string{tool, config, secret}, Show: []string{filepath.Dir(config)}, Hide: []string{filepath.Dir(secret)},
		Timeout: time.Minute, Gaps: func(g []sandbox.Gap) { gaps = g },
	})
	if len(gaps) > 0 {
		t.Skipf("not here: %v", gaps)
	}
	if err != nil || out != "good: yes\n1\n" {
		t.Errorf("%v %q", err, out)
	}
	if b, err := os.ReadFile(config); err != nil || string(b) != "good: yes\n" {
		t.Errorf("the configuration is %q, %v", b, err)
	}
}

// A tool gets an environment of our choice, whatever the caller's is.
func TestToolEnvironment(t *testing.T) {
	for _, name := range []string{"LD_PRELOAD", "LD_LIBRARY_PATH", "http_proxy", "HTTPS_PROXY", "GITHUB_TOKEN", "BASH_ENV", "ENV", "IFS"} {
		t.Setenv(name, "/planted")
	}
	t.Setenv("PATH", "/planted:"+os.Getenv("PATH"))
	tool := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\ncat /proc/$$/environ | tr '\\0' '\\n'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := RunTool(t.Context(), []string{tool}, time.Minute)
	if err != nil || !strings.Contains(out, "PATH=/usr/local/sbin:") || strings.Contains(out, "planted") {
		t.Errorf("%v %s", err, out)
	}
	var gaps []sandbox.Gap
	out, err = RunNewTool(t.Context(), NewTool{Args: []string{tool}, Timeout: time.Minute, Gaps: func(g []sandbox.Gap) { gaps = g }})
	if len(gaps) > 0 {
		t.Skipf("it cannot see its own process here: %v", gaps)
	}
	if err != nil || !strings.Contains(out, "PATH=/usr/local/sbin:") || strings.Contains(out, "planted") {
		t.Errorf("%v %s", err, out)
	}
}

func TestProbeOnNoexec(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	path := filepath.Join(dir, "tool")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	_, _, err := Probe(t.Context(), ProbeSpec{Path: path})
	if err == nil || !strings.Contains(err.Error(), "paths.staging") || !strings.Contains(err.Error(), "mount -o remount,exec") {
		t.Fatalf("err = %v", err)
	}
}

func TestFindVersionOnRealOutput(t *testing.T) {
	for out, want := range map[string]string{
		"prometheus, version 2.53.3+ds1 (branch: debian/sid, revision: 2.53.3+ds1-2)": "2.53.3+ds1",
		"nginx_exporter, version 1.4.1 (branch: , revision: unknown)":                 "1.4.1",
		"NGINX Prometheus Exporter version=0.11.0 commit=abc":                         "0.11.0",
		"loki, version 3.7.8 (branch: , revision: unknown)":                           "3.7.8",
		"Version 12.0.2 (commit: abc, branch: HEAD)":                                  "12.0.2",
		"postgres_exporter 0.8.0+ds (built with go1.15)":                              "0.8.0+ds",
	} {
		v, err := FindVersion(out, "")
		if err != nil || v.String() != want {
			t.Errorf("%q: %s, %v; want %s", out, v, err, want)
		}
	}
	if _, err := FindVersion("process-exporter, version  (branch: )", `version (\S*) `); !errors.Is(err, ErrVersionUnknown) {
		t.Fatalf("err = %v", err)
	}
}

// What killed probes left is removed: only directories of ours, and only old ones.
func TestClearProbes(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	now := time.Now()
	for name, age := range map[string]time.Duration{
		sandbox.Prefix + "1": 2 * time.Hour, sandbox.Prefix + "2": time.Minute, sandbox.Prefix + "x": 2 * time.Hour, "other-3": 2 * time.Hour,
		sandbox.Prefix + "4": 2 * time.Hour, sandbox.Prefix + "5": 2 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(path, "home"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "other-3"), filepath.Join(dir, sandbox.Prefix+"6")); err != nil {
		t.Fatal(err)
	}
	left := []string{sandbox.Prefix + "2", sandbox.Prefix + "6", sandbox.Prefix + "x", "other-3"}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(dir, sandbox.Prefix+"4"), nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, sandbox.Prefix+"5"), 1234, 1234); err != nil {
			t.Fatal(err)
		}
		left = []string{sandbox.Prefix + "2", sandbox.Prefix + "5", sandbox.Prefix + "6", sandbox.Prefix + "x", "other-3"}
	}
	if err := ClearProbes(now); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, left) {
		t.Errorf("left %q, want %q", got, left)
	}
}

// An installed program that told its version and ended well is believed, whoever
// holds its output open: on a loaded machine that may be a fork of another thread.
func TestProbeOfAnInstalledProgramWhoseOutputStaysOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alpha")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho version 1.2.3\nsleep 60 &\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if v, _, err := Probe(t.Context(), ProbeSpec{Path: path, Installed: true}); err != nil || v.String() != "1.2.3" {
		t.Fatalf("%v, %v", v, err)
	}
}
