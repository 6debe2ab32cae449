package artifact

import "io"

// Unpacking to more than bombFactor times the packed size is no release any
// more, once it is bombFloor bytes: programs pack about 3:1.
const (
	bombFactor = 250
	bombFloor  = 32 << 20
)

// gauge bounds what an archive unpacks to, headers and padding included.
type gauge struct {
	ledger       *ledger
	in           int64 // packed bytes
	out, content int64 // unpacked bytes, and those of them that are files' contents
	max          int64
}

// packed counts the bytes that go into the unpacking.
func (g *gauge) packed(r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		g.in += int64(n)
		return n, err
	})
}

// unpacked counts and bounds the bytes that come out.
func (g *gauge) unpacked(r io.Reader) io.Reader { return g.bounded(r, &g.out) }

// contents counts and bounds an entry's bytes: those of a sparse file are more
// than what was unpacked for it.
func (g *gauge) contents(r io.Reader) io.Reader { return g.bounded(r, &g.content) }

func (g *gauge) bounded(r io.Reader, count *int64) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		*count += int64(n)
		switch {
		case *count > g.max:
			return 0, g.ledger.refuse("makes it unpack to more than %d bytes", g.max)
		case *count > bombFloor && *count/bombFactor > g.in:
			return 0, g.ledger.refuse("makes it unpack to more than %d times its size", bombFactor)
		}
		return n, err
	})
}

type readFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readFunc) Read(p []byte) (int, error) { return f(p) }
