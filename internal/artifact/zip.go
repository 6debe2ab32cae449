package artifact

import (
	"archive/zip"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// unpackZip unpacks the zip at a path. Its central directory alone says what it
// holds; what each entry's own header says besides is not asked.
func (u *unpacker) unpackZip(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	head := make([]byte, 512)
	if n, err := f.ReadAt(head, 0); n > 0 && looksLikeHTML(head[:n]) {
		return fmt.Errorf("%s is an HTML page, not an archive", u.job.asset.Name)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	u.gauge.in = st.Size()
	guard := &directoryGuard{file: f, ledger: u.ledger, opening: true}
	z, err := zip.NewReader(guard, st.Size())
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return fmt.Errorf("%s: %w", u.job.asset.Name, err)
	}
	guard.opening = false
	if err := u.apart(z.File); err != nil {
		return err
	}
	for _, f := range z.File {
		mode := f.Mode()
		switch {
		case mode.IsDir():
			err = u.directory(f.Name)
		case mode&fs.ModeSymlink != 0:
			err = u.zipLink(f)
		case mode.IsRegular():
			err = u.zipFile(f)
		default:
			err = u.special(f.Name, "is a device, pipe or of another special type (%s)", mode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) zipFile(f *zip.File) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("%s: %.200q: %w", u.job.asset.Name, f.Name, err)
	}
	defer r.Close()
	return u.file(f.Name, f.Mode(), u.gauge.contents(r))
}

func (u *unpacker) zipLink(f *zip.File) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("%s: %.200q: %w", u.job.asset.Name, f.Name, err)
	}
	defer r.Close()
	target, err := io.ReadAll(io.LimitReader(u.gauge.contents(r), maxName+1))
	if err != nil {
		return fmt.Errorf("%s: %.200q: %w", u.job.asset.Name, f.Name, err)
	}
	return u.link(f.Name, string(target), true)
}

// apart refuses entries that share bytes of the file, by which a zip of a few
// megabytes unpacks to any size (D. Fifield, "A better zip bomb", 2019).
func (u *unpacker) apart(files []*zip.File) error {
	type span struct {
		from, to int64
		name     string
	}
	spans := make([]span, 0, len(files))
	for _, f := range files {
		from, err := f.DataOffset()
		if err != nil {
			return fmt.Errorf("%s: %.200q: %w", u.job.asset.Name, f.Name, err)
		}
		length := int64(f.CompressedSize64) //nolint:gosec // one that does not fit is negative, which is looked at
		if length < 0 || length > u.gauge.in-from {
			u.ledger.entry = f.Name
			return u.ledger.refuse("says that it is %d bytes long, more than there are", f.CompressedSize64)
		}
		if length > 0 {
			spans = append(spans, span{from, from + length, f.Name})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			u.ledger.entry = spans[i].name
			return u.ledger.refuse("shares bytes with the entry %.200q", spans[i-1].name)
		}
	}
	return nil
}

// directoryGuard bounds what the library reads into memory before the first
// entry can be judged: the central directory, whatever length it claims.
type directoryGuard struct {
	file    io.ReaderAt
	ledger  *ledger
	opening bool
	bytes   int
	entries int
	next    int64  // where the last read ended
	tail    []byte // its last bytes
}

// ReadAt implements io.ReaderAt.
func (g *directoryGuard) ReadAt(p []byte, off int64) (int, error) {
	n, err := g.file.ReadAt(p, off)
	if !g.opening {
		return n, err
	}
	if off != g.next {
		g.tail = nil
	}
	seen := append(g.tail, p[:n]...)                     //nolint:gocritic // the tail is copied below
	g.entries += bytes.Count(seen, []byte("PK\x01\x02")) // one begins each entry's record
	g.next, g.tail = off+int64(n), bytes.Clone(seen[max(0, len(seen)-3):])
	g.bytes += n
	g.ledger.entry = "central directory"
	switch {
	case g.entries > g.ledger.max:
		return 0, g.ledger.refuse("lists more than %d entries", g.ledger.max)
	case g.bytes > maxDirectory:
		return 0, g.ledger.refuse("is longer than %d bytes", maxDirectory)
	}
	return n, err
}

// maxDirectory is the length of a zip's central directory that is read: as many
// names as a ledger takes, and 64 bytes beside each of 200,000.
const maxDirectory = maxAllNames + 64*200_000
