package stack

import (
	"errors"
	"io/fs"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

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
		store := artifact.New(artifact.Options{CacheDir: s.Root.Cache(), Logger: s.Logger})
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
