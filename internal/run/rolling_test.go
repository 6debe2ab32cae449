package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/balancer"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// fakeBalancer is a load balancer in front of the instances of prom.
type fakeBalancer struct {
	mu       sync.Mutex
	admitted map[string]bool
	open     map[string]int // connections of a drained server that have not ended yet
	did      []string
	broken   bool            // it answers nothing
	by       map[string]bool // whom a person took out
	wrong    []string
}

type fakeServer struct {
	lb   *fakeBalancer
	name string
}

func (b *fakeBalancer) of(server string) balancer.Balancer { return fakeServer{b, server} }

func (b *fakeBalancer) takesTraffic(unit string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, instance, _ := strings.Cut(strings.TrimSuffix(unit, ".service"), "@")
	return b.admitted[instance] || b.open[instance] > 0
}

func (s fakeServer) State(context.Context) (balancer.State, error) {
	s.lb.mu.Lock()
	defer s.lb.mu.Unlock()
	if s.lb.broken {
		return balancer.State{}, errors.New("no answer")
	}
	st := balancer.State{Admitted: s.lb.admitted[s.name], Up: true, Detail: "by hand", Sessions: s.lb.open[s.name]}
	s.lb.open[s.name] = max(st.Sessions-1, 0)
	for name, in := range s.lb.admitted {
		if name != s.name && in {
			st.Others++
		}
	}
	return st, nil
}

func (s fakeServer) Drain(context.Context) error { return s.set(false) }
func (s fakeServer) Admit(context.Context) error {
	if s.lb.by[s.name] {
		return &balancer.NotOursError{Server: s.name, State: "by hand"}
	}
	return s.set(true)
}

func (s fakeServer) set(in bool) error {
	s.lb.mu.Lock()
	defer s.lb.mu.Unlock()
	if s.lb.broken {
		return errors.New("no answer")
	}
	if s.lb.admitted[s.name] && !in {
		s.lb.open[s.name] = 1
	}
	s.lb.admitted[s.name] = in
	if !s.lb.admitted["a"] && !s.lb.admitted["b"] {
		s.lb.wrong = append(s.lb.wrong, "no server was left when "+s.name+" was drained")
	}
	s.lb.did = append(s.lb.did, map[bool]string{true: "admit ", false: "drain "}[in]+s.name)
	return nil
}

