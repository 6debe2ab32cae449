package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

// maxEvidence bounds what is read of one file of evidence.
const maxEvidence = 16 << 20

// runPage is the page of one run.
type runPage struct {
	*runView
	Live     bool // it is at work now
	Phase    overview.Phase
	Newest   string
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
// in short. Its log and the answers it gave are not shown: they may hold what
// only those who may read the file should see.
type evidenceView struct {
	Component string
	Path      string
	Problem   string // why it cannot be shown
	Taken     stamp
	Reason    string
	Unit      string
	Failed    []checkView
	Lines     string // how many lines of its log are kept
}

func (h *Handler) run(r *http.Request) (view, error) {
	id := r.PathValue("id")
	rec, err := runlog.Read(h.o.Root, id)
	var missing *runlog.NotFoundError
	if errors.As(err, &missing) {
		return view{}, &statusError{http.StatusNotFound, "No run of this name is recorded."}
	}
	if err != nil {
		return view{}, err
	}
	now := h.now()
	_, held := lock.Holder(h.o.Root.Lock())
	phase := overview.PhaseOf(h.o.Root, rec, held)
	live := phase == overview.Running
	p := &runPage{runView: newRunView(rec, live, now), Live: live, Phase: phase, Newest: id}
	if phase == overview.Interrupted {
		p.Command = "observability-upgrade recover"
	}
	p.addPlan(rec.Plan)
	if rec.Result != nil {
		p.Warnings = append(p.Warnings, rec.Result.Warnings...)
		for _, o := range rec.Result.Components {
			if o.Evidence != "" {
				p.Evidence = append(p.Evidence, h.evidence(id, o, now))
			}
		}
	}
	host, err := os.Hostname()
	if err != nil {
		p.Problems = append(p.Problems, "host name: "+err.Error())
	}
	return view{
		Title: p.Operation + " " + id, Template: "run.html", Page: "history", Host: host, Live: live, Refresh: live, Body: p,
	}, nil
}

// addPlan takes what a person may want to know later from the plan of the run.
func (p *runPage) addPlan(raw json.RawMessage) {
	if len(raw) == 0 || string(raw) == "null" {
		return
	}
	var doc plan.Plan
	if err := json.Unmarshal(raw, &doc); err != nil {
		p.Problems = append(p.Problems, "its plan cannot be read: "+err.Error())
		return
	}
	for _, c := range doc.Checks {
		p.Checks = append(p.Checks, newCheckView(c))
	}
	p.Held = doc.Held
	p.Warnings = append(p.Warnings, doc.Warnings...)
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

// evidence reads the file of evidence of one component. Where it is follows from
// the run, whatever its record says.
func (h *Handler) evidence(id string, o run.Outcome, now time.Time) evidenceView {
	v := evidenceView{Component: setName(o.Name, o.Instance), Path: o.Evidence}
	path := filepath.Join(h.o.Root.RunsDir(), id, "evidence", filepath.Base(o.Evidence))
	var e run.Evidence
	err := readJSON(path, &e)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.Problem = "It was removed."
	case errors.Is(err, fs.ErrPermission):
		v.Problem = "Only root may read it."
	case err != nil:
		v.Problem = err.Error()
	}
	if err != nil {
		return v
	}
	v.Taken, v.Reason, v.Lines = stampOf(e.TakenAt, now), e.Reason, plural(len(e.Logs), "line", "lines")
	v.Unit = e.Status.SubState
	if e.Status.Result != "" && e.Status.Result != "success" {
		v.Unit = strings.TrimSpace(v.Unit + " (" + e.Status.Result + ")")
	}
	for _, c := range e.Report.Checks {
		if c.Status == component.CheckFail {
			v.Failed = append(v.Failed, newCheckView(c))
		}
	}
	return v
}

func readJSON(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEvidence+1))
	if err == nil && len(data) > maxEvidence {
		err = fmt.Errorf("%s has more than %d bytes", path, maxEvidence)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
