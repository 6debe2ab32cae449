// Package hold keeps the holds that `hold` and `unhold` set: a person's wish, on
// this host, that a component not go to some versions. Those written into the
// policy are not its business.
package hold

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// Hold is one wish.
type Hold struct {
	Component string    `json:"component"`
	Version   string    `json:"version,omitempty"` // a range of versions; empty: all
	Reason    string    `json:"reason"`
	Until     time.Time `json:"until,omitzero"` // it ends at this moment; zero: never
	SetAt     time.Time `json:"set_at"`
}

// Ended reports whether the hold is over.
func (h Hold) Ended(now time.Time) bool { return !h.Until.IsZero() && !now.Before(h.Until) }

type file struct {
	Holds []Hold `json:"holds"`
}

// maxSize bounds the file, in bytes.
const maxSize = 1 << 20

// CorruptError says that the file cannot be read as what this package writes.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s cannot be read: %v; correct it, or `rm %s` and set the holds again", e.Path, e.Err, e.Path)
}

func (e *CorruptError) Unwrap() error { return e.Err }

// Load reads the holds, those that ended included; a missing file holds none.
// Other errors are CorruptError or those of the file system.
func Load(path string) ([]Hold, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := decode(data)
	if err != nil {
		return nil, &CorruptError{Path: path, Err: err}
	}
	return list, nil
}

func decode(data []byte) ([]Hold, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), maxSize)
	}
	var f file
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errors.New("something follows the document")
	}
	for i, h := range f.Holds {
		if h.Component == "" {
			return nil, fmt.Errorf("hold %d names no component", i+1)
		}
		if h.Version != "" {
			if _, err := component.ParseRange(h.Version); err != nil {
				return nil, fmt.Errorf("hold %d: %w", i+1, err)
			}
		}
	}
	return f.Holds, nil
}

// Set adds a hold, in place of one of the same component and versions, and drops
// those that ended.
func Set(h *hostfs.Host, path string, add Hold) error {
	return edit(h, path, func(list []Hold) []Hold {
		list = slices.DeleteFunc(list, func(x Hold) bool {
			return x.Ended(add.SetAt) || x.Component == add.Component && x.Version == add.Version
		})
		return append(list, add)
	})
}

// Remove takes away all holds of a component, and reports how many there were.
func Remove(h *hostfs.Host, path, component string) (int, error) {
	n := 0
	err := edit(h, path, func(list []Hold) []Hold {
		kept := slices.DeleteFunc(slices.Clone(list), func(x Hold) bool { return x.Component == component })
		n = len(list) - len(kept)
		return kept
	})
	return n, err
}

func edit(h *hostfs.Host, path string, change func([]Hold) []Hold) error {
	before, err := Load(path)
	if err != nil {
		return err
	}
	after := change(slices.Clone(before))
	if slices.Equal(before, after) {
		return nil
	}
	slices.SortFunc(after, func(a, b Hold) int {
		return strings.Compare(a.Component+"\x00"+a.Version, b.Component+"\x00"+b.Version)
	})
	data, err := json.MarshalIndent(file{Holds: after}, "", "  ")
	if err != nil {
		return err
	}
	if err := h.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return h.WriteFile(path, append(data, '\n'), 0o644)
}
