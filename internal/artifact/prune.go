package artifact

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// partialAge is how long a download that nobody went on with is kept.
const partialAge = 7 * 24 * time.Hour

// cached is one archive of the cache, by all its names.
type cached struct {
	paths  []string
	info   fs.FileInfo
	needed bool
}

// Prune removes archives from the cache, those unused for longest first, until it
// holds at most limit bytes. Archives that are needed, by their digests, count and
// are never removed. Left-overs of downloads go after a week. Nothing may be
// staged meanwhile. It tells how many bytes were removed.
func (s *Store) Prune(needed map[component.Digest]bool, limit int64, now time.Time) (removed int64, err error) {
	if s.CacheDir == "" {
		return 0, nil
	}
	if err := s.prunePartial(now); err != nil {
		return 0, err
	}
	all, err := s.archives(needed)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, a := range all {
		total += a.info.Size()
	}
	slices.SortStableFunc(all, func(a, b *cached) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for _, a := range all {
		if a.needed || total-removed <= limit {
			continue
		}
		for _, path := range a.paths {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return removed, err
			}
		}
		removed += a.info.Size()
	}
	return removed, nil
}

// archives lists the cache. An archive of which upstream gives a SHA-512 has a
// second name.
func (s *Store) archives(needed map[component.Digest]bool) ([]*cached, error) {
	var all []*cached
	for _, alg := range []string{"sha256", "sha512"} {
		dir := filepath.Join(s.CacheDir, "artifacts", alg)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
				continue
			}
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(all, func(a *cached) bool { return os.SameFile(a.info, info) })
			if i < 0 {
				i = len(all)
				all = append(all, &cached{info: info})
			}
			all[i].paths = append(all[i].paths, filepath.Join(dir, e.Name()))
			all[i].needed = all[i].needed || needed[component.Digest(alg+":"+e.Name())]
		}
	}
	return all, nil
}

// prunePartial removes downloads that nobody went on with.
func (s *Store) prunePartial(now time.Time) error {
	dir := filepath.Join(s.CacheDir, "partial")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || now.Sub(info.ModTime()) < partialAge {
			continue
		}
		if err := removeIdle(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeIdle removes a file that no download holds; see openPartial.
func removeIdle(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	return os.Remove(path)
}
