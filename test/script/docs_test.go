package script

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/sigstore/sigstore-go/pkg/testing/data"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/doctest"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

const repository = "../.."

// shown are the blocks of all documents in one language, but of the specification.
func shown(t *testing.T, language string) []doctest.Block {
	t.Helper()
	names, err := doctest.Documents(repository)
	if err != nil {
		t.Fatal(err)
	}
	var out []doctest.Block
	for _, name := range names {
		if name == "docs/specification.md" {
			continue
		}
		blocks, err := doctest.Blocks(repository, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if b.Language == language {
				out = append(out, b)
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("no %s is shown", language)
	}
	return out
}

// The files that parts of one are tried in, by what they begin with; and what is read
// by other programs.
var (
	parts = map[string]string{
		"# signature of the ":   "/etc/observability/components.d/prometheus.yaml",
		"signature: {type: cos": "/etc/observability/components.d/prometheus.yaml",
	}
	foreign = map[string]string{
		"# upgrade.yml\n":                  "Ansible's: TestFleetByAnsible",
		"# /etc/prometheus/prometheus.yml": "Prometheus': TestDocumentation",
		"# /etc/observability/web.yml":     "the exporter toolkit's: TestDocumentation",
	}
	secretName = regexp.MustCompile(`\$\{SECRET:([a-z-]+)\}`)
	keyFile    = regexp.MustCompile(`/etc/observability/keys/[a-z_.-]+`)
)

// begins is the value of the key that a text begins with.
func begins(table map[string]string, text string) (string, bool) {
	for key, value := range table {
		if strings.HasPrefix(text, key) {
			return value, true
		}
	}
	return "", false
}

// documentedKeys are keys of the kinds that documents name, by their files' names.
func documentedKeys(t *testing.T) map[string]string {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cert, err := notifytest.NewCertificate()
	check(err)
	gpg, err := openpgp.NewEntity("Prometheus", "", "prometheus@example.org", nil)
	check(err)
	var keyring bytes.Buffer
	check(gpg.Serialize(&keyring))
	public, _, err := minisign.GenerateKey(rand.Reader)
	check(err)
	tool, err := public.MarshalText()
	check(err)
	der, err := x509.MarshalPKIXPublicKey(cert.TLS.PrivateKey.(*ecdsa.PrivateKey).Public())
	check(err)
	root, err := data.TrustedRoot(t, "public-good.json").MarshalJSON()
	check(err)
	return map[string]string{
		"ca.pem": string(cert.PEM), "prometheus.asc": keyring.String(), "tool.pub": string(tool), "trusted_root.json": string(root),
		"tool-cosign.pub": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	}
}

// Every configuration that a document shows is taken by `config validate`, alone, and
// nothing is warned of.
func TestDocumentedFiles(t *testing.T) {
	keys := documentedKeys(t)
	tried := 0
	for _, b := range shown(t, "yaml") {
		if _, ok := begins(foreign, b.Text); ok {
			continue
		}
		file := b.File
		if file == "" {
			file, _ = begins(parts, b.Text)
		}
		if file == "" {
			t.Errorf("%s: its first line does not say which file it is", b.Where())
			continue
		}
		tried++
		root := t.TempDir()
		write := func(path, text string, mode os.FileMode) {
			t.Helper()
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
		}
		write(file, b.Text, 0o644)
		for _, m := range secretName.FindAllStringSubmatch(b.Text, -1) {
			value := map[string]string{"slack-webhook": "https://hooks.slack.com/services/T0/B0/x", "discord-url": "discord://token@1"}[m[1]]
			if value == "" {
				value = "secret"
			}
			write("/etc/observability/secrets/"+m[1], value, 0o600)
		}
		for _, key := range keyFile.FindAllString(b.Text, -1) {
			text, ok := keys[filepath.Base(key)]
			if !ok {
				text = keys["ca.pem"]
			}
			write(key, text, 0o644)
		}
		var out bytes.Buffer
		code := cli.Run(t.Context(), []string{program, "--root=" + root, "config", "validate"}, cli.IO{
			In: strings.NewReader(""), Out: &out, Err: &out, Env: func(string) string { return "" },
		})
		if code != 0 || strings.Contains(out.String(), "warning") {
			t.Errorf("%s: exit code %d\n%s%s", b.Where(), code, &out, b.Text)
		}
	}
	if tried < 30 {
		t.Errorf("only %d files are shown", tried)
	}
}

// Every JSON document that is shown is allowed by its schema; the others are proved by
// what reads them.
func TestDocumentedJSON(t *testing.T) {
	schemas := loadSchemas(t)
	for _, b := range shown(t, "json") {
		schema, ok := map[string]string{
			"docs/logs-and-traces.md": logRecord,
			"docs/notifications.md":   "webhook",
			"docs/vulnerabilities.md": "vulnerabilities",
			"docs/air-gapped.md":      "", // TestDocumentation in test/e2e serves it
			"docs/discovery.md":       "", // given to a real Consul by internal/discovery
		}[b.Document]
		switch {
		case !ok:
			t.Errorf("%s: no schema is known for it", b.Where())
		case schema == logRecord:
			for l := range strings.Lines(b.Text) {
				if err := schemas.validate(schema, []byte(l)); err != nil {
					t.Errorf("%s: %v", b.Where(), err)
				}
			}
		case schema != "":
			if err := schemas.validate(schema, []byte(b.Text)); err != nil {
				t.Errorf("%s: %v", b.Where(), err)
			}
		}
	}
}

var (
	typed  = regexp.MustCompile(`^(?:\S+=\S+ )?(observability-upgrade .*)`)
	inline = regexp.MustCompile("`(?:[^`\n]* )?(observability-(?:upgrade|rollback) [^`\n]+)`")
	after  = regexp.MustCompile(` *(\||>|<|;|&&|\)).*`)
)

// Every command of this program that a document shows exists, with its flags; those of
// shell blocks, which are run elsewhere, as well as those within sentences.
func TestDocumentedCommands(t *testing.T) {
	names, err := doctest.Documents(repository)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, b := range shown(t, "sh") {
		for _, c := range b.Commands() {
			if m := typed.FindStringSubmatch(c); m != nil {
				lines = append(lines, b.Where()+": "+m[1])
			}
		}
	}
	for _, name := range names {
		text, err := doctest.Read(repository, name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "docs/specification.md" {
			continue
		}
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			lines = append(lines, name+": "+m[1])
		}
	}
	if len(lines) < 120 {
		t.Errorf("only %d commands were found", len(lines))
	}
	for _, line := range lines {
		_, c, _ := strings.Cut(line, ": ")
		args := append(strings.Fields(strings.NewReplacer("'", "", `"`, "").Replace(after.ReplaceAllString(c, ""))), "--help")
		var out bytes.Buffer
		code := cli.Run(t.Context(), args, cli.IO{In: strings.NewReader(""), Out: &out, Err: &out, Env: func(string) string { return "" }})
		var words []string // without flags and the values after them
		for i, a := range args[1 : len(args)-1] {
			if !strings.HasPrefix(a, "-") && args[i] != "-o" {
				words = append(words, a)
			}
		}
		if args[0] == "observability-rollback" {
			words = append([]string{"rollback"}, words...)
		}
		command, rest, err := cli.Commands().Find(words)
		if code != 0 || err != nil || len(rest) > 0 && command.HasSubCommands() {
			t.Errorf("%s: exit code %d, left over %q, %v\n%s", line, code, rest, err, &out)
		}
	}
}
