package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Signed tells who signed a release.
type Signed struct {
	Type string // gpg | cosign | minisign; "" when not signed
	Key  string // fingerprint, public key, or certificate identity and its issuer
	By   string // the same for people, with the signer's name or comment
}

// checker checks a signature against what is pinned on this host.
type checker interface {
	// check verifies signature over what signed gives, which it reads once, in
	// pieces. Every error says that the two do not fit.
	check(signature []byte, signed io.Reader) (Signed, error)
}

// newChecker reads the keys or the trusted root that a definition pins.
func newChecker(sig *component.Signature, vars component.Vars) (c checker, pinned string, err error) {
	switch {
	case sig.Type == "gpg":
		pinned = vars.Path(sig.Keyring)
		c, err = readKeyring(pinned)
	case sig.Type == "minisign":
		pinned = vars.Path(sig.Keyring)
		c, err = readMinisignKey(pinned)
	case sig.Type == "cosign" && sig.Key != "":
		pinned = vars.Path(sig.Key)
		c, err = readCosignKey(pinned)
	case sig.Type == "cosign":
		pinned = vars.Path(sig.TrustedRoot)
		c, err = newKeyless(sig, pinned, vars)
	default:
		err = fmt.Errorf("its type %q is not known", sig.Type)
	}
	return c, pinned, err
}

// fetchedSign is a fetched signature that still waits for what it covers.
type fetchedSign struct {
	name, of, pinned string
	data             []byte
	checker          checker
}

// ForetellSignature is the error for which Stage would refuse a release on
// account of its signature, as far as that is known before anything is fetched:
// the definition, the keys that it pins and the list of the release's files. A
// release whose files are not listed yet is taken to have it. The error is an
// UnsignedError or a SignatureError.
func ForetellSignature(req Request) error {
	req.Component = req.Component.For(req.Release.Version)
	vars := req.Component.Vars(req.Root, req.OS, req.Arch, req.Release)
	if len(req.Release.Assets) == 0 {
		if req.Component.Signature == nil {
			return req.unsigned(vars.Asset, "the definition names no signature")
		}
		_, pinned, err := newChecker(req.Component.Signature, vars)
		return keyError(vars.Asset, pinned, err)
	}
	if asset, err := PickAsset(req.Component, req.Release, req.OS, req.Arch, req.Root); err == nil {
		vars.Asset = asset.Name
	}
	_, sums, missing := PickChecksums(req.Component, req.Release, vars.Asset, req.OS, req.Arch, req.Root)
	g, _, err := wantedSign(req, sums, vars)
	if err == nil && g != nil && g.of == sums && missing != "" {
		return &SignatureError{Asset: g.of, Reason: noSums}
	}
	return err
}

const noSums = "the release does not have the file that is signed"

// CheckKeys reads what a component's definition pins for its signatures: the
// keys, or the trusted root. The error says which file cannot be used, and why.
func CheckKeys(c *component.Component, root string) error {
	if c.Signature == nil {
		return nil
	}
	_, _, err := newChecker(c.Signature, component.Vars{Name: c.Name, Root: root})
	return err
}

// keyError is the refusal for keys that cannot be read; nil where they can.
func keyError(asset, pinned string, err error) error {
	if err == nil {
		return nil
	}
	return &SignatureError{Asset: asset, Reason: err.Error(), Pinned: pinned, err: err}
}

// wantedSign is the signature that a release must have, with the asset that holds
// it; nil where it comes without one and may. sums is the name of the checksum
// file.
func wantedSign(req Request, sums string, vars component.Vars) (*fetchedSign, component.Asset, error) {
	var none component.Asset
	sig := req.Component.Signature
	if sig == nil {
		return nil, none, req.unsigned(vars.Asset, "the definition names no signature")
	}
	g := &fetchedSign{name: vars.Expand(sig.Asset), of: vars.Expand(sig.Of)}
	if g.of == "" {
		g.of = sums
	}
	switch {
	case g.of == "":
		return nil, none, &SignatureError{Asset: g.name, Reason: "it signs the checksum file, but the definition names none; give `checksums`, or `of: \"{asset}\"` for a signature of the archive"}
	case g.of != vars.Asset && g.of != sums:
		return nil, none, &SignatureError{Asset: g.of, Reason: "it is neither the archive nor the checksum file, so its signature says nothing of what is installed; correct `of` in the definition"}
	}
	var err error
	if g.checker, g.pinned, err = newChecker(sig, vars); err != nil {
		return nil, none, keyError(g.of, g.pinned, err)
	}
	a, ok := req.Release.FindAsset(g.name)
	if !ok {
		return nil, none, req.unsigned(g.of, "the release has no "+g.name)
	}
	return g, a, nil
}

// checkSignature verifies the signature the definition names, over the checksum
// file. One over the archive itself is fetched here and checked by checkArchive.
func (s *Store) checkSignature(ctx context.Context, req Request, p *proof, vars component.Vars, sums []byte) error {
	g, a, err := wantedSign(req, p.vouched, vars)
	if err != nil {
		return err
	}
	if g == nil {
		if sig := req.Component.Signature; sig != nil {
			s.Logger.Warn("the release has no signature; verification.allow_unsigned lets it pass", "component", req.Component.Name, "missing", vars.Expand(sig.Asset))
		}
		return nil
	}
	if g.data, err = s.small(ctx, a); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	if g.of == vars.Asset {
		p.signature = g
		return nil
	}
	switch {
	case p.gone != nil:
		return &SignatureError{Asset: g.of, Reason: fmt.Sprintf("the file that is signed could not be had: %v", p.gone)}
	case sums == nil:
		return &SignatureError{Asset: g.of, Reason: noSums}
	}
	p.signed, err = g.verify(bytes.NewReader(sums))
	return err
}

// checkArchive verifies a signature over the archive, which lies at path, and
// returns who signed, be it the archive or its checksum file.
func (p *proof) checkArchive(path string) (Signed, error) {
	if p.signature == nil {
		return p.signed, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return Signed{}, err
	}
	defer f.Close()
	return p.signature.verify(f)
}

func (g *fetchedSign) verify(signed io.Reader) (Signed, error) {
	source := &honestReader{from: signed}
	who, err := g.checker.check(g.data, source)
	if source.err != nil { // the disk's fault, not the signature's
		return Signed{}, fmt.Errorf("read %s to check its signature: %w", g.of, source.err)
	}
	if err != nil {
		return Signed{}, &SignatureError{Asset: g.of, Reason: fmt.Sprintf("%s does not hold: %v (checked against %s)", g.name, err, g.pinned), Pinned: g.pinned, mismatch: true}
	}
	return who, nil
}

// honestReader remembers why reading failed.
type honestReader struct {
	from io.Reader
	err  error
}

// Read implements io.Reader.
func (r *honestReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
