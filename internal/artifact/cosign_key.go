package artifact

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// cosignKey is a pinned public key of `cosign sign-blob --key`: ECDSA on P-256,
// which `cosign generate-key-pair` makes, or Ed25519.
type cosignKey struct {
	public crypto.PublicKey
	id     string // sha256 of its DER form
}

func readCosignKey(path string) (*cosignKey, error) {
	data, err := yamlfile.ReadSecure(path)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	k, err := parseCosignKey(data)
	if err != nil {
		return nil, fmt.Errorf("public key %s: %w", path, err)
	}
	return k, nil
}

// parseCosignKey reads the one PEM block "PUBLIC KEY" that cosign.pub is.
func parseCosignKey(data []byte) (*cosignKey, error) {
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("it is no PEM file; want what cosign calls cosign.pub")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("it holds a %q, want a \"PUBLIC KEY\"", block.Type)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("something follows the key; exactly one key is pinned")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		if p.Curve != elliptic.P256() {
			return nil, fmt.Errorf("it is an ECDSA key on %s; want P-256, or Ed25519", p.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("it is a %T; want ECDSA P-256 or Ed25519", public)
	}
	return &cosignKey{public: public, id: fmt.Sprintf("sha256:%x", sha256.Sum256(block.Bytes))}, nil
}

// check verifies a signature by the pinned key: a .sig file, or the one in a
// bundle. What else a bundle holds is not needed: the key is trusted whatever a
// log says of it.
func (k *cosignKey) check(signature []byte, signed io.Reader) (Signed, error) {
	raw, err := rawSignature(signature)
	if err != nil {
		return Signed{}, err
	}
	verify := k.ecdsa
	if _, ok := k.public.(ed25519.PublicKey); ok {
		verify = k.ed25519
	}
	ok, err := verify(raw, signed)
	if err != nil {
		return Signed{}, err
	}
	if !ok {
		return Signed{}, fmt.Errorf("the file is not what key %s signed", k.id)
	}
	return Signed{Type: "cosign", Key: k.id, By: "key " + k.id}, nil
}

func (k *cosignKey) ecdsa(signature []byte, signed io.Reader) (bool, error) {
	h := sha256.New()
	if _, err := io.Copy(h, signed); err != nil {
		return false, err
	}
	return ecdsa.VerifyASN1(k.public.(*ecdsa.PublicKey), h.Sum(nil), signature), nil
}

// ed25519 accepts both forms cosign makes: Ed25519 for a .sig, and Ed25519ph
// (RFC 8032, 5.1) for what goes into a log, which only holds digests.
func (k *cosignKey) ed25519(signature []byte, signed io.Reader) (bool, error) {
	public := k.public.(ed25519.PublicKey)
	pure, err := newEd25519Check(public, signature)
	if err != nil {
		return false, err
	}
	digest := sha512.New()
	if _, err := io.Copy(io.MultiWriter(pure, digest), signed); err != nil {
		return false, err
	}
	if pure.holds() {
		return true, nil
	}
	return ed25519.VerifyWithOptions(public, digest.Sum(nil), signature, &ed25519.Options{Hash: crypto.SHA512}) == nil, nil
}

// rawSignature takes the signature out of a .sig file (base64 on one line) or a
// bundle of either form.
func rawSignature(data []byte) ([]byte, error) {
	data = bytes.TrimSpace(data)
	if !bytes.HasPrefix(data, []byte("{")) {
		raw, err := base64.StdEncoding.Strict().DecodeString(string(data))
		if err != nil || len(raw) == 0 {
			return nil, errors.New("it is no cosign signature: want base64 text or a bundle")
		}
		return raw, nil
	}
	b, err := parseBundle(data, nil)
	if err != nil {
		return nil, err
	}
	return b.GetMessageSignature().GetSignature(), nil
}
