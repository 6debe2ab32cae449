package artifact

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

const (
	builder = "builder@example.org"
	issuer  = "https://issuer.example.org"
)

// sigstore is a Sigstore of our own: CA, transparency log and timestamps.
type sigstore struct {
	t *testing.T
	*ca.VirtualSigstore
}

func newSigstore(t *testing.T) *sigstore {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	return &sigstore{t, v}
}

// rootFile writes the trusted root; change may spoil it.
func (s *sigstore) rootFile(certificateLogs bool, change func(string) string) string {
	s.t.Helper()
	logs, ct := s.RekorLogs(), map[string]*root.TransparencyLog{}
	if certificateLogs {
		ct = s.CTLogs()
	}
	for _, m := range []map[string]*root.TransparencyLog{logs, ct} {
		for id, l := range m {
			l.ID, _ = hex.DecodeString(id) // the library gives the hexadecimal text
			if l.SignatureHashFunc == 0 {
				l.SignatureHashFunc = l.HashFunc
			}
		}
	}
	r, err := root.NewTrustedRoot(root.TrustedRootMediaType01, s.FulcioCertificateAuthorities(), ct, s.TimestampingAuthorities(), logs)
	if err != nil {
		s.t.Fatal(err)
	}
	data, err := r.MarshalJSON()
	if err != nil {
		s.t.Fatal(err)
	}
	text := string(data)
	if change != nil {
		text = change(text)
	}
	return keyFile(s.t, []byte(text))
}

// bundle signs data as identity; at is when the log says it took the entry.
func (s *sigstore) bundle(data []byte, identity, issuer string, at time.Time) *protobundle.Bundle {
	s.t.Helper()
	e, err := s.SignAtTime(identity, issuer, data, at)
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := e.VerificationContent()
	if err != nil {
		s.t.Fatal(err)
	}
	sig, err := e.SignatureContent()
	if err != nil {
		s.t.Fatal(err)
	}
	entries, err := e.TlogEntries()
	if err != nil {
		s.t.Fatal(err)
	}
	entry := s.entry(entries[0])
	proof, err := s.GetInclusionProof(entry.CanonicalizedBody)
	if err != nil {
		s.t.Fatal(err)
	}
	rootHash, _ := hex.DecodeString(*proof.RootHash)
	entry.InclusionProof = &protorekor.InclusionProof{
		LogIndex: *proof.LogIndex, TreeSize: *proof.TreeSize, RootHash: rootHash,
		Checkpoint: &protorekor.Checkpoint{Envelope: *proof.Checkpoint},
	}
	sum := sha256.Sum256(data)
	return &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_Certificate{
				Certificate: &protocommon.X509Certificate{RawBytes: content.Certificate().Raw},
			},
			TlogEntries: []*protorekor.TransparencyLogEntry{entry},
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     sig.Signature(),
		}},
	}
}

