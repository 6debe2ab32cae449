package campaign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// scenario is an operation that is disturbed.
type scenario struct {
	name    string
	allowed map[string][]string // where each component may end, the version before any run first
	set     func(*runtest.World)
	setup   func(ctx context.Context, w *runtest.World) error
	request func(w *runtest.World) run.Request
	check   func(w *runtest.World, at map[string]string) error // besides what is promised of all; may be nil
	failed  func(w *runtest.World, at map[string]string) error // instead of check, after an error; check when nil
	// next makes a request that must succeed when all is over, and where it leads.
	next func(w *runtest.World) (run.Request, map[string]string)
	// stopped allows that recovery leaves a component stopped, and says so: a person
	// forced it through a door without a way back.
	stopped bool
	space   bool // its undo needs space
}

func upgrade(w *runtest.World) (run.Request, map[string]string) {
	return w.Steps("prom 9.0.0", "am 0.9.0"), map[string]string{"prom": "9.0.0", "am": "0.9.0"}
}

func upgradeProm(w *runtest.World) (run.Request, map[string]string) {
	return w.Steps("prom 9.0.0"), map[string]string{"prom": "9.0.0"}
}

func upgradePair(w *runtest.World) (run.Request, map[string]string) {
	return w.Rolling("prom 9.0.0"), map[string]string{"prom": "9.0.0"}
}

var (
	both = map[string][]string{"prom": {"1.0.0", "2.0.0", "3.0.0"}, "am": {"0.1.0", "0.2.0"}}
	prom = map[string][]string{"prom": {"1.0.0", "2.0.0", "3.0.0"}}
)

func installBoth(_ context.Context, w *runtest.World) error {
	w.Install("prom", "1.0.0")
	w.Install("am", "0.1.0")
	return nil
}

func installProm(_ context.Context, w *runtest.World) error {
	w.Install("prom", "1.0.0")
	return nil
}

const samples = "twelve bytes"

func installData(_ context.Context, w *runtest.World) error {
	w.Install("prom", "1.0.0")
	w.Keeps(samples)
	return nil
}

// done carries out a request that nothing disturbs.
func done(ctx context.Context, w *runtest.World, req run.Request) error {
	res, err := w.Engine(nil).Execute(ctx, req)
	if err == nil && res.Status != run.StatusSuccess {
		err = errors.New(res.Status)
	}
	return err
}

func upgradedBoth(ctx context.Context, w *runtest.World) error {
	if err := installBoth(ctx, w); err != nil {
		return err
	}
	if err := done(ctx, w, w.Steps("prom 2.0.0", "am 0.2.0")); err != nil {
		return err
	}
	w.Write(w.Root.Path("etc/prom/config.yml"), "config of 2.0.0\n", 0o644)
	return nil
}

// ownConfig asks that a configuration is that of the version in place.
func ownConfig(w *runtest.World, at map[string]string) error {
	data, err := os.ReadFile(w.Root.Path("etc/prom/config.yml"))
	if err == nil && string(data) != "config of "+at["prom"]+"\n" {
		err = fmt.Errorf("prom is at %s, its configuration is %q", at["prom"], data)
	}
	return err
}

func ownData(w *runtest.World, at map[string]string) error {
	return w.Holds(samples, at["prom"])
}

// pair asks that both instances are as the files are and take traffic; where the
// second failed by itself, the first may go on with the version that it got.
func pair(ahead string) func(w *runtest.World, at map[string]string) error {
	return func(w *runtest.World, at map[string]string) error {
		a, b := w.Instance("a"), w.Instance("b")
		if b != at["prom"] || a != at["prom"] && a != ahead || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
			return fmt.Errorf("a %q, b %q, files %s, balancer %v", a, b, at["prom"], w.Balancer.Admitted)
		}
		return nil
	}
}

// parted asks that both instances take traffic and one of them is as the files are:
// an instance that failed ends a roll-out, and the rest is left as it is.
func parted(w *runtest.World, at map[string]string) error {
	a, b := w.Instance("a"), w.Instance("b")
	known := slices.Contains(prom["prom"], a) && slices.Contains(prom["prom"], b)
	if !known || a != at["prom"] && b != at["prom"] || !w.Balancer.Admitted["a"] || !w.Balancer.Admitted["b"] {
		return fmt.Errorf("a %q, b %q, files %s, balancer %v", a, b, at["prom"], w.Balancer.Admitted)
	}
	return nil
}

func installPair(_ context.Context, w *runtest.World) error {
	w.InstallPair()
	return nil
}

