package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// place is a directory of the host whose file system misbehaves.
type place struct {
	name, dir string
	room      string // that it has beside what is in it
}

var places = []place{
	{"staging", "/tmp", "200M"},
	{"backups", "/var/backups", "200M"},
	{"binaries", "/usr/local", "200M"},
	{"records", "/var/lib", "200M"},
}

// small gives a directory a file system of its own, with little room, that holds
// what was in it. The unit is started from it.
func (h *host) small(p place, unit string) {
	h.t.Helper()
	h.MustRun(h.ctx, "sh", "-ec", fmt.Sprintf(`systemctl stop %[2]s
mkdir -p %[1]s /run/keep && cp -a %[1]s/. /run/keep/
used=$(du -sm /run/keep | cut -f1)
mount -t tmpfs -o mode=$(stat -c %%a %[1]s),size=$((used + %[3]s))M,nr_inodes=20k tmpfs %[1]s
cp -a /run/keep/. %[1]s/ && rm -rf /run/keep
systemctl start %[2]s`, p.dir, unit, strings.TrimSuffix(p.room, "M")))
}

// ailment is a way in which a file system fails, and how it is cured.
type ailment struct {
	name       string
	spoil, fix func(dir string) string // shell
	check      string                  // that fails before a run
	want       []string                // what the refusal says
	next       string                  // what to type
}

var ailments = []ailment{
	{
		"full",
		func(dir string) string { return "cat /dev/zero >" + dir + "/filler 2>/dev/null; true" },
		func(dir string) string { return "rm -f " + dir + "/filler" },
		"disk_space",
		[]string{"the file system of %s", "expected at least ", " free, found 0 bytes: ", " are missing"},
		"df -h %s",
	},
	{
		"inodes",
		func(dir string) string {
			return "mkdir -p " + dir + "/filler.d && cd " + dir + "/filler.d && seq 21000 | xargs touch 2>/dev/null; true"
		},
		func(dir string) string { return "rm -rf " + dir + "/filler.d" },
		"inodes",
		[]string{"the file system of %s", "inodes free, found 0: ", " are missing"},
		"df -i %s",
	},
	{
		"read-only",
		func(dir string) string { return "mount -o remount,ro " + dir },
		func(dir string) string { return "mount -o remount,rw " + dir },
		"file_system",
		[]string{"%s", "expected a file system that can be written, found one mounted read-only"},
		"mount -o remount,rw",
	},
}

// paused is a run that stopped by itself, and goes on when it is told to.
type paused struct {
	h    *host
	cmd  *exec.Cmd
	out  *strings.Builder
	done chan struct{} // closed when the command has ended
}

// pause starts a command that stops itself at a record of its journal, and returns
// once it did, or has ended before.
func (h *host) pause(record int, args ...string) (p *paused, stopped bool) {
	h.t.Helper()
	cmd := h.Command(h.ctx, append([]string{"env", fmt.Sprintf("OBSUP_FAULT=stop-after:%d", record), program}, args...)...)
	p = &paused{h: h, cmd: cmd, out: &strings.Builder{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	h.check(cmd.Start())
	go func() { defer close(p.done); _ = cmd.Wait() }()
	h.t.Cleanup(func() { _ = h.Kill(cmd, syscall.SIGKILL); _ = cmd.Process.Signal(syscall.SIGCONT); <-p.done })
	h.check(poll(h.t, time.Minute, func() bool {
		select {
		case <-p.done:
			return true
		default:
		}
		// nsenter stops together with its child: nsenter(1), --fork.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		_, state, _ := strings.Cut(string(stat), ") ")
		stopped = err == nil && strings.HasPrefix(state, "T")
		return stopped
	}))
	return p, stopped
}

// resume lets it go on and returns its exit code and what it said.
func (p *paused) resume() (code int, said string) {
	p.h.t.Helper()
	p.h.check(p.cmd.Process.Signal(syscall.SIGCONT))
	return p.end()
}

// end waits for its end.
func (p *paused) end() (code int, said string) {
	p.h.t.Helper()
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		p.h.t.Fatalf("%v did not end\n%s", p.cmd.Args, p.out)
	}
	return p.cmd.ProcessState.ExitCode(), p.out.String()
}

// One file system after the other is full, to the last byte and to the last inode,
// or read-only, before a run begins: it is refused before anything is touched, and
// says which it is, what is missing and what to type.
func TestBadFileSystemIsRefused(t *testing.T) {
	t.Parallel()
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
			h.settle("node_exporter", "100ms")
			h.small(p, "node_exporter.service")
			h.upgrade(0, "adopt", "--yes")
			pid, err := h.MainPID(h.ctx, "node_exporter.service")
			h.check(err)
			for _, a := range ailments {
				h.MustRun(h.ctx, "sh", "-c", a.spoil(p.dir))
				out := h.upgrade(4, "apply", "--yes")
				for _, w := range append(a.want, a.next) {
					if w = strings.ReplaceAll(w, "%s", p.dir); !strings.Contains(out.Stderr, w) {
						t.Errorf("%s: it does not say %q:\n%s", a.name, w, out)
					}
				}
				h.MustRun(h.ctx, "sh", "-c", a.fix(p.dir))
				if now, err := h.MainPID(h.ctx, "node_exporter.service"); err != nil || now != pid {
					t.Fatalf("%s: node_exporter was touched: pid %d, now %d, %v", a.name, pid, now, err)
				}
				if v := h.agrees("node_exporter"); line(v) != "1.5" {
					t.Fatalf("%s: it is at %s", a.name, v)
				}
			}
			h.upgrade(0, "apply", "--yes")
			h.agrees("node_exporter")
		})
	}
}

