// Package campaign tries to break the promises of a run: it kills runs, cuts the
// power and fails operations at every point of every scenario, lets them be
// recovered, and asks for the promises. See docs/campaign.md.
package campaign

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/test/campaign/modeldisk"
)

func TestMain(m *testing.M) {
	if mine, err := modeldisk.Serve(); mine {
		if err != nil {
			fmt.Fprintln(os.Stderr, "model disk:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// try tries one point from the beginning. The error is a broken promise; lost says
// in words what the crashes lost.
func (b *bench) try(ctx context.Context, p point) (lost []string, err error) {
	if err := b.start(); err != nil {
		return nil, err
	}
	told := false
	for level, e := range p.episodes {
		r, err := b.play(ctx, level, e.fault)
		if err != nil {
			return lost, err
		}
		if lost, err = b.ended(ctx, r, e, &told, lost); err != nil {
			return lost, err
		}
		if err := b.disk.Drop(r.log); err != nil {
			return lost, err
		}
	}
	return lost, b.mended(ctx, told, thorough(p))
}

// ended brings the end of an episode about and asks for what must be so then.
func (b *bench) ended(ctx context.Context, r *record, e episode, told *bool, lost []string) ([]string, error) {
	if e.fault != nil {
		lost = append(lost, fmt.Sprintf("failed: %s; it ended with: %v", strings.Join(r.hit, ", "), r.err))
	}
	if e.crash == nil {
		*told = *told || r.told
		return lost, nil
	}
	_, gone, err := b.crash(ctx, r, e.crash)
	if err != nil {
		return lost, err
	}
	lost = append(lost, fmt.Sprintf("cut off after: %s; lost: %q", last(r.ops, e.crash.n), gone))
	if e.fault != nil {
		return lost, nil // whose error may have been told before
	}
	return lost, b.interrupted(ctx, r, e.crash)
}

func last(ops []string, n int) string {
	if n == 0 {
		return "nothing"
	}
	return ops[n-1]
}

// thorough chooses, by its name, one point of eight for the longer proof.
func thorough(p point) bool {
	h := fnv.New32a()
	fmt.Fprint(h, p)
	return h.Sum32()%8 == 0
}

// TestPoint tries the point named in CAMPAIGN_POINT, and tells what happened.
func TestPoint(t *testing.T) {
	text := os.Getenv("CAMPAIGN_POINT")
	if text == "" {
		t.Skip("CAMPAIGN_POINT names no point")
	}
	p, err := parsePoint(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, sc := range scenarios() {
		if sc.name != p.scenario {
			continue
		}
		b := newBench(t)
		if err := b.prepare(t.Context(), sc); err != nil {
			t.Fatal(err)
		}
		lost, err := b.try(t.Context(), p)
		for _, l := range lost {
			t.Log(l)
		}
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		return
	}
	t.Fatalf("no scenario %q", p.scenario)
}

func TestPointText(t *testing.T) {
	for _, text := range []string{"apply>kill@57", "data>nothing@57#2b>ENOSPC@3+>kill@9#4", "apply>EIO@34|anything@60#0>", "stones>timeout@2+"} {
		p, err := parsePoint(text)
		if err != nil || p.String() != text {
			t.Errorf("%s became %s, %v", text, p, err)
		}
	}
	for _, text := range []string{"apply", "apply>EIO", "apply>kill@x"} {
		if p, err := parsePoint(text); err == nil {
			t.Errorf("%s became %v", text, p)
		}
	}
}

// settings are what the environment says of a campaign.
type settings struct {
	limit     time.Duration
	all       bool // every point that there is, however long it takes
	seed      uint64
	scenarios []scenario
}

// configured reads CAMPAIGN_TIME (such as 5m, or "all"), CAMPAIGN_SEED, which makes
// the same choices again, and CAMPAIGN_ONLY, the names of scenarios with commas between.
func configured(t *testing.T) settings {
	t.Helper()
	c := settings{limit: 20 * time.Second, seed: uint64(time.Now().UnixNano()), scenarios: scenarios()}
	var err error
	if text := os.Getenv("CAMPAIGN_TIME"); text == "all" {
		c.all = true
	} else if text != "" {
		if c.limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("CAMPAIGN_TIME: %v", err)
		}
	}
	if text := os.Getenv("CAMPAIGN_SEED"); text != "" {
		if c.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CAMPAIGN_SEED: %v", err)
		}
	}
	if only := os.Getenv("CAMPAIGN_ONLY"); only != "" {
		c.scenarios = slices.DeleteFunc(c.scenarios, func(sc scenario) bool { return !slices.Contains(strings.Split(only, ","), sc.name) })
	}
	if len(c.scenarios) == 0 {
		t.Fatalf("CAMPAIGN_ONLY=%s names no scenario", os.Getenv("CAMPAIGN_ONLY"))
	}
	return c
}

// TestCampaign tries as many points as there is time for: those of the small
// scenarios all, the rest by chance.
func TestCampaign(t *testing.T) {
	c := configured(t)
	t.Logf("CAMPAIGN_TIME=%s CAMPAIGN_SEED=%d", cmp.Or(os.Getenv("CAMPAIGN_TIME"), c.limit.String()), c.seed)
	tasks := exhaustive(c)
	queue := make(chan task, len(tasks))
	for _, one := range tasks {
		queue <- one
	}
	close(queue)
	tally := newTally(func(text string) { t.Error(text) })
	began := time.Now()
	budget := c.limit * (realShare - 1) / realShare // the rest is for real disks
	part, rest := tally.until(began.Add(budget*6/10)), tally.until(began.Add(budget))
	if c.all {
		part = tally
	}
	workers := min(runtime.NumCPU(), 4)
	t.Run("workers", func(t *testing.T) {
		for n := range workers {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				for one := range queue {
					if part.over() {
						break
					}
					if err := one.run(t.Context(), b, part); err != nil {
						t.Errorf("%s: %v", one.name, err)
					}
				}
				if c.all {
					return
				}
				if err := chance(c.scenarios, c.seed+uint64(n)).run(t.Context(), b, rest); err != nil {
					t.Errorf("points by chance: %v", err)
				}
			})
		}
	})
	var table strings.Builder
	points, broken := tally.write(&table)
	t.Logf("in %s:\n%s", time.Since(began).Round(time.Second), &table)
	if points == 0 && !t.Skipped() {
		t.Log("nothing was tried")
	}
	if broken > 0 {
		t.Errorf("%d promises were broken; CAMPAIGN_SEED=%d makes the same choices again", broken, c.seed)
	}
}

// short is a time in which only the small scenarios are tried at every point.
const short = 10 * time.Minute

// exhaustive are the tasks that leave nothing to chance. In a short time they are the
// same every time; in a longer one, the seed says which scenario comes first.
func exhaustive(c settings) []task {
	var tasks []task
	for i := range c.scenarios {
		sc := c.scenarios[i]
		if !c.all && c.limit < short {
			if slices.Contains([]string{"apply", "data", "rollback"}, sc.name) {
				tasks = append(tasks, crashes(sc, modeldisk.Kill, 1), crashes(sc, modeldisk.Nothing, 2))
			}
			continue
		}
		sc = c.scenarios[(i+int(c.seed%uint64(len(c.scenarios))))%len(c.scenarios)]
		tasks = append(tasks, crashes(sc, modeldisk.Kill, 1), crashes(sc, modeldisk.Nothing, 2), crashes(sc, modeldisk.NoData, 2))
		for _, what := range []string{"timeout", "ENOSPC", "EIO", "EROFS", "EACCES"} {
			tasks = append(tasks, faults(sc, what, true), faults(sc, what, false))
		}
		if c.all {
			tasks = append(tasks, crashes(sc, modeldisk.Ordered, 6), crashes(sc, modeldisk.Anything, 6),
				pairs(sc, modeldisk.Kill, modeldisk.Kill, 0, 7), pairs(sc, modeldisk.Nothing, modeldisk.Nothing, 0, 1),
				faults(sc, "EIO-any", false), faults(sc, "EACCES-any", false))
		}
	}
	return tasks
}
