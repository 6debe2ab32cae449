package artifact

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"aead.dev/minisign"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// minisignKey is a pinned public key of minisign
// (https://jedisct1.github.io/minisign/).
type minisignKey struct{ public minisign.PublicKey }

// readMinisignKey reads the file that `minisign -G` calls minisign.pub, with or
// without its comment line.
func readMinisignKey(path string) (*minisignKey, error) {
	if path == "" {
		return nil, errors.New("the definition names no keyring")
	}
	data, err := yamlfile.ReadSecure(path)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	k := &minisignKey{}
	if err := k.public.UnmarshalText(data); err != nil {
		return nil, fmt.Errorf("public key %s: %w", path, err)
	}
	return k, nil
}

// raw is the Ed25519 key; its text form is base64 of algorithm (2 bytes), key
// id (8 bytes) and key.
func (k *minisignKey) raw() (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(k.public.String())
	if err != nil || len(b) != 10+ed25519.PublicKeySize {
		return nil, errors.New("the public key is malformed")
	}
	return b[10:], nil
}

// check verifies a signature and its trusted comment. Prehashed signatures
// (BLAKE2b-512, minisign's default) and legacy ones are both computed while the
// message streams by.
func (k *minisignKey) check(signature []byte, signed io.Reader) (Signed, error) {
	var s minisign.Signature
	if err := s.UnmarshalText(signature); err != nil {
		return Signed{}, fmt.Errorf("it is no minisign signature: %w", err)
	}
	if s.KeyID != k.public.ID() {
		return Signed{}, fmt.Errorf("it was made with key %016X, the pinned key is %016X", s.KeyID, k.public.ID())
	}
	verify := k.prehashed
	if s.Algorithm == minisign.EdDSA {
		verify = k.legacy
	}
	ok, err := verify(&s, signature, signed)
	if err != nil {
		return Signed{}, err
	}
	if !ok {
		return Signed{}, fmt.Errorf("the file or the trusted comment %q is not what key %016X signed", s.TrustedComment, s.KeyID)
	}
	return Signed{Type: "minisign", Key: k.public.String(), By: fmt.Sprintf("%s (%s)", k.public.String(), s.TrustedComment)}, nil
}

func (k *minisignKey) prehashed(_ *minisign.Signature, text []byte, signed io.Reader) (bool, error) {
	r := minisign.NewReader(signed)
	if _, err := io.Copy(io.Discard, r); err != nil {
		return false, err
	}
	return r.Verify(k.public, text), nil
}

// legacy is for signatures of `minisign -l`, which are over the message itself.
// The library would have it whole in memory.
func (k *minisignKey) legacy(s *minisign.Signature, _ []byte, signed io.Reader) (bool, error) {
	public, err := k.raw()
	if err != nil {
		return false, err
	}
	c, err := newEd25519Check(public, s.Signature[:])
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(c, signed); err != nil {
		return false, err
	}
	comment := append(s.Signature[:], s.TrustedComment...)
	return c.holds() && ed25519.Verify(public, comment, s.CommentSignature[:]), nil
}
