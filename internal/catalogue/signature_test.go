package catalogue

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Ways to pin a signer are alternatives: what an override replaces does not
// shine through, what it leaves alone does.
func TestSignatureOverride(t *testing.T) {
	const keyless = "signature: {type: cosign, asset: a, identity: i, issuer: s, trusted_root: /r}"
	for name, tc := range map[string]struct {
		base, over string
		want       *component.Signature
	}{
		"another type":       {keyless, "signature: {type: gpg, asset: b, keyring: /k}", &component.Signature{Type: "gpg", Asset: "b", Keyring: "/k"}},
		"a key":              {keyless, "signature: {key: /k}", &component.Signature{Type: "cosign", Asset: "a", Key: "/k"}},
		"an expression":      {keyless, "signature: {identity_regexp: x}", &component.Signature{Type: "cosign", Asset: "a", IdentityRegexp: "x", Issuer: "s", TrustedRoot: "/r"}},
		"another root":       {keyless, "signature: {trusted_root: /other}", &component.Signature{Type: "cosign", Asset: "a", Identity: "i", Issuer: "s", TrustedRoot: "/other"}},
		"identity, from key": {"signature: {type: cosign, asset: a, key: /k}", "signature: {identity: i}", &component.Signature{Type: "cosign", Asset: "a", Identity: "i"}},
		"none":               {keyless, "signature: null", nil},
		"not mentioned":      {keyless, "asset: x", &component.Signature{Type: "cosign", Asset: "a", Identity: "i", Issuer: "s", TrustedRoot: "/r"}},
	} {
		t.Run(name, func(t *testing.T) {
			base, err := yamlfile.Parse("base.yaml", []byte(tc.base))
			if err != nil {
				t.Fatal(err)
			}
			over, err := yamlfile.Parse("over.yaml", []byte(tc.over))
			if err != nil {
				t.Fatal(err)
			}
			var got component.Component
			if err := lay(base, over).Decode(&got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got.Signature); d != "" {
				t.Error(d)
			}
		})
	}
}
