package campaign

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// tally counts what was tried and what was broken. It is safe for concurrent use.
type tally struct {
	deadline time.Time // of those who ask; zero has none

	mu     *sync.Mutex
	points map[row]int
	states map[row]int // of them, those that were not the state of another
	broken map[row]int
	told   func(text string) // of each broken promise
}

type row struct{ scenario, mode string }

func newTally(told func(string)) *tally {
	return &tally{mu: &sync.Mutex{}, points: map[row]int{}, states: map[row]int{}, broken: map[row]int{}, told: told}
}

// until is the same tally with a deadline.
func (t *tally) until(at time.Time) *tally {
	c := *t
	c.deadline = at
	return &c
}

func (t *tally) over() bool { return !t.deadline.IsZero() && time.Now().After(t.deadline) }

// same counts a point whose state was tried before.
func (t *tally) same(p point) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.points[row{p.scenario, p.mode()}]++
}

// maxTold is how many broken promises of a row are told.
const maxTold = 4

// count counts a point; err is the promise that was broken.
func (t *tally) count(p point, what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := row{p.scenario, p.mode()}
	t.points[r]++
	t.states[r]++
	if err == nil {
		return
	}
	if t.broken[r]++; t.broken[r] <= maxTold {
		t.told(fmt.Sprintf("broken: %v\n  %s\n  again: make campaign CAMPAIGN_POINT='%s'", err, what, p))
	}
}

// write writes the table, and returns how many points there were and how many
// promises were broken.
func (t *tally) write(w io.Writer) (points, broken int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "scenario\tmode\tpoints\tstates\tbroken\t")
	rows := slices.SortedFunc(maps.Keys(t.points), func(a, b row) int {
		if a.scenario != b.scenario {
			return order(a.scenario) - order(b.scenario)
		}
		return slices.Index(modes, a.mode) - slices.Index(modes, b.mode)
	})
	states := 0
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t\n", r.scenario, r.mode, t.points[r], t.states[r], t.broken[r])
		points += t.points[r]
		states += t.states[r]
		broken += t.broken[r]
	}
	for _, mode := range modes {
		var sum [3]int
		for _, r := range rows {
			if r.mode == mode {
				sum[0], sum[1], sum[2] = sum[0]+t.points[r], sum[1]+t.states[r], sum[2]+t.broken[r]
			}
		}
		if sum[0] > 0 {
			fmt.Fprintf(tw, "all\t%s\t%d\t%d\t%d\t\n", mode, sum[0], sum[1], sum[2])
		}
	}
	fmt.Fprintf(tw, "all\tall\t%d\t%d\t%d\t\n", points, states, broken)
	_ = tw.Flush() // to a test's output
	return points, broken
}

// modes are the columns that a table sums up.
var modes = []string{
	"kill", "power cut", "EIO", "EIO until repaired", "EIO-any", "EIO-any until repaired", "EACCES-any", "EACCES-any until repaired", "ENOSPC", "ENOSPC until repaired", "EACCES", "EACCES until repaired", "EROFS", "EROFS until repaired",
	"timeout", "timeout until repaired", "second crash", "third crash", "error and crash",
}

func order(name string) int {
	return slices.IndexFunc(scenarios(), func(sc scenario) bool { return sc.name == name })
}
