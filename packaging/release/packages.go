package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// packages builds the Debian and the RPM package with nfpm, which reads
// packaging/nfpm.yaml and finds its sources in the directory it is started in.
func (b *builder) packages(ctx context.Context, parts map[string]part) error {
	dir := filepath.Join(b.tmp, "package")
	staged, err := stage(parts)
	if err != nil {
		return err
	}
	for path, p := range staged {
		if err := writeAt(filepath.Join(dir, path), p, b.source.time); err != nil {
			return err
		}
	}
	out, err := filepath.Abs(b.out)
	if err != nil {
		return err
	}
	config, err := filepath.Abs("packaging/nfpm.yaml")
	if err != nil {
		return err
	}
	nfpm := b.nfpm
	if !filepath.IsAbs(nfpm) {
		nfpm = filepath.Join(filepath.Dir(b.tmp), "nfpm") // built for the first target
		if _, err := os.Stat(nfpm); err != nil {
			if err := buildTool(ctx, b.nfpm, nfpm); err != nil {
				return err
			}
		}
	}
	for _, kind := range []string{"deb", "rpm"} {
		cmd := exec.CommandContext(ctx, nfpm, "package", "--config", config, "--packager", kind, "--target", out)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "ARCH="+b.target.nfpm, "VERSION="+b.source.version,
			"SOURCE_DATE_EPOCH="+strconv.FormatInt(b.source.time.Unix(), 10), "TZ=UTC")
		if err := start(cmd); err != nil {
			return err
		}
	}
	return nil
}

// buildTool builds a pinned tool for this host, from a module of its own: what it
// is made of is no business of the product's go.mod.
func buildTool(ctx context.Context, pkg, to string) error {
	bin, err := os.MkdirTemp(filepath.Dir(to), "tool-")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "install", pkg)
	cmd.Env = append(clean(os.Environ()), "GOBIN="+bin, "CGO_ENABLED=0")
	if err := start(cmd); err != nil {
		return err
	}
	built, err := filepath.Glob(filepath.Join(bin, "*"))
	if err != nil || len(built) != 1 {
		return fmt.Errorf("go install %s: expected one program in %s, found %d", pkg, bin, len(built))
	}
	return os.Rename(built[0], to)
}

// stage lays the parts out as packaging/nfpm.yaml names them, with the scripts of
// the packages. Units get the path that packages have: below /usr/local is the
// administrator's own.
func stage(parts map[string]part) (map[string]part, error) {
	out := map[string]part{}
	for path, p := range parts {
		switch dir, base := filepath.Split(path); {
		case dir == "systemd/":
			p.data = bytes.ReplaceAll(p.data, []byte("/usr/local/bin/"+name), []byte("/usr/bin/"+name))
			if bytes.Contains(p.data, []byte("/usr/local/bin")) {
				return nil, fmt.Errorf("%s: a path below /usr/local is left", path)
			}
			out[path] = p
		case strings.HasPrefix(dir, "man/"):
			data, err := gzipped(p.data)
			if err != nil {
				return nil, err
			}
			out[strings.TrimPrefix(dir, "man/")+base+".gz"] = part{data, p.mode}
		case path == "CHANGELOG.md", path == "THIRD-PARTY-NOTICES.txt":
			data, err := gzipped(p.data)
			if err != nil {
				return nil, err
			}
			to := map[string]string{"CHANGELOG.md": "CHANGELOG.md.gz", "THIRD-PARTY-NOTICES.txt": "third-party-notices.gz"}[path]
			out["doc/"+to] = part{data, p.mode}
		case path == "README.md":
			out["doc/"+path] = p
		default:
			out[path] = p
		}
	}
	for _, f := range []string{"80-observability-upgrade.preset", "tmpfiles.conf", "copyright", "deb/postinst", "deb/prerm", "deb/postrm", "rpm/post", "rpm/preun", "rpm/postun"} {
		data, err := os.ReadFile(filepath.Join("packaging", f))
		if err != nil {
			return nil, err
		}
		mode := fs.FileMode(0o644)
		if strings.Contains(f, "/") {
			mode = 0o755
		}
		out[f] = part{data, mode}
	}
	return out, nil
}

func writeAt(path string, p part, at time.Time) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, p.data, p.mode); err != nil {
		return err
	}
	if err := os.Chmod(path, p.mode); err != nil { // whatever the umask
		return err
	}
	return os.Chtimes(path, at, at)
}
