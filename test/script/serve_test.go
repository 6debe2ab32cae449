package script

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/demo"
)

// serving is `serve` at work on a sandbox.
type serving struct {
	t    *testing.T
	box  *demo.Sandbox
	cmd  *exec.Cmd
	url  string
	logs *strings.Builder
}

// newSandbox has both components running and adopted.
func newSandbox(t *testing.T) *demo.Sandbox {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	box, err := demo.New(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	play(t, box, 0, "restart", "--component=pulse,beacon", "--quiet")
	play(t, box, 0, "adopt", "--yes", "--quiet")
	return box
}

// play runs one command on the sandbox and insists on its exit code.
func play(t *testing.T, box *demo.Sandbox, code int, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, append([]string{"--root=" + string(box.Root)}, args...)...)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%v: exit code %d, want %d: %v\n%s", args, got, code, err, out)
	}
	return string(out)
}

func startServing(t *testing.T, box *demo.Sandbox, program string, attr *syscall.SysProcAttr) *serving {
	t.Helper()
	s := &serving{t: t, box: box, logs: &strings.Builder{}}
	s.cmd = exec.Command(program, "--root="+string(box.Root), "serve", "--listen=127.0.0.1:0", "--output=json")
	s.cmd.Stderr, s.cmd.SysProcAttr = s.logs, attr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end() })
	var doc struct{ Addresses []string }
	if err := json.NewDecoder(out).Decode(&doc); err != nil || len(doc.Addresses) != 1 {
		t.Fatalf("%+v, %v\n%s", doc, err, s.logs)
	}
	s.url = strings.TrimSuffix(doc.Addresses[0], "/")
	return s
}

