package stack

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
)

// ComponentStatus is one component in `status`.
type ComponentStatus struct {
	Name       string     `json:"name"`
	Current    string     `json:"current"`
	Previous   string     `json:"previous"`
	Service    string     `json:"service"`
	Active     bool       `json:"active"`
	Healthy    bool       `json:"healthy"`
	UpgradedAt *time.Time `json:"upgraded_at"`
	Vulnerable *bool      `json:"vulnerable"` // null: not known
	Detail     string     `json:"detail,omitempty"`
}

// LastRun is the newest run in `status`.
type LastRun struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// Status is the document of `status`.
type Status struct {
	Components     []ComponentStatus `json:"components"`
	LastRun        *LastRun          `json:"last_run"`
	InterruptedRun *run.Interrupted  `json:"interrupted_run"`
	RunningPID     int               `json:"running_pid,omitempty"` // a mutating command is at work
}

// Status tells what is installed and how it is, and how the last run ended.
func (s *Stack) Status(ctx context.Context) (*Status, error) {
	found, err := s.Inventory(ctx, s.Catalogue.All())
	if err != nil {
		return nil, err
	}
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	doc := &Status{Components: []ComponentStatus{}}
	reports, err := s.probeAll(ctx, found, 0)
	if err != nil {
		return nil, err
	}
	for i, in := range found {
		known := st.Components[in.Component.Name]
		c := ComponentStatus{
			Name: in.Component.Name, Current: in.Version.String(), Previous: known.PreviousVersion,
			Service: in.Service.Label(), Active: in.Status.Active, Healthy: reports[i].Healthy, Detail: reports[i].Failures(),
		}
		if c.Current == "" {
			c.Detail = in.Problem
		}
		if !known.UpgradedAt.IsZero() {
			at := known.UpgradedAt
			c.UpgradedAt = &at
		}
		doc.Components = append(doc.Components, c)
	}
	if n := len(st.UpgradeHistory); n > 0 {
		last := state.Newest(st.UpgradeHistory)
		doc.LastRun = &LastRun{ID: last.ID, Status: last.Status}
	}
	pid, held := lock.Holder(s.Root.Lock())
	if held {
		doc.RunningPID = pid
		return doc, nil // the open journal is that of a run at work
	}
	doc.InterruptedRun, err = run.FindInterrupted(s.Root.JournalDir())
	if errors.Is(err, fs.ErrPermission) {
		s.Notice("the journal directory cannot be read without more rights; an interrupted run would not be seen")
		err = nil
	}
	return doc, err
}
