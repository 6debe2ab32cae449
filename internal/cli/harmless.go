package cli

import (
	"bytes"
	"fmt"
	"regexp"
	"unicode"
	"unicode/utf8"
)

// ours are the sequences that this program itself colours text with; see
// plan.Style.
var ours = regexp.MustCompile(`^\x1b\[(?:0|1|2|31|32|33)m`)

// harmless is text with every character that could steer a terminal written out as
// \u001b, so that what upstreams, programs and files say is seen and does nothing:
// control characters, and those that turn the direction of text. Lines, tabs and our
// own colours stay. In a JSON document the result means the same.
func harmless(p []byte) []byte {
	if bytes.IndexFunc(p, steers) < 0 {
		return p
	}
	out := make([]byte, 0, len(p)+16)
	for len(p) > 0 {
		if seq := ours.Find(p); seq != nil {
			out, p = append(out, seq...), p[len(seq):]
			continue
		}
		r, n := utf8.DecodeRune(p)
		switch {
		case r == utf8.RuneError && n == 1 && p[0] >= 0x80 && p[0] < 0xa0: // a control character where text is not UTF-8
			out = fmt.Appendf(out, `\u%04x`, p[0])
		case r == '\r' && len(p) > 1 && p[1] == '\n', !steers(r):
			out = append(out, p[:n]...)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		p = p[n:]
	}
	return out
}

// steers reports what harmless has to look at.
func steers(r rune) bool {
	switch {
	case r == '\n', r == '\t':
		return false
	case unicode.IsControl(r), r == utf8.RuneError:
		return true
	}
	return unicode.Is(unicode.Bidi_Control, r)
}

// lead is how our own lines begin. A text of several lines that comes from elsewhere
// must not pass for them.
var lead = regexp.MustCompile(`\n(next|error|note|warning):`)

// quoted is a message whose further lines cannot be taken for ours, as a next
// command to type.
func quoted(msg string) string { return lead.ReplaceAllString(msg, "\n  $1:") }
