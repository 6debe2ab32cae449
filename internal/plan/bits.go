package plan

import "math/bits"

// bitset is a set of small numbers: nodes of one candidate.
type bitset []uint64

func newBitset(size int) bitset { return make(bitset, (size+63)/64) }

func fullBitset(size int) bitset {
	b := newBitset(size)
	for i := range size {
		b.add(i)
	}
	return b
}

// fullBitsets makes n full sets of one piece of memory.
func fullBitsets(n, size int) []bitset {
	full := fullBitset(size)
	all := make(bitset, n*len(full))
	out := make([]bitset, n)
	for i := range out {
		out[i] = all[i*len(full) : (i+1)*len(full) : (i+1)*len(full)]
		copy(out[i], full)
	}
	return out
}

func (b bitset) has(i int) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitset) add(i int)      { b[i/64] |= 1 << (i % 64) }
func (b bitset) remove(i int)   { b[i/64] &^= 1 << (i % 64) }

func (b bitset) empty() bool {
	for _, w := range b {
		if w != 0 {
			return false
		}
	}
	return true
}

// within reports whether every member of b is one of o.
func (b bitset) within(o bitset) bool {
	for i, w := range b {
		if w&^o[i] != 0 {
			return false
		}
	}
	return true
}

// meets reports whether b and o have a member in common.
func (b bitset) meets(o bitset) bool {
	for i, w := range b {
		if w&o[i] != 0 {
			return true
		}
	}
	return false
}

// covers reports whether all numbers from one up to another are in b.
func (b bitset) covers(from, to int) bool {
	for w := from / 64; w <= to/64; w++ {
		want := ^uint64(0)
		if w == from/64 {
			want <<= from % 64
		}
		if w == to/64 {
			want &= ^uint64(0) >> (63 - to%64)
		}
		if want&^b[w] != 0 {
			return false
		}
	}
	return true
}

// keep removes what is not in o, and reports whether that changed anything.
func (b bitset) keep(o bitset) bool {
	changed := false
	for i, w := range b {
		b[i] = w & o[i]
		changed = changed || b[i] != w
	}
	return changed
}

// drop removes what is in o, and reports whether that changed anything.
func (b bitset) drop(o bitset) bool {
	changed := false
	for i, w := range b {
		b[i] = w &^ o[i]
		changed = changed || b[i] != w
	}
	return changed
}

// filter removes the members for which beside has nothing in common with o, and
// reports whether that changed anything.
func (b bitset) filter(beside []bitset, o bitset) bool {
	changed := false
	for w, word := range b {
		for word != 0 {
			i := bits.TrailingZeros64(word)
			word &= word - 1
			if !beside[w*64+i].meets(o) {
				b[w] &^= 1 << i
				changed = true
			}
		}
	}
	return changed
}

// highest is the greatest member; -1 when there is none.
func (b bitset) highest() int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return i*64 + 63 - bits.LeadingZeros64(b[i])
		}
	}
	return -1
}
