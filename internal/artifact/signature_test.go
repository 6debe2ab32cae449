package artifact

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

func minisignPair(t *testing.T) (file string, private minisign.PrivateKey) {
	t.Helper()
	public, private, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := public.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return keyFile(t, append(text, '\n')), private
}

func prehash(t *testing.T, key minisign.PrivateKey, data []byte) []byte {
	t.Helper()
	r := minisign.NewReader(bytes.NewReader(data))
	if _, err := bytes.NewBuffer(nil).ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return r.SignWithComments(key, "timestamp:1 file:sums", "signature")
}

func TestMinisign(t *testing.T) {
	body := []byte(script)
	sums := sumLine(body, "tool")
	file, key := minisignPair(t)
	otherFile, other := minisignPair(t)
	bare := func() string {
		text, _ := os.ReadFile(file)
		_, line, _ := bytes.Cut(text, []byte("\n"))
		return keyFile(t, line)
	}()
	pin := component.Signature{Keyring: file}
	archive := component.Signature{Keyring: file, Of: "{asset}"}
	good := prehash(t, key, sums)
	edit := func(old, with string) []byte { return bytes.Replace(good, []byte(old), []byte(with), 1) }
	// A legacy signature over the digest of the file is not one over the file.
	digest := minisign.NewReader(bytes.NewReader(sums))
	_, _ = bytes.NewBuffer(nil).ReadFrom(digest)
	relabelled := func(text []byte, algorithm uint16) []byte {
		var s minisign.Signature
		if err := s.UnmarshalText(text); err != nil {
			t.Fatal(err)
		}
		s.Algorithm = algorithm
		out, _ := s.MarshalText()
		return out
	}
	writable := keyFile(t, []byte("x"))
	if err := os.Chmod(writable, 0o666); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]signCase{
		"prehashed":                 {sig: good, signature: pin},
		"legacy":                    {sig: minisign.Sign(key, sums), signature: pin},
		"key without comment":       {sig: good, signature: component.Signature{Keyring: bare}},
		"CR LF":                     {sig: bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), signature: pin},
		"prehashed, of the archive": {sig: prehash(t, key, body), signature: archive},
		"legacy, of the archive":    {sig: minisign.Sign(key, body), signature: archive},
		"archive, wrong":            {sig: minisign.Sign(key, sums), signature: archive, want: "is not what key"},
		"archive, tampered":         {sig: prehash(t, key, body), signature: component.Signature{Keyring: file, Of: "{asset}"}, spoil: tamper("tool"), want: "checksum of tool"},
		"another key":               {sig: prehash(t, other, sums), signature: pin, want: "the pinned key is"},
		"another key pinned":        {sig: good, signature: component.Signature{Keyring: otherFile}, want: "the pinned key is"},
		"tampered file":             {sig: good, signature: pin, spoil: tamper("sums"), want: "is not what key"},
		"tampered file, legacy":     {sig: minisign.Sign(key, sums), signature: pin, spoil: tamper("sums"), want: "is not what key"},
		"tampered comment":          {sig: edit("timestamp:1", "timestamp:2"), signature: pin, want: `trusted comment "timestamp:2`},
		"tampered comment, legacy":  {sig: bytes.Replace(minisign.SignWithComments(key, sums, "a", "b"), []byte("comment: a"), []byte("comment: c"), 1), signature: pin, want: `trusted comment "c"`},
		"untrusted comment":         {sig: edit("untrusted comment: signature", "untrusted comment: anything"), signature: pin},
		"prehashed called legacy":   {sig: relabelled(good, minisign.EdDSA), signature: pin, want: "is not what key"},
		"legacy called prehashed":   {sig: relabelled(minisign.Sign(key, sums), minisign.HashEdDSA), signature: pin, want: "is not what key"},
		"empty":                     {signature: pin, want: "no minisign signature"},
		"rubbish":                   {sig: []byte("untrusted comment: x\nAAAA\ntrusted comment: y\nAAAA\n"), signature: pin, want: "no minisign signature"},
		"no signature":              {sig: good, signature: pin, spoil: withoutAsset("sig"), want: "the release has no sig"},
		"no checksum file":          {sig: good, signature: pin, spoil: withoutAsset("sums"), want: "does not have the file that is signed"},
		"of something else":         {sig: good, signature: component.Signature{Keyring: file, Of: "README"}, want: "neither the archive nor the checksum file"},
		"no key":                    {sig: good, signature: component.Signature{Keyring: "/nonexistent"}, want: "no such file"},
		"no key named":              {sig: good, signature: component.Signature{}, want: "names no keyring"},
		"malformed key":             {sig: good, signature: component.Signature{Keyring: keyFile(t, []byte("AAAA"))}, want: "public key"},
		"key others can write":      {sig: good, signature: component.Signature{Keyring: writable}, want: "chmod"},
	} {
		t.Run(name, func(t *testing.T) { stageSigned(t, "minisign", tc) })
	}
}

