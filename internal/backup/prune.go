package backup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Keep says which points a Prune leaves.
type Keep struct {
	Points int // so many, at least one
	// Own is the point of the run that prunes: it is never removed.
	Own string
	// Offered names the points that `rollback --previous` would go back to. They are
	// kept before others, newest first, so that the points that rollbacks and failed
	// upgrades take do not push out the way back; the newest of them always, even
	// where Own is all that Points leaves room for.
	Offered map[string]bool
}

// leaving ends the name of a point that is being removed.
const leaving = ".leaving"

// Prune removes the points beyond those that are to be kept and returns their
// paths. Only complete points count; those never completed are left-overs of runs
// that died while taking them and go as well. One that was completed and is damaged
// may be all that is left of a way back: it stays, and the error names it.
func Prune(h *hostfs.Host, dir string, keep Keep) (removed []string, err error) {
	points, err := List(dir)
	if err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"+leaving))
	if err != nil {
		return nil, err
	}
	for _, path := range left { // by a prune that was cut off
		if err := h.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	rank := func(p *Point) int {
		switch {
		case p.Timestamp == keep.Own:
			return 0
		case !p.Complete:
			return 3
		case keep.Offered[p.Timestamp]:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(points, func(a, b *Point) int { return rank(a) - rank(b) })
	kept, wayBack := 0, false
	var damaged error
	for _, p := range points {
		if p.Damage != nil {
			if p.Timestamp != keep.Own { // of which its run tells
				damaged = errors.Join(damaged, p.Kept())
			}
			continue
		}
		newest := !wayBack && p.Complete && keep.Offered[p.Timestamp]
		wayBack = wayBack || newest
		if p.Timestamp == keep.Own || newest || p.Complete && kept < max(keep.Points, 1) {
			if p.Complete {
				kept++
			}
			continue
		}
		// By another name first: a point is whole, or it is gone.
		away := filepath.Join(dir, "."+p.Timestamp+leaving)
		if err := h.Rename(p.Path, away); err != nil {
			return removed, errors.Join(damaged, err)
		}
		removed = append(removed, p.Path)
		if err := h.RemoveAll(away); err != nil {
			return removed, errors.Join(damaged, err)
		}
	}
	return removed, damaged
}

// Kept says of a damaged point that it was not removed, and what to type.
func (p *Point) Kept() error {
	return fmt.Errorf("%w; it is kept: look at what is in it, then: rm -r %s", p.Damage, p.Path)
}
