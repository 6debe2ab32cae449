package artifact

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
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

// maxZstdWindow is the window that a decompressor may ask memory for; zstd's own
// limit is 128 MiB, and --ultra -22 takes it.
const maxZstdWindow = 64 << 20

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
		z, err := xz.NewReader(&dictGuard{in: in})
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

// tar unpacks an archive and reads on to the end of src, where the packing has
// its own checksum.
func (u *unpacker) tar(src io.Reader) error {
	if err := u.entries(tar.NewReader(src)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, src); err != nil {
		return fmt.Errorf("%s, after the archive's end: %w", u.job.asset.Name, err)
	}
	return nil
}

func (u *unpacker) entries(tr *tar.Reader) error {
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
