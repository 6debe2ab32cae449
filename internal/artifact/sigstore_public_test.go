package artifact

import (
	"strings"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/testing/data"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// What the public Sigstore signed passes the verifier that real trusted roots
// get, the proof that its certificate was logged included. The example is an
// attestation, which is verified here, but is no signature of a release.
func TestPublicSigstore(t *testing.T) {
	trusted, err := data.TrustedRoot(t, "public-good.json").MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	v, err := newVerifier(trusted)
	if err != nil {
		t.Fatal(err)
	}
	b := data.Bundle(t, "sigstore.js@2.0.0-provenance.sigstore.json")
	who, err := verify.NewShortCertificateIdentity("https://token.actions.githubusercontent.com", "",
		"https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithCertificateIdentity(who))); err != nil {
		t.Error(err)
	}
	text, err := b.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseBundle(text, nil); err == nil || !strings.Contains(err.Error(), "attestation") {
		t.Errorf("an attestation is taken for a signature: %v", err)
	}
}
