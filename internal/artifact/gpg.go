package artifact

import (
	"bufio"
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// gpgKeys are the keys of a keyring file.
type gpgKeys openpgp.EntityList

// check verifies a detached OpenPGP signature, armoured or binary. Expired and
// revoked keys are refused, and digests that bytes can be made for.
func (k gpgKeys) check(signature []byte, signed io.Reader) (Signed, error) {
	packets := io.Reader(bytes.NewReader(signature))
	if bytes.HasPrefix(bytes.TrimSpace(signature), []byte("-----BEGIN PGP")) {
		block, err := armor.Decode(packets)
		if err != nil {
			return Signed{}, err
		}
		if block.Type != openpgp.SignatureType {
			return Signed{}, fmt.Errorf("expected a block of type %q, found %.80q", openpgp.SignatureType, block.Type)
		}
		packets = block.Body
	}
	sig, signer, err := openpgp.VerifyDetachedSignature(openpgp.EntityList(k), signed, packets, nil)
	if err != nil {
		return Signed{}, err
	}
	// RFC 9580, 9.5: none of these is to be accepted any more.
	if weak := sig.Hash; weak == crypto.SHA1 || weak == crypto.MD5 || weak == crypto.RIPEMD160 {
		return Signed{}, fmt.Errorf("it is a signature of a %s digest, which other bytes can have too; expected SHA-256 or better", weak)
	}
	fingerprint := fmt.Sprintf("%X", signer.PrimaryKey.Fingerprint)
	by := fingerprint
	if id := signer.PrimaryIdentity(); id != nil {
		by += " " + id.Name
	}
	return Signed{Type: "gpg", Key: fingerprint, By: by}, nil
}

// readKeyring reads a keyring file: binary, or one or more armoured blocks.
func readKeyring(path string) (gpgKeys, error) {
	if path == "" {
		return nil, errors.New("the definition names no keyring")
	}
	data, err := yamlfile.ReadSecure(path)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	keys, err := parseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("keyring %s: %w", path, err)
	}
	return keys, nil
}

func parseKeyring(data []byte) (gpgKeys, error) {
	if !strings.Contains(string(data), "-----BEGIN PGP") {
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		if err == nil && len(keys) == 0 {
			err = errors.New("it holds no key")
		}
		return gpgKeys(keys), err
	}
	var keys gpgKeys
	for r := bufio.NewReader(bytes.NewReader(data)); ; {
		block, err := armor.Decode(r)
		if errors.Is(err, io.EOF) && len(keys) > 0 {
			return keys, nil
		}
		var more openpgp.EntityList
		if err == nil {
			more, err = openpgp.ReadKeyRing(block.Body)
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
}
