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

// checkSignature verifies the signature the definition names, over the checksum
// file. One over the archive itself is fetched here and checked by checkArchive.
func (s *Store) checkSignature(ctx context.Context, req Request, p *proof, vars component.Vars, sums []byte) error {
	sig := req.Component.Signature
	if sig == nil {
		return req.unsigned(vars.Asset, "the definition names no signature")
	}
	g := &fetchedSign{name: vars.Expand(sig.Asset), of: vars.Expand(sig.Of)}
	if g.of == "" {
		g.of = p.vouched
	}
	switch {
	case g.of == "":
		return &SignatureError{Asset: g.name, Reason: "it signs the checksum file, but the definition names none; give `checksums`, or `of: \"{asset}\"` for a signature of the archive"}
	case g.of != vars.Asset && g.of != p.vouched:
		return &SignatureError{Asset: g.of, Reason: "it is neither the archive nor the checksum file, so its signature says nothing of what is installed; correct `of` in the definition"}
	}
	var err error
	if g.checker, g.pinned, err = newChecker(sig, vars); err != nil {
		return &SignatureError{Asset: g.of, Reason: err.Error()}
	}
	a, ok := req.Release.FindAsset(g.name)
	if !ok {
		if req.AllowUnsigned {
			s.Logger.Warn("the release has no signature; verification.allow_unsigned lets it pass", "component", req.Component.Name, "missing", g.name)
			return nil
		}
		return req.unsigned(g.of, "the release has no "+g.name)
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
		return &SignatureError{Asset: g.of, Reason: "the release does not have the file that is signed"}
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
		return Signed{}, &SignatureError{Asset: g.of, Reason: fmt.Sprintf("%s does not hold: %v (checked against %s)", g.name, err, g.pinned), mismatch: true}
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
