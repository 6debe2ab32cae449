package artifact

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"aead.dev/minisign"
)

// The streaming check must say what crypto/ed25519 says, for whatever is given.
func FuzzEd25519Check(f *testing.F) {
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	key := ed25519.NewKeyFromSeed(seed)
	public := []byte(key.Public().(ed25519.PublicKey))
	f.Add(public, ed25519.Sign(key, []byte("message")), []byte("message"))
	f.Add(public, ed25519.Sign(key, []byte("message")), []byte("massage"))
	f.Add(public, ed25519.Sign(key, nil), []byte{})
	f.Add(make([]byte, 32), make([]byte, 64), []byte("small order"))
	f.Add(bytes.Repeat([]byte{0xff}, 32), bytes.Repeat([]byte{0xff}, 64), []byte("not canonical"))
	f.Add([]byte("short"), []byte("short"), []byte{})
	f.Fuzz(func(t *testing.T, public, signature, message []byte) {
		c, err := newEd25519Check(public, signature)
		got := err == nil
		if got {
			for i := range message {
				_, _ = c.Write(message[i : i+1])
			}
			got = c.holds()
		}
		want := len(public) == ed25519.PublicKeySize && ed25519.Verify(public, message, signature)
		if got != want {
			t.Fatalf("%v, crypto/ed25519 says %v", got, want)
		}
	})
}

// The streaming check of legacy signatures must say what the library says.
func FuzzMinisignCheck(f *testing.F) {
	public, private, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	if err != nil {
		f.Fatal(err)
	}
	k := &minisignKey{public: public}
	f.Add(minisign.Sign(private, []byte("message")), []byte("message"))
	r := minisign.NewReader(bytes.NewReader([]byte("message")))
	_, _ = bytes.NewBuffer(nil).ReadFrom(r)
	f.Add(r.Sign(private), []byte("message"))
	f.Add([]byte("untrusted comment: x\nAAAA\ntrusted comment: y\nAAAA\n"), []byte{})
	f.Fuzz(func(t *testing.T, signature, message []byte) {
		_, err := k.check(signature, bytes.NewReader(message))
		if want := minisign.Verify(public, message, signature); (err == nil) != want {
			t.Fatalf("%v, the library says %v", err, want)
		}
	})
}

// Signatures come from the network; whatever they are, they are read or refused.
func FuzzCosignSignature(f *testing.F) {
	f.Add([]byte("AAAA\n"))
	f.Add([]byte(`{"base64Signature":"AAAA","cert":"AAAA","rekorBundle":{"SignedEntryTimestamp":"AAAA","Payload":{"body":"e30=","integratedTime":1,"logIndex":2,"logID":"00"}}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AAAA"},"signature":"AAAA"}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":"AAAA"},"tlogEntries":[{}]},"dsseEnvelope":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if raw, err := rawSignature(data); err == nil && len(raw) == 0 {
			t.Fatal("an empty signature")
		}
		if b, err := parseBundle(data, make([]byte, 32)); err == nil && b.GetMessageSignature() == nil {
			t.Fatal("a bundle without a signature")
		}
	})
}

// Key files are written by people.
func FuzzPinnedKeys(f *testing.F) {
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"))
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := parseCosignKey(data); err == nil && (k.public == nil || k.id == "") {
			t.Fatal("no key and no error")
		}
		if k, err := parseKeyring(data); err == nil && len(k) == 0 {
			t.Fatal("an empty keyring and no error")
		}
		if v, err := newVerifier(data); err == nil && v == nil {
			t.Fatal("no verifier and no error")
		}
	})
}
