package audit

import (
	"regexp"
	"strings"
)

const redacted = "[redacted]"

// secretName is a word that makes what is assigned to it a secret.
const secretName = `(?:token|secret|passw(?:or)?d|api[-_]?key|credential)[\w.-]*`

var (
	assigned = regexp.MustCompile(`(?is)^(.*?` + secretName + `\s*=).+$`)                       // --x-token=VALUE
	flagOnly = regexp.MustCompile(`(?i)^--?[\w.-]*` + secretName + `$`)                         // --x-token VALUE
	inText   = regexp.MustCompile(`(?i)(` + secretName + `["']?\s*[=:]\s*)("[^"]*"|[^\s&,;]+)`) // … token=VALUE …
	inURL    = regexp.MustCompile(`(://[^/\s:@]*:)[^/\s@]+@`)                                   // https://user:VALUE@host
	inHeader = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}`)                      // Authorization: Bearer VALUE
)

// redactArgs blots out secrets in arguments; the result is never nil.
func redactArgs(args []string) []string {
	out := make([]string, 0, len(args))
	next := false
	for _, a := range args {
		switch {
		case next && !strings.HasPrefix(a, "--"):
			out = append(out, redacted)
			next = false
			continue
		case assigned.MatchString(a):
			a = assigned.ReplaceAllString(a, "${1}"+redacted)
		}
		next = flagOnly.MatchString(a)
		out = append(out, redactCredentials(a))
	}
	return out
}

// redactText blots out secrets in a message.
func redactText(s string) string {
	return redactCredentials(inText.ReplaceAllString(s, "${1}"+redacted))
}

func redactCredentials(s string) string {
	s = inURL.ReplaceAllString(s, "${1}"+redacted+"@")
	return inHeader.ReplaceAllString(s, "${1} "+redacted)
}
