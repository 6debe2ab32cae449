package preflight

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
)

// checkConfig runs the definition's checks on the configuration in place with
// the tools that are installed now: what they refuse is broken already, and
// would keep the old version from coming back in a rollback. The new version's
// tools look before anything stops.
func (c *checker) checkConfig(ctx context.Context, st step) finding {
	name, in := st.Component, st.in
	if len(in.Component.Config.Check) == 0 {
		return found(skipped(ConfigSyntax, name, "its definition names no check"))
	}
	if c.Tool == nil {
		return found(skipped(ConfigSyntax, name, "no tool is run"))
	}
	vars := component.Vars{Name: name, Version: in.Version.String(), Root: c.Root.Prefix(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	checks := make([]component.Check, 0, 1)
	for _, words := range in.Component.Config.Check {
		args := vars.ExpandAll(words)
		if len(args) == 0 {
			continue
		}
		typed := strings.Join(args, " ")
		path, check := c.tool(name, in, args[0])
		if check != nil {
			checks = append(checks, *check)
			continue
		}
		args[0] = path
		out, err := c.Tool(ctx, args)
		switch {
		case ctx.Err() != nil:
			return finding{} // the runner tells
		case err != nil && unknownFlag.MatchString(out):
			checks = append(checks, skipped(ConfigSyntax, name, "the installed %s does not know `%s`; the new version's is asked before anything stops", filepath.Base(path), typed))
		case err != nil:
			checks = append(checks, fail(ConfigSyntax, name, strings.Join(args, " "), "expected the installed version to accept its configuration, found: %v%s", err, lastWords(out)))
		}
	}
	if len(checks) == 0 {
		checks = append(checks, ok(ConfigSyntax, name, "the installed version accepts it"))
	}
	return found(checks...)
}

// unknownFlag is how the flag and kingpin libraries, cobra and their like
// refuse what an older version does not have yet.
var unknownFlag = regexp.MustCompile(`(?i)flag provided but not defined|unknown (long |short |shorthand )?(flag|command)|expected command but got|unexpected argument`)

// tool finds the installed tool of a check. One that somebody else could have
// changed is not run: it would run as the caller, usually root.
func (c *checker) tool(name string, in *inventory.Installed, word string) (string, *component.Check) {
	path := ""
	for _, b := range in.Component.Binaries {
		if word == b.Name || word == b.Install || word == c.Root.Path(b.Install) {
			path = in.Binaries[b.Name]
			if path == "" {
				check := skipped(ConfigSyntax, name, "%s is not installed; the new version's is asked before anything stops", b.Name)
				return "", &check
			}
		}
	}
	if path == "" {
		found, err := exec.LookPath(word)
		if err != nil {
			check := warn(ConfigSyntax, name, "observability-upgrade components show "+name, "its check needs %s, which was not found: %v", word, err)
			return "", &check
		}
		path = found
	}
	if st, err := os.Stat(path); err == nil && !st.IsDir() {
		if sys, known := st.Sys().(*syscall.Stat_t); known && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
			check := warn(ConfigSyntax, name, chown(path), "%s belongs to uid %d, so it is not run as uid %d", path, sys.Uid, os.Geteuid())
			return "", &check
		}
		if st.Mode().Perm()&0o002 != 0 {
			check := warn(ConfigSyntax, name, "chmod o-w "+path, "%s can be written by everybody, so it is not run", path)
			return "", &check
		}
	}
	return path, nil
}

func chown(path string) string { return fmt.Sprintf("chown %d %s", os.Geteuid(), path) }

// lastWords are the last lines that a tool printed: there it says what is wrong.
func lastWords(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if lines[len(lines)-1] == "" {
		return ""
	}
	return ": " + strings.Join(lines[max(0, len(lines)-4):], " | ")
}