// entry is what the log tells of an entry; the library keeps the log's promise to
// itself, so it is signed anew.
func (s *sigstore) entry(e *tlog.Entry) *protorekor.TransparencyLogEntry {
	s.t.Helper()
	body, ok := e.Body().(string)
	raw, err := base64.StdEncoding.DecodeString(body)
	if err != nil || !ok {
		s.t.Fatal(ok, err)
	}
	promise, err := s.RekorSignPayload(tlog.RekorPayload{
		Body: body, IntegratedTime: e.IntegratedTime().Unix(), LogIndex: e.LogIndex(), LogID: hex.EncodeToString([]byte(e.LogKeyID())),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: e.LogIndex(), LogId: &protocommon.LogId{KeyId: []byte(e.LogKeyID())}, IntegratedTime: e.IntegratedTime().Unix(),
		KindVersion:       &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.1"},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: promise},
		CanonicalizedBody: raw,
	}
}

func bundleJSON(t *testing.T, b *protobundle.Bundle) []byte {
	t.Helper()
	data, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// oldJSON is a bundle in the form of cosign before version 3.
func oldJSON(t *testing.T, b *protobundle.Bundle) []byte {
	t.Helper()
	m := map[string]any{
		"base64Signature": b.GetMessageSignature().Signature,
		"cert":            pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.VerificationMaterial.GetCertificate().RawBytes}),
	}
	if len(b.VerificationMaterial.TlogEntries) > 0 {
		e := b.VerificationMaterial.TlogEntries[0]
		m["rekorBundle"] = map[string]any{
			"SignedEntryTimestamp": e.InclusionPromise.SignedEntryTimestamp,
			"Payload": map[string]any{
				"body": e.CanonicalizedBody, "integratedTime": e.IntegratedTime, "logIndex": e.LogIndex, "logID": hex.EncodeToString(e.LogId.KeyId),
			},
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keyFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pinned")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// signCase is one release with a signature.
type signCase struct {
	sig       []byte
	signature component.Signature // type and asset are filled in
	spoil     func(s *shelf)
	want      string // in the error; "" for success
}

// stageSigned stages a release with a signature and compares the error.
func stageSigned(t *testing.T, kind string, tc signCase) *Staged {
	t.Helper()
	body := []byte(script)
	sig := tc.signature
	sig.Type, sig.Asset = kind, "sig"
	s := newShelf(t, &component.Component{
		Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}}, Signature: &sig,
	}, map[string][]byte{"tool": body, "sums": sumLine(body, "tool"), "sig": tc.sig})
	if tc.spoil != nil {
		tc.spoil(s)
	}
	st, err := s.stage()
	if tc.want == "" {
		if err != nil || st.Signed.Type != kind || st.Signed.Key == "" || st.Signed.By == "" {
			t.Fatalf("%+v %v", st, err)
		}
		return st
	}
	if err == nil || !strings.Contains(err.Error(), tc.want) {
		t.Fatalf("err = %v, want %q in it", err, tc.want)
	}
	if !errors.As(err, new(*SignatureError)) && !errors.As(err, new(*UnsignedError)) && !errors.As(err, new(*ChecksumError)) {
		t.Fatalf("err is a %T", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.req.Staging, "*", "*")); len(left) > 0 {
		t.Fatalf("left in staging: %v", left)
	}
	return nil
}

// without drops an asset from the release.
func withoutAsset(name string) func(*shelf) {
	return func(s *shelf) {
		var kept []component.Asset
		for _, a := range s.req.Release.Assets {
			if a.Name != name {
				kept = append(kept, a)
			}
		}
		s.req.Release.Assets = kept
	}
}

// tamper changes a byte in the middle of a file.
func tamper(name string) func(*shelf) {
	return func(s *shelf) {
		b := append([]byte{}, s.files[name]...)
		b[len(b)/2] ^= 1
		s.files[name] = b
	}
}

func TestKeyless(t *testing.T) {
	world, other := newSigstore(t), newSigstore(t)
	body := []byte(script)
	sums := sumLine(body, "tool")
	now := time.Now().Add(5 * time.Minute) // the library's certificates are valid from now on, for ten minutes
	trusted := world.rootFile(false, nil)
	pin := func(change func(*component.Signature)) component.Signature {
		s := component.Signature{Identity: builder, Issuer: issuer, TrustedRoot: trusted}
		if change != nil {
			change(&s)
		}
		return s
	}
	plain := pin(nil)
	good := world.bundle(sums, builder, issuer, now)
	changed := func(change func(*protobundle.Bundle)) []byte {
		b := world.bundle(sums, builder, issuer, now)
		change(b)
		return bundleJSON(t, b)
	}
	entry := func(b *protobundle.Bundle) *protorekor.TransparencyLogEntry {
		return b.VerificationMaterial.TlogEntries[0]
	}
	foreign := other.bundle(sums, builder, issuer, now)
	for name, tc := range map[string]signCase{
		"bundle":                    {sig: bundleJSON(t, good), signature: plain},
		"older bundle":              {sig: oldJSON(t, good), signature: plain},
		"of the archive":            {sig: bundleJSON(t, world.bundle(body, builder, issuer, now)), signature: pin(func(s *component.Signature) { s.Of = "{asset}" })},
		"older, of the archive":     {sig: oldJSON(t, world.bundle(body, builder, issuer, now)), signature: pin(func(s *component.Signature) { s.Of = "{asset}" })},
		"identity by expression":    {sig: bundleJSON(t, good), signature: pin(func(s *component.Signature) { s.Identity, s.IdentityRegexp = "", `b[a-z]+@example\.org` })},
		"identity with the version": {sig: bundleJSON(t, world.bundle(sums, "v1.2.0@example.org", issuer, now)), signature: pin(func(s *component.Signature) { s.Identity = "{tag}@example.org" })},
		"expression with version":   {sig: bundleJSON(t, world.bundle(sums, "v1.2.0@example.org", issuer, now)), signature: pin(func(s *component.Signature) { s.Identity, s.IdentityRegexp = "", `{tag}@.*` })},
		"dots of the version":       {sig: bundleJSON(t, world.bundle(sums, "v1x2x0@example.org", issuer, now)), signature: pin(func(s *component.Signature) { s.Identity, s.IdentityRegexp = "", `{tag}@.*` }), want: "SAN"},
		"promise without proof": {sig: changed(func(b *protobundle.Bundle) {
			b.MediaType = "application/vnd.dev.sigstore.bundle+json;version=0.1"
			entry(b).InclusionProof = nil
		}), signature: plain},
		"another identity":          {sig: bundleJSON(t, world.bundle(sums, "mallory@example.org", issuer, now)), signature: plain, want: `expected SAN value "builder@example.org", got "mallory@example.org"`},
		"expression matches a part": {sig: bundleJSON(t, world.bundle(sums, "x"+builder, issuer, now)), signature: pin(func(s *component.Signature) { s.Identity, s.IdentityRegexp = "", builder }), want: "SAN"},
		"another issuer":            {sig: bundleJSON(t, world.bundle(sums, builder, "https://evil.example.org", now)), signature: plain, want: "issuer"},
		"another CA":                {sig: bundleJSON(t, foreign), signature: plain, want: "does not hold"},
		"logged elsewhere": {sig: changed(func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = foreign.VerificationMaterial.TlogEntries
		}), signature: plain, want: "log"},
		"not logged":              {sig: changed(func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries = nil }), signature: plain, want: "log"},
		"not logged, older":       {sig: oldJSON(t, &protobundle.Bundle{Content: good.Content, VerificationMaterial: &protobundle.VerificationMaterial{Content: good.VerificationMaterial.Content}}), signature: plain, want: "log"},
		"logged after it expired": {sig: bundleJSON(t, world.bundle(sums, builder, issuer, now.Add(30*time.Minute))), signature: plain, want: "integrated time"},
		"no proof and no promise": {sig: changed(func(b *protobundle.Bundle) { entry(b).InclusionProof, entry(b).InclusionPromise = nil, nil }), signature: plain, want: "inclusion"},
		"wrong proof":             {sig: changed(func(b *protobundle.Bundle) { entry(b).InclusionProof.RootHash[0] ^= 1 }), signature: plain, want: "does not hold"},
		"wrong promise":           {sig: changed(func(b *protobundle.Bundle) { entry(b).InclusionPromise.SignedEntryTimestamp[9] ^= 1 }), signature: plain, want: "log"},
		"wrong time in the log":   {sig: changed(func(b *protobundle.Bundle) { entry(b).IntegratedTime++ }), signature: plain, want: "log"},
		"wrong signature":         {sig: changed(func(b *protobundle.Bundle) { b.GetMessageSignature().Signature[9] ^= 1 }), signature: plain, want: "does not hold"},
		"empty signature":         {sig: changed(func(b *protobundle.Bundle) { b.GetMessageSignature().Signature = nil }), signature: plain, want: "signature is empty"},
		"another digest algorithm": {sig: changed(func(b *protobundle.Bundle) {
			b.GetMessageSignature().MessageDigest.Algorithm = protocommon.HashAlgorithm_SHA2_512
		}), signature: plain, want: "want SHA2_256"},
		"attestation": {sig: changed(func(b *protobundle.Bundle) { b.Content = &protobundle.Bundle_DsseEnvelope{} }), signature: plain, want: "does not hold"},
		"key instead of certificate": {sig: changed(func(b *protobundle.Bundle) {
			b.VerificationMaterial.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}
		}), signature: plain, want: "does not hold"},
		"tampered checksum file": {sig: bundleJSON(t, good), signature: plain, spoil: tamper("sums"), want: "does not"},
		"tampered archive":       {sig: bundleJSON(t, good), signature: plain, spoil: tamper("tool"), want: "checksum of tool"},
		"of another file":        {sig: bundleJSON(t, world.bundle(body, builder, issuer, now)), signature: plain, want: "does not match"},
		"no signature":           {signature: plain, spoil: withoutAsset("sig"), want: "the release has no sig"},
		"signature and .pem":     {sig: []byte(base64.StdEncoding.EncodeToString(good.GetMessageSignature().Signature)), signature: plain, want: "no bundle"},
		"no JSON":                {sig: []byte("{"), signature: plain, want: "no bundle"},
		"other JSON":             {sig: []byte("{}"), signature: plain, want: "neither mediaType"},
		"unknown key":            {sig: []byte(`{"mediaType":"x","more":1}`), signature: plain, want: "no bundle that can be used"},
		"certificate not logged": {sig: bundleJSON(t, good), signature: pin(func(s *component.Signature) { s.TrustedRoot = world.rootFile(true, nil) }), want: "certificate timestamp"},
		"no trusted root":        {sig: bundleJSON(t, good), signature: pin(func(s *component.Signature) { s.TrustedRoot = "/nonexistent" }), want: "no such file"},
		"malformed trusted root": {sig: bundleJSON(t, good), signature: pin(func(s *component.Signature) { s.TrustedRoot = keyFile(t, []byte("{}")) }), want: "trusted root"},
		"root without a log": {sig: bundleJSON(t, good), signature: pin(func(s *component.Signature) {
			s.TrustedRoot = world.rootFile(false, func(x string) string { return strings.Replace(x, `"tlogs"`, `"ctlogs"`, 1) })
		}), want: "no transparency log"},
	} {
		t.Run(name, func(t *testing.T) {
			if st := stageSigned(t, "cosign", tc); st != nil && !strings.Contains(st.Signed.Key, "@example.org (vouched for by "+issuer+")") {
				t.Errorf("signed by %+v", st.Signed)
			}
		})
	}
}