// pair is a world with two instances of prom behind a balancer.
func pair(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.lb = &fakeBalancer{admitted: map[string]bool{"a": true, "b": true}, open: map[string]int{}}
	w.install("prom", "1.0.0")
	if _, err := w.Stop(t.Context(), service.Service{Unit: "prom.service"}, 0); err != nil {
		t.Fatal(err)
	}
	for _, i := range []string{"a", "b"} {
		if err := w.Start(t.Context(), service.Service{Unit: "prom@" + i + ".service"}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// rolling makes a request that brings both instances to new contents.
func (w *world) rolling(content string) Request {
	req := w.steps(content)
	whole := req.Changes[0]
	req.Changes = nil
	for _, i := range []string{"a", "b"} {
		ch := whole
		ch.Instance, ch.Service = i, service.Service{Name: "prom@" + i, Unit: "prom@" + i + ".service"}
		h := &ch.Health.Spec.Health
		h.URL, h.MetricsURL = w.server.URL+"/prom@"+i+"/-/ready", w.server.URL+"/prom@"+i+"/metrics"
		ch.Swaps = append([]Swap{}, whole.Swaps...)
		ch.Rolling = &Rolling{Balancer: &component.Balancer{Stabilize: component.Duration(time.Millisecond)}, Server: i}
		req.Changes = append(req.Changes, ch)
	}
	return req
}

func (w *world) instance(i string) string { return w.runningVersion("prom@" + i) }

// clean asserts that nothing happened that must never happen, and that no journal
// is open.
func (w *world) clean(what string) {
	w.t.Helper()
	if wrong := append(w.wrong, w.lb.wrong...); len(wrong) > 0 {
		w.t.Fatalf("%s: %q", what, wrong)
	}
	if p, err := journal.Pending(w.root.JournalDir()); err != nil || len(p) > 0 {
		w.t.Fatalf("%s: journal still open: %v %v", what, p, err)
	}
}

func TestRolling(t *testing.T) {
	w := pair(t)
	res, err := w.engine(nil).Execute(t.Context(), w.rolling("prom 2.0.0"))
	if err != nil || res.Status != StatusSuccess || len(res.Components) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	w.clean("rolled")
	if got := strings.Join(w.lb.did, ", "); got != "drain a, admit a, drain b, admit b" {
		t.Errorf("the balancer was told: %s", got)
	}
	f, err := state.Load(w.root.State())
	if err != nil {
		t.Fatal(err)
	}
	c := f.Components["prom"]
	if w.instance("a") != "2.0.0" || w.instance("b") != "2.0.0" || c.CurrentVersion != "2.0.0" || c.Instances["a"] != "2.0.0" || c.Instances["b"] != "2.0.0" {
		t.Errorf("a %s, b %s, state %+v", w.instance("a"), w.instance("b"), c)
	}
}

// The second instance fails: it is back at the old version and in the balancer,
// the first is left as it is, and the file both share is the old one.
func TestRollingSecondFails(t *testing.T) {
	for _, word := range []string{wordNoStart, wordNotReady, wordDies} {
		w := pair(t)
		res, err := w.engine(nil).Execute(t.Context(), w.rolling("prom 2.0.0 b-"+word))
		if err == nil || res.Status != StatusRolledBack || res.Components[0].Status != Upgraded || res.Components[1].Status != RolledBack {
			t.Fatalf("%s: %+v, %v", word, res, err)
		}
		w.clean(word)
		f, err := state.Load(w.root.State())
		if err != nil {
			t.Fatal(err)
		}
		c := f.Components["prom"]
		if w.instance("a") != "2.0.0" || w.instance("b") != "1.0.0" || w.version("prom").String() != "1.0.0" || !w.lb.admitted["a"] || !w.lb.admitted["b"] {
			t.Errorf("%s: a %s, b %s, file %s, balancer %v", word, w.instance("a"), w.instance("b"), w.version("prom"), w.lb.admitted)
		}
		if c.CurrentVersion != "1.0.0" || c.Instances["a"] != "2.0.0" || c.Instances["b"] != "1.0.0" || len(c.FailedVersions) != 1 {
			t.Errorf("%s: state %+v", word, c)
		}
		if !strings.Contains(strings.Join(res.Warnings, "\n"), "prom@a goes on running 2.0.0") {
			t.Errorf("%s: warnings %q", word, res.Warnings)
		}
	}
}

// The first instance fails: the second is not touched.
func TestRollingFirstFails(t *testing.T) {
	w := pair(t)
	req := w.rolling("prom 2.0.0 a-" + wordNotReady)
	req.ContinueOnFailure = true
	res, err := w.engine(nil).Execute(t.Context(), req)
	if err == nil || res.Components[0].Status != RolledBack || res.Components[1].Status != NotAttempted {
		t.Fatalf("%+v, %v", res, err)
	}
	w.clean("first")
	if w.instance("a") != "1.0.0" || w.instance("b") != "1.0.0" || strings.Contains(strings.Join(w.lb.did, " "), "b") {
		t.Errorf("a %s, b %s, told %v", w.instance("a"), w.instance("b"), w.lb.did)
	}
}

// What somebody else took out is neither drained nor put back; the last server is
// never drained; without an answer of the balancer nothing is touched.
func TestRollingLeavesOthersDrains(t *testing.T) {
	w := pair(t)
	w.lb.admitted["a"] = false
	res, err := w.engine(nil).Execute(t.Context(), w.rolling("prom 2.0.0"))
	// b is the last that takes traffic.
	if err == nil || !strings.Contains(err.Error(), "another server that takes traffic") || res.Components[0].Status != Upgraded || res.Components[1].Status != Failed {
		t.Fatalf("%+v, %v", res, err)
	}
	w.clean("a drained by hand")
	if len(w.lb.did) > 0 || w.lb.admitted["a"] || w.instance("b") != "1.0.0" {
		t.Errorf("told %v", w.lb.did)
	}
	w = pair(t)
	w.lb.broken = true
	if res, err = w.engine(nil).Execute(t.Context(), w.rolling("prom 2.0.0")); err == nil || w.instance("a") != "1.0.0" || w.instance("b") != "1.0.0" {
		t.Fatalf("%+v, %v", res, err)
	}
	w.clean("no answer")
}

// What a person takes out while it is upgraded stays out; the upgrade is none the
// worse for it.
func TestRollingTakenOutMeanwhile(t *testing.T) {
	w := pair(t)
	w.lb.admitted["c"] = true
	e := w.engine(nil)
	e.Report = func(ev Event) {
		if ev.Instance == "a" && ev.Step == StepStart {
			w.lb.by = map[string]bool{"a": true}
		}
	}
	res, err := e.Execute(t.Context(), w.rolling("prom 2.0.0"))
	if err != nil || res.Status != StatusSuccess || w.lb.admitted["a"] || !w.lb.admitted["b"] || w.instance("a") != "2.0.0" {
		t.Fatalf("%+v, %v, balancer %v", res, err, w.lb.admitted)
	}
	if !strings.Contains(strings.Join(res.Warnings, "\n"), "prom@a: a is out of the balancer (by hand)") {
		t.Errorf("warnings %q", res.Warnings)
	}
}

// Killed at any effect, recovery leaves both instances running and in the
// balancer. Both are at one version, unless one of them failed for itself.
func TestRollingKilledAtEveryOperation(t *testing.T) {
	for name, content := range map[string]string{"upgrade": "prom 2.0.0", "second fails": "prom 2.0.0 b-" + wordNoStart} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for n := 1; ; n++ {
				w := pair(t)
				c := &crashAt{n: n}
				_, err := w.engine(c.guard).Execute(t.Context(), w.rolling(content))
				if !c.crashed() {
					break
				}
				if !errors.Is(err, hostfs.ErrCrashed) {
					t.Fatalf("crash at %d (%s): the run went on: %v", n, c.op, err)
				}
				tried++
				what := fmt.Sprintf("killed at effect %d (%s)", n, c.op)
				if _, err := w.engine(nil).Recover(t.Context()); err != nil {
					t.Fatalf("%s: recover: %v", what, err)
				}
				w.clean(what)
				a, b, file := w.instance("a"), w.instance("b"), w.version("prom").String()
				if !w.lb.admitted["a"] || !w.lb.admitted["b"] || a == "" || b == "" {
					t.Fatalf("%s: a %q, b %q, balancer %v", what, a, b, w.lb.admitted)
				}
				// a goes on with the new version when it was b that failed.
				if b != file || a != file && (name == "upgrade" || a != "2.0.0") {
					t.Fatalf("%s: a %s, b %s, file %s", what, a, b, file)
				}
				f, err := state.Load(w.root.State())
				if err == nil && f.Components["prom"].CurrentVersion != "" && f.Components["prom"].CurrentVersion != file {
					t.Fatalf("%s: file %s, state %+v", what, file, f.Components["prom"])
				}
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
			}
			if tried < 40 {
				t.Fatalf("only %d effects were tried", tried)
			}
			t.Logf("%d kill points", tried)
		})
	}
}

