package artifact

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// ErrSignatureUnsupported marks a kind of signature that this version cannot
// check; it is never passed over.
var ErrSignatureUnsupported = errors.New("this kind of signature cannot be checked by this version")

// SignatureError reports a signature that does not hold, or is missing where
// one is wanted.
type SignatureError struct {
	Asset  string // what is signed
	Reason string

	mismatch bool // signature and file are both there and do not fit
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("signature of %s: %s", e.Asset, e.Reason)
}

// gpgSign is a fetched signature that still waits for what it covers.
type gpgSign struct {
	name, of, keyring string
	data              []byte
}

// checkSignature verifies the signature the definition names, over the checksum
// file or another small asset. One over the archive itself is fetched here and
// checked by checkArchive.
func (s *Store) checkSignature(ctx context.Context, req Request, p *proof, vars component.Vars, sums []byte) error {
	sig := req.Component.Signature
	if sig == nil {
		if req.SignatureRequired {
			return &SignatureError{Asset: vars.Asset, Reason: "verification.signature is required, but the definition names none"}
		}
		return nil
	}
	g := &gpgSign{name: vars.Expand(sig.Asset), of: vars.Expand(sig.Of), keyring: vars.Expand(sig.Keyring)}
	if sig.Type != "gpg" {
		return fmt.Errorf("%s (%s): %w; remove `signature` from the definition to go by checksums alone", g.name, sig.Type, ErrSignatureUnsupported)
	}
	if vars.Root != "" && filepath.IsAbs(sig.Keyring) { // --root relocates the paths of definitions
		g.keyring = filepath.Join(vars.Root, g.keyring)
	}
	if g.of == "" {
		g.of = p.vouched
	}
	a, ok := req.Release.FindAsset(g.name)
	if !ok {
		return &SignatureError{Asset: g.of, Reason: "the release has no " + g.name + "; a component with a configured signature is not used without"}
	}
	var err error
	if g.data, err = s.small(ctx, a); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	if g.of == vars.Asset {
		p.signature = g
		return nil
	}
	signed := sums
	if g.of != p.vouched {
		a, ok := req.Release.FindAsset(g.of)
		if !ok {
			return &SignatureError{Asset: g.of, Reason: "the release has no such asset"}
		}
		if signed, err = s.small(ctx, a); err != nil {
			return fmt.Errorf("signed file: %w", err)
		}
	}
	if signed == nil {
		return &SignatureError{Asset: g.of, Reason: "the release does not have the file that is signed"}
	}
	p.signedBy, err = g.verify(bytes.NewReader(signed))
	return err
}

// checkArchive verifies a signature over the archive, which lies at path, and
// returns who signed, be it the archive or its checksum file.
func (p *proof) checkArchive(path string) (string, error) {
	if p.signature == nil {
		return p.signedBy, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return p.signature.verify(f)
}

// verify checks a detached OpenPGP signature, armoured or binary, against the
// keys of the keyring file. Expired and revoked keys are refused.
func (g *gpgSign) verify(signed io.Reader) (string, error) {
	keys, err := readKeyring(g.keyring)
	if err != nil {
		return "", &SignatureError{Asset: g.of, Reason: err.Error()}
	}
	check := openpgp.CheckDetachedSignature
	if bytes.HasPrefix(bytes.TrimSpace(g.data), []byte("-----BEGIN PGP")) {
		check = openpgp.CheckArmoredDetachedSignature
	}
	signer, err := check(keys, signed, bytes.NewReader(g.data), nil)
	if err != nil {
		return "", &SignatureError{Asset: g.of, Reason: fmt.Sprintf("%s does not hold: %v (keyring %s)", g.name, err, g.keyring), mismatch: true}
	}
	who := fmt.Sprintf("%X", signer.PrimaryKey.Fingerprint)
	if id := signer.PrimaryIdentity(); id != nil {
		who += " " + id.Name
	}
	return who, nil
}

// readKeyring reads a keyring file: binary, or one or more armoured blocks.
func readKeyring(path string) (openpgp.EntityList, error) {
	if path == "" {
		return nil, errors.New("the definition names no keyring")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if !strings.Contains(string(data), "-----BEGIN PGP") {
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		if err == nil && len(keys) == 0 {
			err = errors.New("it holds no key")
		}
		if err != nil {
			return nil, fmt.Errorf("keyring %s: %w", path, err)
		}
		return keys, nil
	}
	var keys openpgp.EntityList
	for r := bufio.NewReader(bytes.NewReader(data)); ; {
		block, err := armor.Decode(r)
		if errors.Is(err, io.EOF) && len(keys) > 0 {
			return keys, nil
		}
		var more openpgp.EntityList
		if err == nil {
			more, err = openpgp.ReadKeyRing(block.Body)
		}
		if err != nil {
			return nil, fmt.Errorf("keyring %s: %w", path, err)
		}
		keys = append(keys, more...)
	}
}
