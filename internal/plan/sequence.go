package plan

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// walk looks for the order in which a group goes to its targets, one component
// and one node at a time, every state in between compatible.
type walk struct {
	s     *solver
	group []int         // those that move, by name
	left  map[int][]int // for each of them the steps left from each node
	at    []int         // where every candidate is; not only those of the group
	moves []move
	last  component.Role // of the last move
	mode  mode
	seen  map[string]bool
	work  int
}

// walkLimit bounds the states that one search for an order visits.
const walkLimit = 20_000

// mode is how freely an order is sought.
type mode struct {
	free bool // what a component depends on need not go before it
	wide bool // moves to nodes that are a detour are tried too
}

// modes are tried one after another. The matrix is a matter of what works
// together, depends_on one of what goes first: where the two cannot both be kept,
// the matrix is.
var modes = []mode{{}, {wide: true}, {free: true}, {free: true, wide: true}}

// modesOf leaves out what cannot make a difference for a group.
func (s *solver) modesOf(group []int) []mode {
	for _, i := range group {
		for _, j := range s.deps[i] {
			if s.target[i] > 0 && s.target[j] > 0 {
				return modes
			}
		}
	}
	return modes[:2]
}

func (s *solver) walk(group []int, m mode) *walk {
	w := &walk{s: s, left: map[int][]int{}, at: make([]int, len(s.cands)), mode: m, seen: map[string]bool{}}
	for _, i := range group {
		if s.target[i] > 0 {
			w.group = append(w.group, i)
			w.left[i] = s.cands[i].ladder.left(s.target[i])
		}
	}
	slices.Sort(w.group)
	return w
}

// stuck returns nil when the group can get to its targets, and otherwise those
// of its candidates between which no order of steps is compatible.
//
// A step is safe when its component breaks no rule there, wherever the others
// are on their ways. Safe steps are taken at once: they can only help. What is
// left is searched whole.
func (s *solver) stuck(group []int) []int {
	var w *walk
	for _, m := range s.modesOf(group) {
		w = s.walk(group, m)
		w.safeSteps()
		if w.done() || w.search(false) {
			return nil
		}
	}
	var core []int
	for _, i := range w.group {
		if w.at[i] != s.target[i] {
			core = append(core, i)
		}
	}
	return core
}

// sequence is the order of the group's steps: what fixes a known vulnerability
// first, then with the role that runs as long as that is possible, else the first
// role, then the first name. The group is known
// to have an order.
func (s *solver) sequence(group []int) []move {
	all := s.modesOf(group)
	for n := 0; n < len(all); n += 2 {
		for _, m := range all[n : n+2] {
			s.tries = 0
			if w := s.walk(group, m); w.search(true) {
				return s.ordered(w)
			}
		}
		// The pretty order was too far to seek; any that is compatible will do.
		for _, m := range all[n : n+2] {
			s.tries = 0
			w := s.walk(group, m)
			w.safeSteps()
			if w.search(false) {
				return s.ordered(w)
			}
		}
	}
	for _, i := range group { // not reached: stuck found an order
		s.target[i] = 0
	}
	return nil
}

// ordered is the order that was found; a person is told where it is not that of
// depends_on.
func (s *solver) ordered(w *walk) []move {
	if !w.mode.free {
		return w.moves
	}
	at := make([]int, len(s.cands))
	told := map[[2]int]bool{}
	for _, m := range w.moves {
		for _, j := range s.deps[m.cand] {
			if pair := [2]int{m.cand, j}; at[j] != s.target[j] && !told[pair] {
				told[pair] = true
				s.told = append(s.told, fmt.Sprintf("%s goes before %s, which it depends on: the other way round they would not fit together in between", s.cands[m.cand].name, s.cands[j].name))
			}
		}
		at[m.cand] = m.to
	}
	return w.moves
}

func (w *walk) done() bool {
	for _, i := range w.group {
		if w.at[i] != w.s.target[i] {
			return false
		}
	}
	return true
}

// safeSteps takes all safe steps that lead nearer to the targets.
func (w *walk) safeSteps() {
	for again := true; again; {
		again = false
		for _, i := range w.group {
			for _, v := range w.nexts(i) {
				if w.valid(i, v) && w.safe(i, v) {
					w.take(i, v)
					again = true
					break
				}
			}
		}
	}
}

