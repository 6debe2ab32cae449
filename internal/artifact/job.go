package artifact

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// job is one asset on its way into staging.
type job struct {
	store           *Store
	req             Request
	asset           component.Asset
	proof           *proof
	dir, quarantine string
}

// blob is the place in the cache of the bytes with this digest.
func (s *Store) blob(d component.Digest) string {
	return filepath.Join(s.CacheDir, "artifacts", d.Algorithm(), d.Hex())
}

func (j *job) run(ctx context.Context) (*Staged, error) {
	if d := j.proof.best(); d != "" && j.store.CacheDir != "" {
		path := j.store.blob(d)
		staged, err := j.fromCache(ctx, path)
		if err == nil || ctx.Err() != nil {
			return staged, err
		}
		var sum *ChecksumError
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.As(err, &sum) && sum.Asset == j.asset.Name, errors.Is(err, errNoFile):
			j.store.Logger.Warn("a cached archive was damaged; it is fetched again", "path", path, "error", err)
			if err := os.RemoveAll(path); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	return j.fromNetwork(ctx)
}

// errNoFile says that something else lies where a file of the cache should be.
var errNoFile = errors.New("it is not a regular file")

func (j *job) fromCache(ctx context.Context, path string) (*Staged, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0) // a pipe has no writer to wait for
	if errors.Is(err, unix.ELOOP) {
		return nil, errNoFile
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNoFile
	}
	staged, err := j.pass(ctx, f, nil, path)
	if err != nil {
		return nil, err
	}
	staged.FromCache, staged.Size = true, st.Size()
	now := time.Now() // when it was last of use; see Prune
	if err := os.Chtimes(path, now, now); err != nil {
		j.store.Logger.Debug("the use of a cached archive is not noted", "path", path, "error", err)
	}
	return staged, nil
}

