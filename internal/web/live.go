package web

import (
	"fmt"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

// runView is a run as the page of a run, or the first page, shows it.
type runView struct {
	ID        string
	Operation string
	Trigger   string
	PID       int
	Program   string
	Began     stamp
	Lasted    string
	Status    mark
	Backup    string
	Planned   []plannedView
	Steps     []stepView
	Progress  progressView
	Recovered []stamp // when recovery of it began
	Command   string  // to type where a person is needed; may be empty
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

// newRunView makes the view of a record. alive tells that the run is at work now:
// steps without an end go on, and were cut off otherwise.
func newRunView(r *runlog.Record, alive bool, now time.Time) *runView {
	v := &runView{
		ID: r.ID, Operation: operation(r.Header.Operation), Trigger: trigger(r.Header.Trigger), PID: r.Header.PID, Program: r.Header.ProgramBuild,
		Began: stampOf(r.Header.StartedAt, now), Backup: r.Header.BackupPath, Planned: planned(r, alive), Progress: progress(r),
	}
	total := now.Sub(r.Header.StartedAt)
	switch {
	case r.Result != nil:
		v.Status, v.Lasted = statusMark(r.Result.Status), seconds(r.Result.Duration)
		if r.Result.Operation == run.Rollback && r.Result.Status == run.StatusRolledBack {
			v.Status = mark{"ok", "Rolled back"}
		}
		v.Backup = r.Result.BackupPath
		total = time.Duration(r.Result.Duration * float64(time.Second))
	case alive:
		v.Status, v.Lasted = mark{"busy", "Running"}, seconds(total.Seconds())
	default:
		v.Status, v.Lasted, total = mark{"bad", "Cut off"}, "", 0
	}
	for _, at := range r.Recoveries {
		v.Recovered = append(v.Recovered, stampOf(at, now))
	}
	for i := range r.Steps {
		s := newStepView(r, i, alive, now)
		s.Same = i > 0 && s.Set == v.Steps[i-1].Set
		v.Steps = append(v.Steps, s)
	}
	v.place(r, total)
	return v
}

// place puts each step at its place in the run's time.
func (v *runView) place(r *runlog.Record, total time.Duration) {
	start := r.Header.StartedAt
	for _, s := range r.Steps {
		if s.Ended != nil {
			total = max(total, s.Ended.Sub(start))
		}
		total = max(total, s.Began.Sub(start))
	}
	if total <= 0 || len(r.Recoveries) > 0 { // days may lie between a run and its recovery
		return
	}
	percent := func(d time.Duration) float64 { return min(100, max(0, 100*float64(d)/float64(total))) }
	for i, s := range r.Steps {
		v.Steps[i].Left = percent(s.Began.Sub(start))
		length := time.Duration(s.Seconds * float64(time.Second))
		if v.Steps[i].Busy {
			length = total - s.Began.Sub(start)
		}
		v.Steps[i].Width = max(0.6, min(percent(length), 100-v.Steps[i].Left))
	}
}

func newStepView(r *runlog.Record, i int, alive bool, now time.Time) stepView {
	s := r.Steps[i]
	p := progress(r)
	v := stepView{
		Run: r.ID, Index: i, Set: setName(s.Component, s.Instance), Label: string(s.Step), Began: s.Began.UTC().Format("2006-01-02T15:04:05.000Z07:00"),
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
	case s.Ended == nil && alive && !before(r, s):
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

// before reports whether a step was cut off by what a recovery came after.
func before(r *runlog.Record, s runlog.Step) bool {
	n := len(r.Recoveries)
	return n > 0 && s.Began.Before(r.Recoveries[n-1])
}

// planned tells how each change of a run stands. What a run that goes on has done
// with a component is taken from its steps.
func planned(r *runlog.Record, alive bool) []plannedView {
	var out []plannedView
	if r.Result != nil {
		for _, o := range r.Result.Components {
			p := plannedView{
				Set: setName(o.Name, o.Instance), From: o.From.String(), To: o.To.String(), State: statusMark(string(o.Status)), Error: o.Error,
			}
			switch {
			case r.Result.Operation == run.Rollback && o.Status == run.RolledBack:
				p.State = mark{"ok", "Rolled back"}
			case r.Result.Operation == run.Restart && o.Status == run.Upgraded:
				p.State = statusMark("restarted")
			}
			if o.Status != run.NotAttempted && o.Status != run.Skipped {
				p.Took, p.Down = seconds(o.Duration), seconds(o.Downtime)
			}
			out = append(out, p)
		}
		return out
	}
	seen := map[string]int{}
	for _, c := range r.Header.Components {
		set := setName(c.Name, c.Instance)
		nth := seen[set]
		seen[set]++
		out = append(out, plannedView{Set: set, From: c.From, To: c.To, State: stateOf(r, c, nth, alive)})
	}
	return out
}

// stateOf is how the nth change of a component stands while the run goes on. A
// component that climbs through a stepping stone has several.
func stateOf(r *runlog.Record, c run.Planned, nth int, alive bool) mark {
	begun, last := 0, -1
	for i, s := range r.Steps {
		if s.Component != c.Name || s.Instance != c.Instance {
			continue
		}
		if begun == 0 || s.Step == run.StepPlace {
			begun++
		}
		last = i
	}
	switch {
	case nth >= begun && alive:
		return mark{"none", "Waiting"}
	case nth >= begun:
		return statusMark(string(run.NotAttempted))
	case nth < begun-1:
		return mark{"ok", "Done"}
	}
	s := r.Steps[last]
	switch {
	case s.Ended == nil && !alive:
		return mark{"bad", "Cut off at " + string(s.Step)}
	case s.Step == run.StepUndo && s.Ended == nil:
		return mark{"warn", "Rolling back"}
	case s.Step == run.StepUndo && s.Error == "":
		return mark{"warn", "Rolled back"}
	case s.Error != "":
		return mark{"bad", "Failed at " + string(s.Step)}
	case s.Ended == nil:
		return mark{"busy", "At work: " + string(s.Step)}
	case slices.ContainsFunc(r.Steps[last+1:], func(o runlog.Step) bool { return o.Component != "" }):
		return mark{"ok", "Done"}
	case alive:
		return mark{"busy", "At work"}
	}
	return mark{"bad", "Cut off"}
}

// progress counts the changes that were begun.
func progress(r *runlog.Record) progressView {
	p := progressView{Of: len(r.Header.Components)}
	begun := map[string]bool{}
	current := ""
	for _, s := range r.Steps {
		if s.Component == "" {
			continue
		}
		set := setName(s.Component, s.Instance)
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
	case run.Apply:
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
