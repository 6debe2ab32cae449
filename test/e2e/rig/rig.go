// Package rig gives tests real hosts: Debian containers with systemd as their
// first process, and real Prometheus, Alertmanager and node_exporter programs
// of several versions, packed the way their makers publish them.
//
// A container is an overlay on one cached image, with a network namespace and
// a cgroup of its own, so that it starts in about a second, cannot reach the
// network, and can be cut off and booted again with the disk as it was left.
// The programs come from Debian's packages, so their versions print "+ds" and
// some defaults differ from those of upstream's builds.
//
// It needs root, and Debian's mirror as configured on the machine the first
// time. It is used by tests only.
package rig

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// CacheEnv names the environment variable that moves the cache.
const CacheEnv = "OBSERVABILITY_UPGRADE_RIG_CACHE"

//go:embed deps.txt
var depsText string

// Kit is what Prepare left in the cache. It is read-only and safe for
// concurrent use.
type Kit struct {
	// Image is the directory that holds the root file system of the base image.
	Image string
	// Shared holds files that the Debian builds need at run time and that are in
	// no archive (Alertmanager's templates). Start lays it over the image.
	Shared string
	// Releases are all programs found, sorted by component and version.
	Releases []Release
	// Missing says which optional suites could not be had, and why.
	Missing map[string]string

	runDir string
	log    *slog.Logger
}

// Deps lists the Debian packages that the rig needs on this machine.
func Deps() []string { return strings.Fields(depsText) }

// InstallDeps installs Deps with apt-get; it needs root and Debian's mirror.
func InstallDeps(ctx context.Context) error {
	env := append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	for _, args := range [][]string{
		{"update", "-q"},
		append([]string{"install", "-q", "-y", "--no-install-recommends"}, Deps()...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, tail(out, 2000))
		}
	}
	return nil
}

// Available returns "" when this machine can run the rig, else the reason why it
// cannot, worded for t.Skip.
func Available() (reason string) {
	if os.Geteuid() != 0 {
		return "the rig needs root: it mounts overlays and starts systemd containers"
	}
	for _, tool := range []string{"systemd-nspawn", "nsenter", "unshare", "ip", "mmdebstrap", "apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Sprintf("the rig needs %s: apt-get install %s", tool, strings.Join(Deps(), " "))
		}
	}
	if _, err := cgroupRoots(); err != nil {
		return "the rig needs a cgroup v2 hierarchy: " + err.Error()
	}
	cache, err := cacheDir()
	if err != nil {
		return err.Error()
	}
	if !cached(cache) {
		if _, err := findMirror(context.Background()); err != nil {
			return err.Error()
		}
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(known), "overlay") {
		if exec.Command("modprobe", "overlay").Run() != nil {
			return "the rig needs the overlay file system, which this kernel does not offer"
		}
	}
	return ""
}

// Prepare makes sure that the base image and the release archives are in the
// cache, and clears away what killed test processes left behind. The cache is
// $OBSERVABILITY_UPGRADE_RIG_CACHE, or observability-upgrade-rig below the
// user's cache directory. Processes that prepare at the same time wait for each
// other; what an interrupted run left unfinished is built anew. A nil log is
// silent.
func Prepare(ctx context.Context, log *slog.Logger) (*Kit, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	k := &Kit{runDir: filepath.Join(cache, "run"), Missing: map[string]string{}, log: log}
	if err := os.MkdirAll(k.runDir, 0o755); err != nil {
		return nil, fmt.Errorf("create the rig's cache: %w", err)
	}
	lock, err := lockFile(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return nil, fmt.Errorf("wait for other processes that prepare %s: %w", cache, err)
	}
	defer lock.Close()
	if err := dropUnfinished(ctx, cache); err != nil {
		return nil, err
	}
	sweep(ctx, k.runDir, log)

	mirror, err := findMirror(ctx)
	if err != nil && !cached(cache) {
		return nil, err
	}
	var (
		wg       sync.WaitGroup
		imageErr error
		sets     = make([]*suiteSet, len(suites()))
		setErrs  = make([]error, len(sets))
	)
	wg.Go(func() { k.Image, imageErr = ensureImage(ctx, cache, mirror, log) })
	for i, s := range suites() {
		sets[i], setErrs[i] = ensureSuite(ctx, cache, mirror, s, log)
	}
	wg.Wait()
	if imageErr != nil {
		return nil, fmt.Errorf("build the base image: %w", imageErr)
	}
	for i, s := range suites() {
		switch {
		case setErrs[i] == nil:
			k.Releases = append(k.Releases, sets[i].Releases...)
			if s.base {
				k.Shared = sets[i].Shared
			}
		case s.required || ctx.Err() != nil:
			return nil, fmt.Errorf("fetch the programs of Debian %s: %w", s.name, setErrs[i])
		default:
			log.Warn("Optional Debian suite is away.", "suite", s.name, "error", setErrs[i])
			k.Missing[s.name] = setErrs[i].Error()
		}
	}
	slices.SortFunc(k.Releases, compareReleases)
	return k, nil
}

func cacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return filepath.Abs(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the rig's cache directory (set %s): %w", CacheEnv, err)
	}
	return filepath.Join(base, "observability-upgrade-rig"), nil
}

// dropUnfinished removes the temporary directories of interrupted runs. The
// cache's lock must be held.
func dropUnfinished(ctx context.Context, cache string) error {
	left, err := filepath.Glob(filepath.Join(cache, "tmp-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		// Programs of the interrupted run may be dying still.
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		var err error
		_ = poll(short, func() bool { err = removeTree(dir); return err == nil })
		cancel()
		if err != nil {
			return fmt.Errorf("remove what an interrupted run left: %w", err)
		}
	}
	return nil
}

// finish makes a directory that was built as tmp appear as dir, all of it or
// nothing.
func finish(tmp, dir string) error {
	if err := syncFS(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncFS(filepath.Dir(dir))
}

// removeTree removes a directory after making sure that nothing is mounted
// below it, so that it never reaches into another file system.
func removeTree(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("%s is not removed: %s is still mounted", dir, mounts[0])
	}
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// timed logs how long a step took.
func timed(log *slog.Logger, msg string, args ...any) func() {
	start := time.Now()
	return func() {
		log.Info(msg, append(args, "took", time.Since(start).Round(time.Millisecond))...)
	}
}

func tail(b []byte, n int) string {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return strings.TrimSpace(string(b))
}
