package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// proof gathers what vouches for an asset: the release's checksum file, its
// signature, and the digest the release API states. Where two speak they must
// agree.
func (s *Store) proof(ctx context.Context, req Request, asset component.Asset) (*proof, error) {
	p := &proof{}
	c := req.Component
	vars := c.Vars(req.Root, req.OS, req.Arch, req.Release)
	vars.Asset = asset.Name
	reason := "the definition names no checksum file and the release API states no digest"
	var sumsData []byte
	sumsName := vars.Expand(c.Checksums)
	if sumsName != "" {
		data, why, err := s.checksumFile(ctx, req, sumsName)
		if err != nil {
			return nil, err
		}
		sumsData, reason = data, why
	}
	if err := s.verifySignature(ctx, req, p, vars, sumsName, sumsData); err != nil {
		return nil, err
	}
	if sumsData != nil {
		list, err := parseSums(sumsData)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sumsName, err)
		}
		p.contents = list.byName
		if d, ok := list.find(asset.Name, sumsName); ok {
			p.digests, p.source = append(p.digests, d), sumsName
		} else {
			reason = fmt.Sprintf("%s has no line for it", sumsName)
		}
	}
	if asset.Digest != "" {
		if len(p.digests) > 0 && p.digests[0].Algorithm() == asset.Digest.Algorithm() && p.digests[0] != asset.Digest {
			return nil, &ConflictError{Asset: asset.Name, File: p.digests[0], API: asset.Digest, Source: p.source}
		}
		if len(p.digests) == 0 {
			p.source = "the release API's digest"
		}
		p.digests = append(p.digests, asset.Digest)
	}
	switch {
	case len(p.digests) > 0:
		return p, nil
	case req.ChecksumRequired:
		return nil, &NoChecksumError{Asset: asset.Name, Reason: reason}
	}
	s.Logger.Warn("no checksum: the download is not verified", "asset", asset.Name, "reason", reason)
	p.source = "none"
	return p, nil
}

// checksumFile fetches the checksum file; data is nil, with the reason, when the
// release has none.
func (s *Store) checksumFile(ctx context.Context, req Request, name string) (data []byte, why string, err error) {
	a, ok := req.Release.FindAsset(name)
	if !ok {
		return nil, fmt.Sprintf("the release has no %s", name), nil
	}
	data, err = s.small(ctx, a)
	if err == nil && looksLikeHTML(data) {
		err = fmt.Errorf("%s is an HTML page, not a checksum file", name)
	}
	if err != nil {
		return nil, "", fmt.Errorf("checksum file: %w", err)
	}
	if a.Digest != "" {
		s := newSums()
		s.need512 = true
		_, _ = s.Write(data)
		if got := s.digest(a.Digest.Algorithm()); got != a.Digest {
			return nil, "", &ChecksumError{Component: req.Component.Name, Asset: name, Source: "the release API", Expected: a.Digest, Got: got}
		}
	}
	return data, "", nil
}

// ErrSignatureUnsupported marks a kind of signature that this version cannot
// check; it is never passed over.
var ErrSignatureUnsupported = errors.New("this kind of signature cannot be checked by this version")

func (s *Store) verifySignature(ctx context.Context, req Request, p *proof, vars component.Vars, sumsName string, sums []byte) error {
	sig := req.Component.Signature
	if sig == nil {
		if req.SignatureRequired {
			return &SignatureError{Asset: vars.Asset, Reason: "verification.signature is required, but the definition names none"}
		}
		return nil
	}
	name := vars.Expand(sig.Asset)
	if sig.Type != "gpg" {
		return fmt.Errorf("%s (%s): %w; remove `signature` from the definition to go by checksums alone", name, sig.Type, ErrSignatureUnsupported)
	}
	signedName, signed := vars.Expand(sig.Of), sums
	if signedName == "" {
		signedName = sumsName
	}
	if signedName != sumsName {
		a, ok := req.Release.FindAsset(signedName)
		if !ok {
			return &SignatureError{Asset: signedName, Reason: "the release has no such asset"}
		}
		data, err := s.small(ctx, a)
		if err != nil {
			return err
		}
		signed = data
	}
	if signed == nil {
		return &SignatureError{Asset: signedName, Reason: "the release does not have the file that is signed"}
	}
	a, ok := req.Release.FindAsset(name)
	if !ok {
		return &SignatureError{Asset: signedName, Reason: "the release has no " + name + "; a component with a configured signature is not used without"}
	}
	sigData, err := s.small(ctx, a)
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	who, err := verifyGPG(vars.Expand(sig.Keyring), signed, sigData)
	if err != nil {
		return &SignatureError{Asset: signedName, Reason: err.Error()}
	}
	p.signedBy = who
	return nil
}

