package e2e

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/test/e2e/rig"
)

// campaign reports whether the whole campaign is wanted, as `make campaign-rig`
// wants it, and not the slice of it that every run of the tests takes.
func campaign() bool { return os.Getenv("OBSUP_CAMPAIGN") == "full" }

// share is how many points to try.
func share(slice, full int) int {
	if campaign() {
		return full
	}
	return slice
}

// dice are what chooses the instants. Their seed is told, and OBSUP_SEED repeats it;
// the instants themselves are as exact as the machine is idle.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("OBSUP_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("OBSUP_SEED: %v", err)
		}
	}
	t.Logf("OBSUP_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0)) // chooses instants, not secrets
}

// stretch measures how long commands take, so that an instant in them can be drawn,
// and how long of that their journal is open, as command + " open".
type stretch map[string]time.Duration

const open = " open"

// draw is an instant between the start of a command, or of its journal, and a
// little after its end.
func (s stretch) draw(r *rand.Rand, command string) time.Duration {
	return time.Duration(r.Int64N(int64(cmp.Or(s[command], 2*time.Second)) * 11 / 10))
}

// did notes how long a command took that was left to its end. A slow one counts
// for half, so that one hiccup does not move all further instants behind the end.
func (s stretch) did(command string, took time.Duration) {
	s[command] = (cmp.Or(s[command], took) + took) / 2
}

// versions are the two that a component goes between.
type versions map[string][2]string

// digests are those of the rig's programs, by path.
var digests sync.Map

func digest(program []byte) string {
	sum := sha256.Sum256(program)
	return hex.EncodeToString(sum[:])
}

// at is which of its two versions a component's file is, byte for byte, and its
// digest.
func (h *host) at(name string, of versions) (version, sum string) {
	h.t.Helper()
	program, err := h.ReadFile("/usr/local/bin/" + name)
	h.check(err)
	sum = digest(program)
	for _, v := range of[name] {
		path := filepath.Join(h.release(name, v).Dir, name)
		want, ok := digests.Load(path)
		if !ok {
			program, err := os.ReadFile(path)
			h.check(err)
			want = digest(program)
			digests.Store(path, want)
		}
		if sum == want {
			return v, sum
		}
	}
	h.t.Fatalf("%s has sha256 %s, which is neither of %v", name, sum, of[name])
	return "", ""
}

// next is what there is to do: all up, all down, or where they differ either.
func (h *host) next(r *rand.Rand, of versions) []string {
	h.t.Helper()
	var up, down bool
	for name, v := range of {
		at, _ := h.at(name, of)
		up, down = up || at == v[0], down || at == v[1]
	}
	if up && (!down || r.IntN(2) == 0) {
		return []string{"apply", "--yes"}
	}
	return []string{"rollback", "--previous", "--yes"}
}

// journalOpens waits until a journal is there, or the command has ended.
func (h *host) journalOpens(ended <-chan struct{}) {
	h.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if entries, err := os.ReadDir(h.Path("/var/lib/observability/journal")); err == nil && len(entries) > 0 {
			return
		}
		select {
		case <-ended:
			return
		case <-tick.C:
		}
	}
}

