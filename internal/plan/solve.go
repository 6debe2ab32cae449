package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// solver finds the best set of versions that is compatible as a whole and can be
// reached by steps whose every intermediate state is compatible too.
//
// Best is: the first component of the priority order as new as any such set has
// it, then the second as new as possible beside the first, and so on. So no
// component of the result could be newer without an earlier one being older.
// Versions that a person named come first; then data stores, alerting, shippers,
// user interfaces, exporters and proxies; then names.
//
// It is a depth-first search with arc consistency. Each group of components that
// rules or dependencies tie together is searched for itself.
type solver struct {
	cands   []*candidate // sorted by name
	deps    [][]int      // what a candidate depends on, also through others that do not move
	rules   []bound
	touches [][]int  // rules by candidate
	pairs   []pair   // what the rules come to, two candidates at a time
	beside  [][]int  // pairs by candidate
	target  []int    // the node each candidate goes to; 0: it stays
	early   []bool   // candidates that fix a known vulnerability, and those that must go before them
	steps   []move   // in the order they run
	told    []string // what a person should know
	dead    []nogood
	work    int // nodes visited in the group at hand
	tries   int // steps tried for its order
	doms    []bitset
}

// move is one step of one component.
type move struct{ cand, from, to int }

// nogood is a set of targets for which no order of steps is compatible: those of
// the candidates that cannot move, and of all that rules tie to them, since where
// these go decides what the others may do on their way.
type nogood struct {
	cands   []int
	targets []int
	core    int // the first so many cannot move
}

// searchLimit bounds the search in one group. Beyond it the group is planned
// greedily, which is valid but may not be the best; a person is told. tryLimit
// bounds what is spent on orders of steps: a set that looks possible may take
// thousands of them, and rules that bind all to all leave many such sets.
const (
	searchLimit = 50_000
	tryLimit    = 1_000_000
)

func solve(in Input, cands []*candidate) (*solver, error) {
	s := &solver{cands: cands, rules: bind(in, cands), touches: make([][]int, len(cands)), target: make([]int, len(cands)), early: make([]bool, len(cands)), doms: make([]bitset, len(cands))}
	for i, r := range s.rules {
		if !r.waived {
			s.touches[r.a] = append(s.touches[r.a], i)
			s.touches[r.b] = append(s.touches[r.b], i)
		}
	}
	s.pairs, s.beside = pairUp(s.rules, cands), make([][]int, len(cands))
	for i, p := range s.pairs {
		s.beside[p.a] = append(s.beside[p.a], i)
		s.beside[p.b] = append(s.beside[p.b], i)
	}
	s.dependencies()
	for i, c := range cands {
		s.doms[i] = c.ladder.goals()
	}
	var sequences [][]move
	for _, group := range s.groups() {
		s.work, s.tries = 0, 0
		s.settle(group)
		s.hurry(group)
		sequences = append(sequences, s.sequence(group))
	}
	s.steps = s.merge(sequences)
	return s, s.circle()
}

func (s *solver) movable(i int) bool { return len(s.cands[i].ladder.nodes) > 1 }

func (s *solver) upgraded(i int) bool { return s.target[i] > 0 }

// version is what candidate i is at when it is at node k.
func (s *solver) version(i, k int) component.Version { return s.cands[i].ladder.nodes[k].version }

// groups lists the candidates that can move, those tied together in one group,
// each group in the order of priority.
func (s *solver) groups() [][]int {
	parent := make([]int, len(s.cands))
	for i := range parent {
		parent[i] = i
	}
	var find func(i int) int
	find = func(i int) int {
		if parent[i] != i {
			parent[i] = find(parent[i])
		}
		return parent[i]
	}
	tie := func(a, b int) {
		if s.movable(a) && s.movable(b) {
			parent[find(a)] = find(b)
		}
	}
	for _, p := range s.pairs {
		tie(p.a, p.b)
	}
	for i, deps := range s.deps {
		for _, j := range deps {
			tie(i, j)
		}
	}
	at := map[int]int{}
	var out [][]int
	for _, i := range s.priority() {
		if !s.movable(i) {
			continue
		}
		root := find(i)
		k, ok := at[root]
		if !ok {
			k = len(out)
			at[root] = k
			out = append(out, nil)
		}
		out[k] = append(out[k], i)
	}
	return out
}

