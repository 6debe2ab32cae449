package artifact

import (
	"archive/zip"
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// fuzzPacked feeds a packed tar to the unpacker: whatever it holds, nothing is
// written outside quarantine.
func fuzzPacked(f *testing.F, form string, k kind) {
	for _, entries := range [][]entry{
		{file("d/x"), linkTo("d/l", "x")},
		{linkTo("d", "../.."), file("d/x")},
		{{name: "d/x", body: "x", pax: []string{"path=../../x", "size=1"}}, hardTo("d/h", "d/x")},
		{sparse("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=100", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,51")},
	} {
		whole := pack(f, form, rawTar(entries...))
		f.Add(whole)
		f.Add(append(bytes.Clone(whole), whole...))
		f.Add(whole[:len(whole)*2/3])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		u, check := quarantined(t)
		_ = u.unpackStream(bytes.NewReader(data), k)
		check()
	})
}

func FuzzTarGz(f *testing.F) { fuzzPacked(f, "tar.gz", kindTarGz) }

func FuzzTarXz(f *testing.F) {
	f.Add(xzBlock(0, string(rawTar(file("d/x")))))
	f.Add(xzBlock(40, "x"))
	f.Add(join(xzBlock(0, "x"), make([]byte, 4), xzBlock(29, "x")))
	fuzzPacked(f, "tar.xz", kindTarXz)
}

func FuzzTarZst(f *testing.F) { fuzzPacked(f, "tar.zst", kindTarZst) }

// A packed program is stored under its own name, whatever the header calls it.
func FuzzGz(f *testing.F) {
	f.Add(pack(f, "gz", []byte(script)))
	f.Add(join(pack(f, "gz", []byte(script)), pack(f, "gz", []byte("more"))))
	f.Add([]byte("\x1f\x8b\x08\x1c\x00\x00\x00\x00\x00\x03\x02\x00ab../../evil\x00comment\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(pack(f, "gz", []byte("<!DOCTYPE html>")))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, _ := quarantined(t)
		u.wanted = []*wanted{{binary: component.Binary{Name: "tool"}, pattern: "."}}
		err := u.unpackStream(bytes.NewReader(data), kindGz)
		if err == nil && (u.wanted[0].sum == "" || u.wanted[0].at != "tool") {
			t.Fatalf("taken as %+v", u.wanted[0])
		}
	})
}

// The headers of a zip's entries and its end, which the library reads by itself.
func FuzzZipDirectory(f *testing.F) {
	f.Add(rawZip(0, zipPart{name: "d/x", body: "x"}, zipPart{name: "d/y", body: "y"}))
	f.Add(rawZip(0, zipPart{name: "x", body: "x", packed: 0xffffffff, unpacked: 0xffffffff, extra: zip64(1, 1)}))
	f.Add(rawZip(0, zipPart{name: "x", body: "xxxxxxxx"}, zipPart{name: "y", body: "y", at: 3}))
	f.Add(rawZip(9, zipPart{name: "l", body: "../x", mode: 0o120777}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger("x", 10)
		z, err := zip.NewReader(&directoryGuard{file: bytes.NewReader(data), ledger: l, opening: true}, int64(len(data)))
		if err != nil {
			return // ErrInsecurePath too: the unpacker goes on from it
		}
		if len(z.File) > l.max {
			t.Fatalf("%d entries, %d are the limit", len(z.File), l.max)
		}
		u := &unpacker{job: &job{asset: component.Asset{Name: "x"}}, ledger: l, gauge: &gauge{ledger: l, in: int64(len(data)), max: 1 << 20}}
		if u.apart(z.File) != nil {
			return
		}
		var sum uint64
		for _, e := range z.File {
			sum += e.CompressedSize64
		}
		if sum > uint64(len(data)) {
			t.Fatalf("entries of %d bytes in a file of %d", sum, len(data))
		}
	})
}

// What a signature file holds is read or refused; one that holds was made by the
// key, of these bytes, by a digest that is not weak.
func FuzzGPGSignature(f *testing.F) {
	conf := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Rand: rand.NewChaCha8([32]byte{7}), Time: func() time.Time { return time.Unix(1_700_000_000, 0) }}
	key, err := openpgp.NewEntity("test", "", "test@example.org", conf)
	if err != nil {
		f.Fatal(err)
	}
	var plain, text bytes.Buffer
	if err := openpgp.DetachSign(&plain, key, strings.NewReader("message"), conf); err != nil {
		f.Fatal(err)
	}
	w, err := armor.Encode(&text, openpgp.SignatureType, map[string]string{"Comment": "x"})
	if err != nil {
		f.Fatal(err)
	}
	_, _ = w.Write(plain.Bytes())
	_ = w.Close()
	f.Add(plain.Bytes())
	f.Add(text.Bytes())
	f.Add(append(plain.Bytes()[:plain.Len():plain.Len()], plain.Bytes()...))
	f.Add(bytes.Replace(plain.Bytes(), []byte{8}, []byte{2}, 1))
	f.Add([]byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		who, err := gpgKeys{key}.check(data, strings.NewReader("message"))
		if err == nil && (who.Type != "gpg" || who.Key == "") {
			t.Fatalf("%+v", who)
		}
		if _, err := (gpgKeys{key}).check(data, strings.NewReader("massage")); err == nil {
			t.Fatal("it holds of other bytes too")
		}
	})
}

// What a program prints has a version or has none.
func FuzzFindVersion(f *testing.F) {
	f.Add("prometheus, version 3.5.0 (branch: HEAD, revision: 8be3a9560)\n  go version: go1.24.4", "")
	f.Add("tool v1.2.3-rc.1+build", `tool v(\S+)`)
	f.Add("version=\"1.2\" 1.2.3.4", `(`)
	f.Add("version 99999999999999999999.0.0", `version (\S*)`)
	f.Fuzz(func(t *testing.T, out, expr string) {
		v, err := FindVersion(out, expr)
		if (err == nil) == v.IsZero() {
			t.Fatalf("%v, %v", v, err)
		}
	})
}
