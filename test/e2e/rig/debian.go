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
	dirs, missing, err := DebianPackages(ctx, suiteName, []string{name}, log)
	return dirs[name], errors.Join(err, missing[name])
}

// DebianPackages is DebianPackage for several packages of a suite, whose index is
// read once. It returns the directories by name, and why each of the others could
// not be had.
func DebianPackages(ctx context.Context, suiteName string, names []string, log *slog.Logger) (dirs map[string]string, missing map[string]error, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	at := slices.IndexFunc(suites(), func(s suite) bool { return s.name == suiteName })
	if at < 0 {
		return nil, nil, fmt.Errorf("the rig does not know the Debian suite %q", suiteName)
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, nil, fmt.Errorf("create the rig's cache: %w", err)
	}
	// A lock of its own: a rig that is being prepared holds the other one for
	// minutes, and only its owner may clear the tmp- directories away.
	lock, err := lockFile(ctx, filepath.Join(cache, "lock-packages"))
	if err != nil {
		return nil, nil, fmt.Errorf("wait for other processes that fetch packages: %w", err)
	}
	defer lock.Close()
	f := &fetcher{suite: suites()[at], cache: cache, log: log}
	dirs, missing = map[string]string{}, map[string]error{}
	for _, name := range names {
		dir := filepath.Join(cache, "package-"+suiteName+"-"+name)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			err = f.fetch(ctx, name, dir)
			if err != nil {
				missing[name] = fmt.Errorf("fetch %s of Debian %s: %w", name, suiteName, err)
				continue
			}
		} else if err != nil {
			missing[name] = err
			continue
		}
		dirs[name] = dir
	}
	return dirs, missing, f.close()
}

// fetcher gets packages of a suite by one private apt, made when it is first
// needed.
type fetcher struct {
	suite suite
	cache string
	log   *slog.Logger
	apt   *apt
	err   error // why there is no apt
}

func (f *fetcher) tmp() string { return filepath.Join(f.cache, "fetch-"+f.suite.name) }

func (f *fetcher) open(ctx context.Context) error {
	if f.apt != nil || f.err != nil {
		return f.err
	}
	var m mirror
	if m, f.err = findMirror(ctx); f.err != nil {
		return f.err
	}
	if f.err = removeTree(f.tmp()); f.err != nil { // of an interrupted run
		return f.err
	}
	f.apt, f.err = newApt(ctx, filepath.Join(f.tmp(), "apt"), m, f.suite)
	return f.err
}

// fetch puts the files of a package into a directory that is not there yet.
func (f *fetcher) fetch(ctx context.Context, name, dir string) error {
	if err := f.open(ctx); err != nil {
		return err
	}
	defer timed(f.log, "Fetched a Debian package.", "suite", f.suite.name, "package", name)()
	version, err := f.apt.candidate(ctx, name)
	if err != nil {
		return err
	}
	if version == "" {
		return errors.New("the suite has no such package")
	}
	tree := filepath.Join(f.tmp(), "tree-"+name)
	if err := f.apt.extract(ctx, name, version, tree); err != nil {
		return err
	}
	return finish(tree, dir)
}

func (f *fetcher) close() error { return removeTree(f.tmp()) }
