// Package artifact turns a release into verified files in a staging directory:
// checksum and signature, download, unpacking and hashing in one streaming pass,
// and a content-addressed cache, so that the same archive is never fetched twice.
//
// Nothing unpacked leaves quarantine before the archive's digest is proved, and
// an archive that tries to leave its directory is refused whole.
package artifact

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Progress is told how downloads go on. Its methods may be called from several
// goroutines for different components.
type Progress interface {
	Start(component, name string, total int64) // total 0: unknown
	Add(component string, n int64)
	Done(component string, err error)
}

// Options configure a Store. Zero limits get the defaults.
type Options struct {
	CacheDir    string
	HTTP        *http.Client
	Authorize   func(*http.Request)
	Logger      *slog.Logger
	Progress    Progress
	MaxDownload int64         // bytes; default 2 GiB
	MaxUnpacked int64         // bytes; default 8 GiB
	MaxEntries  int           // default 200,000
	Retries     int           // attempts without progress; default 4
	RetryBase   time.Duration // first wait; default 500 ms
}

// Store fetches and stages releases. It is safe for concurrent use.
type Store struct{ Options }

// New returns a store.
func New(o Options) *Store {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxDownload, 2<<30)
	def(&o.MaxUnpacked, 8<<30)
	if o.MaxEntries == 0 {
		o.MaxEntries = 200_000
	}
	if o.Retries == 0 {
		o.Retries = 4
	}
	if o.RetryBase == 0 {
		o.RetryBase = 500 * time.Millisecond
	}
	if o.HTTP == nil {
		o.HTTP = http.DefaultClient
	}
	if o.Authorize == nil {
		o.Authorize = func(*http.Request) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	return &Store{o}
}

type silent struct{}

func (silent) Start(string, string, int64) {}
func (silent) Add(string, int64)           {}
func (silent) Done(string, error)          {}

// Request names a release to stage.
type Request struct {
	Component         *component.Component
	Release           component.Release
	OS, Arch, Root    string
	Staging           string // the directory of all staging directories
	ChecksumRequired  bool
	SignatureRequired bool
}

// Staged is a release whose files are verified and ready to be placed.
type Staged struct {
	Dir            string
	Files          []File
	Archive        component.Digest
	Size           int64
	ChecksumSource string // what vouches for it; "none" where nothing does
	SignedBy       string
	FromCache      bool
}

// File is one staged binary or tree.
type File struct {
	Name   string
	Path   string
	SHA256 string // of a binary; "" for a tree
	Size   int64
	Tree   bool
}

