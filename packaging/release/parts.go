package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/manual"
	"github.com/observability-upgrade/observability-upgrade/schemas"
)

// part is a file of the release.
type part struct {
	data []byte
	mode fs.FileMode
}

// parts are the files that archive and packages are made of, by their paths in the
// archive.
func (b *builder) parts(program []byte, linked []linkedModule) (map[string]part, error) {
	parts := map[string]part{name: {program, 0o755}}
	for _, from := range []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/*.md", "packaging/systemd/*", "packaging/sysusers.conf", "packaging/upgrade-policy.yaml", "packaging/install.sh"} {
		found, err := filepath.Glob(from)
		if err != nil || len(found) == 0 {
			return nil, fmt.Errorf("%s: nothing is there; start it in the module's root directory", from)
		}
		for _, f := range found {
			data, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			p := part{data, 0o644}
			if path.Ext(f) == ".sh" {
				p.mode = 0o755
			}
			parts[strings.TrimPrefix(filepath.ToSlash(f), "packaging/")] = p
		}
	}
	pages, err := pages(b.source)
	if err != nil {
		return nil, err
	}
	for page, data := range pages {
		parts["man/man"+page[len(page)-1:]+"/"+page] = part{data, 0o644}
	}
	scripts, err := completions()
	if err != nil {
		return nil, err
	}
	for file, data := range scripts {
		parts["completions/"+file] = part{data, 0o644}
	}
	parts["THIRD-PARTY-NOTICES.txt"] = part{notices(linked), 0o644}
	return parts, nil
}

// pages are the manual pages, by file name.
func pages(r release) (map[string][]byte, error) {
	o := manual.Options{Version: r.version, Date: r.time}
	for _, c := range cli.ExitCodes() {
		o.Exit = append(o.Exit, manual.Entry{Name: strconv.Itoa(c.Code), Text: c.Meaning})
	}
	all, err := manual.Configuration(schemas.Config, o)
	if err != nil {
		return nil, err
	}
	maps.Copy(all, manual.Commands(cli.Commands(), o))
	return all, nil
}

// otherNames are those by which the program is `rollback`.
var otherNames = []string{"observability-rollback", "upgrade-rollback"}

// completions are the scripts of the shells, by file name. They complete under the
// other names too.
func completions() (map[string][]byte, error) {
	root := cli.Commands()
	var bash, zsh, fish bytes.Buffer
	for _, err := range []error{root.GenBashCompletionV2(&bash, true), root.GenZshCompletion(&zsh), root.GenFishCompletion(&fish, true)} {
		if err != nil {
			return nil, err
		}
	}
	all := name + " " + strings.Join(otherNames, " ")
	out := map[string][]byte{name + ".fish": fish.Bytes()}
	for file, change := range map[string][2]string{
		name + ".bash": {"-F __start_" + name + " " + name + "\n", "-F __start_" + name + " " + all + "\n"},
		"_" + name:     {"#compdef " + name + "\n", "#compdef " + all + "\n"},
	} {
		script := bash.Bytes()
		if file[0] == '_' {
			script = zsh.Bytes()
		}
		if !bytes.Contains(script, []byte(change[0])) {
			return nil, fmt.Errorf("%s: expected a line with %q", file, strings.TrimSpace(change[0]))
		}
		out[file] = bytes.ReplaceAll(script, []byte(change[0]), []byte(change[1]))
	}
	for _, other := range otherNames {
		out[other+".fish"] = fmt.Appendf(nil, "# fish completion for %[1]s, which is `%[2]s rollback`\ncomplete -c %[1]s -w \"%[2]s rollback\"\n", other, name)
	}
	return out, nil
}
