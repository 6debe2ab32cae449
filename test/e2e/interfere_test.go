package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// node is a host with a node_exporter that can be upgraded, settles in no time, and
// was adopted.
func node(t *testing.T) (*host, versions) {
	t.Helper()
	of := versions{"node_exporter": {"1.5", "1.9"}}
	h := newHost(t, map[string]string{"node_exporter": "1.5"}, map[string][]string{"node_exporter": {"1.9"}})
	h.settle("node_exporter", "100ms")
	h.upgrade(0, "adopt", "--yes")
	return h, of
}

// Nineteen commands come while one runs: each ends at once with 7, and says who
// runs. Who only reads is not kept waiting.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	h, of := node(t)
	first, stopped := h.pause(5, "apply", "--yes")
	if !stopped {
		t.Fatal("it did not come that far")
	}
	text, err := h.ReadFile("/var/lock/observability-upgrade.lock")
	h.check(err)
	pid, _, _ := strings.Cut(string(text), " ")
	if n, err := strconv.Atoi(pid); err != nil || n < 2 {
		t.Fatalf("the lock says %q", text)
	}
	mutating := [][]string{
		{"apply", "--yes"},
		{"rollback", "--previous", "--yes"},
		{"recover"},
		{"adopt", "--yes"},
		{"restart", "--component=node_exporter"},
		{"apply", "--auto"},
	}
	var all sync.WaitGroup
	for n := range 19 {
		args := mutating[n%len(mutating)]
		all.Go(func() {
			res, err := h.Run(h.ctx, append([]string{program}, args...)...)
			if err != nil || res.ExitCode != 7 || !strings.Contains(res.Stderr, "process "+pid) || !strings.Contains(res.Stderr, "next:") {
				t.Errorf("%v: %v %s", args, err, res)
			}
		})
	}
	for args, want := range map[string]string{
		"status": "in process " + pid, "history": "", "check": "1.9", "rollback --list": "", "components list": "node_exporter", "plan": "1.9",
	} {
		all.Go(func() {
			res, err := h.Run(h.ctx, append([]string{program}, strings.Fields(args)...)...)
			if err != nil || res.ExitCode != 0 || !strings.Contains(res.Stdout+res.Stderr, want) {
				t.Errorf("%s does not say %q: %v %s", args, want, err, res)
			}
		})
	}
	all.Wait()
	if code, said := first.resume(); code != 0 {
		t.Fatalf("the first: %d\n%s", code, said)
	}
	if got := h.whole(of); got != "node_exporter 1.9" {
		t.Fatal(got)
	}
}

// Two, and twenty, that begin at the same moment: at each moment one runs, and what
// they leave is whole.
func TestStartedTogether(t *testing.T) {
	t.Parallel()
	h, of := node(t)
	for _, n := range []int{2, 20} {
		codes := make([]int, n)
		var all sync.WaitGroup
		for i := range n {
			args := [][]string{{"apply", "--yes"}, {"rollback", "--previous", "--yes"}, {"recover"}, {"restart", "--component=node_exporter"}}[i%4]
			all.Go(func() {
				res, err := h.Run(h.ctx, append([]string{program}, args...)...)
				codes[i] = res.ExitCode
				// 2: there is nothing to roll back yet.
				if err != nil || res.ExitCode != 0 && res.ExitCode != 7 && (res.ExitCode != 2 || args[0] != "rollback") {
					t.Errorf("%v: %v %s", args, err, res)
				}
			})
		}
		all.Wait()
		counts := map[int]int{}
		for _, c := range codes {
			counts[c]++
		}
		if counts[0]+counts[2] == 0 { // the rollback of nothing may have kept the rest from it
			t.Errorf("%d at once: nobody did anything", n)
		}
		t.Logf("%d at once: exit codes %v; %s", n, counts, h.whole(of))
	}
}

// D-Bus is restarted, killed and taken away, and systemd executes itself anew, in
// the middle of a run.
func TestManagerRestartsDuringRun(t *testing.T) {
	t.Parallel()
	h, of := node(t)
	for name, command := range map[string]string{
		"restart":       "systemctl restart dbus.service",
		"kill":          "systemctl kill -s KILL dbus.service",
		"gone":          "systemctl stop dbus.socket dbus.service",
		"daemon-reexec": "systemctl daemon-reexec",
	} {
		for _, record := range []int{3, 5, 7, 8} {
			if !campaign() && record != 5 {
				continue
			}
			run, stopped := h.pause(record, "apply", "--yes")
			if !stopped {
				t.Fatalf("there is no record %d", record)
			}
			h.MustRun(h.ctx, "sh", "-c", command)
			code, said := run.resume()
			if code != 0 && code != 5 {
				t.Errorf("%s after record %d: exit code %d\n%s", name, record, code, said)
			}
			if name == "gone" {
				h.MustRun(h.ctx, "systemctl", "start", "dbus.socket")
			}
			t.Logf("%s after record %d: exit code %d, %s", name, record, code, h.whole(of))
			h.resetTo(of)
		}
	}
}

