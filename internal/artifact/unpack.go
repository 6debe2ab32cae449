package artifact

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// kind is the form of an asset, by its name.
type kind int

const (
	kindBare kind = iota
	kindTar
	kindTarGz
	kindTarXz
	kindTarZst
	kindGz
	kindZip
)

func kindOf(name string) kind {
	for _, k := range []struct {
		suffix string
		kind   kind
	}{
		{".tar.gz", kindTarGz},
		{".tgz", kindTarGz},
		{".tar.xz", kindTarXz},
		{".txz", kindTarXz},
		{".tar.zst", kindTarZst},
		{".tar", kindTar},
		{".zip", kindZip},
		{".gz", kindGz},
	} {
		if strings.HasSuffix(name, k.suffix) {
			return k.kind
		}
	}
	return kindBare
}

// Windows that a decompressor may ask memory for.
const (
	maxZstdWindow = 64 << 20
	maxXzDict     = 64 << 20 // xz -9
)

// unpackStream unpacks every format that can be read front to back.
func (u *unpacker) unpackStream(src io.Reader, k kind) error {
	name := u.job.asset.Name
	in := bufio.NewReaderSize(u.gauge.packed(src), 64<<10)
	if head, _ := in.Peek(512); looksLikeHTML(head) {
		return fmt.Errorf("%s is an HTML page, not an archive or program", name)
	}
	switch k {
	case kindTar:
		return u.tar(u.gauge.unpacked(in))
	case kindTarGz, kindGz:
		z, err := kgzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("%s is not gzip: %w", name, err)
		}
		defer z.Close()
		if k == kindGz {
			return u.single(u.gauge.unpacked(z))
		}
		return u.tar(u.gauge.unpacked(z))
	case kindTarXz:
		if err := checkXz(in); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		z, err := xz.NewReader(in)
		if err != nil {
			return fmt.Errorf("%s is not xz: %w", name, err)
		}
		return u.tar(u.gauge.unpacked(z))
	case kindTarZst:
		z, err := zstd.NewReader(in, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return fmt.Errorf("%s is not zstd: %w", name, err)
		}
		defer z.Close()
		return u.tar(u.gauge.unpacked(z))
	default:
		return u.single(u.gauge.unpacked(in))
	}
}

// checkXz refuses a dictionary beyond maxXzDict, which the library would
// allocate unasked. The dictionary stands in the first block's header (XZ file
// format 1.2, section 3.1: a size byte, flags, optional sizes, filters; LZMA2 is
// filter 0x21 with one byte of properties). What is malformed is left for the
// library to name.
func checkXz(in *bufio.Reader) error {
	const streamHeader = 12
	head, _ := in.Peek(streamHeader + 1024)
	if len(head) < streamHeader+2 || head[streamHeader] == 0 {
		return nil
	}
	block := head[streamHeader:]
	block = block[:min(len(block), (int(block[0])+1)*4)]
	flags, rest := block[1], block[2:]
	skip := bitSet(flags, 0x40) + bitSet(flags, 0x80) // compressed and uncompressed size
	for range skip {
		_, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil
		}
		rest = rest[n:]
	}
	if len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return nil
	}
	dict, err := lzma.DecodeDictCap(rest[2])
	if err == nil && dict > maxXzDict {
		return fmt.Errorf("it needs a dictionary of %d bytes to unpack, the limit is %d", dict, maxXzDict)
	}
	return nil
}

func bitSet(flags, bit byte) int {
	if flags&bit != 0 {
		return 1
	}
	return 0
}

func looksLikeHTML(head []byte) bool {
	head = bytes.ToLower(bytes.TrimSpace(head))
	return bytes.HasPrefix(head, []byte("<!doctype html")) || bytes.HasPrefix(head, []byte("<html"))
}

// single stores a bare binary, packed or not, as the component's only file.
func (u *unpacker) single(src io.Reader) error {
	if len(u.wanted) != 1 {
		return fmt.Errorf("%s holds one file, the definition of %s wants %d", u.job.asset.Name, u.job.req.Component.Name, len(u.wanted))
	}
	// Not by the asset's name: its line in the checksum file is of the packed form.
	return u.store(u.wanted[0], u.wanted[0].binary.Name, src)
}

func (u *unpacker) tar(src io.Reader) error {
	tr := tar.NewReader(src)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", u.job.asset.Name, err)
		}
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeReg:
			err = u.file(h.Name, h.FileInfo().Mode(), u.gauge.contents(tr))
		case tar.TypeDir:
			err = u.directory(h.Name)
		case tar.TypeSymlink:
			err = u.link(h.Name, h.Linkname, true)
		case tar.TypeLink:
			err = u.link(h.Name, h.Linkname, false)
		default:
			err = u.special(h.Name, "is a device, pipe or of another special type (%q)", h.Typeflag)
		}
		if err != nil {
			return err
		}
	}
}

func (u *unpacker) unpackZip(file string) error {
	z, err := zip.OpenReader(file)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return fmt.Errorf("%s: %w", u.job.asset.Name, err)
	}
	defer z.Close()
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	u.gauge.in = st.Size()
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
		return fmt.Errorf("%s: %s: %w", u.job.asset.Name, f.Name, err)
	}
	defer r.Close()
	return u.file(f.Name, f.Mode(), u.gauge.contents(r))
}

func (u *unpacker) zipLink(f *zip.File) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("%s: %s: %w", u.job.asset.Name, f.Name, err)
	}
	defer r.Close()
	target, err := io.ReadAll(io.LimitReader(u.gauge.contents(r), maxName+1))
	if err != nil {
		return fmt.Errorf("%s: %s: %w", u.job.asset.Name, f.Name, err)
	}
	return u.link(f.Name, string(target), true)
}