// fromNetwork downloads the asset, going on from a partial file that an earlier
// attempt left. A partial file that turns out to be wrong is dropped and the
// download made once more from the start.
func (j *job) fromNetwork(ctx context.Context) (*Staged, error) {
	staged, path, resumed, err := j.download(ctx)
	if err != nil && path != "" && !worthKeeping(err) {
		if rerr := os.Remove(path); rerr != nil {
			return nil, errors.Join(err, rerr)
		}
		if resumed && !errors.As(err, new(*UnsafeArchiveError)) {
			j.store.Logger.Warn("a partial download did not fit; it is begun anew", "asset", j.asset.Name, "error", err)
			if staged, path, _, err = j.download(ctx); err != nil && path != "" && !worthKeeping(err) {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return staged, j.keep(path, staged.Archive)
}

// worthKeeping reports whether what was downloaded before an error can be gone
// on from: not when its bytes are known to be wrong or dangerous.
func worthKeeping(err error) bool {
	return !errors.As(err, new(*ChecksumError)) && !errors.As(err, new(*SizeError)) && !errors.As(err, new(*UnsafeArchiveError)) &&
		!errors.As(err, new(*SignatureError)) && !errors.Is(err, errOtherBytes)
}

// keep moves a proved download to its place in the cache.
func (j *job) keep(path string, sha component.Digest) error {
	if j.store.CacheDir == "" {
		return os.Remove(path)
	}
	to := j.store.blob(sha)
	if err := j.store.makeDir(filepath.Dir(to)); err != nil {
		return err
	}
	if err := os.Rename(path, to); err != nil {
		if _, serr := os.Stat(to); serr != nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		} // another process put the same bytes there first
	}
	best := j.proof.best()
	if best == "" || best == sha {
		return nil
	}
	// Upstream speaks SHA-512 alone: the next look-up is by that.
	alias := j.store.blob(best)
	if err := j.store.makeDir(filepath.Dir(alias)); err != nil {
		return err
	}
	if err := os.Link(to, alias); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// makeDir makes a directory of the cache that is the caller's alone. The cache
// itself also holds what everybody may read.
func (s *Store) makeDir(path string) error {
	host := hostfs.Host{}
	if err := host.MkdirAll(s.CacheDir, 0o755); err != nil {
		return err
	}
	return host.MkdirAll(path, 0o700)
}

// openPartial opens the file a download goes to: one that outlives this attempt
// when the digest says whose bytes they are, else one of our own.
func (j *job) openPartial() (*os.File, error) {
	if j.store.CacheDir == "" {
		return os.OpenFile(filepath.Join(j.dir, "download"), os.O_RDWR|os.O_CREATE, 0o600)
	}
	dir := filepath.Join(j.store.CacheDir, "partial")
	if err := j.store.makeDir(dir); err != nil {
		return nil, err
	}
	d := j.proof.best()
	if d == "" {
		return os.CreateTemp(dir, "unnamed-*")
	}
	path := filepath.Join(dir, d.Hex())
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) {
		return os.CreateTemp(dir, "unnamed-*")
	}
	if err != nil {
		return nil, err
	}
	// Another process may be at it, or have just moved it into the cache.
	lerr := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	mine, merr := f.Stat()
	there, terr := os.Lstat(path)
	if lerr == nil && merr == nil && terr == nil && os.SameFile(mine, there) && mine.Mode().IsRegular() {
		return f, nil
	}
	_ = f.Close()
	return os.CreateTemp(dir, "unnamed-*")
}

// download makes one attempt. path is the file the bytes went to.
func (j *job) download(ctx context.Context) (staged *Staged, path string, resumed bool, err error) {
	f, err := j.openPartial()
	if err != nil {
		return nil, "", false, err
	}
	defer f.Close()
	path = f.Name()
	if j.proof.best() == "" { // nobody could go on from these bytes
		defer func() {
			if err != nil {
				err = errors.Join(err, os.Remove(path))
				path = ""
			}
		}()
	}
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, path, false, err
	}
	body, err := j.store.open(ctx, j.asset, have, func(n int64) { j.store.Progress.Add(j.req.Component.Name, n) })
	if err != nil {
		return nil, path, false, err
	}
	defer body.Close()
	if have > 0 {
		j.store.Progress.Add(j.req.Component.Name, have)
		src := io.MultiReader(io.NewSectionReader(f, 0, have), io.TeeReader(body, f))
		staged, err = j.pass(ctx, src, nil, path)
	} else {
		staged, err = j.pass(ctx, body, f, path)
	}
	if err != nil {
		return nil, path, have > 0, err
	}
	staged.Size = body.offset
	// Not synced: what a power cut leaves of it in the cache is proved before it is
	// used, and fetched again where it is not whole.
	return staged, path, have > 0, f.Close()
}

// pass hashes and unpacks src in one go; what is read is also written to keep,
// when given. path is where the whole archive lies afterwards, for formats that
// can only be read from a file. An error of the unpacking counts only when the
// digest is right: wrong bytes unpack wrongly. Only when everything holds does
// what was unpacked leave quarantine.
func (j *job) pass(ctx context.Context, src io.Reader, keep io.Writer, path string) (*Staged, error) {
	if err := os.RemoveAll(j.quarantine); err != nil {
		return nil, err
	}
	if err := os.Mkdir(j.quarantine, 0o700); err != nil {
		return nil, err
	}
	sums := newSums(j.proof.digests...)
	sinks := []io.Writer{sums}
	if keep != nil {
		sinks = append(sinks, keep)
	}
	kind := kindOf(j.asset.Name)
	u, err := newUnpacker(j)
	if err != nil {
		return nil, err
	}
	defer u.close()
	stream := startStream(ctx, src, io.MultiWriter(sinks...), kind != kindZip)
	var unpackErr error
	if kind != kindZip {
		unpackErr = u.unpackStream(stream, kind)
	}
	if err := stream.finish(); err != nil {
		return nil, err // the bytes did not all arrive: nothing else counts
	}
	digest, err := j.compare(sums)
	if err != nil {
		return nil, err
	}
	signed, err := j.proof.checkArchive(path)
	if err != nil {
		return nil, err
	}
	if kind == kindZip {
		unpackErr = u.unpackZip(path)
	}
	if unpackErr != nil {
		return nil, unpackErr
	}
	files, err := u.collect()
	if err != nil {
		return nil, err
	}
	final := filepath.Join(j.dir, "files")
	if err := os.Rename(j.quarantine, final); err != nil {
		return nil, err
	}
	for i := range files {
		files[i].Path = filepath.Join(final, files[i].Path)
	}
	return &Staged{Dir: j.dir, Files: files, Archive: digest, ChecksumSource: j.proof.source, Signed: signed}, nil
}

// compare proves the bytes read against everything that vouches for them.
func (j *job) compare(s *sums) (component.Digest, error) {
	for _, want := range j.proof.digests {
		got := s.digest(want.Algorithm())
		if got == want {
			continue
		}
		err := &ChecksumError{Component: j.req.Component.Name, Asset: j.asset.Name, Source: j.proof.source, Expected: want, Got: got}
		if looksLikeHTML(s.head) {
			err.Hint = "what arrived is an HTML page (a login or error page?)"
		}
		return "", err
	}
	return s.digest("sha256"), nil
}

// sums hashes with SHA-256 and, where a digest asks for it, SHA-512, and keeps
// the first bytes for a diagnosis.
type sums struct {
	h256, h512 hash.Hash // h512 is nil when nobody asks for it
	head       []byte
}

func newSums(wanted ...component.Digest) *sums {
	s := &sums{h256: sha256.New()}
	for _, d := range wanted {
		if d.Algorithm() == "sha512" {
			s.h512 = sha512.New()
		}
	}
	return s
}

// Write never fails.
func (s *sums) Write(p []byte) (int, error) {
	if room := 512 - len(s.head); room > 0 {
		s.head = append(s.head, p[:min(room, len(p))]...)
	}
	s.h256.Write(p)
	if s.h512 != nil {
		s.h512.Write(p)
	}
	return len(p), nil
}

// digest is of an algorithm that newSums was told of, or sha256.
func (s *sums) digest(alg string) component.Digest {
	h := s.h256
	if alg == "sha512" {
		h = s.h512
	}
	return component.Digest(alg + ":" + hex.EncodeToString(h.Sum(nil)))
}
