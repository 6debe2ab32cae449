package artifact

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // for a signature that is to be refused
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// shelf serves a release of named files, which a test may change.
type shelf struct {
	t     *testing.T
	mu    sync.Mutex
	files map[string][]byte
	gets  map[string]int
	codes map[string]int // answers that are not 200
	req   Request
	store *Store
}

func newShelf(t *testing.T, c *component.Component, files map[string][]byte) *shelf {
	t.Helper()
	s := &shelf{t: t, files: files, gets: map[string]int{}}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		name := strings.TrimPrefix(r.URL.Path, "/")
		s.gets[name]++
		if code := s.codes[name]; code != 0 {
			w.WriteHeader(code)
			return
		}
		_, _ = w.Write(s.files[name])
	}))
	t.Cleanup(ts.Close)
	s.store = New(Options{CacheDir: t.TempDir(), RetryBase: time.Millisecond})
	s.req = Request{Component: c, OS: "linux", Arch: "amd64", Staging: filepath.Join(t.TempDir(), "staging"), ChecksumRequired: true}
	s.req.Release = component.Release{Version: component.MustParseVersion("1.2.0"), Tag: "v1.2.0"}
	for name := range files {
		s.req.Release.Assets = append(s.req.Release.Assets, component.Asset{Name: name, URL: ts.URL + "/" + name})
	}
	return s
}

func (s *shelf) stage() (*Staged, error) { return s.store.Stage(s.t.Context(), s.req) }

func sumLine(body []byte, name string) []byte {
	return fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(body), name)
}

func gpgKey(t *testing.T, name string, conf *packet.Config) *openpgp.Entity {
	t.Helper()
	if conf == nil {
		conf = &packet.Config{}
	}
	conf.Algorithm = packet.PubKeyAlgoEdDSA
	return gpgKeyOf(t, name, conf)
}