// nexts lists the nodes that candidate i can step to, those nearest to the
// target first, of equal ones the newest; a detour only where wide allows it.
func (w *walk) nexts(i int) []int {
	u, t, left := w.at[i], w.s.target[i], w.left[i]
	var out []int
	for v := t; v > u; v-- {
		if left[v] >= 0 && (left[v] < left[u] || w.mode.wide) && w.s.cands[i].ladder.passes(u, v) {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(x, y int) int { return left[x] - left[y] })
	return out
}

// valid reports whether candidate i may step to node v now: what it depends on
// is done, and no rule is broken.
func (w *walk) valid(i, v int) bool {
	if !w.mode.free {
		for _, j := range w.s.deps[i] {
			if w.at[j] != w.s.target[j] {
				return false
			}
		}
	}
	for _, k := range w.s.beside[i] {
		if j, beside := w.s.pairs[k].from(i); !beside[v].has(w.at[j]) {
			return false
		}
	}
	return true
}

// safe reports whether node v breaks no rule of candidate i wherever the others
// are from here on.
func (w *walk) safe(i, v int) bool {
	for _, k := range w.s.beside[i] {
		if j, beside := w.s.pairs[k].from(i); !beside[v].covers(w.at[j], w.s.target[j]) {
			return false
		}
	}
	return true
}

func (w *walk) take(i, v int) {
	w.moves = append(w.moves, move{i, w.at[i], v})
	w.at[i] = v
	w.last = w.s.cands[i].Component.Role
}

// search goes on until all are at their targets; pretty makes it prefer the
// order that people read.
func (w *walk) search(pretty bool) bool {
	if w.done() {
		return true
	}
	key := w.key()
	if w.work++; w.work > walkLimit || w.s.tries > tryLimit || w.seen[key] {
		return false
	}
	w.seen[key] = true
	last, taken := w.last, len(w.moves)
	for _, i := range w.candidates(pretty) {
		for _, v := range w.nexts(i) {
			w.s.tries++
			if !w.valid(i, v) {
				continue
			}
			u, safe := w.at[i], w.safe(i, v)
			w.take(i, v)
			if w.search(pretty) {
				return true
			}
			w.at[i], w.last, w.moves = u, last, w.moves[:taken]
			if safe {
				return false // if not after this one, then not at all
			}
		}
	}
	return false
}

// key tells states apart.
func (w *walk) key() string {
	var b []byte
	for _, i := range w.group {
		b = binary.AppendUvarint(b, uint64(w.at[i])) //nolint:gosec // an index
	}
	return string(b)
}

// candidates lists those that are not at their target, in the order to try them.
func (w *walk) candidates(pretty bool) []int {
	var out []int
	for _, i := range w.group {
		if w.at[i] != w.s.target[i] {
			out = append(out, i)
		}
	}
	if pretty {
		slices.SortStableFunc(out, func(x, y int) int { return w.s.turn(w.last, x) - w.s.turn(w.last, y) })
	}
	return out
}

// turn is the place of a candidate among those that could run next.
func (s *solver) turn(last component.Role, i int) int {
	n := 0
	if role := s.cands[i].Component.Role; role != last {
		n = 1 + role.Order()
	}
	if !s.early[i] {
		n += late
	}
	return n
}

// late is more than any role's place.
const late = 1000

// merge makes one order of those of the groups, which do not concern each other. A
// sequence in which something early is still to come is early as a whole: what is
// before that must be.
func (s *solver) merge(sequences [][]move) []move {
	var out []move
	var last component.Role
	turn := func(q []move) int {
		n := s.turn(last, q[0].cand)
		if !s.early[q[0].cand] && slices.ContainsFunc(q, func(m move) bool { return s.early[m.cand] }) {
			n -= late
		}
		return n
	}
	for {
		best := -1
		for k, q := range sequences {
			if len(q) == 0 {
				continue
			}
			if best < 0 {
				best = k
				continue
			}
			if d := turn(q) - turn(sequences[best]); d < 0 || d == 0 && q[0].cand < sequences[best][0].cand {
				best = k
			}
		}
		if best < 0 {
			return out
		}
		m := sequences[best][0]
		sequences[best] = sequences[best][1:]
		last = s.cands[m.cand].Component.Role
		out = append(out, m)
	}
}