// Killed again in the recovery, a third attempt still ends with one version.
func TestRollingKilledDuringRecovery(t *testing.T) {
	t.Parallel()
	crashed := func(n int) (*world, *crashAt) {
		w, c := pair(t), &crashAt{n: n}
		if _, err := w.engine(c.guard).Execute(t.Context(), w.rolling("prom 2.0.0")); c.crashed() && !errors.Is(err, hostfs.ErrCrashed) {
			t.Fatalf("crash at %d (%s): the run went on: %v", n, c.op, err)
		}
		return w, c
	}
	tried := 0
	for n := 30; ; n += 5 { // the first instance is at work before
		probe, c := crashed(n)
		if !c.crashed() {
			break
		}
		count := &crashAt{}
		if _, err := probe.engine(count.guard).Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		for m := 1; m <= count.count; m++ {
			w, _ := crashed(n)
			second := &crashAt{n: m}
			_, err := w.engine(second.guard).Recover(t.Context())
			if errors.Is(err, hostfs.ErrCrashed) != second.crashed() {
				t.Fatalf("kill %d then %d: %v", n, m, err)
			}
			what := fmt.Sprintf("killed at effect %d (%s), then in recovery at %d (%s)", n, c.op, m, second.op)
			if _, err := w.engine(nil).Recover(t.Context()); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			w.clean(what)
			a, b, file := w.instance("a"), w.instance("b"), w.version("prom").String()
			if a != file || b != file || !w.lb.admitted["a"] || !w.lb.admitted["b"] {
				t.Fatalf("%s: a %s, b %s, file %s, balancer %v", what, a, b, file, w.lb.admitted)
			}
			if f, err := state.Load(w.root.State()); err == nil && f.Components["prom"].CurrentVersion != "" && f.Components["prom"].CurrentVersion != file {
				t.Fatalf("%s: file %s, state %+v", what, file, f.Components["prom"])
			}
			tried++
		}
	}
	if tried < 100 {
		t.Fatalf("only %d pairs of kill points", tried)
	}
	t.Logf("%d pairs of kill points", tried)
}