func gpgKeyOf(t *testing.T, name string, conf *packet.Config) *openpgp.Entity {
	t.Helper()
	key, err := openpgp.NewEntity(name, "", name+"@example.org", conf)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signGPG(t *testing.T, key *openpgp.Entity, data []byte, armoured bool, conf *packet.Config) []byte {
	t.Helper()
	var out bytes.Buffer
	sign := openpgp.DetachSign
	if armoured {
		sign = openpgp.ArmoredDetachSign
	}
	if err := sign(&out, key, bytes.NewReader(data), conf); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// weakGPG signs by a digest that the library makes no signatures with any more.
func weakGPG(t *testing.T, key *openpgp.Entity, digest crypto.Hash, data []byte) []byte {
	t.Helper()
	id := key.PrimaryKey.KeyId
	sig := &packet.Signature{
		Version: key.PrimaryKey.Version, SigType: packet.SigTypeBinary, PubKeyAlgo: key.PrimaryKey.PubKeyAlgo,
		Hash: digest, CreationTime: time.Now(), IssuerKeyId: &id, IssuerFingerprint: key.PrimaryKey.Fingerprint,
	}
	h := digest.New()
	_, _ = h.Write(data)
	var out bytes.Buffer
	if err := errors.Join(sig.Sign(h, key.PrivateKey, &packet.Config{NonDeterministicSignaturesViaNotation: new(bool)}), sig.Serialize(&out)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func keyring(t *testing.T, armoured bool, keys ...*openpgp.Entity) string {
	t.Helper()
	var out bytes.Buffer
	for _, k := range keys {
		var w io.WriteCloser = nopClose{&out}
		if armoured {
			var err error
			if w, err = armor.Encode(&out, openpgp.PublicKeyType, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(k.Serialize(w), w.Close()); err != nil {
			t.Fatal(err)
		}
		if armoured {
			out.WriteString("\n")
		}
	}
	path := filepath.Join(t.TempDir(), "keyring")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type nopClose struct{ io.Writer }

func (nopClose) Close() error { return nil }

func TestSignature(t *testing.T) {
	body := []byte(script)
	sums := sumLine(body, "tool")
	long := func() time.Time { return time.Now().Add(-48 * time.Hour) }
	good, stranger := gpgKey(t, "good", nil), gpgKey(t, "stranger", nil)
	expired := gpgKey(t, "expired", &packet.Config{Time: long, KeyLifetimeSecs: 3600})
	aged := gpgKey(t, "aged", &packet.Config{Time: long})
	revoked := gpgKey(t, "revoked", nil)
	sigRevoked := signGPG(t, revoked, sums, true, nil)
	rsa := gpgKeyOf(t, "rsa", &packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048})
	if err := revoked.RevokeKey(packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		sig     []byte
		of      string
		keyring string
		want    string // in the error; "" for success
	}{
		"armoured":                      {sig: signGPG(t, good, sums, true, nil), keyring: keyring(t, true, good)},
		"binary":                        {sig: signGPG(t, good, sums, false, nil), keyring: keyring(t, false, stranger, good)},
		"second armoured block":         {sig: signGPG(t, good, sums, true, nil), keyring: keyring(t, true, stranger, good)},
		"of the archive":                {sig: signGPG(t, good, body, true, nil), of: "{asset}", keyring: keyring(t, true, good)},
		"of the archive, wrong":         {sig: signGPG(t, good, sums, true, nil), of: "{asset}", keyring: keyring(t, true, good), want: "does not hold"},
		"by a stranger":                 {sig: signGPG(t, stranger, sums, true, nil), keyring: keyring(t, true, good), want: "unknown"},
		"of other bytes":                {sig: signGPG(t, good, body, true, nil), keyring: keyring(t, true, good), want: "does not hold"},
		"expired key":                   {sig: signGPG(t, expired, sums, true, &packet.Config{Time: long}), keyring: keyring(t, true, expired), want: "expired"},
		"revoked key":                   {sig: sigRevoked, keyring: keyring(t, true, revoked), want: "revoked"},
		"SHA-256":                       {sig: weakGPG(t, rsa, crypto.SHA256, sums), keyring: keyring(t, true, rsa)},
		"by SHA-1":                      {sig: weakGPG(t, rsa, crypto.SHA1, sums), keyring: keyring(t, true, rsa), want: "a SHA-1 digest"},
		"by MD5":                        {sig: bytes.Replace(weakGPG(t, rsa, crypto.SHA256, sums), []byte("\x04\x00\x01\x08"), []byte("\x04\x00\x01\x01"), 1), keyring: keyring(t, true, rsa), want: "does not hold"},
		"expired signature":             {sig: signGPG(t, aged, sums, true, &packet.Config{Time: long, SigLifetimeSecs: 60}), keyring: keyring(t, true, aged), want: "does not hold"},
		"from the future":               {sig: signGPG(t, good, sums, true, &packet.Config{Time: func() time.Time { return time.Now().Add(240 * time.Hour) }}), keyring: keyring(t, true, good), want: "does not hold"},
		"of another release's file":     {sig: signGPG(t, good, sumLine([]byte("older"), "tool"), true, nil), keyring: keyring(t, true, good), want: "does not hold"},
		"two, the first a stranger's":   {sig: append(signGPG(t, stranger, sums, false, nil), signGPG(t, good, sums, false, nil)...), keyring: keyring(t, true, good)},
		"rubbish":                       {sig: []byte("rubbish"), keyring: keyring(t, true, good), want: "does not hold"},
		"empty":                         {sig: nil, keyring: keyring(t, true, good), want: "does not hold"},
		"no keyring":                    {sig: signGPG(t, good, sums, true, nil), keyring: "/nonexistent", want: "no such file"},
		"of a file the release has not": {sig: signGPG(t, good, sums, true, nil), of: "other", keyring: keyring(t, true, good), want: "neither the archive nor the checksum file"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t, &component.Component{
				Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}},
				Signature: &component.Signature{Type: "gpg", Asset: "sig", Of: tc.of, Keyring: tc.keyring},
			}, map[string][]byte{"tool": body, "sums": sums, "sig": tc.sig})
			st, err := s.stage()
			if tc.want == "" {
				if err != nil || !strings.Contains(st.Signed.By, "good@example.org") && !strings.Contains(st.Signed.By, "rsa@example.org") {
					t.Fatalf("%+v %v", st, err)
				}
				return
			}
			var sig *SignatureError
			if !errors.As(err, &sig) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("err = %v, want %q", err, tc.want)
			}
			if left, _ := filepath.Glob(filepath.Join(s.req.Staging, "*", "*")); len(left) > 0 {
				t.Fatalf("left in staging: %v", left)
			}
		})
	}
}

// A publication between the two requests is got over; files that never fit are
// not.
func TestSignatureIsReadAgainAsAPair(t *testing.T) {
	body := []byte(script)
	key := gpgKey(t, "good", nil)
	sums := sumLine(body, "tool")
	s := newShelf(t, &component.Component{
		Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}},
		Signature: &component.Signature{Type: "gpg", Asset: "sig", Keyring: keyring(t, true, key)},
	}, map[string][]byte{"tool": body, "sums": []byte(strings.Repeat("0", 64) + "  tool\n"), "sig": signGPG(t, key, sums, true, nil)})
	get := s.store.client.Transport
	s.store.client.Transport = transport(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/sig") {
			defer func() { s.mu.Lock(); s.files["sums"] = sums; s.mu.Unlock() }()
		}
		if get == nil {
			return http.DefaultTransport.RoundTrip(r)
		}
		return get.RoundTrip(r)
	})
	if _, err := s.stage(); err != nil || s.gets["sums"] != 2 || s.gets["sig"] != 2 {
		t.Fatalf("%v %v", s.gets, err)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestProofForms(t *testing.T) {
	tool := []byte(script)
	tgz := hostile(t, tarFile("tool-1.2.0/tool"))
	s512 := fmt.Appendf(nil, "%x  tool.tar.gz\n", sha512.Sum512(tgz))
	wrong := strings.Repeat("1", 64)
	for name, tc := range map[string]struct {
		checksums, file string
		sums            []byte
		change          func(*Request)
		source, want    string
	}{
		"SHA-512":                        {checksums: "sha512sum.txt", sums: s512, source: "sha512sum.txt"},
		"per file":                       {checksums: "{asset}.sha256", file: "tool.tar.gz.sha256", sums: fmt.Appendf(nil, "%x", sha256.Sum256(tgz)), source: "tool.tar.gz.sha256"},
		"archive and contents":           {checksums: "sums", sums: append(sumLine(tgz, "tool.tar.gz"), sumLine(tool, "tool")...), source: "sums"},
		"archive right, contents wrong":  {checksums: "sums", sums: append(sumLine(tgz, "tool.tar.gz"), wrong+"  tool\n"...), want: "checksum of tool-1.2.0/tool does not match"},
		"contents wrong by SHA-512":      {checksums: "sums", sums: append(sumLine(tgz, "tool.tar.gz"), wrong+wrong+"  tool\n"...), want: "checksum of tool-1.2.0/tool does not match"},
		"only contents":                  {checksums: "sums", sums: sumLine(tool, "tool-1.2.0/tool"), source: "sums (of the files inside)"},
		"only contents, wrong":           {checksums: "sums", sums: []byte(wrong + " *tool-1.2.0/tool\n"), want: "does not match"},
		"only contents, of another file": {checksums: "sums", sums: sumLine(tool, "other"), want: "sums has no line for it"},
		"API alone":                      {checksums: "", sums: nil, change: func(r *Request) { setDigest(r, tgz) }, source: byAPI},
		"line missing, API has it":       {checksums: "sums", sums: sumLine(tool, "other"), change: func(r *Request) { setDigest(r, tgz) }, source: byAPI},
		"API wrong beside SHA-512":       {checksums: "sums", sums: s512, change: func(r *Request) { setDigest(r, tool) }, want: "does not match"},
		"an earlier run disagrees":       {checksums: "sums", sums: sumLine(tgz, "tool.tar.gz"), change: func(r *Request) { r.KnownDigest = component.Digest("sha256:" + wrong) }, want: "an earlier run says"},
		"an earlier run alone":           {change: func(r *Request) { r.KnownDigest = digestOf(tgz) }, source: byEarlier},
		"nothing":                        {want: "names no checksum file and the release API states no digest"},
		"nothing, and that is allowed":   {change: func(r *Request) { r.ChecksumRequired = false }, source: "none"},
		"rubbish":                        {checksums: "sums", sums: []byte("hello\n"), want: "sums: line 1"},
		"HTML":                           {checksums: "sums", sums: []byte("<html>hello"), want: "HTML page"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &component.Component{Name: "tool", Asset: "tool.tar.gz", Checksums: tc.checksums, Binaries: []component.Binary{{Name: "tool", Path: "*/tool"}}}
			files := map[string][]byte{"tool.tar.gz": tgz}
			if tc.checksums != "" {
				if tc.file == "" {
					tc.file = tc.checksums
				}
				files[tc.file] = tc.sums
			}
			s := newShelf(t, c, files)
			if tc.change != nil {
				tc.change(&s.req)
			}
			st, err := s.stage()
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("err = %v, want %q", err, tc.want)
				}
				if left, _ := filepath.Glob(filepath.Join(s.req.Staging, "*", "*")); len(left) > 0 {
					t.Fatalf("left in staging: %v", left)
				}
				return
			}
			if err != nil || st.ChecksumSource != tc.source || st.Archive != digestOf(tgz) {
				t.Fatalf("%+v %v", st, err)
			}
			// With what was learnt, the second time needs no network.
			s.req.KnownDigest = st.Archive
			s.mu.Lock()
			clear(s.gets)
			s.mu.Unlock()
			if st, err = s.stage(); err != nil || !st.FromCache || len(s.gets) != 0 {
				t.Fatalf("second time: %+v %v %v", st, s.gets, err)
			}
		})
	}
}