// end asks it to end and returns its exit code.
func (s *serving) end() int {
	s.t.Helper()
	if s.cmd.ProcessState != nil {
		return s.cmd.ProcessState.ExitCode()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

func (s *serving) get(path string) string {
	s.t.Helper()
	res, err := http.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %d %v\n%s", path, res.StatusCode, err, body)
	}
	return string(body)
}

// until polls a page until it says something, or no longer does.
func (s *serving) until(path, words string, want bool) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		body := s.get(path)
		if strings.Contains(body, words) == want {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s says %q: %v, not so within 20 s\n%s\n%s", path, words, !want, body, s.logs)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// listing is what lies below a directory, with times of change.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		out = append(out, fmt.Sprint(path, " ", st.Mode(), " ", st.Size(), " ", st.ModTime().UnixNano()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A day with the page: it shows what is there, follows a real upgrade and one that
// fails, survives a mistake in the configuration, writes nothing, and ends with 0.
func TestServe(t *testing.T) {
	box := newSandbox(t)
	s := startServing(t, box, program, nil)
	s.until("/", "Healthy", true)
	for _, want := range []string{"pulse", "beacon", "1.0.0", "there was no check yet", "Not known"} {
		if body := s.get("/"); !strings.Contains(body, want) {
			t.Errorf("the page does not say %q\n%s", want, body)
		}
	}
	if got := s.get("/healthz"); got != "ok\n" {
		t.Errorf("%q", got)
	}
	play(t, box, 0, "check")
	s.until("/", "1.1.0", true)

	// The steps of a real run come by themselves.
	res, err := http.Get(s.url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	steps := make(chan string, 1000)
	go func() {
		defer close(steps)
		for sc := bufio.NewScanner(res.Body); sc.Scan(); {
			if data, ok := strings.CutPrefix(sc.Text(), "data: "); ok {
				steps <- data
			}
		}
	}()
	play(t, box, 0, "apply", "--yes", "--quiet")
	seen := map[string]bool{}
	deadline := time.After(20 * time.Second)
	for !seen["idle"] || !seen["pulse health Done"] || !seen["beacon stop Done"] {
		select {
		case data, ok := <-steps:
			if !ok {
				t.Fatal("the stream ended")
			}
			var e struct{ Set, Label, State, Phase, Run string }
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Fatalf("%s: %v", data, err)
			}
			seen[strings.TrimSpace(e.Set+" "+e.Label+" "+e.State)] = true
			if e.Phase != "" && e.Run != "" {
				seen[e.Phase] = true
			}
		case <-deadline:
			t.Fatalf("not seen within 20 s: %v", seen)
		}
	}
	if !seen["running"] {
		t.Errorf("the run was not seen at work: %v", seen)
	}
	if err := box.Publish("pulse", "1.2.0", true); err != nil {
		t.Fatal(err)
	}
	play(t, box, 5, "apply", "--yes", "--quiet")
	s.until("/", "Rolled back", true)
	s.until("/", "failed here", true)
	if body := s.get("/history?component=pulse&status=rolled_back"); !strings.Contains(body, "1.2.0") || strings.Contains(body, ">beacon</th>") {
		t.Errorf("%s", body)
	}
	ids, err := os.ReadDir(box.Root.RunsDir())
	if err != nil {
		t.Fatal(err)
	}
	last := ids[len(ids)-1].Name()
	for _, want := range []string{"Evidence", "health", "rollback", "Checks before it began"} {
		if body := s.get("/runs/" + last); !strings.Contains(body, want) {
			t.Errorf("the page of the run does not say %q\n%s", want, body)
		}
	}
	if body := s.get("/backups"); !strings.Contains(body, "rollback --to="+last) {
		t.Errorf("%s", body)
	}

	for _, want := range []string{"\nobservability_component_version_info{component=\"pulse\",version=\"1.1.0\"} 1\n", "\nobservability_upgrade_status{component=\"pulse\""} {
		if body := s.get("/metrics"); !strings.Contains(body, want) {
			t.Errorf("the metrics do not say %q\n%s", want, body)
		}
	}

	// Configuration is read again; a mistake is told and changes nothing.
	policy, err := os.ReadFile(box.Root.Policy())
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(box.Root.Policy(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(string(policy) + "maintenance_windows: [\"02:00-04:00\"]\n")
	s.until("/", "02:00-04:00", true)
	write("retentoin: {}\n")
	s.until("/", "retentoin", true)
	if body := s.get("/"); !strings.Contains(body, "02:00-04:00") || !strings.Contains(body, "what was read before holds") {
		t.Errorf("%s", body)
	}
	write(string(policy))
	s.until("/", "retentoin", false)
	s.until("/", "02:00-04:00", false)

	was := listing(t, string(box.Root))
	for _, p := range []string{"/", "/history", "/backups", "/runs/" + last, "/healthz", "/metrics"} {
		s.get(p)
	}
	s.until("/", "Being asked", false)
	if diff := cmp.Diff(was, listing(t, string(box.Root))); diff != "" {
		t.Errorf("looking changed files:\n%s", diff)
	}
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.logs)
	}
	for range steps { // ends with the service
	}
	if diff := cmp.Diff(was, listing(t, string(box.Root))); diff != "" {
		t.Errorf("the end changed files:\n%s", diff)
	}
}

// A user without any rights sees it all but what is not for everybody, and a
// secret that the policy names is no obstacle.
func TestServeAsNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become nobody")
	}
	old := syscall.Umask(0o077) // of a careful administrator
	defer syscall.Umask(old)
	box := newSandbox(t)
	play(t, box, 0, "check")
	play(t, box, 0, "apply", "--yes", "--quiet")
	for _, dir := range []string{box.Dir, string(box.Root), box.Root.Config(), box.Root.ComponentsDir(), box.Root.Path("var"), box.Root.Path("etc"), box.Root.Path("usr"), box.Root.Path("usr/local"), box.Root.Path("usr/local/bin")} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(box.Root.SecretsDir(), "token")
	if err := os.MkdirAll(box.Root.SecretsDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("PLANTED-TOKEN\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(box.Root.Policy())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(policy), "github: {", "github: {token: \"${SECRET:token}\", ", 1)
	if err := os.WriteFile(box.Root.Policy(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// Whoever wrote them, and whatever his umask, everybody may read these.
	for _, path := range []string{
		box.Root.State(), box.Root.History(), box.Root.LastCheck(), box.Root.BackupList(), box.Root.Lib(), box.Root.Cache(), box.Root.RunsDir(), box.Root.JournalDir(),
	} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o004)
		if st.IsDir() {
			want = 0o005
		}
		if st.Mode().Perm()&want != want {
			t.Errorf("%s has mode %s", path, st.Mode())
		}
	}
	for _, path := range []string{filepath.Join(box.Root.Cache(), "upstream"), filepath.Join(box.Root.Cache(), "artifacts")} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", path, st.Mode(), err)
		}
	}
	// The program, where nobody may run it.
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(box.Dir, program)
	if err := errors.Join(writeProgram(own, binary), os.Chmod(own, 0o755)); err != nil {
		t.Fatal(err)
	}
	s := startServing(t, box, own, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	s.until("/", "Healthy", true)
	body := s.get("/")
	for _, want := range []string{"pulse", "1.1.0", "Up to date", "backup point", "Succeeded", "the state of its unit is not known"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q\n%s", want, body)
		}
	}
	for _, bad := range []string{"What could not be read", "PLANTED"} {
		if strings.Contains(body, bad) {
			t.Errorf("the page says %q\n%s", bad, body)
		}
	}
	if body := s.get("/history"); !strings.Contains(body, "1.1.0") {
		t.Errorf("%s", body)
	}
	if code := s.end(); code != 0 || strings.Contains(s.logs.String(), "PLANTED") {
		t.Errorf("exit code %d\n%s", code, s.logs)
	}
}

// systemd hands over the socket and is told when to go on.
func TestServeForSystemd(t *testing.T) {
	box := newSandbox(t)
	l, err := listenLoopback()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	notify, err := listenNotify(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" --root="$1" serve`, path, string(box.Root))
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+filepath.Join(dir, "s"))
	cmd.ExtraFiles = []*os.File{f}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hear := func() string {
		t.Helper()
		buf := make([]byte, 4096)
		if err := notify.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := notify.Read(buf)
		if err != nil {
			t.Fatalf("%v\n%s", err, said.String())
		}
		return string(buf[:n])
	}
	if got := hear(); !strings.HasPrefix(got, "READY=1\nSTATUS=Serving at http://"+l.Addr().String()) {
		t.Errorf("%q", got)
	}
	s := &serving{t: t, box: box, cmd: cmd, url: "http://" + l.Addr().String(), logs: &said}
	s.get("/")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := hear(); got != "STOPPING=1" {
		t.Errorf("%q", got)
	}
	if code := s.end(); code != 0 {
		t.Errorf("exit code %d\n%s", code, said.String())
	}
}

func listenLoopback() (*net.TCPListener, error) {
	return net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
}

func listenNotify(path string) (*net.UnixConn, error) {
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
}
