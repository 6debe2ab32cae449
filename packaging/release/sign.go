package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"aead.dev/minisign"
)

const (
	sumsFile      = "SHA256SUMS"
	signatureFile = "SHA256SUMS.minisig"
)

// Where the key to sign with comes from.
const (
	keyVariable      = "RELEASE_SIGNING_KEY"          // the text of minisign's secret key
	keyFileVariable  = "RELEASE_SIGNING_KEY_FILE"     // or a file with it
	passwordVariable = "RELEASE_SIGNING_KEY_PASSWORD" // where it is encrypted
)

// writeSums writes the digests of all files of a release, in order.
func writeSums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	return os.WriteFile(filepath.Join(dir, sumsFile), out.Bytes(), 0o644)
}

// sign signs SHA256SUMS with minisign. Without a key it says that the release is not
// signed; that is an error where the key is wanted.
func sign(dir string, env func(string) string, wanted bool, out io.Writer) error {
	key, err := signingKey(env)
	if errors.Is(err, errNoKey) && !wanted {
		fmt.Fprintf(out, "%s is not signed: there is no key. To sign it: %s=minisign.key make sign\n", filepath.Join(dir, sumsFile), keyFileVariable)
		return nil
	}
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; next: make release", err)
	}
	if err != nil {
		return err
	}
	if err := complete(dir, sums); err != nil {
		return err
	}
	public, ok := key.Public().(minisign.PublicKey)
	if !ok {
		return errors.New("the key has no public half")
	}
	// Everything in a signature depends on key and text alone, so that it can be
	// repeated too.
	signature := minisign.SignWithComments(key, sums, "release "+released(sums)+"\tfile:"+sumsFile, fmt.Sprintf("signature from minisign secret key %016X", key.ID()))
	if !minisign.Verify(public, sums, signature) {
		return errors.New("the signature made does not verify")
	}
	if err := os.WriteFile(filepath.Join(dir, signatureFile), signature, 0o644); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s is signed by key %016X\n", filepath.Join(dir, sumsFile), key.ID())
	return err
}

var errNoKey = fmt.Errorf("there is no key to sign with: %s and %s are empty", keyVariable, keyFileVariable)

func signingKey(env func(string) string) (minisign.PrivateKey, error) {
	var key minisign.PrivateKey
	text, from := env(keyVariable), keyVariable
	if path := env(keyFileVariable); path != "" {
		if text != "" {
			return key, fmt.Errorf("both %s and %s are given; want one", keyVariable, keyFileVariable)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return key, fmt.Errorf("%s: %w", keyFileVariable, err)
		}
		text, from = string(data), path
	}
	if strings.TrimSpace(text) == "" {
		return key, errNoKey
	}
	raw := []byte(strings.TrimSpace(text))
	var err error
	if minisign.IsEncrypted(raw) {
		if env(passwordVariable) == "" {
			return key, fmt.Errorf("%s: the key is encrypted; want its password in %s", from, passwordVariable)
		}
		key, err = minisign.DecryptKey(env(passwordVariable), raw)
	} else {
		err = key.UnmarshalText(raw)
	}
	if err != nil {
		return key, fmt.Errorf("%s: %w", from, err)
	}
	return key, nil
}

// complete insists that SHA256SUMS names every file of the release, and each as it
// is: a signature is for all of them.
func complete(dir string, sums []byte) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	named := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		digest, file, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok {
			return fmt.Errorf("%s: %q is no line of sha256sum's", sumsFile, line)
		}
		named[file] = digest
	}
	var wrong []string
	for _, e := range entries {
		if e.Name() == sumsFile || e.Name() == signatureFile {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if named[e.Name()] != fmt.Sprintf("%x", sha256.Sum256(data)) {
			wrong = append(wrong, e.Name())
		}
		delete(named, e.Name())
	}
	for file := range named {
		wrong = append(wrong, file)
	}
	if slices.Sort(wrong); len(wrong) > 0 {
		return fmt.Errorf("%s does not fit what lies beside it: %s; next: make release", sumsFile, strings.Join(wrong, ", "))
	}
	return nil
}

var archiveName = regexp.MustCompile(`(?m)^[0-9a-f]{64}  ` + name + `-(.+)\.linux-[a-z0-9]+\.tar\.gz$`)

// released is the version of a release, as its archives are named.
func released(sums []byte) string {
	if m := archiveName.FindSubmatch(sums); m != nil {
		return string(m[1])
	}
	return "unknown"
}