// rank is the order in which roles get what they want where not all can.
func rank(r component.Role) int {
	return slices.Index([]component.Role{
		component.RoleDatastore, component.RoleAlerting, component.RoleShipper, component.RoleUI, component.RoleExporter, component.RoleProxy,
	}, r)
}

func (s *solver) priority() []int {
	order := make([]int, len(s.cands))
	for i := range order {
		order[i] = i
	}
	unnamed := func(i int) int {
		if s.cands[i].pin.IsZero() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(order, func(x, y int) int {
		return cmp.Or(unnamed(x)-unnamed(y), rank(s.cands[x].Component.Role)-rank(s.cands[y].Component.Role))
	})
	return order
}

// settle chooses the targets of a group.
func (s *solver) settle(group []int) {
	for _, i := range group {
		s.doms[i] = s.cands[i].ladder.goals()
	}
	for i := range s.cands {
		if !s.movable(i) {
			s.doms[i] = fullBitset(1)
		}
	}
	if s.propagate(group) {
		if found, _ := s.assign(group, 0); found {
			return
		}
	}
	var names []string
	for _, i := range group {
		s.target[i] = 0
		names = append(names, s.cands[i].name)
	}
	slices.Sort(names)
	s.tries = 0
	s.told = append(s.told, fmt.Sprintf("the rules between %s are too entangled to be searched whole; the plan is compatible, but may not be the newest there is", strings.Join(names, ", ")))
	s.greedy(group)
}

// propagate removes from the domains what fits no member of the domain of another
// candidate; it begins with the rules of the given candidates and reports false
// when a domain runs empty.
func (s *solver) propagate(from []int) bool {
	queue := slices.Clone(from)
	queued := make([]bool, len(s.cands))
	for _, i := range queue {
		queued[i] = true
	}
	for len(queue) > 0 {
		i := queue[0]
		queue, queued[i] = queue[1:], false
		for _, k := range s.beside[i] {
			j, beside := s.pairs[k].other(i)
			if !s.doms[j].filter(beside, s.doms[i]) {
				continue
			}
			if s.doms[j].empty() {
				return false
			}
			if !queued[j] {
				queue, queued[j] = append(queue, j), true
			}
		}
	}
	return true
}

// assign gives the candidates of a group from position k on their targets, the
// best first. When there is no way it says to which position to go back: what is
// assigned after that has no part in the failure.
func (s *solver) assign(group []int, k int) (found bool, back int) {
	if s.work++; s.work > searchLimit || s.tries > tryLimit {
		return false, -1
	}
	if k == len(group) {
		core := s.stuck(group)
		switch {
		case core == nil:
			return true, 0
		case s.tries > tryLimit:
			return false, -1 // not sought to the end
		}
		dead := nogood{cands: s.around(core), core: len(core)}
		for _, i := range dead.cands {
			dead.targets = append(dead.targets, s.target[i])
			back = max(back, slices.Index(group, i))
		}
		s.dead = append(s.dead, dead)
		return false, back
	}
	i := group[k]
	saved := make([]bitset, len(group))
	for j, x := range group {
		saved[j] = slices.Clone(s.doms[x])
	}
	left := slices.Clone(s.doms[i])
	for v := left.highest(); v >= 0; v = left.highest() {
		left.remove(v)
		s.target[i] = v
		if !s.known(group[:k+1]) {
			only := newBitset(len(s.cands[i].ladder.nodes))
			only.add(v)
			s.doms[i] = only
			if s.propagate([]int{i}) {
				found, back := s.assign(group, k+1)
				if found || back < k {
					return found, back
				}
			}
			for j, x := range group {
				s.doms[x] = slices.Clone(saved[j])
			}
		}
		s.target[i] = 0
	}
	return false, k - 1
}

// around lists candidates and after them those that can move and that rules tie
// to them.
func (s *solver) around(core []int) []int {
	out := slices.Clone(core)
	for _, i := range core {
		for _, k := range s.beside[i] {
			if j := s.pairs[k].a + s.pairs[k].b - i; s.movable(j) && !slices.Contains(out, j) {
				out = append(out, j)
			}
		}
	}
	return out
}

// known reports whether the targets so far hold one of the sets that no order
// of steps leads to.
func (s *solver) known(assigned []int) bool {
	last := assigned[len(assigned)-1]
	for _, d := range s.dead {
		if !slices.Contains(d.cands, last) {
			continue
		}
		hit := true
		for j, i := range d.cands {
			if s.target[i] != d.targets[j] || !slices.Contains(assigned, i) {
				hit = false
				break
			}
		}
		if hit {
			return true
		}
	}
	return false
}

// greedy raises one candidate after another as far as it goes beside the others.
func (s *solver) greedy(group []int) {
	for again := true; again; {
		again = false
		for _, i := range group {
			was := s.target[i]
			for v := s.cands[i].ladder.top(); v > was; v-- {
				n := s.cands[i].ladder.nodes[v]
				s.target[i] = v
				if n.goal && n.steps >= 0 && s.compatible(i) && s.stuck(group) == nil {
					again = true
					break
				}
				s.target[i] = was
			}
		}
	}
}

// compatible reports whether the targets break no rule of candidate i.
func (s *solver) compatible(i int) bool {
	for _, k := range s.beside[i] {
		if j, beside := s.pairs[k].from(i); !beside[s.target[i]].has(s.target[j]) {
			return false
		}
	}
	return true
}

// conflict is the first rule that candidate i breaks at node v, the others being
// at their targets.
func (s *solver) conflict(i, v int) (*bound, bool) {
	for _, k := range s.touches[i] {
		r := &s.rules[k]
		x, y := s.target[r.a], s.target[r.b]
		if r.a == i {
			x = v
		} else {
			y = v
		}
		if !r.allows(x, y) {
			return r, true
		}
	}
	return nil, false
}

// dependencies fills in deps: for each candidate those that can move and that it
// depends on, also through others that cannot.
func (s *solver) dependencies() {
	index := map[string]int{}
	for i, c := range s.cands {
		index[c.name] = i
	}
	s.deps = make([][]int, len(s.cands))
	for i := range s.cands {
		seen := map[int]bool{i: true}
		var walk func(at int)
		walk = func(at int) {
			for _, name := range s.cands[at].Component.DependsOn {
				if j, ok := index[name]; ok && !seen[j] {
					seen[j] = true
					s.deps[i] = append(s.deps[i], j)
					walk(j)
				}
			}
		}
		walk(i)
		slices.Sort(s.deps[i])
	}
}

// circle reports components that depend on each other, as an error that names
// them, beginning with the first by name.
func (s *solver) circle() error {
	const open, done = 1, 2
	state := make([]int, len(s.cands))
	index := map[string]int{}
	for i, c := range s.cands {
		index[c.name] = i
	}
	var path, found []int
	var walk func(at int) bool
	walk = func(at int) bool {
		state[at] = open
		path = append(path, at)
		names := slices.Sorted(slices.Values(s.cands[at].Component.DependsOn))
		for _, name := range names {
			next, ok := index[name]
			if !ok {
				continue
			}
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
	for i := range s.cands {
		if state[i] == 0 && walk(i) {
			e := &CycleError{}
			for _, j := range found {
				e.Components = append(e.Components, s.cands[j].name)
			}
			return e
		}
	}
	return nil
}
