package catalogue

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// signatureKeys are the keys of a definition's signature that go with each
// type, in the order a person would write them. All types have type, asset and
// of besides.
var signatureKeys = map[string][]string{
	"gpg":      {"keyring"},
	"minisign": {"keyring"},
	"cosign":   {"key", "identity", "identity_regexp", "issuer", "trusted_root"},
}

// keyless are those of a cosign signature by a certificate instead of a key.
var keyless = []string{"identity", "identity_regexp", "issuer", "trusted_root"}

// layUnderSignature is what of a lower signature may shine through the upper
// one: nothing when the type differs, and of key, identity and identity_regexp,
// which are alternatives to each other, none that the upper one replaces.
func layUnderSignature(lower, upper *yamlfile.Node) *yamlfile.Node {
	drop := func(keys ...string) {
		for _, k := range keys {
			lower = lower.Without(k)
		}
	}
	switch {
	case changesType(lower, upper):
		return upper
	case upper.Get("key") != nil:
		drop(keyless...)
	case upper.Get("identity") != nil || upper.Get("identity_regexp") != nil:
		drop("key", "identity", "identity_regexp")
	}
	return lower
}

func (v *validator) signature() {
	s := v.c.Signature
	if s == nil {
		return
	}
	if signatureKeys[s.Type] == nil {
		v.fail(at("signature", "type"), "%s; want gpg, cosign or minisign", given(s.Type))
	} else {
		v.signatureKeys(s)
	}
	if s.Asset == "" {
		v.fail(at("signature"), "asset is not given: the file that holds the signature")
	}
	v.placeholders(at("signature", "asset"), s.Asset)
	v.placeholders(at("signature", "of"), s.Of)
	for key, path := range map[string]string{"keyring": s.Keyring, "key": s.Key, "trusted_root": s.TrustedRoot} {
		if path != "" {
			v.absolute(at("signature", key), strings.TrimPrefix(path, "{root}"))
		}
	}
}

// signatureKeys refuses keys of other types, and asks for those that are needed.
func (v *validator) signatureKeys(s *component.Signature) {
	mine := signatureKeys[s.Type]
	set := map[string]string{
		"keyring": s.Keyring, "key": s.Key, "identity": s.Identity, "identity_regexp": s.IdentityRegexp,
		"issuer": s.Issuer, "trusted_root": s.TrustedRoot,
	}
	for key, value := range set {
		if value == "" || slices.Contains(mine, key) {
			continue
		}
		hint := "it goes with type: cosign"
		if key == "key" || key == "keyring" { // each other's counterpart
			hint = fmt.Sprintf("did you mean %q?", mine[0])
		}
		v.errs = append(v.errs, v.node.KeyErrorf(at("signature", key), "does not go with a %s signature; %s", s.Type, hint))
	}
	if s.Type != "cosign" {
		if s.Keyring == "" && s.Key == "" {
			v.fail(at("signature"), "a %s signature needs keyring: %s", s.Type, map[string]string{
				"gpg": "the file with the keys that are trusted", "minisign": "the file with the public key that is trusted",
			}[s.Type])
		}
		return
	}
	v.cosign(s)
}

// cosign checks that exactly one thing is pinned: a key or an identity.
func (v *validator) cosign(s *component.Signature) {
	identity := s.Identity != "" || s.IdentityRegexp != ""
	switch {
	case s.Key != "":
		for key, value := range map[string]string{"identity": s.Identity, "identity_regexp": s.IdentityRegexp, "issuer": s.Issuer, "trusted_root": s.TrustedRoot} {
			if value != "" {
				v.errs = append(v.errs, v.node.KeyErrorf(at("signature", key), "does not go with key: a signature is made with a key or with a certificate; give one of the two"))
			}
		}
		return
	case s.Keyring != "" && !identity:
		return // told already to write key
	case !identity:
		v.fail(at("signature"), "a cosign signature needs key: the public key's file, or identity (or identity_regexp), issuer and trusted_root")
		return
	case s.Identity != "" && s.IdentityRegexp != "":
		v.errs = append(v.errs, v.node.KeyErrorf(at("signature", "identity_regexp"), "does not go with identity; give one of the two"))
	}
	if s.Issuer == "" {
		v.fail(at("signature"), "issuer is not given: who vouched for the identity, such as https://token.actions.githubusercontent.com")
	}
	if u, err := url.Parse(s.Issuer); s.Issuer != "" && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "") {
		v.fail(at("signature", "issuer"), "%q: want the issuer's address as the certificate has it, such as https://token.actions.githubusercontent.com", s.Issuer)
	}
	if s.TrustedRoot == "" {
		v.fail(at("signature"), "trusted_root is not given: the file with Sigstore's certificates and log keys; docs/signatures.md tells how to get it")
	}
	v.placeholders(at("signature", "identity"), s.Identity)
	if s.IdentityRegexp == "" {
		return
	}
	v.placeholders(at("signature", "identity_regexp"), s.IdentityRegexp)
	re, err := regexp.Compile(component.Vars{}.Expand(s.IdentityRegexp))
	switch {
	case err != nil:
		v.fail(at("signature", "identity_regexp"), "%v", err)
	case re.MatchString(""):
		v.fail(at("signature", "identity_regexp"), "%q matches even an empty name, so anybody's signature would do", s.IdentityRegexp)
	}
}
