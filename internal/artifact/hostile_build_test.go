package artifact

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// entry is one entry of a tar as it lies in the file, true or not: archive/tar
// writes nothing that is wrong.
type entry struct {
	name, link string
	flag       byte // '0' when 0
	mode       int64
	size       int64 // -1: the length of body
	body       string
	pax        []string // KEY=VALUE records in a header before it
	global     bool     // the records are in a global header
	rawPax     string   // in place of pax
}

func file(name string) entry { return entry{name: name, body: script} }

func linkTo(name, to string) entry { return entry{name: name, link: to, flag: tar.TypeSymlink} }

func hardTo(name, to string) entry { return entry{name: name, link: to, flag: tar.TypeLink} }

// header is a ustar header block (POSIX.1-2017, pax, "ustar Interchange Format").
func header(name, link string, flag byte, mode, size int64) []byte {
	h := make([]byte, 512)
	copy(h[0:100], name)
	octal := func(at, width int, v int64) { copy(h[at:at+width], fmt.Sprintf("%0*o\x00", width-1, v)) }
	octal(100, 8, mode)
	octal(108, 8, 0)
	octal(116, 8, 0)
	if size >= 0 && size < 1<<33 {
		octal(124, 12, size)
	} else { // GNU's base 256
		h[124] = 0x80
		binary.BigEndian.PutUint64(h[128:136], uint64(size))
	}
	octal(136, 12, 0)
	h[156] = flag
	copy(h[157:257], link)
	copy(h[257:265], "ustar\x0000")
	copy(h[148:156], "        ")
	sum := int64(0)
	for _, b := range h {
		sum += int64(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func padded(s string) []byte { return append([]byte(s), make([]byte, (512-len(s)%512)%512)...) }

// paxRecord is "LENGTH KEY=VALUE\n", the length counting itself.
func paxRecord(kv string) string {
	for n := len(kv) + 3; ; n++ {
		if r := fmt.Sprintf("%d %s\n", n, kv); len(r) == n {
			return r
		}
	}
}

// rawTar is a tar of entries; names of more than 100 bytes come in GNU's long form.
func rawTar(entries ...entry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		if e.flag == 0 {
			e.flag = tar.TypeReg
		}
		if e.mode == 0 {
			e.mode = 0o755
		}
		if len(e.name) > 100 {
			b.Write(header("././@LongLink", "", tar.TypeGNULongName, 0, int64(len(e.name)+1)))
			b.Write(padded(e.name + "\x00"))
		}
		if len(e.link) > 100 {
			b.Write(header("././@LongLink", "", tar.TypeGNULongLink, 0, int64(len(e.link)+1)))
			b.Write(padded(e.link + "\x00"))
		}
		if records := e.rawPax; len(e.pax) > 0 || records != "" {
			for _, kv := range e.pax {
				records += paxRecord(kv)
			}
			flag := byte(tar.TypeXHeader)
			if e.global {
				flag = tar.TypeXGlobalHeader
			}
			b.Write(header("PaxHeaders/x", "", flag, 0o644, int64(len(records))))
			b.Write(padded(records))
		}
		size := e.size
		if size == 0 {
			size = int64(len(e.body))
		}
		b.Write(header(e.name, e.link, e.flag, e.mode, size))
		b.Write(padded(e.body))
	}
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

// packings are the forms in which a tar comes.
var packings = []string{"tar", "tar.gz", "tar.xz", "tar.zst"}

// pack puts a tar, or anything, into a form.
func pack(t testing.TB, form string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch form {
	case "tar.gz", "gz":
		w, err = kgzip.NewWriterLevel(&b, kgzip.BestSpeed)
	case "tar.xz":
		w, err = xz.NewWriter(&b)
	case "tar.zst":
		w, err = zstd.NewWriter(&b, zstd.WithEncoderCRC(true))
	default:
		return data
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// xzBlock is an xz stream of one block of uncompressed data, whose header asks
// for the dictionary that the property byte stands for.
func xzBlock(property byte, data string) []byte {
	var b bytes.Buffer
	check := func(p []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(p)) }
	flags := []byte{0, 1} // CRC32
	b.Write(append([]byte("\xfd7zXZ\x00"), flags...))
	b.Write(check(flags))
	head := []byte{2, 0, 0x21, 1, property, 0, 0, 0}
	b.Write(append(head, check(head)...))
	lzma2 := append([]byte{1, byte((len(data) - 1) >> 8), byte(len(data) - 1)}, data...)
	lzma2 = append(lzma2, 0)
	b.Write(append(lzma2, make([]byte, (4-len(lzma2)%4)%4)...))
	b.Write(check([]byte(data)))
	index := []byte{0, 1}
	index = binary.AppendUvarint(index, uint64(12+len(lzma2)+4))
	index = binary.AppendUvarint(index, uint64(len(data)))
	index = append(index, make([]byte, (4-len(index)%4)%4)...)
	index = append(index, check(index)...)
	b.Write(index)
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, flags...)
	b.Write(append(check(footer), footer...))
	b.WriteString("YZ")
	return b.Bytes()
}

// zipPart is one entry of a zip as it lies in the file, true or not.
type zipPart struct {
	name       string
	local      string // its name in its own header; the same when empty
	body       string // stored
	method     uint16
	flags      uint16
	mode       uint32 // Unix mode; 0100755 when 0
	crc        uint32 // of body when 0
	packed     uint64 // length in the directory; that of body when 0
	unpacked   uint64
	at         int64  // where the directory says it begins, in place of where it does; 0: there
	extra      string // in the directory
	afterwards string // what follows the body: a data descriptor
}

// rawZip is a zip of parts (APPNOTE.TXT 6.3.10); records, when not 0, is the
// number of entries that its end claims.
func rawZip(records uint16, parts ...zipPart) []byte {
	var b, dir bytes.Buffer
	le := binary.LittleEndian
	for _, p := range parts {
		if p.local == "" {
			p.local = p.name
		}
		if p.crc == 0 {
			p.crc = crc32.ChecksumIEEE([]byte(p.body))
		}
		if p.packed == 0 {
			p.packed = uint64(len(p.body))
		}
		if p.unpacked == 0 {
			p.unpacked = uint64(len(p.body))
		}
		if p.mode == 0 {
			p.mode = 0o100755
		}
		if p.at == 0 {
			p.at = int64(b.Len())
		}
		b.WriteString("PK\x03\x04")
		for _, v := range []uint16{20, p.flags, p.method, 0, 0x21} {
			b.Write(le.AppendUint16(nil, v))
		}
		for _, v := range []uint32{p.crc, uint32(p.packed), uint32(p.unpacked)} {
			b.Write(le.AppendUint32(nil, v))
		}
		b.Write(le.AppendUint16(nil, uint16(len(p.local))))
		b.Write(le.AppendUint16(nil, 0))
		b.WriteString(p.local + p.body + p.afterwards)

		dir.WriteString("PK\x01\x02")
		for _, v := range []uint16{3<<8 | 20, 20, p.flags, p.method, 0, 0x21} {
			dir.Write(le.AppendUint16(nil, v))
		}
		for _, v := range []uint32{p.crc, uint32(p.packed), uint32(p.unpacked)} {
			dir.Write(le.AppendUint32(nil, v))
		}
		for _, v := range []uint16{uint16(len(p.name)), uint16(len(p.extra)), 0, 0, 0} {
			dir.Write(le.AppendUint16(nil, v))
		}
		dir.Write(le.AppendUint32(nil, p.mode<<16))
		dir.Write(le.AppendUint32(nil, uint32(p.at)))
		dir.WriteString(p.name + p.extra)
	}
	if records == 0 {
		records = uint16(len(parts))
	}
	start := b.Len()
	b.Write(dir.Bytes())
	b.WriteString("PK\x05\x06\x00\x00\x00\x00")
	b.Write(le.AppendUint16(nil, records))
	b.Write(le.AppendUint16(nil, records))
	b.Write(le.AppendUint32(nil, uint32(dir.Len())))
	b.Write(le.AppendUint32(nil, uint32(start)))
	b.Write([]byte{0, 0})
	return b.Bytes()
}

// zip64 is the extra field 1 with the values given.
func zip64(values ...uint64) string {
	e := binary.LittleEndian.AppendUint16([]byte{1, 0}, uint16(8*len(values)))
	for _, v := range values {
		e = binary.LittleEndian.AppendUint64(e, v)
	}
	return string(e)
}

// elfFor is the beginning of a 64-bit program for a machine (elf(5), e_machine).
func elfFor(machine byte) string {
	return "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00" + string([]byte{machine, 0})
}

// numbered is n entries beside a good program, under names made of their numbers.
func numbered(n int, name func(i int) string) []entry {
	entries := []entry{file("tool-1.2.0/tool")}
	for i := range n {
		entries = append(entries, entry{name: name(i), mode: 0o644})
	}
	return entries
}

func itoa(i int) string { return strconv.Itoa(i) }

func deep(i int) string { return itoa(i) + "/" + strings.Repeat("a/", 1900) + "x" }
