package overview

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
)

// maxSize bounds the files read here.
const maxSize = 16 << 20

// WriteCheck keeps what a look at upstream found. Where always is not set, a
// report that tells nothing new is not written, so that doing nothing changes no
// file.
func WriteCheck(h *hostfs.Host, root layout.Root, report plan.CheckReport, always bool) error {
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if have, err := ReadCheck(root); !always && err == nil && have != nil {
		have.CheckedAt = report.CheckedAt
		if old, err := json.MarshalIndent(have, "", "  "); err == nil && bytes.Equal(old, data) {
			return nil
		}
	}
	return write(h, root, root.LastCheck(), data)
}

// ReadCheck reads what the last look found; nil where there was none.
func ReadCheck(root layout.Root) (*plan.CheckReport, error) {
	var report plan.CheckReport
	ok, err := read(root.LastCheck(), &report)
	if !ok {
		return nil, err
	}
	return &report, nil
}

// WriteBackups keeps what `rollback --list` would show, for readers who may not
// look into the backup points; what is there already is not written again.
func WriteBackups(h *hostfs.Host, root layout.Root, list []Backup) error {
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(root.BackupList()); err == nil && bytes.Equal(have, append(data, '\n')) {
		return nil
	}
	return write(h, root, root.BackupList(), data)
}

// ReadBackups reads what WriteBackups kept; none where there is nothing.
func ReadBackups(root layout.Root) ([]Backup, error) {
	var list []Backup
	_, err := read(root.BackupList(), &list)
	return list, err
}

func write(h *hostfs.Host, root layout.Root, path string, data []byte) error {
	if err := h.MkdirAll(root.Cache(), 0o755); err != nil {
		return err
	}
	return h.WriteFile(path, append(data, '\n'), 0o644)
}

func read(path string, into any) (bool, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && st.Size() > maxSize {
		err = fmt.Errorf("it has %d bytes, at most %d are read", st.Size(), maxSize)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w; the next check writes it anew", path, err)
	}
	return true, nil
}
