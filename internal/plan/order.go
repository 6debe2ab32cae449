package plan

import (
	"fmt"
	"slices"
)

// graph holds, for the planned candidates, who must run before whom.
type graph struct {
	nodes  []int                // candidates of the plan, sorted by name
	before map[int]map[int]bool // before[x][y]: x runs before y
}

// order is the sequence in which the planned candidates run: dependencies first,
// then the matrix, then roles, then names. The texts tell of pairs that do not
// fit together for the time between their two upgrades, whatever the order.
func (s *set) order() ([]int, []string, error) {
	g := &graph{before: map[int]map[int]bool{}}
	index := map[string]int{}
	for i, c := range s.cands {
		index[c.name] = i
		if s.upgraded(i) {
			g.nodes = append(g.nodes, i)
			g.before[i] = map[int]bool{}
		}
	}
	for _, i := range g.nodes {
		for _, j := range s.dependencies(i, index) {
			g.before[j][i] = true
		}
	}
	if cycle := g.cycle(); cycle != nil {
		e := &CycleError{}
		for _, i := range cycle {
			e.Components = append(e.Components, s.cands[i].name)
		}
		return nil, nil, e
	}
	told := s.tight(g)
	return g.sort(s), told, nil
}

// dependencies lists the planned candidates that i depends on, also through
// components that are not in the plan.
func (s *set) dependencies(i int, index map[string]int) []int {
	var out []int
	seen := map[int]bool{}
	var walk func(at int)
	walk = func(at int) {
		for _, name := range s.cands[at].Component.DependsOn {
			j, ok := index[name]
			if !ok || seen[j] {
				continue
			}
			seen[j] = true
			if s.upgraded(j) {
				if j != i || at == i {
					out = append(out, j)
				}
				continue
			}
			walk(j)
		}
	}
	walk(i)
	slices.Sort(out)
	return out
}

// tight adds to the graph what the matrix asks of the order: a component that
// the new version of another needs goes first, one whose old version needs the
// other's old one goes first too. Demands that contradict earlier ones are told
// instead.
func (s *set) tight(g *graph) []string {
	var told []string
	demand := func(first, second int, b bound) {
		switch {
		case !g.reaches(second, first):
			g.before[first][second] = true
		default:
			told = append(told, fmt.Sprintf("%s and %s do not fit together (%s needs %s %s) in the time between their two upgrades",
				b.Component, b.Other, b.Component, b.Other, rangeText(b.Needs)))
		}
	}
	for _, oldOther := range []bool{true, false} {
		for _, b := range s.rules {
			if b.before || b.waived || !s.upgraded(b.a) || !s.upgraded(b.b) {
				continue
			}
			a, o := s.cands[b.a], s.cands[b.b]
			if oldOther && b.broken(s.version(b.a, s.choice[b.a]), o.Current) {
				demand(b.b, b.a, b)
			}
			if !oldOther && b.broken(a.Current, s.version(b.b, s.choice[b.b])) {
				demand(b.a, b.b, b)
			}
		}
	}
	slices.Sort(told)
	return slices.Compact(told)
}

// reaches reports whether x runs before y, directly or through others.
func (g *graph) reaches(x, y int) bool {
	seen := map[int]bool{}
	var walk func(at int) bool
	walk = func(at int) bool {
		if at == y {
			return true
		}
		seen[at] = true
		for next := range g.before[at] {
			if !seen[next] && walk(next) {
				return true
			}
		}
		return false
	}
	return walk(x)
}

// cycle is a circle of dependencies, each depending on the next, beginning with
// the first by name; nil when there is none.
func (g *graph) cycle() []int {
	needs := map[int][]int{}
	for _, y := range g.nodes {
		for _, x := range g.nodes {
			if g.before[x][y] {
				needs[y] = append(needs[y], x)
			}
		}
	}
	const open, done = 1, 2
	state := map[int]int{}
	var path, found []int
	var walk func(at int) bool
	walk = func(at int) bool {
		state[at] = open
		path = append(path, at)
		for _, next := range needs[at] {
			if state[next] == open {
				found = slices.Clone(path[slices.Index(path, next):])
				return true
			}
			if state[next] == 0 && walk(next) {
				return true
			}
		}
		state[at] = done
		path = path[:len(path)-1]
		return false
	}
	for _, n := range g.nodes {
		if state[n] == 0 && walk(n) {
			return found
		}
	}
	return nil
}

// sort is the topological order. Among those that may run it stays with the role
// that runs, else it takes the first role, then the first name. The graph must
// have no cycle.
func (g *graph) sort(s *set) []int {
	waits := map[int]int{}
	for _, x := range g.nodes {
		for y := range g.before[x] {
			waits[y]++
		}
	}
	role := func(i int) int { return s.cands[i].Component.Role.Order() }
	ran := map[int]bool{}
	last := -1
	var out []int
	for len(out) < len(g.nodes) {
		next := -1
		for _, i := range g.nodes {
			switch {
			case ran[i] || waits[i] > 0:
			case next < 0, role(i) == last && role(next) != last:
				next = i
			case role(next) != last && role(i) < role(next):
				next = i
			}
		}
		ran[next], last = true, role(next)
		out = append(out, next)
		for y := range g.before[next] {
			waits[y]--
		}
	}
	return out
}