// A checksum file that is listed and cannot be had: the digest that the release
// API states counts as well, and the policy may do without either. A signature of
// the file cannot.
func TestChecksumFileThatCannotBeHad(t *testing.T) {
	body := []byte(script)
	key := gpgKey(t, "good", nil)
	for name, tc := range map[string]struct {
		code      int
		digest    []byte // what the API says it is of; nil: nothing
		allowed   bool   // verification.checksum: if_available
		signature bool
		gets      int
		notice    string
		source    string
		want      string
	}{
		"404":                            {code: 404, gets: 1, want: "no checksum of tool: checksum file: download sums: 127.0.0.1"},
		"404, a digest":                  {code: 404, digest: body, gets: 1, source: byAPI, notice: "answered 404, expected 200; tool is verified by the release API's digest alone"},
		"404, a digest of other bytes":   {code: 404, digest: []byte("other"), gets: 1, want: "checksum of tool does not match", notice: "alone"},
		"404, and that is allowed":       {code: 404, allowed: true, gets: 1, source: Unverified, notice: "tool is NOT VERIFIED, as verification.checksum is if_available"},
		"410, a digest":                  {code: 410, digest: body, gets: 1, source: byAPI, notice: "alone"},
		"500":                            {code: 500, gets: 4, want: "answered 500 (tried 4 times)"},
		"500, a digest":                  {code: 500, digest: body, gets: 4, source: byAPI, notice: "answered 500 (tried 4 times); tool is verified"},
		"500, and that is allowed":       {code: 500, allowed: true, gets: 4, source: Unverified, notice: "NOT VERIFIED"},
		"404, signed, a digest":          {code: 404, digest: body, signature: true, gets: 1, want: "the file that is signed could not be had: checksum file: "},
		"500, signed, a digest, allowed": {code: 500, digest: body, allowed: true, signature: true, gets: 4, want: "the file that is signed could not be had"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &component.Component{Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}}}
			files := map[string][]byte{"tool": body, "sums": sumLine(body, "tool")}
			if tc.signature {
				c.Signature = &component.Signature{Type: "gpg", Asset: "sig", Keyring: keyring(t, true, key)}
				files["sig"] = signGPG(t, key, files["sums"], true, nil)
			}
			s := newShelf(t, c, files)
			s.codes = map[string]int{"sums": tc.code}
			s.req.ChecksumRequired = !tc.allowed
			if tc.digest != nil {
				setDigest(&s.req, tc.digest)
			}
			var notices []string
			s.store.Notice = func(msg string) { notices = append(notices, msg) }
			st, err := s.stage()
			if s.gets["sums"] != tc.gets {
				t.Errorf("asked %d times, want %d", s.gets["sums"], tc.gets)
			}
			if said := strings.Join(notices, "\n"); !strings.Contains(said, tc.notice) || (tc.notice == "") != (said == "") {
				t.Errorf("noticed %q, want %q", said, tc.notice)
			}
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Fatalf("%v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || st.ChecksumSource != tc.source {
				t.Fatalf("%+v, %v", st, err)
			}
		})
	}
}