// verifyGPG checks a detached OpenPGP signature, armoured or binary, against
// the keys of a keyring file. Expired and revoked keys are refused.
func verifyGPG(keyring string, signed, sig []byte) (string, error) {
	data, err := os.ReadFile(keyring)
	if err != nil {
		return "", fmt.Errorf("keyring: %w", err)
	}
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	if err != nil {
		if keys, err = openpgp.ReadKeyRing(bytes.NewReader(data)); err != nil {
			return "", fmt.Errorf("keyring %s: %w", keyring, err)
		}
	}
	check := openpgp.CheckDetachedSignature
	if bytes.HasPrefix(bytes.TrimSpace(sig), []byte("-----BEGIN PGP")) {
		check = openpgp.CheckArmoredDetachedSignature
	}
	signer, err := check(keys, bytes.NewReader(signed), bytes.NewReader(sig), nil)
	if err != nil {
		return "", fmt.Errorf("%w (keyring %s)", err, keyring)
	}
	who := fmt.Sprintf("%X", signer.PrimaryKey.Fingerprint)
	for name := range signer.Identities {
		return who + " " + name, nil
	}
	return who, nil
}

// sumList is a parsed checksum file.
type sumList struct {
	byName map[string]component.Digest // by base name
	bare   component.Digest            // a file that holds one sum and no name
}

// find returns the sum of an asset: its line, or the bare sum of a file that
// belongs to it alone ("ASSET.sha256").
func (l sumList) find(asset, file string) (component.Digest, bool) {
	if d, ok := l.byName[asset]; ok {
		return d, true
	}
	if l.bare != "" && strings.HasPrefix(file, asset) {
		return l.bare, true
	}
	return "", false
}

// parseSums reads the forms of checksum files in use: "hex  name", "hex *name",
// a leading "./", SHA-512, BSD's "SHA256 (name) = hex", and a bare sum. A line
// that is none of these is an error: a half-understood file vouches for nothing.
func parseSums(data []byte) (sumList, error) {
	l := sumList{byName: map[string]component.Digest{}}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(strings.TrimSuffix(line, "\r"))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		sum, name, err := parseSumLine(line)
		if err != nil {
			return sumList{}, fmt.Errorf("line %d: %w", i+1, err)
		}
		if name == "" {
			if l.bare != "" && l.bare != sum {
				return sumList{}, fmt.Errorf("line %d: a second sum without a name", i+1)
			}
			l.bare = sum
			continue
		}
		base := path.Base(strings.TrimPrefix(name, "./"))
		if have, ok := l.byName[base]; ok && have != sum {
			return sumList{}, fmt.Errorf("line %d: a second, different sum for %s", i+1, base)
		}
		l.byName[base] = sum
	}
	if l.bare == "" && len(l.byName) == 0 {
		return sumList{}, errors.New("it holds no checksum")
	}
	return l, nil
}

func parseSumLine(line string) (component.Digest, string, error) {
	if rest, ok := strings.CutPrefix(line, "SHA256 ("); ok {
		if name, sum, ok := strings.Cut(rest, ") = "); ok {
			d, err := component.ParseDigest("sha256:" + sum)
			return d, name, err
		}
	}
	sum, name, _ := strings.Cut(line, " ")
	d, err := component.ParseDigest(sum)
	if err != nil {
		return "", "", err
	}
	return d, strings.TrimPrefix(strings.TrimSpace(name), "*"), nil
}