// scenarios are all that is tried, small ones first.
func scenarios() []scenario {
	return []scenario{
		{
			name: "apply", allowed: prom, setup: installProm, next: upgradeProm,
			request: func(w *runtest.World) run.Request { return w.Steps("prom 2.0.0") },
		},
		{
			name: "apply-fast", allowed: prom, setup: installProm, next: upgradeProm,
			request: func(w *runtest.World) run.Request {
				req := w.Steps("prom 2.0.0")
				req.Changes[0].Strategy = run.Fast
				return req
			},
		},
		{
			name: "apply-three", next: upgrade,
			allowed: map[string][]string{"prom": {"1.0.0", "2.0.0"}, "am": {"0.1.0", "0.2.0"}, "loki": {"1.0.0"}},
			setup: func(ctx context.Context, w *runtest.World) error {
				w.Install("loki", "1.0.0")
				return installBoth(ctx, w)
			},
			request: func(w *runtest.World) run.Request {
				return w.Steps("prom 2.0.0", "loki 1.1.0 "+runtest.WordNotReady, "am 0.2.0")
			},
		},
		{
			name: "stones", allowed: both, setup: installBoth, next: upgrade,
			request: func(w *runtest.World) run.Request { return w.Steps("prom 2.0.0", "am 0.2.0", "prom 3.0.0") },
		},
		{
			name: "stone-fails", allowed: prom, setup: installProm, next: upgradeProm,
			request: func(w *runtest.World) run.Request {
				return w.Steps("prom 2.0.0", "prom 3.0.0 "+runtest.WordNoStart)
			},
		},
		{
			name: "data", space: true, allowed: prom, setup: installData, check: ownData, next: upgradeProm,
			request: func(w *runtest.World) run.Request { return w.WithData(w.Steps("prom 2.0.0"), true) },
		},
		{
			name: "data-fails", space: true, allowed: prom, setup: installData, check: ownData, next: upgradeProm,
			request: func(w *runtest.World) run.Request {
				return w.WithData(w.Steps("prom 2.0.0 "+runtest.WordForgets), true)
			},
		},
		{
			name: "two-doors", space: true, allowed: prom, setup: installData, check: ownData, next: upgradeProm,
			request: func(w *runtest.World) run.Request { return w.WithData(w.Steps("prom 2.0.0", "prom 3.0.0"), true) },
		},
		{
			name: "forced-door", space: true, allowed: map[string][]string{"prom": {"1.0.0"}}, setup: installData, stopped: true, next: upgradeProm,
			request: func(w *runtest.World) run.Request {
				req := w.WithData(w.Steps("prom 2.0.0 "+runtest.WordNotReady), true)
				req.Changes[0].Data.Copy = false
				return req
			},
		},
		database(),
		{
			name: "rollback", allowed: both, setup: upgradedBoth, request: (*runtest.World).Back, check: ownConfig, next: upgrade,
		},
		{
			name: "rollback-data", space: true, allowed: prom, next: upgradeProm,
			setup: func(ctx context.Context, w *runtest.World) error {
				if err := installData(ctx, w); err != nil {
					return err
				}
				if err := done(ctx, w, w.WithData(w.Steps("prom 2.0.0"), true)); err != nil {
					return err
				}
				w.Write(filepath.Join(w.Data(runtest.DataUnit), "samples"), samples+" and more", 0o640)
				return nil
			},
			request: func(w *runtest.World) run.Request {
				points, err := backup.List(w.Root.Backups())
				if err != nil {
					w.T.Fatal(err)
				}
				req := w.WayBack(points[0].Timestamp)
				req.Changes[0].Undoes = successes(w, "prom")
				return req
			},
			check: func(w *runtest.World, at map[string]string) error {
				return w.Holds(map[string]string{"1.0.0": samples, "2.0.0": samples + " and more", "9.0.0": samples}[at["prom"]], at["prom"])
			},
		},
		{
			name: "rollback-undone", allowed: both, next: upgrade,
			setup: func(ctx context.Context, w *runtest.World) error {
				if err := upgradedBoth(ctx, w); err != nil {
					return err
				}
				return done(ctx, w, w.Back())
			},
			request: undoRollback, check: ownConfig,
		},
		{
			name: "rolling", space: true, allowed: prom, setup: installPair, check: pair(""), failed: parted, next: upgradePair,
			request: func(w *runtest.World) run.Request { return w.Rolling("prom 2.0.0") },
		},
		{
			name: "rolling-fails", space: true, allowed: prom, setup: installPair, check: pair("2.0.0"), failed: parted, next: upgradePair,
			request: func(w *runtest.World) run.Request { return w.Rolling("prom 2.0.0 b-" + runtest.WordNoStart) },
		},
		{
			name: "rolling-stones", space: true, allowed: prom, setup: installPair, check: pair(""), failed: parted, next: upgradePair,
			request: func(w *runtest.World) run.Request { return w.Rolling("prom 2.0.0", "prom 3.0.0") },
		},
		{
			name: "rolling-rollback", space: true, allowed: prom, check: pair(""), failed: parted, next: upgradePair,
			setup: func(ctx context.Context, w *runtest.World) error {
				w.InstallPair()
				return done(ctx, w, w.Rolling("prom 2.0.0"))
			},
			request: func(w *runtest.World) run.Request {
				req := w.RollingBack()
				for i := range req.Changes {
					req.Changes[i].Undoes = successes(w, "prom")
				}
				return req
			},
		},
		{
			name: "restart", allowed: prom, setup: installPair, check: pair(""), next: upgradePair,
			request: func(w *runtest.World) run.Request { return w.Restarting(run.Graceful) },
		},
		retention(),
		rebuilt(),
	}
}