// A rollback of both instances, killed at any effect, leaves both at one version,
// and the history says which.
func TestRollingRollbackKilledAtEveryOperation(t *testing.T) {
	t.Parallel()
	tried := 0
	for n := 1; ; n++ {
		w := pair(t)
		res, err := w.engine(nil).Execute(t.Context(), w.rolling("prom 2.0.0"))
		if err != nil {
			t.Fatalf("%+v, %v", res, err)
		}
		req := w.rolling("prom 1.0.0")
		req.Operation, req.StagingDirs, req.ContinueOnFailure = Rollback, nil, true
		for i := range req.Changes {
			req.Changes[i].Undoes = []int64{1}
		}
		c := &crashAt{n: n}
		if _, err = w.engine(c.guard).Execute(t.Context(), req); !c.crashed() {
			break
		}
		tried++
		what := fmt.Sprintf("killed at effect %d (%s): %v", n, c.op, err)
		results, err := w.engine(nil).Recover(t.Context())
		if err != nil {
			t.Fatalf("%s: recover: %v", what, err)
		}
		for _, res := range results {
			if res.Status != StatusInterrupted && res.Status != StatusSuccess {
				t.Fatalf("%s: recovered as %+v", what, res)
			}
		}
		w.clean(what)
		a, b, file := w.instance("a"), w.instance("b"), w.version("prom").String()
		f, err := state.Load(w.root.State())
		if err != nil {
			t.Fatal(err)
		}
		if a != file || b != file || f.Components["prom"].CurrentVersion != file || f.Components["prom"].Instances["a"] != file || f.Components["prom"].Instances["b"] != file {
			t.Fatalf("%s: a %s, b %s, file %s, state %+v", what, a, b, file, f.Components["prom"])
		}
		db, err := history.OpenReadOnly(t.Context(), w.root.History())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := db.List(t.Context(), history.Filter{})
		if err != nil || len(rows) != 1 || (rows[0].Status == history.Success) != (file == "2.0.0") {
			t.Fatalf("%s: file %s, history %+v, %v", what, file, rows, err)
		}
		_ = db.Close()
	}
	if tried < 40 {
		t.Fatalf("only %d effects were tried", tried)
	}
	t.Logf("%d kill points", tried)
}

// restart makes a request that restarts both instances.
func (w *world) restarting(strategy Strategy) Request {
	req := w.rolling("prom 1.0.0")
	req.Operation, req.Subjects, req.StagingDirs = Restart, nil, nil
	for i := range req.Changes {
		req.Changes[i].Swaps, req.Changes[i].Strategy = nil, strategy
	}
	return req
}

func TestRestart(t *testing.T) {
	for _, strategy := range []Strategy{Graceful, Fast, Reload} {
		w := pair(t)
		before := w.running["prom@a.service"].pid
		e := w.engine(nil)
		asked := 0
		e.ReloadConfig = func(context.Context, Change) (bool, error) { asked++; return true, nil }
		res, err := e.Execute(t.Context(), w.restarting(strategy))
		if err != nil || res.Status != StatusSuccess {
			t.Fatalf("%s: %+v, %v", strategy, res, err)
		}
		w.clean(string(strategy))
		if same := w.running["prom@a.service"].pid == before; same != (strategy == Reload) || (asked == 2) != (strategy == Reload) {
			t.Errorf("%s: same process %v, asked %d times", strategy, same, asked)
		}
		if _, err := os.Stat(w.root.Backups()); err == nil {
			t.Errorf("%s: a backup point was taken", strategy)
		}
		if _, err := os.Stat(w.root.History()); err == nil {
			t.Errorf("%s: the history was written", strategy)
		}
	}
}

// A service that crashed once, long ago, is reloaded all the same: that is no crash
// of now. One that crashes in the reload is.
func TestReloadAfterCrash(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := pair(t)
		w.running["prom@a.service"].restarts = 1
		e := w.engine(nil)
		e.ReloadConfig = func(_ context.Context, ch Change) (bool, error) {
			if crash && ch.Instance == "a" {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.running["prom@a.service"].restarts++
			}
			return true, nil
		}
		res, err := e.Execute(t.Context(), w.restarting(Reload))
		if crash && (err == nil || !strings.Contains(err.Error(), "crashed and was restarted")) || !crash && (err != nil || res.Status != StatusSuccess) {
			t.Errorf("crash %v: %+v, %v", crash, res, err)
		}
	}
}

func TestRestartKilledAtEveryOperation(t *testing.T) {
	t.Parallel()
	tried := 0
	for n := 1; ; n++ {
		w := pair(t)
		c := &crashAt{n: n}
		_, err := w.engine(c.guard).Execute(t.Context(), w.restarting(Graceful))
		if !c.crashed() {
			break
		}
		tried++
		what := fmt.Sprintf("killed at effect %d (%s): %v", n, c.op, err)
		if _, err := w.engine(nil).Recover(t.Context()); err != nil {
			t.Fatalf("%s: recover: %v", what, err)
		}
		w.clean(what)
		if w.instance("a") != "1.0.0" || w.instance("b") != "1.0.0" || !w.lb.admitted["a"] || !w.lb.admitted["b"] {
			t.Fatalf("%s: a %q, b %q, balancer %v", what, w.instance("a"), w.instance("b"), w.lb.admitted)
		}
	}
	if tried < 15 {
		t.Fatalf("only %d effects were tried", tried)
	}
	t.Logf("%d kill points", tried)
}
