package artifact

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// maxXzDict is the dictionary that xz may ask memory for: that of xz -9.
const maxXzDict = 64 << 20

// dictGuard hands xz on to the library and refuses a block whose dictionary is
// beyond maxXzDict, which the library would allocate unasked: up to 4 GiB, for
// each block of each stream. The library reads a block's header as one byte, its
// size, and then the rest at once; where the two are a header with a right
// checksum, they are taken for one.
type dictGuard struct {
	in   *bufio.Reader
	size byte // the last byte that was read alone
}

// Read implements io.Reader; it fills p whole where it can.
func (g *dictGuard) Read(p []byte) (int, error) {
	n, err := io.ReadFull(g.in, p)
	if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if n == 1 {
		g.size = p[0]
		return n, err
	}
	if dict := blockDict(g.size, p[:n]); dict > maxXzDict {
		return 0, fmt.Errorf("it needs a dictionary of %d bytes to unpack, the limit is %d", dict, maxXzDict)
	}
	return n, err
}

// blockDict is the dictionary that a block header asks for; 0 for what is no
// header, or one that the library refuses. It holds (XZ file format 1.2, section
// 3.1) its size, flags, optional sizes, filters and a CRC32; LZMA2 is filter 0x21
// with one byte of properties.
func blockDict(size byte, rest []byte) int64 {
	if size == 0 || len(rest) != (int(size)+1)*4-1 {
		return 0
	}
	body, sum := rest[:len(rest)-4], rest[len(rest)-4:]
	if crc32.Update(crc32.ChecksumIEEE([]byte{size}), crc32.IEEETable, body) != binary.LittleEndian.Uint32(sum) {
		return 0
	}
	flags, body := body[0], body[1:]
	for _, bit := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&bit == 0 {
			continue
		}
		_, n := binary.Uvarint(body)
		if n <= 0 {
			return 0
		}
		body = body[n:]
	}
	const lzma2 = 0x21
	id, n := binary.Uvarint(body)
	if n <= 0 || id != lzma2 {
		return 0
	}
	length, m := binary.Uvarint(body[n:])
	if m <= 0 || length != 1 || len(body) <= n+m {
		return 0
	}
	dict, err := lzma.DecodeDictCap(body[n+m])
	if err != nil {
		return 0
	}
	return dict
}
