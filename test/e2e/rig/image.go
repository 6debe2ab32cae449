package rig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// imagePackages are what a host needs to be administered and looked into.
var imagePackages = []string{
	"systemd", "systemd-sysv", "dbus", "ca-certificates", "curl", "iproute2", "procps", "sqlite3", "haproxy", "nginx-light",
}

// shelvedUnits are those of programs that only some hosts run: see StartUnit.
var shelvedUnits = []string{"haproxy.service", "nginx.service"}

// shelf is where the files of shelved units wait.
const shelf = "/usr/lib/systemd/shelf"

// maskedUnits have nothing to do in a container, or wait for a console.
var maskedUnits = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
	"e2scrub_reap.service", "fstrim.timer", "console-getty.service", "getty@.service",
	"systemd-pstore.service",
}

const journalLimit = "[Journal]\nSystemMaxUse=64M\nRuntimeMaxUse=16M\n"

const hostsFile = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"

// imageName changes with the recipe, so that a cache never serves an image that
// another version of this package built.
func imageName() string {
	sum := sha256.Sum256(fmt.Append(nil, baseSuite, imagePackages, maskedUnits, hostsFile, "recipe 4", journalLimit))
	return "image-" + baseSuite + "-" + hex.EncodeToString(sum[:4])
}

// ensureImage returns the directory of the base image, building it when it is
// not in the cache. The cache's lock must be held.
func ensureImage(ctx context.Context, cache string, m mirror, log *slog.Logger) (string, error) {
	dir := filepath.Join(cache, imageName())
	if isDir(dir) {
		return dir, nil
	}
	if m.uri == "" {
		return "", errNoMirror
	}
	defer timed(log, "Built the base image.", "suite", baseSuite)()
	tmp, err := os.MkdirTemp(cache, "tmp-image-*")
	if err != nil {
		return "", err
	}
	root := filepath.Join(tmp, "root")
	args := []string{
		// In a process namespace of its own nothing outlives an interrupted build.
		"--pid", "--fork", "--kill-child", "--mount-proc", "--",
		"mmdebstrap", "--mode=root", "--variant=minbase", "--quiet",
		"--include=" + strings.Join(imagePackages, ","),
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*",
		baseSuite, root, m.uri,
	}
	if _, err := host(ctx, "unshare", args...); err != nil {
		return "", err
	}
	if err := dressImage(root); err != nil {
		return "", err
	}
	if err := finish(root, dir); err != nil {
		return "", err
	}
	return dir, removeTree(tmp)
}

// dressImage removes what belongs to the machine that built the image, and
// settles what each boot would otherwise decide.
func dressImage(root string) error {
	for _, path := range []string{"etc/resolv.conf", "etc/hostname", "etc/machine-id", "var/lib/dbus/machine-id"} {
		if err := os.Remove(filepath.Join(root, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, path := range []string{"var/cache/apt", "var/lib/apt/lists"} {
		if err := os.RemoveAll(filepath.Join(root, path)); err != nil {
			return err
		}
	}
	for _, unit := range maskedUnits {
		link := filepath.Join(root, "etc/systemd/system", unit)
		if err := os.Symlink("/dev/null", link); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, shelf), 0o755); err != nil {
		return err
	}
	for _, unit := range shelvedUnits {
		if err := os.Rename(filepath.Join(root, "lib/systemd/system", unit), filepath.Join(root, shelf, unit)); err != nil {
			return err
		}
		// Without the unit file systemd would make a unit of the init script.
		for _, path := range []string{"etc/systemd/system/multi-user.target.wants/" + unit, "etc/init.d/" + strings.TrimSuffix(unit, ".service")} {
			if err := os.Remove(filepath.Join(root, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	// A journal on disk survives a power cut, as it does on a server.
	if err := os.MkdirAll(filepath.Join(root, "var/log/journal"), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(root, "etc/systemd/journald.conf.d"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "etc/systemd/journald.conf.d/rig.conf"), []byte(journalLimit), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "etc/hosts"), []byte(hostsFile), 0o644)
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
