package artifact

import (
	"bufio"
	"bytes"
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
// revoked keys are refused.
func (k gpgKeys) check(signature []byte, signed io.Reader) (Signed, error) {
	check := openpgp.CheckDetachedSignature
	if bytes.HasPrefix(bytes.TrimSpace(signature), []byte("-----BEGIN PGP")) {
		check = openpgp.CheckArmoredDetachedSignature
	}
	signer, err := check(openpgp.EntityList(k), signed, bytes.NewReader(signature), nil)
	if err != nil {
		return Signed{}, err
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
