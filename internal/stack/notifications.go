package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// teller puts into the queue of notifications what people are to be told of runs.
// Nothing of it can delay or fail a run: what goes wrong is a notice.
type teller struct {
	s     *Stack
	out   *notify.Notifier
	wants map[string]bool // events that some channel lists

	head run.Header // of the run at work
}

// openNotifications reads the configuration of notifications. What ${…} stands for
// is needed by who delivers; where it does not exist the messages wait.
func (s *Stack) openNotifications() error {
	conf, warnings, err := config.LoadNotificationsAsFound(s.Root, s.Env)
	if err != nil {
		return err
	}
	if warnings != nil {
		s.Logger.Warn("notifications wait in the queue until this is mended", "error", warnings)
	}
	s.notifyWith(conf)
	return nil
}

func (s *Stack) notifyWith(conf *config.Notifications) {
	t := &teller{s: s, out: notify.Open(s.Root, s.host, conf, s.Logger), wants: map[string]bool{}}
	for _, ch := range conf.Channels {
		for _, ev := range ch.Events {
			t.wants[ev] = t.wants[ev] || ch.Enabled
		}
	}
	s.tell = t
}

// send queues a message and has it delivered by a process of its own.
func (t *teller) send(d notify.Data) {
	if !t.wants[d.Event] {
		return
	}
	err := t.out.Send(d)
	if t.s.Program != "" {
		err = errors.Join(err, notify.Kick(t.s.Root, t.s.Program))
	}
	if err != nil {
		t.s.Notice(fmt.Sprintf("notification of %s: %v", d.Event, err))
	}
}

// event follows a run.
func (t *teller) event(ev run.Event) {
	switch {
	case ev.Step == run.StepBegin && ev.Begin != nil:
		t.head = *ev.Begin
		if t.head.Operation == run.Apply && ev.Plan != nil { // in a recovery it began before
			d := t.data(notify.UpgradeStarted, planned(t.head.Components))
			if p, ok := ev.Plan.(*plan.Plan); ok {
				d.EstimatedDuration = notify.Duration(time.Duration(p.EstimatedSeconds) * time.Second)
			}
			t.send(d)
		}
	case ev.Step == run.StepUndo && !ev.Done && t.head.Operation == run.Apply:
		for _, kind := range []string{notify.UpgradeFailed, notify.RollbackRequired} {
			d := t.data(kind, planned(slices.DeleteFunc(slices.Clone(t.head.Components), func(p run.Planned) bool { return p.Name != ev.Component })))
			d.FailedComponent, d.Error, d.AutoRollback = ev.Component, ev.Reason, true
			t.send(d)
		}
	}
}

// data is what every message of a run says.
func (t *teller) data(kind string, components []notify.Component) notify.Data {
	return notify.Data{Event: kind, RunID: t.head.ID, BackupTimestamp: t.head.ID, Components: components}
}

// planned lists the components of a run, each once, from where it begins to where
// it is to lead.
func planned(list []run.Planned) []notify.Component {
	var out []notify.Component
	for _, p := range list {
		i := slices.IndexFunc(out, func(c notify.Component) bool { return c.Name == p.Name })
		if i < 0 {
			out = append(out, notify.Component{Name: p.Name, OldVersion: p.From, NewVersion: p.To})
			continue
		}
		out[i].NewVersion = p.To
	}
	return out
}

// ended tells how a run ended, once its outcome is recorded.
func (t *teller) ended(res run.Result, err error) {
	if res.ID == "" || res.Operation == run.Restart {
		return
	}
	if t.head.ID != res.ID {
		t.head = run.Header{ID: res.ID, Operation: res.Operation} // it never came to a run
	}
	var done, back, failed []notify.Component
	broken, broke := "", ""
	for _, o := range res.Components {
		c := notify.Component{Name: o.Name, OldVersion: o.From.String(), NewVersion: o.To.String()}
		if res.Operation == run.Rollback {
			c.OldVersion, c.NewVersion = c.NewVersion, c.OldVersion
		}
		switch o.Status {
		case run.Upgraded:
			done = append(done, c)
		case run.RolledBack:
			back = append(back, c)
		case run.Failed, run.RollbackFailed:
			failed = append(failed, c)
			if broken == "" || o.Status == run.RollbackFailed {
				broken, broke = o.Name, o.Error
			}
		}
	}
	d := t.data("", nil)
	d.Status, d.ActualDuration = res.Status, notify.Duration(time.Duration(res.Duration*float64(time.Second)))
	d.FailedComponent, d.Error = broken, broke
	if d.Error == "" && err != nil {
		d.Error = err.Error()
	}
	undone := res.Operation == run.Rollback || len(back) > 0
	switch res.Status {
	case run.StatusSuccess:
		d.Event, d.Components, d.Error = notify.UpgradeCompleted, done, ""
		if res.Operation == run.Rollback {
			d.Event, d.Components = notify.RollbackCompleted, back
		}
	case run.StatusRollbackFail:
		d.Event, d.Components = notify.RollbackRequired, failed
	case run.StatusRolledBack, run.StatusInterrupted:
		if !undone || len(back) == 0 {
			return // a person ended it before anything was changed
		}
		d.Event, d.Components = notify.RollbackCompleted, back
	case run.StatusFailed:
		d.Event, d.Components = notify.UpgradeFailed, failed
		if res.Operation == run.Rollback {
			d.Event = notify.RollbackRequired
		}
		if res.BackupPath == "" {
			d.BackupTimestamp = ""
		}
	default:
		return
	}
	t.send(d)
}

// refused tells of an unattended run that could not begin. What only has to wait,
// as for a window, or was ended by a person is not told.
func (s *Stack) refused(err error) {
	var window *WindowError
	if err == nil || errors.As(err, &window) || errors.Is(err, context.Canceled) {
		return
	}
	t := s.tell
	t.head = run.Header{ID: run.ReserveID(s.Root, s.now()), Operation: run.Apply}
	d := t.data(notify.UpgradeFailed, nil)
	d.Status, d.Error, d.BackupTimestamp = run.StatusFailed, err.Error(), ""
	var refused *RefusedError
	if errors.As(err, &refused) {
		d.FailedComponent = refused.Component
	}
	t.send(d)
}

// announce tells of new versions, each once, that a run by hand would install; one
// that the run at hand installs is told by that.
func (s *Stack) announce(report plan.CheckReport, installs *plan.Plan) {
	if !s.tell.wants[notify.UpgradeAvailable] {
		return
	}
	var list []notify.Component
	for _, c := range report.Components {
		if c.Action != plan.ActionUpgrade || installs != nil && slices.ContainsFunc(installs.Steps(), func(st plan.Step) bool { return st.Component == c.Name && st.To.Equal(c.Target) }) {
			continue
		}
		n := notify.Component{Name: c.Name, CurrentVersion: c.Current.String(), LatestVersion: c.Target.String()}
		for _, v := range c.Vulnerabilities {
			n.Vulnerabilities = append(n.Vulnerabilities, v.ID)
		}
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b notify.Component) int { return strings.Compare(a.Name, b.Name) })
	fresh, commit, err := s.tell.out.Fresh(list)
	if err == nil && len(fresh) > 0 {
		s.tell.send(notify.Data{Event: notify.UpgradeAvailable, Components: fresh})
		err = commit()
	}
	if err != nil {
		s.Logger.Warn("new versions could not be announced", "error", err)
	}
}