// Stage fetches, verifies and unpacks a release into Staging/COMPONENT. On an
// error nothing is left there.
func (s *Store) Stage(ctx context.Context, req Request) (*Staged, error) {
	asset, err := PickAsset(req.Component, req.Release, req.OS, req.Arch, req.Root)
	if err != nil {
		return nil, err
	}
	dir, err := makeStaging(req.Staging, req.Component.Name)
	if err != nil {
		return nil, err
	}
	staged, err := s.stage(ctx, req, asset, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return staged, nil
}

func (s *Store) stage(ctx context.Context, req Request, asset component.Asset, dir string) (*Staged, error) {
	proof, err := s.proof(ctx, req, asset)
	if err != nil {
		return nil, err
	}
	name := req.Component.Name
	job := &job{store: s, req: req, asset: asset, proof: proof, dir: dir, quarantine: filepath.Join(dir, ".unverified")}
	s.Progress.Start(name, asset.Name, asset.Size)
	staged, err := job.run(ctx)
	s.Progress.Done(name, err)
	return staged, err
}

// makeStaging makes an empty directory of our own, refusing one that somebody
// else prepared.
func makeStaging(parent, name string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(parent), 0o755); err != nil {
		return "", err
	}
	if err := ownDirectory(parent); err != nil {
		return "", err
	}
	dir := filepath.Join(parent, name)
	if _, err := os.Lstat(dir); err == nil {
		if err := ownDirectory(dir); err != nil {
			return "", err
		}
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	return dir, ownDirectory(dir)
}

// proof is what vouches for an asset.
type proof struct {
	digests  []component.Digest // all must agree with the bytes
	source   string
	signedBy string
	contents map[string]component.Digest // sums of files inside the archive, by base name
}

// sha256 is the digest the cache goes by; "" when none is known beforehand.
func (p *proof) sha256() string {
	for _, d := range p.digests {
		if d.Algorithm() == "sha256" {
			return d.Hex()
		}
	}
	return ""
}

// job is one asset on its way into staging.
type job struct {
	store           *Store
	req             Request
	asset           component.Asset
	proof           *proof
	dir, quarantine string
}

func (j *job) cached() string {
	if j.store.CacheDir == "" || j.proof.sha256() == "" {
		return ""
	}
	return filepath.Join(j.store.CacheDir, "artifacts", "sha256", j.proof.sha256())
}

func (j *job) run(ctx context.Context) (*Staged, error) {
	if path := j.cached(); path != "" {
		staged, err := j.fromCache(ctx, path)
		if err == nil || ctx.Err() != nil {
			return staged, err
		}
		var sum *ChecksumError
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.As(err, &sum):
			j.store.Logger.Warn("a cached archive was damaged; it is fetched again", "path", path)
			if err := os.Remove(path); err != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
	return j.fromNetwork(ctx)
}

func (j *job) fromCache(ctx context.Context, path string) (*Staged, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	staged, err := j.pass(ctx, f, nil, path)
	if err != nil {
		return nil, err
	}
	staged.FromCache, staged.Size = true, st.Size()
	return staged, nil
}

// fromNetwork downloads the asset, going on from a partial file that an earlier
// attempt left. A partial file that turns out to be wrong is dropped and the
// download made once more from the start.
func (j *job) fromNetwork(ctx context.Context) (*Staged, error) {
	dir := j.dir
	name := "download"
	if j.cached() != "" {
		dir, name = filepath.Join(j.store.CacheDir, "partial"), j.proof.sha256()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(dir, name)
	staged, resumed, err := j.download(ctx, path)
	var sum *ChecksumError
	if errors.As(err, &sum) {
		err = errors.Join(err, os.Remove(path))
		if resumed {
			staged, _, err = j.download(ctx, path)
		}
	}
	if err != nil {
		return nil, err
	}
	if to := j.cached(); to != "" {
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return nil, err
		}
		return staged, os.Rename(path, to)
	}
	return staged, os.Remove(path)
}

func (j *job) download(ctx context.Context, path string) (staged *Staged, resumed bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, false, err
	}
	body, err := j.store.open(ctx, j.asset, have, func(n int64) { j.store.Progress.Add(j.req.Component.Name, n) })
	if err != nil {
		return nil, false, err
	}
	defer body.Close()
	src := io.Reader(body)
	if have > 0 {
		j.store.Progress.Add(j.req.Component.Name, have)
		src = io.MultiReader(io.NewSectionReader(f, 0, have), io.TeeReader(body, f))
		staged, err = j.pass(ctx, src, nil, path)
	} else {
		staged, err = j.pass(ctx, src, f, path)
	}
	if err != nil {
		return nil, have > 0, err
	}
	staged.Size = body.offset
	return staged, have > 0, f.Sync()
}

// pass hashes and unpacks src in one go; what is read is also written to keep,
// when given. path is where the whole archive lies afterwards, for formats that
// can only be read from a file. An error of the unpacking counts only when the
// digest is right: wrong bytes unpack wrongly.
func (j *job) pass(ctx context.Context, src io.Reader, keep io.Writer, path string) (*Staged, error) {
	if err := os.RemoveAll(j.quarantine); err != nil {
		return nil, err
	}
	if err := os.Mkdir(j.quarantine, 0o700); err != nil {
		return nil, err
	}
	sums := newSums()
	for _, d := range j.proof.digests {
		sums.need512 = sums.need512 || d.Algorithm() == "sha512"
	}
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
	return &Staged{Dir: j.dir, Files: files, Archive: digest, ChecksumSource: j.proof.source, SignedBy: j.proof.signedBy}, nil
}

// compare proves the bytes read against everything that vouches for them.
func (j *job) compare(s *sums) (component.Digest, error) {
	for _, want := range j.proof.digests {
		got := s.digest(want.Algorithm())
		if got != want {
			return "", &ChecksumError{Component: j.req.Component.Name, Asset: j.asset.Name, Source: j.proof.source, Expected: want, Got: got}
		}
	}
	return s.digest("sha256"), nil
}

// sums hashes with both algorithms that checksum files use.
type sums struct {
	h256, h512 hash.Hash
	need512    bool
}

func newSums() *sums { return &sums{h256: sha256.New(), h512: sha512.New()} }

func (s *sums) Write(p []byte) (int, error) {
	s.h256.Write(p)
	if s.need512 {
		s.h512.Write(p)
	}
	return len(p), nil
}

func (s *sums) digest(alg string) component.Digest {
	h := s.h256
	if alg == "sha512" {
		h = s.h512
	}
	return component.Digest(alg + ":" + hex.EncodeToString(h.Sum(nil)))
}

// PickAsset finds the asset of a release for an operating system and a Go
// architecture. It must have exactly the name that the definition says: release
// pages are full of look-alikes. Where the definition's name holds "*", exactly
// one asset must match.
func PickAsset(c *component.Component, r component.Release, goos, goarch, root string) (component.Asset, error) {
	if _, ok := c.ArchName(goarch); !ok {
		return component.Asset{}, &NoAssetError{Component: c.Name, Version: r.Version, Want: goos + "/" + goarch, Reason: "upstream does not publish it for this architecture"}
	}
	name := c.Vars(root, goos, goarch, r).Asset
	if !strings.Contains(name, "*") {
		if a, ok := r.FindAsset(name); ok {
			return a, nil
		}
		return component.Asset{}, &NoAssetError{Component: c.Name, Version: r.Version, Want: name, Have: r.AssetNames()}
	}
	var found []component.Asset
	for _, a := range r.Assets {
		if ok, err := filepath.Match(name, a.Name); err == nil && ok {
			found = append(found, a)
		}
	}
	if len(found) != 1 {
		return component.Asset{}, &NoAssetError{Component: c.Name, Version: r.Version, Want: name, Have: r.AssetNames(), Reason: fmt.Sprintf("%d assets match", len(found))}
	}
	return found[0], nil
}