func pemKey(t *testing.T, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return keyFile(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestCosignKey(t *testing.T) {
	body := []byte(script)
	sums := sumLine(body, "tool")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	edPublic, ed, _ := ed25519.GenerateKey(rand.Reader)
	sign := func(data []byte) []byte {
		sum := sha256.Sum256(data)
		sig, err := ecdsa.SignASN1(rand.Reader, ec, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	text := func(sig []byte) []byte { return append([]byte(base64.StdEncoding.EncodeToString(sig)), '\n') }
	prehashed := sha512.Sum512(sums)
	ph, err := ed.Sign(rand.Reader, prehashed[:], &ed25519.Options{Hash: crypto.SHA512})
	if err != nil {
		t.Fatal(err)
	}
	ecFile, edFile := pemKey(t, ec.Public()), pemKey(t, edPublic)
	onEC, onEd := component.Signature{Key: ecFile}, component.Signature{Key: edFile}
	withKey := newSigstore(t).bundle(sums, builder, issuer, time.Now())
	withKey.VerificationMaterial.TlogEntries = nil
	withKey.GetMessageSignature().Signature = sign(sums)
	twice, _ := os.ReadFile(ecFile)
	for name, tc := range map[string]signCase{
		"ECDSA":                   {sig: text(sign(sums)), signature: onEC},
		"Ed25519":                 {sig: text(ed25519.Sign(ed, sums)), signature: onEd},
		"Ed25519ph":               {sig: text(ph), signature: onEd},
		"of the archive":          {sig: text(sign(body)), signature: component.Signature{Key: ecFile, Of: "{asset}"}},
		"Ed25519, of the archive": {sig: text(ed25519.Sign(ed, body)), signature: component.Signature{Key: edFile, Of: "{asset}"}},
		"bundle":                  {sig: bundleJSON(t, withKey), signature: onEC},
		"older bundle":            {sig: oldJSON(t, withKey), signature: onEC},
		"another key":             {sig: text(ed25519.Sign(ed, sums)), signature: onEC, want: "is not what key"},
		"another key, Ed25519":    {sig: text(sign(sums)), signature: onEd, want: "wrong length"},
		"tampered file":           {sig: text(sign(sums)), signature: onEC, spoil: tamper("sums"), want: "is not what key"},
		"tampered file, Ed25519":  {sig: text(ph), signature: onEd, spoil: tamper("sums"), want: "is not what key"},
		"tampered archive":        {sig: text(sign(sums)), signature: onEC, spoil: tamper("tool"), want: "checksum of tool"},
		"tampered signature":      {sig: text(append(sign(sums), 0)), signature: onEC, want: "is not what key"},
		"no base64":               {sig: []byte("-----"), signature: onEC, want: "no cosign signature"},
		"empty":                   {signature: onEC, want: "no cosign signature"},
		"bad bundle":              {sig: []byte(`{"base64Signature":"AAAA","x":1}`), signature: onEC, want: "no bundle"},
		"no signature":            {signature: onEC, spoil: withoutAsset("sig"), want: "the release has no sig"},
		"no key":                  {sig: text(sign(sums)), signature: component.Signature{Key: "/nonexistent"}, want: "no such file"},
		"P-384":                   {sig: text(sign(sums)), signature: component.Signature{Key: pemKey(t, p384.Public())}, want: "want P-256"},
		"no PEM":                  {sig: text(sign(sums)), signature: component.Signature{Key: keyFile(t, []byte("RWQ"))}, want: "no PEM file"},
		"private key":             {sig: text(sign(sums)), signature: component.Signature{Key: keyFile(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"}))}, want: `want a "PUBLIC KEY"`},
		"two keys":                {sig: text(sign(sums)), signature: component.Signature{Key: keyFile(t, append(twice, twice...))}, want: "exactly one key"},
		"malformed key":           {sig: text(sign(sums)), signature: component.Signature{Key: keyFile(t, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}))}, want: "public key"},
	} {
		t.Run(name, func(t *testing.T) { stageSigned(t, "cosign", tc) })
	}
}

// A validly signed checksum file of an older release does not vouch for an
// archive that it does not know, whatever the release API says of that.
func TestSignedChecksumsMustKnowTheArchive(t *testing.T) {
	file, key := minisignPair(t)
	body := []byte(script)
	old := sumLine([]byte("older"), "tool-1.1.0")
	s := newShelf(t, &component.Component{
		Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}},
		Signature: &component.Signature{Type: "minisign", Asset: "sig", Keyring: file},
	}, map[string][]byte{"tool": body, "sums": old, "sig": prehash(t, key, old)})
	for i := range s.req.Release.Assets {
		if a := &s.req.Release.Assets[i]; a.Name == "tool" {
			a.Digest, _ = component.ParseDigest("sha256:" + string(sumLine(body, "")[:64]))
		}
	}
	if _, err := s.stage(); !errors.As(err, new(*SignatureError)) || !strings.Contains(err.Error(), "has no line for it") || s.gets["tool"] != 0 {
		t.Fatalf("err = %v, fetched %v", err, s.gets)
	}
}

func TestUnsigned(t *testing.T) {
	body := []byte(script)
	file, key := minisignPair(t)
	sums := sumLine(body, "tool")
	for name, tc := range map[string]struct {
		configured, asset bool // the definition names a signature; the release has it
		wrong             bool // and it does not hold
		change            func(*Request)
		want              string
		signed            bool
	}{
		"nothing wanted":              {},
		"required":                    {change: func(r *Request) { r.SignatureRequired = true }, want: "verification.signature is required"},
		"required, allowed":           {change: func(r *Request) { r.SignatureRequired, r.AllowUnsigned = true, true }},
		"signed before":               {change: func(r *Request) { r.SignedBefore = "1.1.0 by a gpg signature of K" }, want: "was verified by a signature before (1.1.0 by a gpg signature of K)"},
		"signed before, allowed":      {change: func(r *Request) { r.SignedBefore, r.AllowUnsigned = "1.1.0", true }},
		"asset missing":               {configured: true, want: "the release has no sig"},
		"asset missing, before":       {configured: true, change: func(r *Request) { r.SignedBefore = "1.1.0" }, want: "never goes back"},
		"asset missing, allowed":      {configured: true, change: func(r *Request) { r.SignedBefore, r.AllowUnsigned = "1.1.0", true }},
		"signed":                      {configured: true, asset: true, signed: true},
		"signed, though not wanted":   {configured: true, asset: true, change: func(r *Request) { r.AllowUnsigned = true }, signed: true},
		"wrong, and allowed unsigned": {configured: true, asset: true, wrong: true, change: func(r *Request) { r.AllowUnsigned = true }, want: "does not hold"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &component.Component{Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}}}
			if tc.configured {
				c.Signature = &component.Signature{Type: "minisign", Asset: "sig", Keyring: file}
			}
			sig := prehash(t, key, sums)
			if tc.wrong {
				sig = prehash(t, key, body)
			}
			s := newShelf(t, c, map[string][]byte{"tool": body, "sums": sums, "sig": sig})
			if !tc.asset {
				withoutAsset("sig")(s)
			}
			if tc.change != nil {
				tc.change(&s.req)
			}
			st, err := s.stage()
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || s.gets["tool"] != 0 {
					t.Fatalf("err = %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || (st.Signed.Type != "") != tc.signed {
				t.Fatalf("%+v %v", st, err)
			}
			// What is cached is no way around.
			s.req.AllowUnsigned, s.req.SignedBefore, s.req.Component.Signature = false, "1.1.0", nil
			s.req.KnownDigest = st.Archive
			if _, err := s.stage(); !errors.As(err, new(*UnsignedError)) {
				t.Fatalf("from the cache: %v", err)
			}
		})
	}
}

// The whole way over a release server: signature over the archive, and the
// faults that strike a signature.
func TestSignatureFromServer(t *testing.T) {
	file, key := minisignPair(t)
	const asset = "tool.tar.gz"
	body := archive(t, "tar.gz", good)
	signature := minisign.Sign(key, body)
	f := newFixture(t, asset, body)
	f.comp.Checksums = ""
	f.comp.Signature = &component.Signature{Type: "minisign", Asset: "{asset}.minisig", Of: "{asset}", Keyring: file}
	f.release.Assets[0].Digest = "" // the signature alone vouches
	f.server.AddRelease(releaseserver.GitHub, "o/tool", releaseserver.Release{Tag: "v1.2.0", Assets: []releaseserver.Asset{
		releaseserver.Bytes(asset, body), releaseserver.Bytes(asset+".minisig", signature),
	}})
	f.release.Assets = append(f.release.Assets[:1], component.Asset{Name: asset + ".minisig", URL: f.asset(asset + ".minisig")})
	st, err := f.stage()
	if err != nil || st.Signed.Type != "minisign" || st.ChecksumSource != asset+".minisig" {
		t.Fatalf("%+v %v", st, err)
	}
	for kind, want := range map[releaseserver.Kind]string{
		releaseserver.Missing: "404", releaseserver.HTML: "HTML page", releaseserver.WrongSum: "does not hold",
	} {
		f.server.ClearFaults()
		f.server.Fault("minisig", releaseserver.Fault{Kind: kind})
		if _, err := f.stage(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: err = %v, want %q", kind, err, want)
		}
		f.nothingStaged()
	}
	f.server.ClearFaults()
	f.server.Fault(asset+"$", releaseserver.Fault{Kind: releaseserver.WrongSum})
	f.store.CacheDir = t.TempDir()
	if _, err := f.stage(); err == nil {
		t.Error("a changed archive was accepted")
	}
	f.nothingStaged()
}

// zeros is a big file that nobody holds.
type zeros struct{ left int }

// Read implements io.Reader.
func (z *zeros) Read(p []byte) (int, error) {
	n := min(len(p), z.left)
	clear(p[:n])
	if z.left -= n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestSignaturesAreCheckedWhileStreaming(t *testing.T) {
	const size = 48 << 20
	big := make([]byte, size)
	mini, miniKey := minisignPair(t)
	public, ed, _ := ed25519.GenerateKey(rand.Reader)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	sum := sha256.Sum256(big)
	ecSig, _ := ecdsa.SignASN1(rand.Reader, ec, sum[:])
	world := newSigstore(t)
	text := func(sig []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(sig)) }
	cases := map[string]struct {
		sig  []byte
		pins component.Signature
	}{
		"minisign prehashed": {prehash(t, miniKey, big), component.Signature{Type: "minisign", Keyring: mini}},
		"minisign legacy":    {minisign.Sign(miniKey, big), component.Signature{Type: "minisign", Keyring: mini}},
		"cosign Ed25519":     {text(ed25519.Sign(ed, big)), component.Signature{Type: "cosign", Key: pemKey(t, public)}},
		"cosign ECDSA":       {text(ecSig), component.Signature{Type: "cosign", Key: pemKey(t, ec.Public())}},
		"keyless": {bundleJSON(t, world.bundle(big, builder, issuer, time.Now().Add(5*time.Minute))), component.Signature{
			Type: "cosign", Identity: builder, Issuer: issuer, TrustedRoot: world.rootFile(false, nil),
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			c, _, err := newChecker(&tc.pins, component.Vars{})
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = c.check(tc.sig, &zeros{left: size})
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
				t.Errorf("%d bytes were allocated for a file of %d", used, size)
			}
		})
	}
}

