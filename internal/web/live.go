package web

import (
	"fmt"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

// runView is a run as its page, or the first page, shows it.
type runView struct {
	ID        string
	Operation string
	Target    string // of a rollback
	Trigger   string
	PID       int
	Program   string
	Began     stamp
	Lasted    string
	Status    mark
	Backup    string
	BackupIs  string // what became of it
	Planned   []plannedView
	Steps     []stepView
	Progress  progressView
	Recovered []stamp // when recovery of it began
	Command   string  // to type where a person is needed; may be empty
	Cut       string  // why he is
	Kept      string  // why there is no more to show; "" where all is kept
}

// plannedView is one change of a run.
type plannedView struct {
	Set      string
	From, To string
	State    mark
	Error    string
	Down     string
	Took     string
}

// progressView says how far a run is, by its changes.
type progressView struct {
	At, Of int
	Text   string
}

// stepView is one step, in pages and, as JSON, in events.
type stepView struct {
	Run    string `json:"run"`
	Index  int    `json:"index"`
	Set    string `json:"set"` // component, or its instance; "" for the run as a whole
	Label  string `json:"label"`
	Kind   string `json:"kind"` // of the mark
	Sign   string `json:"sign"`
	State  string `json:"state"` // words for the mark
	Began  string `json:"began"` // RFC 3339 with milliseconds, for a clock that goes on
	Took   string `json:"took"`
	Busy   bool   `json:"busy"`
	Detail string `json:"detail"`
	Say    string `json:"say"` // for who listens rather than looks

	Progress string `json:"progress"` // of the run
	At       int    `json:"at"`
	Of       int    `json:"of"`

	Same        bool    `json:"-"` // of the same component as the step before it
	Left, Width float64 `json:"-"` // where it is in the run's time, in percent
}

// course is what is needed to show the steps of a run.
type course struct {
	id         string
	steps      []runlog.Step
	recoveries []time.Time
	changes    int  // planned
	alive      bool // it is at work: steps without an end go on, and were cut off otherwise
}

// newRunView makes the view of a run.
func newRunView(d *runlog.Details, now time.Time) *runView {
	c := course{id: d.ID, recoveries: d.Recoveries, changes: len(d.Components), alive: d.Status == runlog.StatusRunning}
	for _, s := range d.Steps {
		c.steps = append(c.steps, s.Step)
	}
	v := &runView{
		ID: d.ID, Operation: operation(d.Operation), Target: d.Target, Trigger: trigger(d.Trigger), PID: d.PID, Program: d.Program,
		Began: stampOf(d.StartedAt, now), Progress: c.progress(), Status: runMark(d),
	}
	if d.EndedAt != nil || c.alive {
		v.Lasted = seconds(d.Duration)
	}
	if d.Backup != nil {
		v.Backup, v.BackupIs = d.Backup.Path, map[string]string{"incomplete": "not complete", "removed": "removed", "not_taken": "not taken"}[d.Backup.State]
	}
	v.Kept = map[string]string{
		runlog.KeptResult:  "Only its result is kept: an older program made it, or its log could not be written.",
		runlog.KeptJournal: "Only its journal is kept: an older program made it, or its log could not be written.",
		runlog.KeptRow:     "Its details were removed; this is what the history has of it.",
	}[d.Kept]
	switch {
	case c.alive:
	case d.Open && d.EndedAt == nil:
		v.Cut, v.Command = "This run was cut off", "observability-upgrade recover"
	case d.Open:
		v.Cut, v.Command = "This run could not put back all", "observability-upgrade recover"
	}
	for _, p := range d.Components {
		v.Planned = append(v.Planned, newPlannedView(d, p))
	}
	for _, at := range d.Recoveries {
		v.Recovered = append(v.Recovered, stampOf(at, now))
	}
	for i := range c.steps {
		s := c.view(i, now)
		s.Same = i > 0 && s.Set == v.Steps[i-1].Set
		v.Steps = append(v.Steps, s)
	}
	v.place(d)
	return v
}

func runMark(d *runlog.Details) mark {
	switch {
	case d.Status == runlog.StatusRunning:
		return mark{"busy", "At work"}
	case d.Open && d.EndedAt == nil:
		return mark{"bad", "Cut off"}
	case d.Status == runlog.StatusUnknown:
		return mark{"none", "Not known"}
	case d.Operation == run.Rollback && d.Status == run.StatusRolledBack:
		return mark{"ok", "Rolled back"}
	}
	return statusMark(d.Status)
}

func newPlannedView(d *runlog.Details, c runlog.Component) plannedView {
	p := plannedView{Set: component.SetName(c.Name, c.Instance), From: c.From, To: c.To, State: statusMark(c.Status), Error: c.Error}
	switch {
	case c.RolledBackAt != nil:
		p.State = mark{"warn", "Upgraded, taken back later"}
	case d.Operation == run.Rollback && c.Status == string(run.RolledBack):
		p.State = mark{"ok", "Rolled back"}
	case d.Operation == run.Restart && c.Status == string(run.Upgraded):
		p.State = statusMark("restarted")
	}
	if c.From == c.To {
		p.From = ""
	}
	if (d.EndedAt != nil || d.Kept == runlog.KeptRow) && c.Status != string(run.NotAttempted) {
		p.Took, p.Down = seconds(c.Duration), seconds(c.Downtime)
	}
	return p
}

// place puts each step at its place in the run's time.
func (v *runView) place(d *runlog.Details) {
	total := d.Duration
	for _, s := range d.Steps {
		total = max(total, s.Offset+s.Seconds)
	}
	if total <= 0 || len(d.Recoveries) > 0 { // days may lie between a run and its recovery
		return
	}
	percent := func(s float64) float64 { return min(100, max(0, 100*s/total)) }
	for i, s := range d.Steps {
		length := s.Seconds
		if v.Steps[i].Busy {
			length = total - s.Offset
		}
		v.Steps[i].Left = percent(s.Offset)
		v.Steps[i].Width = max(0.6, min(percent(length), 100-v.Steps[i].Left))
	}
}

// view is one step as it is now.
func (c course) view(i int, now time.Time) stepView {
	s := c.steps[i]
	p := c.progress()
	v := stepView{
		Run: c.id, Index: i, Set: component.SetName(s.Component, s.Instance), Label: string(s.Step), Began: s.Began.UTC().Format("2006-01-02T15:04:05.000Z07:00"),
		Took: seconds(s.Seconds), Detail: s.Detail, Progress: p.Text, At: p.At, Of: p.Of,
	}
	if s.Step == run.StepUndo {
		v.Label = "rollback"
	}
	m := mark{"ok", "Done"}
	switch {
	case s.Error != "":
		m = mark{"bad", "Failed"}
		v.Detail = s.Error
		if s.Detail != "" {
			v.Detail = s.Detail + ": " + s.Error
		}
	case s.Ended == nil && c.alive && !c.cut(s):
		m = mark{"busy", "At work"}
		v.Busy, v.Took = true, seconds(now.Sub(s.Began).Seconds())
	case s.Ended == nil:
		m = mark{"bad", "Cut off"}
		v.Took = ""
	}
	v.Kind, v.Sign, v.State = m.Kind, m.Sign(), m.Text
	who := v.Set
	if who == "" {
		who = "the run"
	}
	v.Say = fmt.Sprintf("%s: %s, %s", who, v.Label, m.Text)
	if s.Error != "" {
		v.Say += ": " + s.Error
	}
	return v
}

// cut reports whether a step was cut off by what a recovery came after.
func (c course) cut(s runlog.Step) bool {
	n := len(c.recoveries)
	return n > 0 && s.Began.Before(c.recoveries[n-1])
}

// progress counts the changes that were begun. A component that climbs through a
// stepping stone has several, each of which begins with its place.
func (c course) progress() progressView {
	p := progressView{Of: c.changes}
	begun := map[string]bool{}
	current := ""
	for _, s := range c.steps {
		if s.Component == "" {
			continue
		}
		set := component.SetName(s.Component, s.Instance)
		if s.Step == run.StepPlace || !begun[set] {
			p.At++
		}
		begun[set], current = true, set
	}
	p.At = min(p.At, p.Of)
	p.Text = fmt.Sprintf("%d of %d begun", p.At, p.Of)
	if current != "" {
		p.Text = fmt.Sprintf("%d of %d: %s", p.At, p.Of, current)
	}
	return p
}

func operation(o run.Operation) string {
	switch o {
	case run.Apply, "":
		return "Upgrade"
	case run.Rollback:
		return "Rollback"
	case run.Restart:
		return "Restart"
	}
	return string(o)
}

func trigger(t string) string {
	switch t {
	case "manual":
		return "by hand"
	case "auto":
		return "unattended"
	case "scheduled":
		return "by the timer"
	}
	return t
}
