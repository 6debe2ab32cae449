package artifact

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// keyless checks signatures made with a short-lived certificate that Sigstore's
// CA issued to an identity, such as a workflow of a repository. It never uses
// the network: the CA's certificates and the logs' keys are a file on this host,
// and the signature brings along the logs' own proofs.
type keyless struct {
	verifier *verify.Verifier
	identity verify.CertificateIdentity
}

func newKeyless(sig *component.Signature, path string, vars component.Vars) (*keyless, error) {
	if sig.TrustedRoot == "" || sig.Issuer == "" || sig.Identity == "" && sig.IdentityRegexp == "" {
		return nil, errors.New("the definition names neither a key nor an identity with issuer and trusted_root")
	}
	data, err := yamlfile.ReadSecure(path)
	if err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	k := &keyless{}
	if k.verifier, err = newVerifier(data); err != nil {
		return nil, fmt.Errorf("trusted root %s: %w; docs/signatures.md tells how to get one", path, err)
	}
	pattern := ""
	if sig.IdentityRegexp != "" {
		pattern = `\A(?:` + quoted(vars).Expand(sig.IdentityRegexp) + `)\z`
	}
	if k.identity, err = verify.NewShortCertificateIdentity(sig.Issuer, "", vars.Expand(sig.Identity), pattern); err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return k, nil
}

// newVerifier asks of a signature what `cosign verify-blob` asks: an entry in a
// transparency log of the trusted root, a time of signing, from that log or a
// timestamping authority, at which the certificate was valid, and, where the
// trusted root has certificate logs, that the certificate was logged. A root
// without certificate logs (GitHub's own, some private ones) asks for no such
// proof, as there is none.
func newVerifier(trustedRoot []byte) (*verify.Verifier, error) {
	r, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return nil, err
	}
	switch {
	case len(r.FulcioCertificateAuthorities()) == 0:
		return nil, errors.New("it has no certificate authority")
	case len(r.RekorLogs()) == 0:
		return nil, errors.New("it has no transparency log")
	}
	options := []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1)}
	if len(r.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	return verify.NewVerifier(r, options...)
}

// quoted makes the values of placeholders stand for themselves in a regular
// expression: the dots of a version are dots.
func quoted(v component.Vars) component.Vars {
	for _, s := range []*string{&v.Name, &v.Version, &v.Tag, &v.OS, &v.Arch, &v.Root, &v.Asset, &v.Instance} {
		*s = regexp.QuoteMeta(*s)
	}
	return v
}

// check verifies a bundle. The file is hashed as it streams by; the signature is
// over its SHA-256.
func (k *keyless) check(signature []byte, signed io.Reader) (Signed, error) {
	h := sha256.New()
	if _, err := io.Copy(h, signed); err != nil {
		return Signed{}, err
	}
	sum := h.Sum(nil)
	b, err := parseBundle(signature, sum)
	if err != nil {
		return Signed{}, err
	}
	result, err := k.verifier.Verify(b, verify.NewPolicy(verify.WithArtifactDigest("sha256", sum), verify.WithCertificateIdentity(k.identity)))
	if err != nil {
		return Signed{}, err
	}
	cert := result.Signature.Certificate
	who := fmt.Sprintf("%s (vouched for by %s)", cert.SubjectAlternativeName, cert.Issuer)
	return Signed{Type: "cosign", Key: who, By: who}, nil
}
