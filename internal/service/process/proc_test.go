package process

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/service/servicetest"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestParseStat(t *testing.T) {
	rest := " S 7 8 9 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 4242 100 3"
	for _, c := range []struct {
		in   string
		want proc
		err  string
	}{
		{in: "12 (prometheus)" + rest, want: proc{state: 'S', parent: 7, group: 8, session: 9, threads: 1, ticks: 4242, cpu: 11, pages: 3}},
		{in: "12 (a) b (c))" + rest + "\n", want: proc{state: 'S', parent: 7, group: 8, session: 9, threads: 1, ticks: 4242, cpu: 11, pages: 3}},
		{in: "", err: "no command"},
		{in: "12 (a) S 7", err: "fields after the command"},
		{in: "12 (a)" + strings.Replace(rest, " 9 ", " x ", 1), err: "field 6"},
		{in: "12 (a)" + strings.Replace(rest, "4242", "-1", 1), err: "start time"},
		{in: "12 (a)" + strings.Replace(rest, " S ", " SS ", 1), err: "state"},
	} {
		got, err := parseStat([]byte(c.in))
		if c.err == "" && (err != nil || got != c.want) {
			t.Errorf("%q: %+v, %v, expected %+v", c.in, got, err, c.want)
		}
		if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %v, expected %q", c.in, err, c.err)
		}
	}
}

func FuzzStat(f *testing.F) {
	if data, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(data)
	}
	f.Add([]byte("1 (()) Z 1 1 1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parseStat(data); err == nil && p.state == 0 {
			t.Errorf("%q: no state", data)
		}
	})
}

func TestBelonging(t *testing.T) {
	all := []proc{
		{pid: 10, parent: 1, session: 10, ticks: 100},
		{pid: 11, parent: 10, session: 10, ticks: 101},
		{pid: 12, parent: 11, session: 12, ticks: 102}, // left the session
		{pid: 13, parent: 12, session: 12, ticks: 103},
		{pid: 14, parent: 1, session: 14, ticks: 104}, // has the token
		{pid: 15, parent: 14, session: 15, ticks: 105},
		{pid: 16, parent: 1, session: 16, ticks: 106}, // known from before
		{pid: 17, parent: 1, session: 17, ticks: 900}, // known number, other process
		{pid: 18, parent: 1, session: 18, ticks: 108}, // a stranger
	}
	token := func(pid int) bool { return pid == 14 }
	none := func(int) bool { return false }
	known := []proc{{pid: 16, ticks: 106}, {pid: 17, ticks: 107}}
	for _, c := range []struct {
		name    string
		session int
		known   []proc
		marked  func(int) bool
		want    []int
	}{
		{"all ways", 10, known, token, []int{10, 11, 12, 13, 14, 15, 16}},
		{"session", 10, nil, none, []int{10, 11, 12, 13}},
		{"token", 0, nil, token, []int{14, 15}},
		{"known", 0, known, none, []int{16}},
		{"nothing", 0, nil, none, nil},
	} {
		var got []int
		for _, p := range belonging(all, c.session, c.known, c.marked) {
			got = append(got, p.pid)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, expected %v", c.name, got, c.want)
		}
	}
}

// What a process held is free once it counts as dead: its first thread is a zombie
// before the others let go of it.
func TestDeadHoldsNothing(t *testing.T) {
	for range 30 {
		cmd := exec.Command(servicetest.Program(t))
		cmd.Env = []string{servicetest.ModeEnv(servicetest.Threads)}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		lines.Scan()
		address := lines.Text()
		lines.Scan()
		p, err := readStat(cmd.Process.Pid)
		if err != nil || lines.Text() != "ready threads" {
			t.Fatalf("%q, %v", lines.Text(), err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for alive(p.pid, p.ticks) { // at every instant, so without a pause
		}
		l, err := net.Listen("tcp", address)
		_ = cmd.Wait() // it is dead, that is all that is asked
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

// A zombie has its number and start time still, and is dead all the same.
func TestZombie(t *testing.T) {
	cmd := exec.Command(servicetest.Program(t))
	cmd.Env = []string{servicetest.ModeEnv(servicetest.Stubborn)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	p, err := readStat(cmd.Process.Pid)
	if err != nil || !alive(p.pid, p.ticks) {
		t.Fatalf("%+v, %v, expected a living process", p, err)
	}
	for _, pollOnly := range []bool{false, true} {
		h, err := openHandle(p.pid, p.ticks)
		if err != nil || h == nil {
			t.Fatalf("%v, %v, expected a handle", h, err)
		}
		defer h.close()
		if pollOnly { // as on a kernel without pidfds
			h.close()
			h.f = nil
		}
		if ended, err := h.wait(t.Context(), 20*time.Millisecond); ended || err != nil {
			t.Errorf("wait for a living process: %v, %v", ended, err)
		}
	}
	h, err := openHandle(p.pid, p.ticks)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if err := h.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, timeout := range []time.Duration{forever, 10 * time.Second, 0} {
		if ended, err := h.wait(t.Context(), timeout); !ended || err != nil {
			t.Errorf("wait %v for a killed process: %v, %v", timeout, ended, err)
		}
	}
	if alive(p.pid, p.ticks) {
		t.Error("a zombie counts as alive")
	}
	if again, err := openHandle(p.pid, p.ticks); again != nil || err != nil {
		t.Errorf("a handle on a zombie: %v, %v", again, err)
	}
	(&handle{pid: p.pid, ticks: p.ticks}).close()
	if ended, err := (&handle{pid: p.pid, ticks: p.ticks}).wait(t.Context(), forever); !ended || err != nil {
		t.Errorf("wait without a pidfd: %v, %v", ended, err)
	}
}

// A child in a session of its own is not taken for the process that was started,
// whichever comes first: directories of /proc are listed as text, 1001 before 988.
func TestEldest(t *testing.T) {
	parent := proc{pid: 988, parent: 1, session: 988, ticks: 70}
	child := proc{pid: 1001, parent: 988, session: 1001, ticks: 70}
	sibling := proc{pid: 990, parent: 988, session: 988, ticks: 70}
	orphan := proc{pid: 980, parent: 1, session: 980, ticks: 75}
	all := func(int) bool { return true }
	for name, tc := range map[string]struct {
		of     []proc
		marked func(int) bool
		want   int
	}{
		"child first":             {[]proc{child, parent, sibling}, all, 988},
		"parent first":            {[]proc{parent, child, sibling}, all, 988},
		"an orphan started later": {[]proc{orphan, child, parent}, all, 988},
		"the parent is gone":      {[]proc{{pid: 1001, parent: 1, session: 1001, ticks: 70}}, all, 1001},
		"no leader of a session":  {[]proc{sibling}, all, 0},
		"without the mark":        {[]proc{parent, child}, func(int) bool { return false }, 0},
	} {
		if got, ok := eldest(tc.of, tc.marked); got.pid != tc.want || ok != (tc.want != 0) {
			t.Errorf("%s: %d, %v, want %d", name, got.pid, ok, tc.want)
		}
	}
}
