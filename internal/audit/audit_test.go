package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

func read(t *testing.T, path string) (entries []Entry) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var e Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

func TestWrite(t *testing.T) {
	t.Setenv("SUDO_USER", "alex")
	path := filepath.Join(t.TempDir(), "lib", "audit.log")
	l := New(&hostfs.Host{}, path)
	at := time.Date(2026, 3, 1, 14, 0, 0, 1, time.FixedZone("x", 7200))
	first := Entry{Time: at, Command: "apply", Args: []string{"--yes"}, Outcome: "error", ExitCode: 5, RunID: "r1", Detail: "two\nlines"}
	start := time.Now().Truncate(time.Millisecond)
	if err := errors.Join(l.Write(first), l.Write(Entry{Command: "hold", Outcome: "ok"})); err != nil {
		t.Fatal(err)
	}
	got := read(t, path)
	if len(got) != 2 {
		t.Fatalf("%d entries", len(got))
	}
	first.Time = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	first.UID, first.PID, first.SudoUser = os.Getuid(), os.Getpid(), "alex"
	if diff := cmp.Diff(first, got[0], cmpopts.IgnoreFields(Entry{}, "User")); diff != "" {
		t.Error(diff)
	}
	if got[0].User == "" || got[1].Time.Before(start) || got[1].Args == nil {
		t.Errorf("entries %+v", got)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(data), `{"time":"2026-03-01T12:00:00Z","user":`) || !strings.Contains(string(data), `"args":[],"outcome":"ok","exit_code":0}`) {
		t.Errorf("log is %s, %v", data, err)
	}
}

func TestManyWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for j := range 10 {
				errs[i] = errors.Join(errs[i], New(&hostfs.Host{}, path).Write(Entry{Command: fmt.Sprint(i), RunID: fmt.Sprint(j), Detail: strings.Repeat("x", 5000)}))
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if n := len(slices.DeleteFunc(read(t, path), func(e Entry) bool { return len(e.Detail) != 5000 })); n != 80 {
		t.Errorf("%d whole entries, want 80", n)
	}
}

func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("{}\n{\"time\":\"20"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(&hostfs.Host{}, path).Write(Entry{Command: "apply"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	lines := strings.Split(string(data), "\n")
	if err != nil || len(lines) != 4 || lines[1] != `{"time":"20` || !strings.Contains(lines[2], `"command":"apply"`) {
		t.Errorf("log is %q, %v", data, err)
	}
}

func TestWritesThoughTheDirectoryIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := New(&hostfs.Host{}, path).Write(Entry{Command: "apply"}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); len(got) != 1 {
		t.Errorf("%d entries", len(got))
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(target, []byte("precious"), 0o600), os.Symlink(target, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, pipe, dir} {
		if err := New(&hostfs.Host{}, path).Write(Entry{Command: "apply"}); err == nil || !strings.HasPrefix(err.Error(), "audit log: ") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if data, err := os.ReadFile(target); err != nil || string(data) != "precious" {
		t.Errorf("target is %q, %v", data, err)
	}
	h := &hostfs.Host{Guard: func(string, string) error { return hostfs.ErrCrashed }}
	if err := New(h, target).Write(Entry{}); !errors.Is(err, hostfs.ErrCrashed) {
		t.Errorf("got %v", err)
	}
}

func TestRedaction(t *testing.T) {
	for _, tc := range []struct{ in, want []string }{
		{[]string{"--yes", "--component=prometheus@3.0.0"}, []string{"--yes", "--component=prometheus@3.0.0"}},
		{[]string{"--github-token=abc=def"}, []string{"--github-token=[redacted]"}},
		{[]string{"API_TOKEN=abc def\nghi"}, []string{"API_TOKEN=[redacted]"}},
		{[]string{"--Password-File=/x"}, []string{"--Password-File=[redacted]"}},
		{[]string{"--api-key", "abc", "--yes"}, []string{"--api-key", "[redacted]", "--yes"}},
		{[]string{"--token", "--yes", "x"}, []string{"--token", "--yes", "x"}},
		{[]string{"--url=https://u:pw@h/x"}, []string{"--url=https://u:[redacted]@h/x"}},
		{[]string{"--token="}, []string{"--token="}},
		{nil, []string{}},
	} {
		if diff := cmp.Diff(tc.want, redactArgs(tc.in)); diff != "" {
			t.Errorf("%q: %s", tc.in, diff)
		}
	}
	for in, want := range map[string]string{
		"prometheus: sha256 differs, expected a, found b":                "prometheus: sha256 differs, expected a, found b",
		"get https://h/x?access_token=abc&n=1: 403":                      "get https://h/x?access_token=[redacted]&n=1: 403",
		`smtp password: "a b" refused`:                                   `smtp password: [redacted] refused`,
		"dial smtp://me:pw@mail:25: refused":                             "dial smtp://me:[redacted]@mail:25: refused",
		"header Authorization: Bearer abcdefgh.ijkl refused":             "header Authorization: Bearer [redacted] refused",
		"bearer of bad news":                                             "bearer of bad news",
		"the token was refused; see https://docs.example/tokens#refused": "the token was refused; see https://docs.example/tokens#refused",
	} {
		if got := redactText(in); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func FuzzRedaction(f *testing.F) {
	for _, s := range []string{"--token", "--x-secret=y", "https://a:b@c", "password: ", "\x00\xff=", "Basic dXNlcjpwYXNz"} {
		f.Add(s, "hunter2")
	}
	f.Fuzz(func(t *testing.T, a, secret string) {
		args := redactArgs([]string{a, "--token=" + secret, "--password", "-" + secret})
		if len(args) != 4 || secret != "" && args[1] != "--token="+redacted {
			t.Errorf("%q", args)
		}
		redactText(a)
	})
}
