package campaign

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/observability-upgrade/observability-upgrade/test/campaign/modeldisk"
)

// task is a set of points of one scenario. It ends early, without an error, once
// its time is over.
type task struct {
	name string
	run  func(ctx context.Context, b *bench, t *tally) error
}

// seen keeps states of the host that were tried before: most operations change
// nothing that is durable.
type seen map[string]bool

// verdict asks for the promises after the last crash of a point, unless its state
// was tried before, and counts it.
func (b *bench) verdict(ctx context.Context, t *tally, s seen, r *record, p point, told bool) error {
	end := p.episodes[len(p.episodes)-1]
	fresh := func(state string) bool {
		if s[state] {
			t.same(p)
			return false
		}
		s[state] = true
		return true
	}
	return b.look(ctx, r, end.crash, fresh, func(lost []string) error {
		var err error
		if end.fault == nil { // whose error may have been told before
			err = b.interrupted(ctx, r, end.crash)
		}
		if err == nil {
			err = b.mended(ctx, told, thorough(p))
		}
		t.count(p, fmt.Sprintf("cut off after: %s; lost: %q", last(r.ops, end.crash.n), lost), err)
		return nil
	})
}

// crashes tries a loss at every operation of a scenario.
func crashes(sc scenario, loss modeldisk.Loss, seeds int) task {
	return task{fmt.Sprintf("%s: %s at every operation", sc.name, loss), func(ctx context.Context, b *bench, t *tally) error {
		r, err := b.operation(ctx, sc, nil)
		if err != nil {
			return err
		}
		tried := seen{}
		for n := 0; n <= len(r.ops) && !t.over(); n++ {
			for seed := range seeds {
				c := &crash{loss: loss, n: n, seed: uint64(seed), boot: loss != modeldisk.Kill && seed%2 == 1}
				if err := b.verdict(ctx, t, tried, r, point{sc.name, []episode{{crash: c}}}, false); err != nil {
					return err
				}
			}
		}
		return b.disk.Drop(r.log)
	}}
}

// faults fails every call of a scenario's operation in turn.
func faults(sc scenario, what string, stays bool) task {
	return task{fmt.Sprintf("%s: %s at every call", sc.name, &fault{what: what, stays: stays}), func(ctx context.Context, b *bench, t *tally) error {
		for at := 1; !t.over(); at++ {
			f := &fault{what: what, at: at, stays: stays}
			r, err := b.operation(ctx, sc, f)
			if err != nil {
				return err
			}
			if len(r.hit) == 0 {
				return b.disk.Drop(r.log)
			}
			p := point{sc.name, []episode{{fault: f}}}
			if err = r.up(sc, f); err == nil {
				err = b.mended(ctx, r.told, thorough(p))
			}
			t.count(p, fmt.Sprintf("failed: %s; it ended with: %v", r.hit[0], r.err), err)
			if err := b.disk.Drop(r.log); err != nil {
				return err
			}
		}
		return nil
	}}
}

// up asks that a full disk, whenever it became full, leaves no service stopped. To put
// data back needs space, and so do files of which nothing but the backup is left.
func (r *record) up(sc scenario, f *fault) error {
	if f.what != "ENOSPC" || sc.space || r.down == "" {
		return nil
	}
	return fmt.Errorf("the full disk left %s stopped", r.down)
}

// operation plays a scenario's operation from its beginning.
func (b *bench) operation(ctx context.Context, sc scenario, f *fault) (*record, error) {
	if err := b.prepare(ctx, sc); err != nil {
		return nil, err
	}
	if err := b.start(); err != nil {
		return nil, err
	}
	r, err := b.play(ctx, 0, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sc.name, err)
	}
	return r, nil
}

// pairs crashes a scenario at every stride-th operation, from a first one on, and
// each recovery at every operation of its own.
func pairs(sc scenario, loss, second modeldisk.Loss, first, stride int) task {
	return task{fmt.Sprintf("%s: %s, and %s at every operation of the recovery", sc.name, loss, second), func(ctx context.Context, b *bench, t *tally) error {
		r, err := b.operation(ctx, sc, nil)
		if err != nil {
			return err
		}
		tried := seen{}
		for n := first; n <= len(r.ops) && !t.over(); n += stride {
			if err := b.recoveries(ctx, t, tried, r, sc, &crash{loss: loss, n: n}, second); err != nil {
				return err
			}
		}
		return b.disk.Drop(r.log)
	}}
}