// successes are the rows of a component that a rollback of all takes back.
func successes(w *runtest.World, name string) []int64 {
	db, err := history.OpenReadOnly(context.Background(), w.Root.History())
	if err != nil {
		w.T.Fatal(err)
	}
	defer db.Close()
	rows, err := db.List(context.Background(), history.Filter{Components: []string{name}, Status: history.Success})
	if err != nil {
		w.T.Fatal(err)
	}
	var ids []int64
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	return ids
}

// undoRollback goes back to the point that a rollback took: what it took back is in
// force again.
func undoRollback(w *runtest.World) run.Request {
	points, err := backup.List(w.Root.Backups())
	if err != nil {
		w.T.Fatal(err)
	}
	db, err := history.OpenReadOnly(context.Background(), w.Root.History())
	if err != nil {
		w.T.Fatal(err)
	}
	defer db.Close()
	rows, err := db.List(context.Background(), history.Filter{})
	if err != nil {
		w.T.Fatal(err)
	}
	req := w.To(points[0])
	for i := range req.Changes {
		for _, r := range rows {
			if r.Component == req.Changes[i].Component && r.RolledBackBy == points[0].Timestamp {
				req.Changes[i].Redoes = append(req.Changes[i].Redoes, history.Mark{ID: r.ID, By: r.RolledBackBy, At: *r.RollbackTimestamp})
			}
		}
	}
	return req
}

// retention has more backup points and runs than are kept.
func retention() scenario {
	return scenario{
		name: "retention", allowed: both, next: upgrade,
		set: func(w *runtest.World) { w.Retain, w.RetainRuns = 1, 1 },
		setup: func(ctx context.Context, w *runtest.World) error {
			w.Retain, w.RetainRuns = 5, 5
			defer func() { w.Retain, w.RetainRuns = 1, 1 }()
			if err := installBoth(ctx, w); err != nil {
				return err
			}
			return errors.Join(done(ctx, w, w.Steps("am 0.1.5")), done(ctx, w, w.Steps("am 0.2.0")))
		},
		request: func(w *runtest.World) run.Request { return w.Steps("prom 2.0.0") },
		check: func(w *runtest.World, at map[string]string) error {
			points, err := backup.List(w.Root.Backups())
			if err != nil {
				return err
			}
			if len(points) == 0 || at["prom"] == "2.0.0" && len(points) != 1 {
				return fmt.Errorf("prom is at %s, %d backup points are left", at["prom"], len(points))
			}
			return nil
		},
		failed: func(w *runtest.World, _ map[string]string) error { // one that cannot be removed stays, and is told
			points, err := backup.List(w.Root.Backups())
			if err == nil && len(points) == 0 {
				err = errors.New("no backup point is left")
			}
			return err
		},
	}
}

// rebuilt has a state file that cannot be read: it is moved aside and made anew.
func rebuilt() scenario {
	return scenario{
		name: "state-rebuilt", allowed: prom, next: upgradeProm,
		set: func(w *runtest.World) { w.Rebuild = true },
		setup: func(ctx context.Context, w *runtest.World) error {
			err := errors.Join(installProm(ctx, w), (&hostfs.Host{}).MkdirAll(w.Root.Lib(), 0o755))
			w.Write(w.Root.State(), `{"components": {"prom": {`, 0o644)
			return err
		},
		request: func(w *runtest.World) run.Request { return w.Steps("prom 2.0.0") },
		check: func(w *runtest.World, _ map[string]string) error {
			aside, err := filepath.Glob(w.Root.State() + ".corrupt*")
			if err != nil {
				return err
			}
			_, err = state.Load(w.Root.State())
			if len(aside) != 1 || err != nil && !strings.Contains(err.Error(), "no such file") {
				return fmt.Errorf("moved aside %q; %w", aside, err)
			}
			return nil
		},
	}
}
