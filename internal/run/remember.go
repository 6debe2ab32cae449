package run

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// Remembered finds, for each of the named instances of a component, the newest
// change that a run made to it, in the journals of runs that ended. Those of which
// no run knows are left out.
func Remembered(root layout.Root, component string, instances []string) (map[string]Change, error) {
	ids, err := IDs(root)
	if err != nil {
		return nil, err
	}
	out := map[string]Change{}
	for _, id := range ids {
		if len(out) == len(instances) {
			break
		}
		records, err := journal.Read(filepath.Join(root.RunsDir(), id, "journal"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, rec := range slices.Backward(records) {
			if Step(rec.Kind) != stepChange {
				continue
			}
			var ch Change
			if err := rec.Decode(&ch); err != nil {
				return nil, err
			}
			if _, known := out[ch.Instance]; !known && ch.Component == component && slices.Contains(instances, ch.Instance) {
				out[ch.Instance] = ch
			}
		}
	}
	return out, nil
}