// instant waits for a moment of a command that was started: two times of three
// within its run, as its journal shows, else anywhere between its start and end.
func (r *random) instant(command string, ended <-chan struct{}) {
	r.t.Helper()
	if command != "recover" && r.dice.IntN(3) > 0 {
		r.journalOpens(ended)
		command += open
	}
	timer := time.NewTimer(r.took.draw(r.dice, command))
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// killed runs a command and kills it at some instant; false when it ended before.
func (r *random) killed(args ...string) bool {
	h := r.host
	h.t.Helper()
	cmd := h.Command(h.ctx, append([]string{program}, args...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	h.check(cmd.Start())
	ended := make(chan struct{})
	var err error
	go func() { defer close(ended); err = cmd.Wait() }()
	r.instant(args[0], ended)
	_ = h.Kill(cmd, syscall.SIGKILL)
	<-ended
	code := cmd.ProcessState.ExitCode()
	ws, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case ws.Signaled(), code == 137:
		return true
	case err != nil && code != 0:
		h.t.Fatalf("%v: exit code %d\n%s", args, code, out.String())
	}
	return false
}

// whole asserts every promise after an interrupted run: each component at one of
// its versions, and binary, process, state file, digest, status and history agree.
func (h *host) whole(of versions) string {
	h.t.Helper()
	h.healthy()
	state := h.state()
	var hist historyDoc
	h.document(&hist, 0, "history", "--limit=1000")
	var told []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		at, sum := h.at(name, of)
		if live := line(h.running(name)); live != at {
			h.t.Fatalf("%s is at %s, and %s runs", name, at, live)
		}
		c := state.Components[name]
		if line(c.Current) != at || strings.TrimPrefix(c.Checksum, "sha256:") != sum {
			h.t.Fatalf("%s is at %s with sha256 %s, the state file says %+v", name, at, sum, c)
		}
		if len(c.Failed) > 0 {
			h.t.Fatalf("%s: a version is held against it that nobody let finish: %+v", name, c.Failed)
		}
		standing := 0 // upgrades that succeeded and were not taken back
		for _, u := range hist.Upgrades {
			if u.Component == name && u.Status == "success" {
				standing++
			}
		}
		if want := map[bool]int{true: 1}[at == of[name][1]]; standing != want {
			h.t.Fatalf("%s is at %s, and history has %d upgrades that stand, want %d: %+v", name, at, standing, want, hist.Upgrades[:min(8, len(hist.Upgrades))])
		}
		told = append(told, name+" "+at)
	}
	left := h.MustRun(h.ctx, "sh", "-c", "ls -A /var/lib/observability/journal 2>/dev/null; ls -d /usr/local/bin/.* | grep -v '/[.]*$' || true")
	if strings.TrimSpace(left) != "" {
		h.t.Fatalf("left behind: %s", left)
	}
	return strings.Join(told, ", ")
}

// healthy waits until status says that all are healthy and no run is interrupted.
func (h *host) healthy() {
	h.t.Helper()
	var res rig.Result
	err := poll(h.t, time.Minute, func() bool {
		var err error
		res, err = h.Run(h.ctx, program, "status", "--output=json")
		var st status
		return err == nil && res.ExitCode == 0 && json.Unmarshal([]byte(res.Stdout), &st) == nil && st.Interrupted == nil &&
			!slices.ContainsFunc(st.Components, func(c componentStatus) bool { return !c.Healthy || !c.Active })
	})
	if err != nil {
		h.t.Fatalf("healthy: %v: %s", err, res)
	}
}

// random is a host whose components go up and down while they are killed.
type random struct {
	*host
	of      versions
	dice    *rand.Rand
	took    stretch
	kills   map[string]int
	samples func()
}

func newRandom(t *testing.T, of versions) *random {
	t.Helper()
	install, offer := map[string]string{}, map[string][]string{}
	for name, v := range of {
		install[name], offer[name] = v[0], []string{v[1]}
	}
	h := newHost(t, install, offer)
	for name := range of {
		h.settle(name, "100ms")
	}
	r := &random{host: h, of: of, dice: dice(t), took: stretch{}, kills: map[string]int{}, samples: func() {}}
	h.upgrade(0, "adopt", "--yes")
	if of["prometheus"][0] != "" {
		h.waitSamples()
		at := time.Now().Add(-2 * time.Second)
		const past = "sum(count_over_time(up[5m]))"
		want := h.query(past, at)
		r.samples = func() {
			t.Helper()
			if got := h.query(past, at); got != want {
				t.Fatalf("samples %s, were %s", got, want)
			}
		}
	}
	for _, args := range [][]string{{"apply", "--yes"}, {"rollback", "--previous", "--yes"}} {
		r.measured(args...)
	}
	return r
}

// measured runs a command to its end.
func (r *random) measured(args ...string) {
	r.t.Helper()
	began, ended := time.Now(), make(chan struct{})
	opened := make(chan time.Time, 1)
	go func() {
		r.journalOpens(ended)
		opened <- time.Now()
	}()
	r.upgrade(0, args...)
	close(ended)
	r.took.did(args[0], time.Since(began))
	if at := <-opened; args[0] != "recover" {
		r.took.did(args[0]+open, time.Since(at))
	}
}

// SIGKILL of the real process at random instants of apply, rollback and recover,
// up to three times in a row: what the next recovery leaves is whole.
func TestKillAtRandom(t *testing.T) {
	t.Parallel()
	small := versions{"node_exporter": {"1.5", "1.9"}, "alertmanager": {"0.25", "0.28"}}
	large := versions{"prometheus": {"2.42", "2.53"}, "node_exporter": {"1.5", "1.9"}}
	for name, c := range map[string]struct {
		of    versions
		kills int
		hosts int
	}{
		"small":      {small, share(8, 50), share(1, 4)},
		"prometheus": {large, share(4, 50), share(1, 2)},
	} {
		for n := range c.hosts {
			t.Run(fmt.Sprintf("%s %d", name, n+1), func(t *testing.T) { killAtRandom(t, c.of, c.kills) })
		}
	}
}

func killAtRandom(t *testing.T, of versions, kills int) {
	t.Helper()
	t.Parallel()
	r := newRandom(t, of)
	total, told := 0, -1
	for total < kills {
		args := r.next(r.dice, of)
		if r.killed(args...) {
			total++
			r.kills[args[0]]++
		}
		if r.interruptedIsTold() {
			r.kills["of these in an open run"]++
			for r.dice.IntN(2) == 0 && r.killed("recover") {
				total++
				r.kills["recover"]++
			}
		}
		r.measured("recover")
		r.whole(of)
		r.samples()
		if total/10 > told {
			told = total / 10
			t.Logf("%d kills: %v; lengths %v", total, r.kills, r.took)
		}
	}
	t.Logf("%d kills: %v", total, r.kills)
}

// interruptedIsTold asserts that status tells of an interrupted run as long as its
// journal is open, and reports whether there is one.
func (r *random) interruptedIsTold() bool {
	r.t.Helper()
	var st status
	r.document(&st, 0, "status")
	journals, err := filepath.Glob(r.Path("/var/lib/observability/journal/*.journal"))
	r.check(err)
	if (len(journals) > 0) != (st.Interrupted != nil) {
		r.t.Fatalf("journals %v, status says %+v", journals, st.Interrupted)
	}
	return len(journals) > 0
}

// The power is cut at random instants of apply and rollback; the boot unit
// finishes what was cut off.
func TestPowerOffAtRandom(t *testing.T) {
	t.Parallel()
	of := versions{"node_exporter": {"1.5", "1.9"}, "alertmanager": {"0.25", "0.28"}}
	r := newRandom(t, of)
	r.units("observability-upgrade-recover.service")
	r.MustRun(r.ctx, "systemctl", "enable", "--quiet", "observability-upgrade-recover.service")
	cuts, inRun := share(3, 50), 0
	for n := range cuts {
		args := r.next(r.dice, of)
		cmd := r.Command(r.ctx, append([]string{program}, args...)...)
		began, ended := time.Now(), make(chan struct{})
		r.check(cmd.Start())
		go func() { defer close(ended); _ = cmd.Wait() }()
		r.instant(args[0], ended)
		after := time.Since(began)
		r.check(r.PowerOff(r.ctx))
		<-ended // it died with the container
		left, err := filepath.Glob(r.Path("/var/lib/observability/journal/*.journal"))
		r.check(err)
		inRun += len(left)
		r.check(r.Boot(r.ctx))
		r.recovered()
		t.Logf("%d: %s cut after %v: %s", n, args[0], after, r.whole(of))
	}
	t.Logf("%d cuts, %d of them in an open run", cuts, inRun)
	if res, err := r.Run(r.ctx, "systemctl", "is-failed", "observability-upgrade-recover.service"); err != nil || res.ExitCode == 0 {
		t.Errorf("the boot unit failed: %v %s", err, res)
	}
}
