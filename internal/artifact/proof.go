package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// proof is what vouches for an asset.
type proof struct {
	digests   []component.Digest // all must agree with the bytes
	source    string
	contents  sumList      // may hold sums of files inside the archive
	byContent bool         // only contents vouches: each binary must have its line
	vouched   string       // name of the checksum file, for messages about contents
	signed    Signed       // who signed the checksum file
	signature *fetchedSign // signature of the archive itself, checked when it is there
	gone      error        // why the release's checksum file could not be had; nil when it was
}

// best is the digest the cache goes by: SHA-256 where known; "" when nothing is
// known beforehand.
func (p *proof) best() component.Digest {
	var best component.Digest
	for _, d := range p.digests {
		if best == "" || d.Algorithm() == "sha256" {
			best = d
		}
	}
	return best
}

// key names the bytes, for those who want the same.
func (p *proof) key(a component.Asset) string {
	if d := p.best(); d != "" {
		return string(d)
	}
	return a.URL
}

// add takes a further digest, which must agree with those of its algorithm.
func (p *proof) add(asset string, d component.Digest, source string) error {
	if d == "" {
		return nil
	}
	clean, err := component.ParseDigest(string(d))
	if err != nil {
		return fmt.Errorf("%s, by %s: %w", asset, source, err)
	}
	for _, have := range p.digests {
		if have.Algorithm() == clean.Algorithm() && have != clean {
			return &ConflictError{Asset: asset, Sources: [2]string{p.source, source}, Digests: [2]component.Digest{have, clean}}
		}
	}
	if p.source == "" {
		p.source = source
	}
	p.digests = append(p.digests, clean)
	return nil
}

const (
	byAPI     = "the release API's digest"
	byEarlier = "an earlier run"
)

// proof gathers what vouches for an asset: the release's checksum file, its
// signature, the digest the release API states and the one an earlier run
// learnt. Where two speak they must agree.
func (s *Store) proof(ctx context.Context, req Request, asset component.Asset) (*proof, error) {
	if p, err := s.offline(req, asset); p != nil || err != nil {
		return p, err
	}
	p, reason, err := s.published(ctx, req, asset)
	var sig *SignatureError
	var sum *ChecksumError
	if ctx.Err() == nil && (errors.As(err, &sig) && sig.mismatch || errors.As(err, &sum)) {
		// A file and its signature may have been read on both sides of a publication.
		s.Logger.Warn("the checksum file does not fit its signature; both are read once more", "component", req.Component.Name, "error", err)
		p, reason, err = s.published(ctx, req, asset)
	}
	if err != nil {
		return nil, err
	}
	if err := p.add(asset.Name, asset.Digest, byAPI); err != nil {
		return nil, err
	}
	if err := p.add(asset.Name, req.KnownDigest, byEarlier); err != nil {
		return nil, err
	}
	switch {
	case len(p.digests) > 0:
		if p.gone != nil {
			s.Notice(fmt.Sprintf("%s %s: %v; %s is verified by %s alone", req.Component.Name, req.Release.Version, p.gone, asset.Name, p.source))
		}
		return p, nil
	case p.contents.covers(req, asset):
		p.byContent, p.source = true, p.vouched+" (of the files inside)"
		return p, nil
	case p.signature != nil:
		p.source = p.signature.name
		return p, nil
	case req.ChecksumRequired:
		return nil, &NoChecksumError{Asset: asset.Name, Reason: reason}
	}
	s.Notice(fmt.Sprintf("%s %s: %s is NOT VERIFIED, as verification.checksum is if_available: %s", req.Component.Name, req.Release.Version, asset.Name, reason))
	p.source = Unverified
	return p, nil
}

