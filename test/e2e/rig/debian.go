package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// PackageAvailable returns "" when DebianPackage can work on this machine, else
// the reason why it cannot, worded for t.Skip. It does not ask the network.
func PackageAvailable() (reason string) {
	if os.Geteuid() != 0 {
		return "fetching a Debian package needs root: apt gives up its rights while it downloads"
	}
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "fetching a Debian package needs " + tool
		}
	}
	return ""
}

// DebianPackage returns a directory with the files of one package of a Debian
// suite, verified by apt and unpacked, not installed. It is kept in the rig's
// cache: see Prepare. Callers that ask at the same time wait for each other. It
// is an error when the mirror is away or has no such package. A nil log is
// silent.
func DebianPackage(ctx context.Context, suiteName, name string, log *slog.Logger) (string, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	at := slices.IndexFunc(suites(), func(s suite) bool { return s.name == suiteName })
	if at < 0 {
		return "", fmt.Errorf("the rig does not know the Debian suite %q", suiteName)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("create the rig's cache: %w", err)
	}
	// A lock of its own: a rig that is being prepared holds the other one for
	// minutes, and only its owner may clear the tmp- directories away.
	lock, err := lockFile(ctx, filepath.Join(cache, "lock-packages"))
	if err != nil {
		return "", fmt.Errorf("wait for other processes that fetch packages: %w", err)
	}
	defer lock.Close()
	dir := filepath.Join(cache, "package-"+suiteName+"-"+name)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	m, err := findMirror(ctx)
	if err != nil {
		return "", err
	}
	defer timed(log, "Fetched a Debian package.", "suite", suiteName, "package", name)()
	tmp := filepath.Join(cache, "fetch-"+suiteName+"-"+name)
	if err := removeTree(tmp); err != nil { // of an interrupted run
		return "", err
	}
	err = fetchPackage(ctx, tmp, m, suites()[at], name)
	if err == nil {
		err = finish(filepath.Join(tmp, "tree"), dir)
	}
	if err := errors.Join(err, removeTree(tmp)); err != nil {
		return "", fmt.Errorf("fetch %s of Debian %s: %w", name, suiteName, err)
	}
	return dir, nil
}

func fetchPackage(ctx context.Context, tmp string, m mirror, s suite, name string) error {
	apt, err := newApt(ctx, filepath.Join(tmp, "apt"), m, s)
	if err != nil {
		return err
	}
	version, err := apt.candidate(ctx, name)
	if err != nil {
		return err
	}
	if version == "" {
		return errors.New("the suite has no such package")
	}
	return apt.extract(ctx, name, version, filepath.Join(tmp, "tree"))
}
