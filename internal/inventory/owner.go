package inventory

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// PackageOwners asks dpkg and rpm, where their databases exist below root, which
// of the paths belong to a package. A path that no package owns is not in the
// map. Paths are as seen on the host; the databases hold them without root.
func PackageOwners(ctx context.Context, root layout.Root, paths []string) (map[string]string, error) {
	owners := map[string]string{}
	var ask []string
	back := map[string]string{}
	for _, p := range paths {
		if p == "" {
			continue
		}
		inside := "/" + strings.TrimPrefix(strings.TrimPrefix(p, root.Prefix()), "/")
		ask = append(ask, inside)
		back[inside] = p
	}
	if len(ask) == 0 {
		return owners, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if dir := root.Path("var/lib/dpkg/info"); isDir(dir) {
		out, err := query(ctx, "dpkg-query", append([]string{"--admindir=" + root.Path("var/lib/dpkg"), "-S"}, ask...)...)
		if err != nil {
			return nil, err
		}
		for inside, pkg := range dpkgOwners(out) {
			if p, asked := back[inside]; asked {
				owners[p] = pkg
			}
		}
	}
	if isDir(root.Path("var/lib/rpm")) || isDir(root.Path("usr/lib/sysimage/rpm")) {
		for _, inside := range ask {
			out, err := query(ctx, "rpm", "--root", root.Path("/"), "-qf", "--qf", "%{NAME}\n", inside)
			if err != nil {
				return nil, err
			}
			if pkg := strings.TrimSpace(out); pkg != "" && !strings.Contains(pkg, " ") {
				owners[back[inside]] = pkg
			}
		}
	}
	return owners, nil
}

// dpkgOwners reads what `dpkg-query -S` prints: "PACKAGE: PATH" a line, and lines of
// diversions, which own nothing.
func dpkgOwners(out string) map[string]string {
	owners := map[string]string{}
	for line := range strings.SplitSeq(out, "\n") {
		pkg, path, ok := strings.Cut(line, ": ")
		if ok && !strings.HasPrefix(pkg, "diversion by") {
			owners[path] = pkg
		}
	}
	return owners
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// query runs a package tool. A tool that is not installed owns nothing; one
// that exits non-zero did so because it found no owner for some path.
func query(ctx context.Context, name string, args ...string) (string, error) {
	bin, err := exec.LookPath(name)
	if err != nil {
		return "", nil
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	var out bytes.Buffer
	cmd.Stdout = &out
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && (ctx.Err() != nil || !errors.As(err, &exit)) {
		return "", err
	}
	return out.String(), nil
}