// offline is the proof that needs no network: an earlier run learnt the digest
// and the cache has the bytes. Signatures are asked for anew.
func (s *Store) offline(req Request, asset component.Asset) (*proof, error) {
	if req.KnownDigest == "" || req.Component.Signature != nil || req.SignatureRequired || req.SignedBefore != "" || s.CacheDir == "" {
		return nil, nil
	}
	p := &proof{}
	if err := p.add(asset.Name, req.KnownDigest, byEarlier); err != nil {
		return nil, err
	}
	if err := p.add(asset.Name, asset.Digest, byAPI); err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.blob(p.best())); err != nil {
		return nil, nil //nolint:nilerr // not cached: upstream is asked
	}
	return p, nil
}

// published is what the release itself carries; reason says why there is no
// digest in it.
func (s *Store) published(ctx context.Context, req Request, asset component.Asset) (p *proof, reason string, err error) {
	vars := req.Component.Vars(req.Root, req.OS, req.Arch, req.Release)
	vars.Asset = asset.Name
	sums, name, reason := PickChecksums(req.Component, req.Release, asset.Name, req.OS, req.Arch, req.Root)
	p = &proof{vouched: name}
	var data []byte
	if reason == "" {
		data, err = s.checksumFile(ctx, req, sums)
		var gone *goneError
		switch {
		case errors.As(err, &gone) && ctx.Err() == nil:
			// The digest of the release API, or the policy, may do without it.
			p.gone, reason = err, err.Error()
		case err != nil:
			return nil, "", err
		}
	}
	if err := s.checkSignature(ctx, req, p, vars, data); err != nil {
		return nil, "", err
	}
	if data == nil {
		return p, reason, nil
	}
	if p.contents, err = parseSums(data); err != nil {
		return nil, "", fmt.Errorf("%s: %w", p.vouched, err)
	}
	d, ok, err := p.contents.asset(asset.Name, p.vouched)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", p.vouched, err)
	}
	if !ok {
		reason = p.vouched + " has no line for it"
		if p.signed.Type == "" {
			return p, reason, nil
		}
		// A signature says nothing of an archive that the signed file does not
		// know: the file may be an older release's, put beside other bytes.
		if !p.contents.covers(req, asset) {
			return nil, "", &SignatureError{Asset: asset.Name, Reason: fmt.Sprintf("the signature of %s holds, but %s", p.vouched, reason)}
		}
		p.byContent, p.source = true, p.vouched+" (of the files inside)"
		return p, reason, nil
	}
	return p, "", p.add(asset.Name, d, p.vouched)
}

// checksumFile fetches the checksum file; a goneError where it cannot be had.
func (s *Store) checksumFile(ctx context.Context, req Request, a component.Asset) ([]byte, error) {
	data, err := s.small(ctx, a)
	if err != nil && !errors.As(err, new(*SizeError)) && !errors.Is(err, errOtherBytes) && !errors.Is(err, errPage) {
		err = &goneError{err}
	}
	if err == nil && looksLikeHTML(data) {
		err = fmt.Errorf("%s is an HTML page, not a checksum file", a.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("checksum file: %w", err)
	}
	if a.Digest != "" {
		s := newSums(a.Digest)
		_, _ = s.Write(data)
		if got := s.digest(a.Digest.Algorithm()); got != a.Digest {
			return nil, &ChecksumError{Component: req.Component.Name, Asset: a.Name, Source: byAPI, Expected: a.Digest, Got: got}
		}
	}
	return data, nil
}

// covers reports whether the list has a line for every binary inside the
// archive, as Jaeger's has, which leaves out the archive itself.
func (l sumList) covers(req Request, asset component.Asset) bool {
	if kindOf(asset.Name) == kindBare || len(req.Component.Binaries) == 0 {
		return false
	}
	vars := req.Component.Vars(req.Root, req.OS, req.Arch, req.Release)
	vars.Asset = asset.Name
	for _, b := range req.Component.Binaries {
		if b.Tree {
			return false
		}
		if _, ok := l.byBase[path.Base(vars.Expand(b.Path))]; !ok {
			return false
		}
	}
	return true
}
