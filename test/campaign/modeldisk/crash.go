package modeldisk

import (
	"fmt"
	"math/rand/v2"
)

// sector is what a disk writes at once.
const sector = 512

// Loss says what a crash leaves of what was not synced.
type Loss string

// The kinds of loss. A killed process loses nothing that it wrote; what a power cut
// leaves is chosen by its seed, within the bounds of its kind.
const (
	Kill     Loss = "kill"     // all is there; the write in flight, where there is one, in part
	Nothing  Loss = "nothing"  // nothing unsynced is there
	NoData   Loss = "nodata"   // all names, attributes and sizes are there, and none of the content
	Ordered  Loss = "ordered"  // names up to some moment, as a journaling file system keeps them; any content
	Anything Loss = "anything" // any part of everything
)

// after returns what a crash leaves when it comes after the first n operations of
// a log that began on base, and in words what was lost. It is a function of its
// arguments alone.
func after(base tree, log []op, n int, loss Loss, seed uint64) (tree, []string) {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	t := base.clone()
	if loss == Kill {
		for i := range log[:n] {
			t.apply(&log[i])
		}
		if n < len(log) && seed != 0 && log[n].kind == opWrite && len(log[n].data) > 1 {
			part := log[n]
			part.data = part.data[:1+rng.IntN(len(part.data)-1)]
			t.apply(&part)
			return t, []string{fmt.Sprintf("of %s the last %d bytes", part.label, len(log[n].data)-len(part.data))}
		}
		return t, nil
	}
	durable := durableOps(log[:n])
	c := chooser{rng: rng, loss: loss, until: rng.IntN(n + 1), share: []float64{0.1, 0.5, 0.9}[rng.IntN(3)], gone: map[key]bool{}}
	var lost []string
	for i := range log[:n] {
		o := &log[i]
		if durable[i] {
			t.apply(o)
			continue
		}
		if why := c.survive(t, i, o); why != "" {
			lost = append(lost, why)
		}
	}
	return t, lost
}

// key is what operations on entries have in common when one builds on another: a
// name in a directory, or an inode whose names change.
type key struct {
	ino  uint64
	name string
}

// keys of an operation on entries; none of others.
func (o *op) keys() []key {
	switch o.kind {
	case opCreate, opLink, opUnlink:
		return []key{{o.dir, o.name}, {o.ino, ""}}
	case opRename:
		return []key{{o.dir, o.name}, {o.dir2, o.name2}, {o.ino, ""}}
	case opExchange:
		return []key{{o.dir, o.name}, {o.dir2, o.name2}, {o.ino, ""}, {o.other, ""}}
	}
	return nil
}

// durableOps tells which operations nothing can take back.
func durableOps(log []op) []bool {
	durable := make([]bool, len(log))
	synced := map[uint64]bool{}    // a later fsync of it succeeded
	abandoned := map[uint64]bool{} // by the next fsync, which failed; entries are not
	all := false
	needed := map[key]bool{} // what a durable operation on entries builds on
	for i := len(log) - 1; i >= 0; i-- {
		o := &log[i]
		keys := o.keys()
		switch {
		case o.kind == opSync:
			abandoned[o.ino] = o.failed
			synced[o.ino] = synced[o.ino] || !o.failed
		case o.kind == opSyncAll:
			all = true
			clear(abandoned)
		case len(keys) > 0:
			durable[i] = all || synced[o.dir] || o.dir2 != 0 && synced[o.dir2]
			for _, k := range keys {
				durable[i] = durable[i] || needed[k]
			}
			for _, k := range keys {
				if durable[i] {
					needed[k] = true
				}
			}
		default:
			durable[i] = o.kind == opMark || (all || synced[o.ino]) && !abandoned[o.ino]
		}
	}
	return durable
}

// chooser decides about what was not synced.
type chooser struct {
	rng   *rand.Rand
	loss  Loss
	until int     // of Ordered: the operation up to which entries are kept
	share float64 // of Anything: how much is kept
	gone  map[key]bool
}

// survive applies as much of an unsynced operation as survives, and returns in
// words what did not.
func (c *chooser) survive(t tree, i int, o *op) string {
	if o.kind == opSync || o.kind == opSyncAll {
		return ""
	}
	if keys := o.keys(); len(keys) > 0 {
		keep := c.keepEntry(i)
		for _, k := range keys {
			keep = keep && !c.gone[k]
		}
		if keep {
			t.apply(o)
			return ""
		}
		for _, k := range keys {
			c.gone[k] = true
		}
		return o.label
	}
	if t[o.ino] == nil {
		return o.label // it never was
	}
	switch o.kind {
	case opWrite:
		return c.write(t[o.ino], o)
	case opTruncate, opAttr, opXattr:
		if c.keepEntry(i) {
			t.apply(o)
			return ""
		}
	}
	return o.label
}

func (c *chooser) keepEntry(i int) bool {
	switch c.loss {
	case Nothing:
		return false
	case NoData:
		return true
	case Ordered:
		return i < c.until
	}
	return c.rng.Float64() < c.share
}

// write keeps sectors of a write, and maybe the size that it gave the file.
func (c *chooser) write(n *inode, o *op) string {
	if c.loss == Nothing {
		return o.label
	}
	end := o.off + int64(len(o.data))
	if int64(len(n.data)) < end && (c.loss == NoData || c.rng.IntN(2) == 0) {
		n.resize(end)
	}
	lost := 0
	whole := c.loss != NoData && c.rng.IntN(2) == 0 // or nothing of it, or torn
	torn := c.rng.IntN(2) == 0
	for at := o.off; at < end; {
		next := min((at/sector+1)*sector, end)
		if whole || torn && c.loss != NoData && c.rng.Float64() < c.share {
			n.write(at, o.data[at-o.off:next-o.off])
		} else {
			lost += int(next - at)
		}
		at = next
	}
	if lost == 0 {
		return ""
	}
	return fmt.Sprintf("%d bytes of %s", lost, o.label)
}
