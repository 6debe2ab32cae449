package layout

import (
	"regexp"
	"strings"
)

var ours = regexp.MustCompile("(^|[\\s`(])observability-upgrade [a-z][^;,`)]*")

// Quoted is a word as a shell needs it.
func Quoted(word string) string {
	if word == "" || strings.ContainsAny(word, " \t\n'\"\\$`&|;<>()*?[]#~!{}") {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

// Typed is a text with commands of this program to type: below another root than the
// host's own they name it, or they would act on the host.
func (r Root) Typed(text string) string {
	if r == "" || r.IsHost() {
		return text
	}
	root := Quoted(string(r))
	const name = "observability-upgrade "
	return ours.ReplaceAllStringFunc(text, func(command string) string {
		_, args, _ := strings.Cut(command, name)
		if strings.Contains(args, "--root") || strings.Contains(args, "--help") || strings.HasPrefix(args, "config schema") {
			return command
		}
		return strings.Replace(command, name, name+"--root="+root+" ", 1)
	})
}
