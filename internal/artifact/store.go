// Package artifact turns a release into verified files in a staging directory:
// checksum and signature, download, unpacking and hashing in one streaming pass,
// and a content-addressed cache, so that the same archive is never fetched twice.
//
// Nothing unpacked leaves quarantine before the archive's digest is proved, and
// an archive that tries to leave its directory is refused whole.
package artifact

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Progress is told how downloads go on. Its methods may be called from several
// goroutines for different components.
type Progress interface {
	Start(component, name string, total int64) // total 0: unknown
	Add(component string, n int64)
	// Done ends one; source is what vouched for it, as in Staged.ChecksumSource.
	Done(component, source string, err error)
}

// Options configure a Store. Zero limits get the defaults.
type Options struct {
	CacheDir    string
	HTTP        *http.Client
	Authorize   func(*http.Request)
	Logger      *slog.Logger
	Progress    Progress
	Notice      func(string)  // what a person should know; logged as a warning when nil
	MaxDownload int64         // bytes; default 2 GiB
	MaxUnpacked int64         // bytes; default 8 GiB
	MaxEntries  int           // default 200,000
	Retries     int           // attempts without progress; default 4
	RetryBase   time.Duration // first wait; default 500 ms
	Stall       time.Duration // a connection that brings nothing for so long is given up and opened again; default 30 s
}

// Store fetches and stages releases. It is safe for concurrent use, also by
// components that come out of the same archive: it is fetched once.
type Store struct {
	Options
	client *http.Client // HTTP with our rules for redirects
	mu     sync.Mutex
	busy   map[string]chan struct{}
}

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
	if o.Stall == 0 {
		o.Stall = 30 * time.Second
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
	if o.Notice == nil {
		o.Notice = func(msg string) { o.Logger.Warn(msg) }
	}
	return &Store{Options: o, client: careful(o.HTTP), busy: map[string]chan struct{}{}}
}

// only lets one goroutine at a time work on what key names. release must be
// called when err is nil.
func (s *Store) only(ctx context.Context, key string) (release func(), err error) {
	s.mu.Lock()
	slot, ok := s.busy[key]
	if !ok {
		slot = make(chan struct{}, 1)
		s.busy[key] = slot
	}
	s.mu.Unlock()
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type silent struct{}

// Start does nothing.
func (silent) Start(string, string, int64) {}

// Add does nothing.
func (silent) Add(string, int64) {}

// Done does nothing.
func (silent) Done(string, string, error) {}

// Request names a release to stage.
type Request struct {
	Component         *component.Component
	Release           component.Release
	OS, Arch, Root    string
	Staging           string // the directory of all staging directories
	Dir               string // this one's name among them; empty: the component's
	ChecksumRequired  bool   // false: an asset that nothing vouches for is used, with a warning
	SignatureRequired bool   // a definition without a signature is refused
	AllowUnsigned     bool   // a release without a signature is used all the same; one that is there must hold
	SignedBefore      string // how an earlier version was verified by a signature, for the refusal of one without; "" when none was
	// KnownDigest is what an earlier run verified this asset by; empty when there
	// was none. It must agree with what upstream says now, and lets a cached
	// archive be used without the network.
	KnownDigest component.Digest
}

// Unverified is the source of a checksum that there is not.
const Unverified = "none"

// Staged is a release whose files are verified and ready to be placed.
type Staged struct {
	Dir            string
	Files          []File           // one per binary of the definition, in its order
	Archive        component.Digest // sha256 of the asset as downloaded
	Size           int64            // of the asset, in bytes
	ChecksumSource string           // what vouches for it; Unverified where nothing does
	Signed         Signed           // who signed it; the zero value when nobody did
	FromCache      bool
}

// File is one staged binary or tree.
type File struct {
	Name   string
	Path   string // inside Staged.Dir
	SHA256 string // as it was verified; of a tree, as hostfs.Digest has it
	Size   int64  // bytes; of all its files for a tree
	Tree   bool
}

// Stage fetches, verifies and unpacks a release into Staging/Dir. On an
// error nothing is left there.
func (s *Store) Stage(ctx context.Context, req Request) (*Staged, error) {
	req.Component = req.Component.For(req.Release.Version)
	asset, err := PickAsset(req.Component, req.Release, req.OS, req.Arch, req.Root)
	if err != nil {
		return nil, err
	}
	dir, err := makeStaging(req.Staging, cmp.Or(req.Dir, req.Component.Name))
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
	release, err := s.only(ctx, proof.key(asset))
	if err != nil {
		return nil, err
	}
	defer release()
	name := req.Component.Name
	job := &job{store: s, req: req, asset: asset, proof: proof, dir: dir, quarantine: filepath.Join(dir, ".unverified")}
	s.Progress.Start(name, asset.Name, asset.Size)
	staged, err := job.run(ctx)
	s.Progress.Done(name, proof.source, err)
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