// What fails to be read is the disk's fault: it is not called a wrong signature,
// and not read a second time.
func TestReadErrorIsNoWrongSignature(t *testing.T) {
	file, key := minisignPair(t)
	c, _, err := newChecker(&component.Signature{Type: "minisign", Keyring: file}, component.Vars{})
	if err != nil {
		t.Fatal(err)
	}
	g := &fetchedSign{name: "sig", of: "tool", data: prehash(t, key, nil), checker: c}
	if _, err := g.verify(iotestError{}); err == nil || errors.As(err, new(*SignatureError)) || !strings.Contains(err.Error(), "bad sector") {
		t.Fatalf("err = %v", err)
	}
}

type iotestError struct{}

// Read implements io.Reader.
func (iotestError) Read([]byte) (int, error) { return 0, errors.New("bad sector") }

// What is certain before anything is fetched is told then, and is what the
// download says too.
func TestForetellSignature(t *testing.T) {
	body := []byte(script)
	sums := sumLine(body, "tool")
	file, key := minisignPair(t)
	writable := keyFile(t, []byte("x"))
	if err := os.Chmod(writable, 0o666); err != nil {
		t.Fatal(err)
	}
	pin := &component.Signature{Type: "minisign", Asset: "sig", Keyring: file}
	with := func(keyring, of string) *component.Signature {
		return &component.Signature{Type: "minisign", Asset: "sig", Keyring: keyring, Of: of}
	}
	for name, tc := range map[string]struct {
		signature *component.Signature
		change    func(*Request)
		want      string // of the error; "" for none
		pinned    string
	}{
		"signed":                     {signature: pin},
		"signed archive":             {signature: with(file, "{asset}")},
		"files not listed yet":       {signature: pin, change: func(r *Request) { r.Release.Assets = nil }},
		"not listed yet, no key":     {signature: with("/nonexistent", ""), change: func(r *Request) { r.Release.Assets = nil }, want: "no such file", pinned: "/nonexistent"},
		"not listed yet, none named": {change: func(r *Request) { r.Release.Assets = nil; r.SignatureRequired = true }, want: "names no signature"},
		"none wanted":                {},
		"none named, one required":   {change: func(r *Request) { r.SignatureRequired = true }, want: "verification.signature is required"},
		"none named, one before":     {change: func(r *Request) { r.SignedBefore = "1.1.0 by a key" }, want: "was verified by a signature before (1.1.0 by a key)"},
		"none named, allowed":        {change: func(r *Request) { r.SignedBefore, r.AllowUnsigned = "1.1.0 by a key", true }},
		"none published":             {signature: pin, change: unlist("sig"), want: "the release has no sig"},
		"none published, allowed":    {signature: pin, change: func(r *Request) { unlist("sig")(r); r.AllowUnsigned = true }},
		"nothing to sign":            {signature: pin, change: unlist("sums"), want: "does not have the file that is signed"},
		"of something else":          {signature: with(file, "README"), want: "neither the archive nor the checksum file"},
		"no key":                     {signature: with("/nonexistent", ""), want: "no such file", pinned: "/nonexistent"},
		"key others can write":       {signature: with(writable, ""), want: "chmod go-w ", pinned: writable},
	} {
		t.Run(name, func(t *testing.T) {
			c := &component.Component{Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}}, Signature: tc.signature}
			files := map[string][]byte{"tool": body, "sums": sums, "sig": prehash(t, key, sums)}
			if tc.signature != nil && tc.signature.Of != "" {
				files["sig"] = prehash(t, key, body)
			}
			s := newShelf(t, c, files)
			listed := s.req.Release.Assets
			if tc.change != nil {
				tc.change(&s.req)
			}
			err := ForetellSignature(s.req)
			if tc.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%v, want %q", err, tc.want)
			}
			var of *SignatureError
			if tc.pinned != "" && (!errors.As(err, &of) || of.Pinned != tc.pinned || of.Mismatch()) {
				t.Errorf("%+v, want it to name %s", of, tc.pinned)
			}
			if s.req.Release.Assets == nil {
				s.req.Release.Assets = listed
			}
			s.req.ChecksumRequired = false
			if _, got := s.stage(); (got == nil) != (err == nil) || err != nil && !strings.Contains(got.Error(), tc.want) {
				t.Errorf("the download says %v", got)
			}
		})
	}
}

func unlist(name string) func(*Request) {
	return func(r *Request) {
		r.Release.Assets = slices.DeleteFunc(r.Release.Assets, func(a component.Asset) bool { return a.Name == name })
	}
}