// The same happens in the middle of a run, at each record of its journal: what was
// begun is finished or rolled back, with the file system as bad as it is, and the
// service runs; once there is room again, nothing is left to do for a person.
func TestFileSystemFailsDuringRun(t *testing.T) {
	t.Parallel()
	of := versions{"node_exporter": {"1.5", "1.9"}}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
			h.settle("node_exporter", "100ms")
			h.small(p, "node_exporter.service")
			h.upgrade(0, "adopt", "--yes")
			tried := 0
			for _, a := range ailments {
				for record := 1; ; record++ {
					if !campaign() && (record+len(a.name)+len(p.name))%5 != 0 && record < 20 {
						continue
					}
					run, stopped := h.pause(record, "apply", "--yes")
					if !stopped {
						if code, said := run.end(); code != 0 {
							t.Fatalf("%d\n%s", code, said)
						}
						h.resetTo(of)
						h.MustRun(h.ctx, "sh", "-c", "rm -rf /var/backups/observability/2*")
						break
					}
					if res, err := h.Run(h.ctx, "sh", "-c", a.spoil(p.dir)); err != nil || res.ExitCode != 0 {
						t.Logf("%s after record %d cannot be had: %s", a.name, record, res) // a file is open for writing
						h.check(err)
						run.resume()
						h.resetTo(of)
						continue
					}
					tried++
					at := a.name + " after record " + strconv.Itoa(record)
					code, said := run.resume()
					if code != 0 && code != 4 && code != 5 && code != 1 {
						t.Errorf("%s: exit code %d\n%s", at, code, said)
					}
					if disk, live := h.installed("node_exporter"), h.running("node_exporter"); disk != live {
						t.Errorf("%s: exit code %d, the binary is %s, %s runs\n%s", at, code, disk, live, said)
					}
					if code != 0 && (!strings.Contains(said, p.dir) || !strings.Contains(said, "next:")) {
						t.Errorf("%s: it does not say where, or what to type:\n%s", at, said)
					}
					t.Logf("%s: exit code %d\n%s", at, code, said)
					h.MustRun(h.ctx, "sh", "-c", a.fix(p.dir))
					h.upgrade(0, "recover")
					h.whole(of)
					h.resetTo(of)
					// What is left of the points before would fill the small file system by itself.
					h.MustRun(h.ctx, "sh", "-c", "rm -rf /var/backups/observability/2*")
				}
			}
			t.Logf("%d points", tried)
		})
	}
}

// resetTo brings every component back to its old version by the program's own
// rollback.
func (h *host) resetTo(of versions) {
	h.t.Helper()
	for name, v := range of {
		for line(h.installed(name)) != v[0] {
			h.upgrade(0, "rollback", "--previous", "--yes")
		}
	}
}