func TestSHA512IsFoundInTheCache(t *testing.T) {
	body := []byte(script)
	s := newShelf(t, &component.Component{Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}}},
		map[string][]byte{"tool": body, "sums": fmt.Appendf(nil, "%x  tool\n", sha512.Sum512(body))})
	for range 2 {
		if _, err := s.stage(); err != nil || s.gets["tool"] != 1 {
			t.Fatalf("%v %v", s.gets, err)
		}
	}
}

func TestDamagedCacheIsFetchedAgain(t *testing.T) {
	body := []byte(script)
	s := newShelf(t, &component.Component{Name: "tool", Asset: "tool", Checksums: "sums", Binaries: []component.Binary{{Name: "tool"}}},
		map[string][]byte{"tool": body, "sums": sumLine(body, "tool")})
	if _, err := s.stage(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.store.blob(digestOf(body)), []byte("rot"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := s.stage(); err != nil || st.FromCache || s.gets["tool"] != 2 {
		t.Fatalf("%+v %v %v", st, s.gets, err)
	}
}

func digestOf(b []byte) component.Digest {
	sum := sha256.Sum256(b)
	return component.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func setDigest(r *Request, body []byte) {
	for i := range r.Release.Assets {
		if r.Release.Assets[i].Name == r.Component.Asset {
			r.Release.Assets[i].Digest = digestOf(body)
		}
	}
}

func TestPickChecksums(t *testing.T) {
	old, err := component.ParseRange("<2.0.0")
	if err != nil {
		t.Fatal(err)
	}
	c := &component.Component{Name: "p", Asset: "p.tar.gz", Checksums: "{asset}.sha256", Variants: []component.Variant{{Versions: old, Checksums: "*checksums.txt"}}}
	for name, tc := range map[string]struct {
		version   string
		assets    []string
		want, why string
	}{
		"by version, new": {"2.0.0", []string{"p.tar.gz.sha256", "checksums.txt"}, "p.tar.gz.sha256", ""},
		"by version, old": {"1.0.0", []string{"p.tar.gz.sha256", "p_1.0.0_checksums.txt"}, "p_1.0.0_checksums.txt", ""},
		"none":            {"2.0.0", []string{"checksums.txt"}, "p.tar.gz.sha256", "the release has no p.tar.gz.sha256"},
		"two":             {"1.0.0", []string{"a_checksums.txt", "b_checksums.txt"}, "*checksums.txt", "2 assets of the release match *checksums.txt"},
	} {
		r := component.Release{Version: component.MustParseVersion(tc.version)}
		for _, n := range tc.assets {
			r.Assets = append(r.Assets, component.Asset{Name: n})
		}
		a, got, why := PickChecksums(c, r, "p.tar.gz", "linux", "amd64", "")
		if got != tc.want || why != tc.why || (why == "") != (a.Name == tc.want) {
			t.Errorf("%s: %q %q %q", name, a.Name, got, why)
		}
	}
}

func TestPickAsset(t *testing.T) {
	r := component.Release{Version: component.MustParseVersion("3.1.0"), Tag: "v3.1.0"}
	for _, n := range []string{"prometheus-web-ui-3.1.0.tar.gz", "prometheus-3.1.0.linux-amd64.tar.gz", "prometheus-3.1.0.linux-arm64.tar.gz", "prometheus-3.1.0.linux-armv7.tar.gz", "g-3.1.0_1_linux.tgz", "g-3.1.0_2_linux.tgz", "h-3.1.0_9_linux.tgz"} {
		r.Assets = append(r.Assets, component.Asset{Name: n})
	}
	for name, tc := range map[string]struct {
		asset, arch string
		arches      map[string]string
		want, err   string
	}{
		"exact":         {"prometheus-{version}.{os}-{arch}.tar.gz", "amd64", nil, "prometheus-3.1.0.linux-amd64.tar.gz", ""},
		"arm":           {"prometheus-{version}.{os}-{arch}.tar.gz", "arm", nil, "prometheus-3.1.0.linux-armv7.tar.gz", ""},
		"near names":    {"prometheus-{version}.{os}-{arch}.tar.gz", "riscv64", nil, "", "it has prometheus-3.1.0.linux-a"},
		"not published": {"x", "arm", map[string]string{"amd64": "amd64"}, "", "does not publish it for this architecture"},
		"one match":     {"h-{version}_*_{os}.tgz", "amd64", nil, "h-3.1.0_9_linux.tgz", ""},
		"two matches":   {"g-{version}_*_{os}.tgz", "amd64", nil, "", "2 assets match"},
	} {
		a, err := PickAsset(&component.Component{Name: "p", Asset: tc.asset, Arches: tc.arches}, r, "linux", tc.arch, "")
		if tc.err == "" && (err != nil || a.Name != tc.want) {
			t.Errorf("%s: %q %v", name, a.Name, err)
		}
		if tc.err != "" && (!errors.As(err, new(*NoAssetError)) || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: err = %v, want %q", name, err, tc.err)
		}
	}
}
