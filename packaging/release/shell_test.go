package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
)

// TestMain is the program itself where a shell calls it by one of its names.
func TestMain(m *testing.M) {
	if base := filepath.Base(os.Args[0]); base == name || slices.Contains(otherNames, base) {
		os.Exit(cli.Main(os.Args, cli.System()))
	}
	os.Exit(m.Run())
}

// shell is a directory with the completions, and one for PATH with the program
// under all its names.
func shell(t *testing.T) (completionDir, path string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := t.TempDir(), t.TempDir()
	scripts, err := completions()
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range scripts {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range append([]string{name}, otherNames...) {
		if err := os.Symlink(self, filepath.Join(bin, n)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, "PATH=" + bin + ":" + os.Getenv("PATH")
}

const bashCompletion = "/usr/share/bash-completion/bash_completion"

// Each shell completes a component's name, and the flags of `rollback` under its
// other names.
func TestCompletions(t *testing.T) {
	dir, path := shell(t)
	for _, tt := range []struct{ shell, script string }{
		{"bash", `
. ` + bashCompletion + `
. ` + dir + `/observability-upgrade.bash
try() { # as bash does when somebody types the words and then TAB
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=(); COMP_TYPE=9
  f=$(complete -p "$1" | sed 's/.*-F \([^ ]*\).*/\1/')
  $f "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
  printf '%s\n' "${COMPREPLY[@]}"
}
echo "component $(try observability-upgrade components show node_exp | tr '\n' ' ')"
echo "flag $(try observability-rollback --prev | tr '\n' ' ')"
echo "flag2 $(try upgrade-rollback --prev | tr '\n' ' ')"`},
		{"fish", `
set -p fish_complete_path ` + dir + `
echo component (complete -C "observability-upgrade components show node_exp")
echo flag (complete -C "observability-rollback --prev")
echo flag2 (complete -C "upgrade-rollback --prev")`},
		{"zsh", `
fpath=(` + dir + ` $fpath)
autoload -Uz compinit && compinit -u -d ` + t.TempDir() + `/dump
for c in observability-upgrade observability-rollback upgrade-rollback; do
  [[ $_comps[$c] == _observability-upgrade ]] || { echo "$c is not completed"; exit 1 }
done
# What the function makes of the words; choosing among it is zsh's own.
autoload +X -Uz _observability-upgrade
_describe() { for c in $completions; do print -r -- $what ${c%%:*}; done }
for what words in component "observability-upgrade components show node_exp" flag "observability-rollback --prev" flag2 "upgrade-rollback --prev"; do
  words=(${=words}) CURRENT=$#words
  _observability-upgrade
done`},
	} {
		t.Run(tt.shell, func(t *testing.T) {
			program, err := exec.LookPath(tt.shell)
			if err != nil {
				t.Skip("as root: apt-get install ", tt.shell)
			}
			if _, err := os.Stat(bashCompletion); tt.shell == "bash" && err != nil {
				t.Skip("as root: apt-get install bash-completion")
			}
			args := map[string][]string{"bash": {"--norc"}, "zsh": {"-f"}, "fish": {"--no-config"}}[tt.shell]
			cmd := exec.CommandContext(t.Context(), program, append(args, "-c", tt.script)...)
			cmd.Env = append(os.Environ(), path, "HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"component node_exporter", "flag --previous", "flag2 --previous"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s is not among\n%s", want, out)
				}
			}
		})
	}
}

// All pages are there, and the formatters have no word to say of them.
func TestPages(t *testing.T) {
	all, err := pages(release{version: "1.2.3", time: time.Unix(1735269000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{name + ".1", name + "-apply.1", name + "-config-show.1", name + "-policy.5"} {
		if all[want] == nil {
			t.Errorf("there is no %s", want)
		}
	}
	if page := string(all[name+"-rollback.1"]); !strings.Contains(page, ".SH EXIT STATUS") || !strings.Contains(page, `\fB130\fR`) || !strings.Contains(page, ".SH EXAMPLES") {
		t.Errorf("%s", page)
	}
	top := t.TempDir()
	if err := os.Mkdir(filepath.Join(top, "man1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for page, data := range all {
		dir := filepath.Join(top, "man"+page[len(page)-1:])
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, page), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, check := range [][]string{{"mandoc", "-T", "lint", "-W", "warning"}, {"groff", "-man", "-ww", "-z", "-Tutf8", "-Kutf8"}} {
		if _, err := exec.LookPath(check[0]); err != nil {
			t.Logf("as root: apt-get install %s", check[0])
			continue
		}
		var files []string
		for page := range all {
			files = append(files, fmt.Sprintf("man%s/%s", page[len(page)-1:], page))
		}
		slices.Sort(files)
		cmd := exec.CommandContext(t.Context(), check[0], append(check[1:], files...)...)
		cmd.Dir = top
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", check[0], err, out)
		}
	}
}

// The example of a policy is right when its comments are taken away, and changes
// nothing as it is installed.
func TestExamplePolicy(t *testing.T) {
	text, err := os.ReadFile("../upgrade-policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "  ") {
			line = rest
		}
		open = append(open, line)
	}
	for name, policy := range map[string]string{"as installed": string(text), "all in force": strings.Join(open, "")} {
		root := t.TempDir()
		path := filepath.Join(root, "etc/observability/upgrade-policy.yaml")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(policy), 0o644); err != nil {
			t.Fatal(err)
		}
		_, env := shell(t)
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec observability-upgrade config validate --root="+root)
		cmd.Env = append(os.Environ(), env)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", name, err, out, policy)
		}
		if name == "all in force" && !strings.Contains(policy, "\nmaintenance_windows:") {
			t.Errorf("what is commented out was not found:\n%s", policy)
		}
	}
}

// What is installed by scripts is shell that others read too.
func TestShellcheck(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("as root: apt-get install shellcheck")
	}
	for _, dir := range []string{"../deb", "../rpm", ".."} {
		files, err := filepath.Glob(dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if st, err := os.Stat(f); err != nil || st.IsDir() || dir == ".." && filepath.Ext(f) != ".sh" {
				continue
			}
			if out, err := exec.CommandContext(t.Context(), "shellcheck", "-s", "sh", f).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", f, err, out)
			}
		}
	}
}
