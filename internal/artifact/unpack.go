package artifact

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
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

// wanted is one file or tree that the component needs, with the path it has
// inside the archive.
type wanted struct {
	binary  component.Binary
	pattern string // "*" stands for any one path element
	found   bool
	sum     string
	size    int64
}

// unpacker writes the wanted files of one archive into quarantine and judges
// every entry, wanted or not.
type unpacker struct {
	job     *job
	root    *os.Root
	wanted  []*wanted
	seen    map[string]bool
	links   map[string]bool // links recreated inside trees: nothing may go through them
	entries int
	total   int64
}

func newUnpacker(j *job) (*unpacker, error) {
	root, err := os.OpenRoot(j.quarantine)
	if err != nil {
		return nil, err
	}
	u := &unpacker{job: j, root: root, seen: map[string]bool{}, links: map[string]bool{}}
	vars := j.req.Component.Vars(j.req.Root, j.req.OS, j.req.Arch, j.req.Release)
	vars.Asset = j.asset.Name
	for _, b := range j.req.Component.Binaries {
		pattern := path.Clean(strings.TrimPrefix(vars.Expand(b.Path), "./"))
		u.wanted = append(u.wanted, &wanted{binary: b, pattern: pattern})
	}
	return u, nil
}

func (u *unpacker) close() { _ = u.root.Close() }

func (u *unpacker) unsafe(entry, format string, args ...any) error {
	return &UnsafeArchiveError{Archive: u.job.asset.Name, Entry: entry, Reason: fmt.Sprintf(format, args...)}
}

// unpackStream unpacks every format that can be read front to back.
func (u *unpacker) unpackStream(src io.Reader, k kind) error {
	in := bufio.NewReaderSize(src, 64<<10)
	if head, _ := in.Peek(512); looksLikeHTML(head) {
		return fmt.Errorf("%s is an HTML page, not an archive or program", u.job.asset.Name)
	}
	switch k {
	case kindTar:
		return u.tar(in)
	case kindTarGz, kindGz:
		z, err := kgzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("%s is not gzip: %w", u.job.asset.Name, err)
		}
		defer z.Close()
		if k == kindGz {
			return u.single(z)
		}
		return u.tar(z)
	case kindTarXz:
		z, err := xz.NewReader(in)
		if err != nil {
			return fmt.Errorf("%s is not xz: %w", u.job.asset.Name, err)
		}
		return u.tar(z)
	case kindTarZst:
		z, err := zstd.NewReader(in, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return fmt.Errorf("%s is not zstd: %w", u.job.asset.Name, err)
		}
		defer z.Close()
		return u.tar(z)
	default:
		return u.single(in)
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
	return u.store(u.wanted[0], u.wanted[0].binary.Name, src, 0o755)
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
			err = u.file(h.Name, h.FileInfo().Mode(), h.Size, tr)
		case tar.TypeDir:
			err = u.directory(h.Name)
		case tar.TypeSymlink:
			err = u.link(h.Name, h.Linkname, true)
		case tar.TypeLink:
			err = u.link(h.Name, h.Linkname, false)
		default:
			err = u.unsafe(h.Name, "is a device, pipe or of another special type (%q)", h.Typeflag)
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
			err = u.unsafe(f.Name, "is a device, pipe or of another special type (%s)", mode)
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
	return u.file(f.Name, f.Mode(), int64(f.UncompressedSize64), r)
}

func (u *unpacker) zipLink(f *zip.File) error {
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("%s: %s: %w", u.job.asset.Name, f.Name, err)
	}
	defer r.Close()
	target, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return err
	}
	return u.link(f.Name, string(target), true)
}

