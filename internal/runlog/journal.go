package runlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// journalFile is the journal of a run while it is open.
func journalFile(root layout.Root, id string) string {
	return filepath.Join(root.JournalDir(), id+".journal")
}

// fromJournal makes a record of a run that kept no log and no result, as a restart
// by an older program: its header, and how it ended. fs.ErrNotExist where there is
// no journal either.
func fromJournal(root layout.Root, id string) (*Record, error) {
	if !backup.IsStamp(id) {
		return nil, fs.ErrNotExist
	}
	records, err := journal.Read(journalFile(root, id))
	if errors.Is(err, fs.ErrNotExist) {
		records, err = journal.Read(filepath.Join(root.RunsDir(), id, "journal"))
	}
	if err != nil {
		return nil, err
	}
	r := &Record{ID: id, Steps: []Step{}}
	var end struct {
		Status  string       `json:"status"`
		Outcome *run.Outcome `json:"outcome"`
	}
	var ended time.Time
	outcomes := []run.Outcome{}
	for _, rec := range records {
		switch run.Step(rec.Kind) {
		case run.StepBegin:
			err = errors.Join(err, rec.Decode(&r.Header))
		case "recorded":
			end.Outcome = nil
			if err = errors.Join(err, rec.Decode(&end)); end.Outcome != nil {
				outcomes = append(outcomes, *end.Outcome)
			}
		case run.StepEnd:
			err = errors.Join(err, rec.Decode(&end))
			ended = rec.Time
		}
	}
	if err == nil && r.Header.ID == "" {
		err = fmt.Errorf("the journal of run %s does not say what it was", id)
	}
	if err != nil {
		return nil, err
	}
	if end.Status != "" {
		r.Result = &run.Result{
			ID: id, Status: end.Status, Components: outcomes, Duration: seconds(ended.Sub(r.Header.StartedAt)), BackupPath: r.Header.BackupPath,
		}
	}
	return r, nil
}