// recoveries crashes once, and the recovery from it at every operation.
func (b *bench) recoveries(ctx context.Context, t *tally, tried seen, r *record, sc scenario, c *crash, second modeldisk.Loss) error {
	state, _, err := b.crash(ctx, r, c)
	if err != nil || tried[state] {
		return err
	}
	tried[state] = true
	again, err := b.play(ctx, 1, nil)
	if err != nil {
		return err
	}
	inner := seen{}
	for m := 0; m <= len(again.ops) && !t.over(); m++ {
		p := point{sc.name, []episode{{crash: c}, {crash: &crash{loss: second, n: m}}}}
		if err := b.verdict(ctx, t, inner, again, p, false); err != nil {
			return err
		}
	}
	return b.disk.Drop(again.log)
}

// batch is how many points are tried of what led to one of them.
const batch = 12

// chance tries points chosen by a seed, until the time is over.
func chance(all []scenario, seed uint64) task {
	return task{fmt.Sprintf("points by seed %d", seed), func(ctx context.Context, b *bench, t *tally) error {
		rng := rand.New(rand.NewPCG(seed, 0))
		for !t.over() {
			sc := all[rng.IntN(len(all))]
			for range 3 { // to set a scenario up takes as long as a few points
				if err := b.chain(ctx, t, sc, rng); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

// chain crashes or fails a scenario up to three times, and its last episode at
// several moments.
func (b *bench) chain(ctx context.Context, t *tally, sc scenario, rng *rand.Rand) error {
	p := point{scenario: sc.name}
	var first *fault
	if rng.IntN(3) == 0 {
		first = anyFault(rng)
	}
	r, err := b.operation(ctx, sc, first)
	if err != nil {
		return err
	}
	told, f := r.told, first
	for depth := []int{0, 0, 1, 1, 2}[rng.IntN(5)]; depth > 0 && !t.over(); depth-- {
		e := episode{fault: f}
		if f == nil || rng.IntN(2) == 0 {
			e.crash = anyCrash(rng, len(r.ops))
			if _, _, err := b.crash(ctx, r, e.crash); err != nil {
				return err
			}
			if f != nil {
				told = false
			}
		}
		p.episodes = append(p.episodes, e)
		f = nil
		if rng.IntN(3) == 0 {
			f = anyFault(rng)
		}
		if err := b.disk.Drop(r.log); err != nil {
			return err
		}
		if r, err = b.play(ctx, r.level+1, f); err != nil {
			return err
		}
		told = told || r.told
	}
	tried := seen{}
	if f != nil {
		e := point{p.scenario, append(p.episodes[:len(p.episodes):len(p.episodes)], episode{fault: f})}
		t.count(e, fmt.Sprintf("failed: %q; it ended with: %v", r.hit, r.err), b.mended(ctx, told, thorough(e)))
	}
	for range batch {
		if t.over() {
			break
		}
		e := point{p.scenario, append(p.episodes[:len(p.episodes):len(p.episodes)], episode{fault: f, crash: anyCrash(rng, len(r.ops))})}
		if err := b.verdict(ctx, t, tried, r, e, told); err != nil {
			return err
		}
	}
	return b.disk.Drop(r.log)
}

func anyCrash(rng *rand.Rand, ops int) *crash {
	losses := []modeldisk.Loss{modeldisk.Kill, modeldisk.Nothing, modeldisk.NoData, modeldisk.Ordered, modeldisk.Ordered, modeldisk.Anything, modeldisk.Anything}
	c := &crash{loss: losses[rng.IntN(len(losses))], n: rng.IntN(ops + 1), seed: rng.Uint64N(1 << 32)}
	c.boot = c.loss != modeldisk.Kill && rng.IntN(2) == 0
	return c
}

func anyFault(rng *rand.Rand) *fault {
	f := &fault{what: []string{"EIO", "EIO-any", "ENOSPC", "ENOSPC", "EACCES", "EACCES-any", "EROFS", "timeout"}[rng.IntN(8)], stays: rng.IntN(2) == 0}
	f.at = 1 + rng.IntN(300)
	switch f.what {
	case "timeout":
		f.at = 1 + rng.IntN(12)
	case "EIO-any", "EACCES-any":
		f.at = 1 + rng.IntN(1500)
	}
	return f
}