// name judges an entry's name and returns it cleaned.
func (u *unpacker) name(name string, dir bool) (string, error) {
	u.entries++
	switch {
	case u.entries > u.job.store.MaxEntries:
		return "", u.unsafe(name, "is one too many: more than %d entries", u.job.store.MaxEntries)
	case name == "" || strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return "", u.unsafe(name, "has an invalid name")
	case strings.HasPrefix(name, "/") || strings.Contains(name, `\`):
		return "", u.unsafe(name, "has an absolute or foreign path")
	}
	for _, el := range strings.Split(name, "/") {
		if el == ".." {
			return "", u.unsafe(name, "would leave the directory by ..")
		}
	}
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) {
		return "", u.unsafe(name, "would leave the directory")
	}
	for parent := path.Dir(clean); parent != "."; parent = path.Dir(parent) {
		if u.links[parent] {
			return "", u.unsafe(name, "goes through the link %q", parent)
		}
	}
	if clean == "." && dir {
		return clean, nil
	}
	if u.seen[clean] && !dir {
		return "", u.unsafe(name, "is there twice")
	}
	if !dir {
		u.seen[clean] = true
	}
	return clean, nil
}

func (u *unpacker) directory(name string) error {
	clean, err := u.name(name, true)
	if err != nil {
		return err
	}
	if w, rel := u.match(clean); w != nil && w.binary.Tree {
		w.found = true
		return u.mkdir(path.Join(w.binary.Name, rel))
	}
	return nil
}

// link judges a link; only symbolic ones inside a wanted tree are made again.
func (u *unpacker) link(name, target string, symbolic bool) error {
	clean, err := u.name(name, false)
	if err != nil {
		return err
	}
	u.links[clean] = true
	to := path.Join(path.Dir(clean), target)
	if !symbolic {
		to = path.Clean(target)
	}
	if target == "" || path.IsAbs(target) || strings.Contains(target, `\`) || !filepath.IsLocal(to) {
		return u.unsafe(name, "links to %q, outside the archive", target)
	}
	w, rel := u.match(clean)
	if w == nil {
		return nil
	}
	if !symbolic || !w.binary.Tree {
		return u.unsafe(name, "is a link where a program is expected")
	}
	dst := path.Join(w.binary.Name, rel)
	if err := u.mkdir(path.Dir(dst)); err != nil {
		return err
	}
	return u.root.Symlink(target, dst)
}

func (u *unpacker) file(name string, mode fs.FileMode, size int64, src io.Reader) error {
	clean, err := u.name(name, false)
	if err != nil {
		return err
	}
	if size < 0 || u.total+size > u.job.store.MaxUnpacked {
		return u.unsafe(name, "makes it unpack to more than %d bytes", u.job.store.MaxUnpacked)
	}
	w, rel := u.match(clean)
	if w == nil {
		return u.discard(name, src)
	}
	if !w.binary.Tree {
		return u.store(w, name, src, 0o755)
	}
	perm := fs.FileMode(0o644)
	if mode&0o111 != 0 {
		perm = 0o755
	}
	return u.write(w, path.Join(w.binary.Name, rel), name, src, perm)
}

func (u *unpacker) discard(name string, src io.Reader) error {
	n, err := io.Copy(io.Discard, io.LimitReader(src, u.job.store.MaxUnpacked-u.total+1))
	u.total += n
	if err == nil && u.total > u.job.store.MaxUnpacked {
		err = u.unsafe(name, "makes it unpack to more than %d bytes", u.job.store.MaxUnpacked)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u.job.asset.Name, err)
	}
	return nil
}

// match finds what an entry is wanted for; rel is its path inside a tree.
func (u *unpacker) match(clean string) (w *wanted, rel string) {
	for _, w := range u.wanted {
		parts, pattern := strings.Split(clean, "/"), strings.Split(w.pattern, "/")
		if len(parts) < len(pattern) || !w.binary.Tree && len(parts) != len(pattern) {
			continue
		}
		if ok, err := path.Match(w.pattern, strings.Join(parts[:len(pattern)], "/")); err == nil && ok {
			return w, path.Join(parts[len(pattern):]...)
		}
	}
	return nil, ""
}

func (u *unpacker) store(w *wanted, entry string, src io.Reader, perm fs.FileMode) error {
	if w.found {
		return u.unsafe(entry, "is a second candidate for %s", w.binary.Name)
	}
	return u.write(w, w.binary.Name, entry, src, perm)
}

func (u *unpacker) mkdir(dir string) error {
	if dir == "." || dir == "" {
		return nil
	}
	if err := u.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return nil
}

// write stores one file below quarantine, synced, never with set-id bits.
func (u *unpacker) write(w *wanted, dst, entry string, src io.Reader, perm fs.FileMode) error {
	if err := u.mkdir(path.Dir(dst)); err != nil {
		return err
	}
	f, err := u.root.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	room := u.job.store.MaxUnpacked - u.total
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(src, room+1))
	u.total += n
	switch {
	case err != nil:
		return fmt.Errorf("%s: %s: %w", u.job.asset.Name, entry, err)
	case n > room:
		return u.unsafe(entry, "makes it unpack to more than %d bytes", u.job.store.MaxUnpacked)
	}
	if err := f.Chmod(perm); err != nil { // whatever the umask says
		return err
	}
	w.found, w.sum, w.size = true, hex.EncodeToString(sum.Sum(nil)), w.size+n
	if want, ok := u.job.proof.contents[path.Base(entry)]; ok && want.Algorithm() == "sha256" && want.Hex() != w.sum {
		return &ChecksumError{Component: u.job.req.Component.Name, Asset: entry, Source: u.job.proof.source, Expected: want, Got: component.Digest("sha256:" + w.sum)}
	}
	if w.binary.Tree {
		return nil // trees are synced when they are placed
	}
	return f.Sync()
}

// collect lists the files found, in the definition's order, paths relative to
// quarantine.
func (u *unpacker) collect() ([]File, error) {
	var files []File
	for _, w := range u.wanted {
		if !w.found {
			return nil, fmt.Errorf("%s holds no %s, which the definition names for %s%s", u.job.asset.Name, w.pattern, w.binary.Name, u.near(w))
		}
		if !w.binary.Tree {
			if err := checkExecutable(filepath.Join(u.job.quarantine, w.binary.Name), u.job.req.Arch); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", u.job.asset.Name, w.binary.Name, err)
			}
		}
		sum := w.sum
		if w.binary.Tree {
			sum = ""
		}
		files = append(files, File{Name: w.binary.Name, Path: w.binary.Name, SHA256: sum, Size: w.size, Tree: w.binary.Tree})
	}
	return files, nil
}

func (u *unpacker) near(w *wanted) string {
	var near []string
	for name := range u.seen {
		if path.Base(name) == path.Base(w.pattern) || len(u.seen) <= 6 {
			near = append(near, name)
		}
	}
	if len(near) == 0 {
		return ""
	}
	return fmt.Sprintf("; it holds %q", near)
}
