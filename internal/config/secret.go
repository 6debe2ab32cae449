package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Secret is text that must not be shown: however it is printed, logged or
// encoded, "[redacted]" comes out. string(s) is the value.
type Secret string

const redacted = "[redacted]"

// String hides the value; an empty secret is empty, so that one can see whether
// there is one.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides the value in %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// Format hides the value from every verb, %x and %q included.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || verb == 'v' && f.Flag('#') {
		_, _ = io.WriteString(f, s.GoString())
		return
	}
	_, _ = io.WriteString(f, s.String())
}

// MarshalText hides the value in JSON, YAML and wherever else text is encoded.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the value in logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Compile-time checks of the ways a value could get out.
var (
	_                 fmt.Formatter  = Secret("")
	_                 fmt.GoStringer = Secret("")
	_                 slog.LogValuer = Secret("")
	reference                        = regexp.MustCompile(`\$?\$\{[^}]*\}?`)
	variablePattern                  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	secretNamePattern                = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)

// expander replaces ${SECRET:NAME} and ${VARIABLE}; $${ stands for ${ itself.
type expander struct {
	root  layout.Root
	env   func(string) string
	found []Secret // the secrets that were filled in, in the order they were met
}

// Expander returns what replaces ${SECRET:NAME} and ${VARIABLE} in a text at the
// moment it is called, for texts that must not be kept with their secrets.
func Expander(root layout.Root, env func(string) string) func(text string) (string, error) {
	x := &expander{root: root, env: env}
	return func(text string) (string, error) {
		out, _, err := x.expand(text)
		return out, err
	}
}

// CheckSecrets reports, with their places, the ${SECRET:NAME} of a file that cannot
// be read. Variables of the environment are not looked at: a service may have others
// than whoever asks.
func CheckSecrets(root layout.Root, env func(string) string, n *yamlfile.Node) yamlfile.Errors {
	_, errs := n.MapStrings(func(s string) (string, bool, error) {
		var problems []error
		for _, m := range reference.FindAllString(s, -1) {
			name, secret := strings.CutPrefix(m, "${SECRET:")
			if !secret {
				continue
			}
			if _, err := readSecret(root, env, strings.TrimSuffix(name, "}")); err != nil {
				problems = append(problems, err)
			}
		}
		return s, false, errors.Join(problems...)
	})
	return errs
}

// expand is for yamlfile.Node.MapStrings.
func (x *expander) expand(s string) (result string, hidden bool, err error) {
	var problems []string
	out := reference.ReplaceAllStringFunc(s, func(m string) string {
		if rest, escaped := strings.CutPrefix(m, "$$"); escaped {
			return "$" + rest
		}
		hidden = true
		v, err := x.lookUp(m)
		if err != nil {
			problems = append(problems, err.Error())
		}
		return v
	})
	if len(problems) > 0 {
		err = errors.New(strings.Join(problems, "; "))
	}
	return out, hidden, err
}

func (x *expander) lookUp(m string) (string, error) {
	name, closed := strings.CutSuffix(m[len("${"):], "}")
	if secret, ok := strings.CutPrefix(name, "SECRET:"); ok && closed {
		v, err := readSecret(x.root, x.env, secret)
		if err == nil {
			x.found = append(x.found, Secret(v))
		}
		return v, err
	}
	if !closed || !variablePattern.MatchString(name) {
		return "", fmt.Errorf("%q: want ${SECRET:NAME} or ${VARIABLE}; write $${ where ${ itself is meant", m)
	}
	v := x.env(name)
	if v == "" {
		return "", fmt.Errorf("${%s}: the environment variable %s is not set", name, name)
	}
	return v, nil
}

// readSecret reads a secret: systemd's credential of that name first, then the
// file in the secrets directory, which nobody else may read
// (docs/reference.md). Line ends at its end do not belong to it.
func readSecret(root layout.Root, env func(string) string, name string) (string, error) {
	if !secretNamePattern.MatchString(name) {
		return "", fmt.Errorf("secret %q: want the plain name of a file", name)
	}
	if dir := env("CREDENTIALS_DIRECTORY"); dir != "" {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			return secretText(name, data)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("secret %s: %w", name, err)
		}
	}
	if st, err := os.Stat(root.SecretsDir()); err == nil && st.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("secret %s: %s has mode %04o, and others could put another in its place; type: chmod go-w %s", name, root.SecretsDir(), st.Mode().Perm(), root.SecretsDir())
	}
	path := filepath.Join(root.SecretsDir(), name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("secret %s does not exist: write it to %s, mode 0600", name, path)
	}
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	if err := checkSecret(name, path, info); err != nil {
		return "", err
	}
	data, err := io.ReadAll(io.LimitReader(f, yamlfile.MaxSize))
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", name, err)
	}
	return secretText(name, data)
}

func checkSecret(name, path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	perm := info.Mode().Perm()
	switch {
	case !info.Mode().IsRegular() || !ok:
		return fmt.Errorf("secret %s: %s is not a regular file", name, path)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("secret %s belongs to user %d, neither root nor you; type: chown root: %s", name, st.Uid, path)
	case perm != 0o600 && perm != 0o400:
		return fmt.Errorf("secret %s has mode %04o, want 0600 or 0400; type: chmod 0600 %s", name, perm, path)
	}
	return nil
}

func secretText(name string, data []byte) (string, error) {
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" {
		return "", fmt.Errorf("secret %s is empty", name)
	}
	return text, nil
}
