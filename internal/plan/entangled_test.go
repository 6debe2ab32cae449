package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// lockStep is a stack of which each component needs some others (the k-th is
// (i+7k)%n) to be no more than apart(k) lines behind it: a rule for every line and
// pair, as docs/specification.md, section 8, writes them.
func lockStep(components, lines, partners int, apart func(k int) int) Input {
	in := input()
	name := func(i int) string { return fmt.Sprintf("c%02d", i%components) }
	for i := range components {
		var releases []string
		for line := lines; line > 0; line-- {
			releases = append(releases, fmt.Sprintf("1.%d.0", line))
		}
		in.Installed = append(in.Installed, comp(name(i), component.RoleExporter, "1.0.0", releases...))
		for line := 1; line <= lines; line++ {
			for k := 1; k <= partners; k++ {
				if need := line - apart(k); need > 0 {
					in.Rules = append(in.Rules, Rule{
						Component: name(i), When: exactly{ver(fmt.Sprintf("1.%d.0", line))},
						Other: name(i + 7*k), Needs: atLeast{ver(fmt.Sprintf("1.%d.0", need))},
					})
				}
			}
		}
	}
	return in
}

type exactly struct{ v component.Version }

func (r exactly) Contains(v component.Version) bool { return v.Equal(r.v) }
func (r exactly) String() string                    { return r.v.String() }

type atLeast struct{ v component.Version }

func (r atLeast) Contains(v component.Version) bool { return !v.Less(r.v) }
func (r atLeast) String() string                    { return ">=" + r.v.String() }

// Components that must keep up with each other climb in turns, as many steps as
// it takes.
func TestLockStep(t *testing.T) {
	in := lockStep(8, 12, 7, func(int) int { return 3 })
	p := make1(t, in)
	for name, to := range targets(p) {
		if to != "1.12.0" {
			t.Errorf("%s ends at %s", name, to)
		}
	}
	at := map[string]component.Version{}
	for _, s := range p.Steps() {
		if err := in.Fits(s.Component, s.To, at); err != nil {
			t.Fatal(err)
		}
		at[s.Component] = s.To
	}
	if len(at) != 8 {
		t.Errorf("%d components move", len(at))
	}
}

// Where all would have to change at the same moment there is no order, and the
// planner comes to an end all the same: it took hours for stacks such as these.
func TestEntangledEnds(t *testing.T) {
	began := time.Now()
	p := make1(t, lockStep(60, 40, 10, func(k int) int { return k % 4 }))
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	if n := len(p.Steps()); n != 0 || len(p.Held) != 60 {
		t.Errorf("%d steps, %d held", n, len(p.Held))
	}
	if len(p.Warnings) == 0 || !strings.Contains(p.Warnings[0], "too entangled to be searched whole") {
		t.Errorf("%q", p.Warnings)
	}
}