// The service of the timer, and a unit of systemd-run, are stopped in the middle of
// a run: what was begun is undone, and the exit code says so.
func TestUnitIsStoppedDuringRun(t *testing.T) {
	t.Parallel()
	h, of := node(t)
	h.settle("node_exporter", "20s")
	h.upgrade(0, "auto-enable", "--policy=any", "--randomized-delay=0s", "--schedule=2035-01-01")
	for unit, start := range map[string][]string{
		"observability-upgrade.service": {"systemctl", "start", "--no-block", "observability-upgrade.service"},
		"mine.service":                  {"systemd-run", "--quiet", "--unit=mine", "--remain-after-exit", program, "apply", "--yes"},
	} {
		h.MustRun(h.ctx, start...)
		h.until(unit+" swaps", time.Minute, func() bool { v, _ := h.at("node_exporter", of); return v == "1.9" })
		h.MustRun(h.ctx, "systemctl", "stop", unit)
		if code := strings.TrimSpace(h.MustRun(h.ctx, "systemctl", "show", "-P", "ExecMainStatus", unit)); code != "130" && code != "" && unit != "mine.service" {
			t.Errorf("%s ended with %s\n%s", unit, code, h.MustRun(h.ctx, "journalctl", "-u", unit, "--no-pager"))
		}
		said := h.MustRun(h.ctx, "journalctl", "-u", unit, "--no-pager")
		if !strings.Contains(said, "back at 1.5.0") {
			t.Errorf("%s does not say that it was undone:\n%s", unit, said)
		}
		var st status
		h.document(&st, 0, "status")
		if st.Interrupted != nil || st.LastRun == nil || st.LastRun.Status != "interrupted" {
			t.Errorf("%s: %+v", unit, st)
		}
		if got := h.whole(of); got != "node_exporter 1.5" {
			t.Errorf("%s: %s", unit, got)
		}
	}
}

// A run with too little memory ends as a crash does, wherever it comes to it; the
// kernel's own way to end it is the signal of TestKillAtRandom. With little, but
// enough, it works.
func TestLittleMemory(t *testing.T) {
	t.Parallel()
	h, of := node(t)
	failed := 0
	for mb := 100; mb <= 2100; mb += share(1000, 50) {
		res, err := h.Run(h.ctx, "sh", "-c", fmt.Sprintf("ulimit -v %d; exec %s apply --yes", mb<<10, program))
		h.check(err)
		if res.ExitCode != 0 {
			failed++
		}
		h.upgrade(0, "recover")
		t.Logf("%d MB of addresses: exit code %d, %s", mb, res.ExitCode, h.whole(of))
		h.resetTo(of)
	}
	if failed == 0 {
		t.Error("it was always enough")
	}
	res, err := h.Run(h.ctx, "env", "GOMEMLIMIT=1MiB", program, "apply", "--yes")
	if err != nil || res.ExitCode != 0 {
		t.Errorf("%v %s", err, res)
	}
	if got := h.whole(of); got != "node_exporter 1.9" {
		t.Error(got)
	}
}

// The clock jumps in the middle of a run and between runs, a day back and a year
// ahead: names of runs and backups stay in order, history tells the newest first,
// the newest is the one that is taken back, and retention removes the oldest.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	h := newHost(t, map[string]string{"node_exporter": "1.5", "alertmanager": "0.25"}, map[string][]string{"node_exporter": {"1.9"}, "alertmanager": {"0.28"}})
	of := versions{"node_exporter": {"1.5", "1.9"}, "alertmanager": {"0.25", "0.28"}}
	policy := h.MustRun(h.ctx, "cat", "/etc/observability/upgrade-policy.yaml")
	h.file("/etc/observability/upgrade-policy.yaml", strings.Replace(policy, "backups: 50", "backups: 2", 1))
	for name := range of {
		h.settle(name, "100ms")
	}
	h.upgrade(0, "adopt", "--yes")
	at := func(clock string, args ...string) rig.Result {
		t.Helper()
		res, err := h.Run(h.ctx, append([]string{"env", "OBSUP_CLOCK=" + clock, program}, args...)...)
		if err != nil || res.ExitCode != 0 {
			t.Fatalf("%s %v: %v %s", clock, args, err, res)
		}
		return res
	}
	id := regexp.MustCompile(`(?m)^(?:Upgrade|Rollback) (\S+):`)
	var ids []string
	clocks := []string{"8760h:6", "-24h:6"}
	if campaign() {
		clocks = append(clocks, "0s:0", "-24h:0", "8760h:0", "0s:0")
	}
	for _, clock := range clocks {
		for _, component := range []string{"alertmanager", "node_exporter"} {
			up := at(clock, "apply", "--yes", "--component="+component)
			ids = append(ids, id.FindStringSubmatch(up.Stdout)[1])
		}
		var hist historyDoc
		h.document(&hist, 0, "history", "--limit=2")
		if len(hist.Upgrades) != 2 || hist.Upgrades[0].Component != "node_exporter" || hist.Upgrades[1].Component != "alertmanager" {
			t.Fatalf("%s: the newest of history are %+v", clock, hist.Upgrades)
		}
		if got := h.whole(of); got != "alertmanager 0.28, node_exporter 1.9" {
			t.Fatalf("%s: %s", clock, got)
		}
		points := strings.Fields(h.MustRun(h.ctx, "ls", "/var/backups/observability"))
		if len(points) > 2 || !strings.Contains(strings.Join(points, " "), ids[len(ids)-1]) {
			t.Fatalf("%s: run %s, and these backups are kept: %v", clock, ids[len(ids)-1], points)
		}
		for _, want := range []string{"alertmanager 0.28, node_exporter 1.5", "alertmanager 0.25, node_exporter 1.5"} {
			at(clock, "rollback", "--previous", "--yes")
			if got := h.whole(of); got != want {
				t.Fatalf("%s: after the rollback %s, want %s", clock, got, want)
			}
		}
	}
	t.Log(ids)
	// Only there a run began while the clock was ahead.
	if out := h.upgrade(0, "apply", "--yes"); campaign() && !strings.Contains(out.Stdout, "the clock is ") {
		t.Errorf("nobody is told that the clock is behind: %s", out)
	}
}
