package artifact

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"errors"
	"hash"
	"io"

	"filippo.io/edwards25519"
)

// ed25519Check verifies an Ed25519 signature over a message that is written to
// it in pieces. RFC 8032, 5.1.7: the message enters only as the end of
// SHA-512(R || A || M), so it need not be held in memory, as crypto/ed25519
// would have it; a test holds the two against each other.
type ed25519Check struct {
	point *edwards25519.Point // A
	scale *edwards25519.Scalar
	r     []byte
	h     hash.Hash
}

func newEd25519Check(public ed25519.PublicKey, signature []byte) (*ed25519Check, error) {
	if len(public) != ed25519.PublicKeySize || len(signature) != ed25519.SignatureSize {
		return nil, errors.New("an Ed25519 key or signature of a wrong length")
	}
	a, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return nil, errors.New("the Ed25519 key is no point of the curve")
	}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(signature[32:])
	if err != nil {
		return nil, errors.New("the Ed25519 signature is malformed")
	}
	c := &ed25519Check{point: a, scale: s, r: bytes.Clone(signature[:32]), h: sha512.New()}
	c.h.Write(c.r)
	c.h.Write(public)
	return c, nil
}

// Write takes the next bytes of the message; it never fails.
func (c *ed25519Check) Write(p []byte) (int, error) { return c.h.Write(p) }

// holds reports whether the signature is one of what was written: whether
// [S]B = R + [k]A, compared as R = [S]B - [k]A.
func (c *ed25519Check) holds() bool {
	k, err := edwards25519.NewScalar().SetUniformBytes(c.h.Sum(nil))
	if err != nil {
		return false
	}
	minusA := new(edwards25519.Point).Negate(c.point)
	r := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(k, minusA, c.scale)
	return bytes.Equal(c.r, r.Bytes())
}

var _ io.Writer = (*ed25519Check)(nil)
