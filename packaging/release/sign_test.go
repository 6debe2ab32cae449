package main

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
)

// newKey makes a throw-away key: public and secret half, as minisign writes them.
func newKey(t *testing.T) (public, secret string) {
	t.Helper()
	pub, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pub.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	s, err := key.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return string(p), string(s)
}

func vars(kv ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1]
			}
		}
		return ""
	}
}

// dist is a directory with a release of two files.
func dist(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"observability-upgrade-1.2.3.linux-amd64.tar.gz": "archive", "observability-upgrade_1.2.3_amd64.deb": "package"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeSums(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSign(t *testing.T) {
	dir := dist(t)
	public, secret := newKey(t)
	var out bytes.Buffer
	if err := sign(dir, vars(), false, &out); err != nil || !strings.Contains(out.String(), "is not signed: there is no key. To sign it: "+keyFileVariable+"=") {
		t.Errorf("without a key: %v, %s", err, out.String())
	}
	if err := sign(dir, vars(), true, &out); err == nil || !strings.Contains(err.Error(), "there is no key to sign with") {
		t.Errorf("without a key, where it is wanted: %v", err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"-sign", "-out=" + dir}, vars(keyFileVariable, file), &out); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(filepath.Join(dir, signatureFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(dir, vars(keyVariable, secret), true, &out); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(dir, signatureFile))
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("the signature is another one the second time (%v)", err)
	}
	if !strings.Contains(string(first), "trusted comment: release 1.2.3\tfile:SHA256SUMS") {
		t.Errorf("%s", first)
	}
	verified(t, dir, public)
}

// verified has the program that people use verify a release, where it is here.
func verified(t *testing.T, dir, public string) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "minisign.pub")
	if err := os.WriteFile(key, []byte(public), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("minisign"); err != nil {
		t.Log("minisign is not here; as root: apt-get install minisign")
		return
	}
	cmd := exec.Command("sh", "-c", "minisign -V -p "+key+" -m SHA256SUMS && sha256sum --check --ignore-missing SHA256SUMS")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSignRefuses(t *testing.T) {
	_, secret := newKey(t)
	_, key, err := minisign.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := minisign.EncryptKey("secret", key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		env    func(string) string
		change func(dir string) error
		want   string // "" for success
	}{
		"a key that is none":      {env: vars(keyVariable, "nonsense"), want: keyVariable},
		"a file that is not":      {env: vars(keyFileVariable, "/nonexistent"), want: keyFileVariable},
		"two keys":                {env: vars(keyVariable, secret, keyFileVariable, "x"), want: "want one"},
		"encrypted, no password":  {env: vars(keyVariable, string(encrypted)), want: passwordVariable},
		"encrypted, the wrong":    {env: vars(keyVariable, string(encrypted), passwordVariable, "guess"), want: keyVariable},
		"encrypted, the password": {env: vars(keyVariable, string(encrypted), passwordVariable, "secret")},
		"no release":              {env: vars(keyVariable, secret), change: func(dir string) error { return os.Remove(filepath.Join(dir, sumsFile)) }, want: "make release"},
		"a changed file": {env: vars(keyVariable, secret), change: func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "observability-upgrade_1.2.3_amd64.deb"), []byte("x"), 0o644)
		}, want: "does not fit what lies beside it: observability-upgrade_1.2.3_amd64.deb"},
		"a file more":   {env: vars(keyVariable, secret), change: func(dir string) error { return os.WriteFile(filepath.Join(dir, "more"), nil, 0o644) }, want: "beside it: more"},
		"a file less":   {env: vars(keyVariable, secret), change: func(dir string) error { return os.Remove(filepath.Join(dir, "observability-upgrade_1.2.3_amd64.deb")) }, want: "amd64.deb"},
		"sums of other": {env: vars(keyVariable, secret), change: func(dir string) error { return os.WriteFile(filepath.Join(dir, sumsFile), []byte("x\n"), 0o644) }, want: "no line of sha256sum"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := dist(t)
			if tt.change != nil {
				if err := tt.change(dir); err != nil {
					t.Fatal(err)
				}
			}
			err := sign(dir, tt.env, true, &bytes.Buffer{})
			if tt.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Error("the error tells the key")
			}
		})
	}
}
