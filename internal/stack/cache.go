package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/custody"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// cacheDir is the directory of the cache; "" where it is not used, as somebody else
// could have changed what it holds: the digests and addresses in it decide what is
// downloaded and taken for verified. Going without it costs only the downloads.
func (s *Stack) cacheDir() string {
	err := s.trustCache()
	if err == nil {
		return s.Root.Cache()
	}
	if !s.cacheBad {
		s.cacheBad = true
		s.Notice(fmt.Sprintf("the cache is not used: %v", err))
	}
	return ""
}

func (s *Stack) trustCache() error {
	top, err := filepath.EvalSymlinks(s.Root.Cache()) // it may have been moved to another disk
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, dir := range []string{"", "upstream", "artifacts", "artifacts/sha256", "artifacts/sha512", "partial"} {
		if err := custody.Dir(filepath.Join(top, dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// pruneCache bounds the archives in the cache, after a run that used some. What is
// installed, what a kept backup point holds and what the run used stays: a version
// that was rolled back goes in again without the network. Where a record of that
// cannot be read, nothing is removed.
func (s *Stack) pruneCache(used []*prepared) {
	needed, err := s.neededArchives()
	if err == nil {
		for _, p := range used {
			needed[p.staged.Archive] = true
		}
		store := artifact.New(artifact.Options{CacheDir: s.cacheDir(), Logger: s.Logger})
		_, err = store.Prune(needed, int64(s.Policy.Retention.CacheMiB)<<20, s.now())
	}
	if err != nil {
		s.Logger.Warn("old archives in the cache are not removed", "error", err)
	}
}

// neededArchives lists the archives that the state file and those in the backup
// points name.
func (s *Stack) neededArchives() (map[component.Digest]bool, error) {
	points, err := s.Backups()
	if err != nil {
		return nil, err
	}
	files := []string{s.Root.State()}
	for _, p := range points {
		files = append(files, p.StateFile())
	}
	needed := map[component.Digest]bool{}
	for _, path := range files {
		f, err := state.Load(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, c := range f.Components {
			needed[component.Digest(c.Archive)] = true
		}
	}
	return needed, nil
}
