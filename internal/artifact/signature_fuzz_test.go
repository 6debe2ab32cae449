package artifact

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
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
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if k, err := parseCosignKey(data); err == nil && (k.public == nil || k.id == "") {
			t.Fatal("no key and no error")
		}
		if v, err := newVerifier(data); err == nil && v == nil {
			t.Fatal("no verifier and no error")
		}
	})
}

// A keyring holds keys or is refused, and what it holds judges signatures.
func FuzzKeyring(f *testing.F) {
	conf := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Rand: rand.NewChaCha8([32]byte{7}), Time: func() time.Time { return time.Unix(1_700_000_000, 0) }}
	key, err := openpgp.NewEntity("test", "", "test@example.org", conf)
	if err != nil {
		f.Fatal(err)
	}
	var binary, text, signature bytes.Buffer
	w, err := armor.Encode(&text, openpgp.PublicKeyType, nil)
	if err := errors.Join(err, key.Serialize(&binary), key.Serialize(w), w.Close(), openpgp.DetachSign(&signature, key, bytes.NewReader([]byte("message")), conf)); err != nil {
		f.Fatal(err)
	}
	f.Add(binary.Bytes())
	f.Add(text.Bytes())
	f.Add(append(append(text.Bytes(), '\n'), text.Bytes()...))
	f.Add(binary.Bytes()[:len(binary.Bytes())/2])
	f.Add(bytes.Replace(text.Bytes(), []byte("\n="), []byte("\n=A"), 1))
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Add([]byte("-----BEGIN PGP PRIVATE KEY BLOCK-----\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeyring(data)
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		if who, err := keys.check(signature.Bytes(), bytes.NewReader([]byte("message"))); err == nil && (who.Type != "gpg" || who.Key == "") {
			t.Fatalf("%+v", who)
		}
	})
}
