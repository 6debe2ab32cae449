package layout

import (
	"regexp"
	"strings"
)

var ours = regexp.MustCompile("(^|[\\s`(])observability-upgrade [a-z][^;,`)]*")

// Typed is a text with commands of this program to type: below another root than the
// host's own they name it, or they would act on the host.
func (r Root) Typed(text string) string {
	if r == "" || r.IsHost() {
		return text
	}
	root := string(r)
	if strings.ContainsAny(root, " \t\n'\"\\$`&|;<>()*?[]#~!{}") {
		root = "'" + strings.ReplaceAll(root, "'", `'\''`) + "'"
	}
	const name = "observability-upgrade "
	return ours.ReplaceAllStringFunc(text, func(command string) string {
		_, args, _ := strings.Cut(command, name)
		if strings.Contains(args, "--root") || strings.Contains(args, "--help") || strings.HasPrefix(args, "config schema") {
			return command
		}
		return strings.Replace(command, name, name+"--root="+root+" ", 1)
	})
}
