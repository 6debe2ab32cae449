package run

import (
	"cmp"
	"fmt"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/journal"
)

// journalFormat is the newest form of the journal that this program knows, and the
// one it writes. It grows when an older program would undo a run wrongly for want
// of a field.
const journalFormat = 1

// Header identifies a run in its journal.
type Header struct {
	Format       int       `json:"format,omitempty"` // of the journal; 0 before there was a number, which is as 1
	ID           string    `json:"id"`
	Operation    Operation `json:"operation"`
	Trigger      string    `json:"triggered_by"`
	StartedAt    time.Time `json:"started_at"`
	PID          int       `json:"pid"`
	BackupPath   string    `json:"backup_path"`
	StagingDirs  []string  `json:"staging_dirs,omitempty"`
	Components   []Planned `json:"components"`
	ProgramBuild string    `json:"program,omitempty"`
	Manager      string    `json:"service_manager,omitempty"` // systemd | process
	// Instances are the changes of instances: one that the run had not come to may
	// start at boot from files that it shares with one that was being changed.
	Instances []Change `json:"instances,omitempty"`
	// LeftOut are steps that were refused before the run: whoever brings it to its end
	// has to tell of them too.
	LeftOut []Outcome `json:"left_out,omitempty"`
}

// public is the header as onlookers are told it: what recovery needs besides is
// theirs to read nowhere.
func (h Header) public() *Header {
	h.Instances, h.LeftOut, h.Format = nil, nil, 0
	return &h
}

// read takes the header from the journal at path. The error may be a NewerError.
func (h *Header) read(rec journal.Record, path string) error {
	// First of all, and alone: a newer program may give the other fields other types.
	var by struct {
		Format  int    `json:"format"`
		Program string `json:"program"`
	}
	if err := rec.Decode(&by); err != nil {
		return err
	}
	if by.Format > journalFormat {
		return &NewerError{Path: path, Have: by.Format, Program: by.Program}
	}
	return rec.Decode(h)
}

// NewerError reports a journal of a newer program: what it has to say of a change
// is not known here, so its run cannot be undone here. The journal must stay where
// it is.
type NewerError struct {
	Path    string
	Have    int    // the journal's format
	Program string // what wrote it
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the journal %s of an interrupted run has format %d, this program knows up to %d: a newer observability-upgrade (%s) wrote it, and only that one can undo the run", e.Path, e.Have, journalFormat, cmp.Or(e.Program, "version not known"))
}

// Planned is a component as the run meant to change it.
type Planned struct {
	Name     string `json:"name"`
	Instance string `json:"instance,omitempty"`
	From     string `json:"from"`
	To       string `json:"to"`
}
