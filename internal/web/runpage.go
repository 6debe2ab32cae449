package web

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

// runPage is the page of one run.
type runPage struct {
	*runView
	Live     bool // it is at work now
	Phase    overview.Phase
	Checks   []checkView
	Held     []plan.Held
	Evidence []evidenceView
	Warnings []string
	Problems []string
}

type checkView struct {
	Mark                    mark
	Name, Component, Detail string
	Next                    string
}

// evidenceView is what was found of a failed component before it was rolled back,
// in short. Its log and the answers it gave are not shown: they may hold what only
// those who may read the file should see.
type evidenceView struct {
	Set     string
	Path    string
	Problem string // why it cannot be shown
	Taken   stamp
	Reason  string
	Unit    string
	Failed  []checkView
}

func (h *Handler) run(r *http.Request) (view, error) {
	now := h.now()
	d, err := runlog.Show(r.Context(), h.o.Root, r.PathValue("id"), now)
	var missing *runlog.NotFoundError
	if errors.As(err, &missing) {
		return view{}, &statusError{http.StatusNotFound, "No run of this name is recorded."}
	}
	if err != nil {
		return view{}, err
	}
	live := d.Status == runlog.StatusRunning
	p := &runPage{runView: newRunView(d, now), Live: live, Phase: overview.Idle, Held: d.Held, Warnings: d.Warnings, Problems: shown(d.Problems)}
	switch {
	case live:
		p.Phase = overview.Running
	case d.Open:
		p.Phase = overview.Interrupted
	}
	for _, c := range d.Checks {
		p.Checks = append(p.Checks, newCheckView(c))
	}
	for _, e := range d.Evidence {
		p.Evidence = append(p.Evidence, newEvidenceView(e, now))
	}
	host, err := os.Hostname()
	if err != nil {
		p.Problems = append(p.Problems, "host name: "+err.Error())
	}
	return view{
		Title: strings.TrimSpace(p.Operation + " " + d.ID), Template: "run.html", Page: "history", Host: host, Live: live, Refresh: live, Body: p,
	}, nil
}

// shown leaves out that what is not for everybody could not be read: who called
// for a run is not shown here, and evidence says so of itself.
func shown(problems []string) []string {
	return slices.DeleteFunc(slices.Clone(problems), func(p string) bool {
		return strings.HasPrefix(p, "who called for it: ") || strings.HasPrefix(p, "evidence: ")
	})
}

// details is what is known of a run that the overview tells of, which may have no
// log.
func (h *Handler) details(ctx context.Context, r *runlog.Record, phase overview.Phase) *runlog.Details {
	d, err := runlog.Show(ctx, h.o.Root, r.ID, h.now())
	if err == nil {
		return d
	}
	d = &runlog.Details{ID: r.ID, Operation: r.Header.Operation, StartedAt: r.Header.StartedAt, Status: run.StatusInterrupted, Open: true}
	if phase == overview.Running {
		d.Status = runlog.StatusRunning
	}
	return d
}

func newCheckView(c component.Check) checkView {
	v := checkView{Name: c.Name, Component: c.Component, Detail: c.Detail, Next: c.Next}
	switch c.Status {
	case component.CheckOK:
		v.Mark = mark{"ok", "OK"}
	case component.CheckWarn:
		v.Mark = mark{"warn", "Warning"}
	case component.CheckFail:
		v.Mark = mark{"bad", "Failed"}
	case component.CheckSkipped:
		v.Mark = mark{"none", "Skipped"}
	default:
		v.Mark = mark{"none", string(c.Status)}
	}
	return v
}

func newEvidenceView(e runlog.Evidence, now time.Time) evidenceView {
	v := evidenceView{Set: component.SetName(e.Component, e.Instance), Path: e.Path, Reason: e.Reason}
	switch e.State {
	case "removed":
		v.Problem = "It was removed."
	case "unreadable":
		v.Problem = e.Problem
	}
	if e.TakenAt != nil {
		v.Taken = stampOf(*e.TakenAt, now)
	}
	if u := e.Unit; u != nil {
		v.Unit = u.SubState
		if u.Result != "" && u.Result != "success" {
			v.Unit = strings.TrimSpace(v.Unit + " (" + u.Result + ")")
		}
	}
	for _, c := range e.Failing {
		v.Failed = append(v.Failed, newCheckView(c))
	}
	return v
}
