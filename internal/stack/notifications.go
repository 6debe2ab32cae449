package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
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

	head   run.Header // of the run at work
	target string     // the backup point that it goes back to, where it is a rollback
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
		t.head, t.target = *ev.Begin, ""
		if doc, ok := ev.Plan.(rollbackDoc); ok {
			t.target = doc.Target
		}
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
			d.FailedComponent, d.FailedUnit, d.Error, d.AutoRollback = ev.Component, t.unit(ev.Component, ev.Instance), ev.Reason, true
			d.RollbackCommand = t.goBack(ev.Component, len(planned(t.head.Components)) > 1)
			t.send(d)
		}
	}
}

// data is what every message of a run says.
func (t *teller) data(kind string, components []notify.Component) notify.Data {
	d := notify.Data{Event: kind, RunID: t.head.ID, Operation: string(t.head.Operation), BackupTimestamp: t.head.ID, Components: components}
	if t.head.Operation == run.Apply {
		d.RollbackCommand = t.goBack("", false)
	}
	return d
}

// goBack is what takes the run at work back by hand: a component of it, where it has
// others that nothing is wrong with.
func (t *teller) goBack(component string, others bool) string {
	cmd := "observability-upgrade rollback --to=" + t.head.ID
	if others {
		cmd += " --component=" + component
	}
	return t.s.Root.Typed(cmd)
}

// unit is what a component, or an instance of it, runs as here; "" where that is not
// known, or on another host.
func (t *teller) unit(name, instance string) string {
	if name == "" {
		return ""
	}
	for _, in := range t.s.neighbours {
		if in.Component.Name != name {
			continue
		}
		for _, one := range parts(in) {
			if one.Remote() && one.Instance == instance {
				return ""
			}
			if one.Instance == instance && one.Service.Unit != "" {
				return one.Service.Unit
			}
		}
	}
	var c *component.Component
	if t.s.Catalogue != nil {
		c, _ = t.s.Catalogue.Get(name)
	}
	if c != nil && instance != "" {
		for _, one := range c.Instances.List {
			if one.Name == instance && len(one.Exec) == 0 {
				return inventory.ServiceOf(c.Of(one), t.s.Root, instance).Unit
			}
		}
		return ""
	}
	if st, err := t.s.State(); err == nil && st.Components[name].Service != "" {
		return st.Components[name].Service
	}
	if c != nil {
		return inventory.ServiceOf(c, t.s.Root, "").Unit
	}
	return ""
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
		t.head, t.target = run.Header{ID: res.ID, Operation: res.Operation}, "" // it never came to a run
	}
	var done, back, failed []notify.Component
	var broken run.Outcome
	unchecked := false
	for _, o := range res.Components {
		c := toldOf(res.Operation, o)
		switch o.Status {
		case run.Upgraded:
			done, unchecked = append(done, c), unchecked || !o.Healthy
		case run.RolledBack:
			back = append(back, c)
		case run.Failed, run.RollbackFailed:
			failed = append(failed, c)
			if broken.Name == "" || o.Status == run.RollbackFailed {
				broken = o
			}
		}
	}
	d := t.data("", nil)
	d.Status, d.ActualDuration = res.Status, notify.Duration(time.Duration(res.Duration*float64(time.Second)))
	d.Warnings, d.Unchecked = res.Warnings, unchecked
	if d.Error = broken.Error; d.Error == "" && err != nil {
		d.Error = err.Error()
	}
	if broken.Name == "" && res.Status == run.StatusFailed {
		broken.Name, broken.Instance = culprit(err)
	}
	d.FailedComponent, d.FailedUnit = broken.Name, t.unit(broken.Name, broken.Instance)
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
	default: // cancelled, or nothing to do
		return
	}
	d.Kept = kept(d.Event, res)
	if d.Event == notify.UpgradeFailed || d.Event == notify.RollbackRequired {
		d.Next = t.s.Root.Typed(FirstMend(err, Next(res, err), res.Status == run.StatusRollbackFail))
	}
	t.wayBack(&d, res)
	t.send(d)
}

// wayBack says to which backup point a run goes, or can be taken, back.
func (t *teller) wayBack(d *notify.Data, res run.Result) {
	if res.Operation == run.Rollback {
		if d.BackupTimestamp = t.target; t.target == "" { // recovered: it began in another process
			d.BackupTimestamp = readTarget(filepath.Join(t.s.Root.Backups(), res.ID))
		}
		return
	}
	others, touched, mine := false, false, false
	for _, o := range res.Components {
		others = others || o.Name != d.FailedComponent
		if o.Status == run.Upgraded || o.Status == run.RolledBack || o.Status == run.RollbackFailed {
			touched, mine = true, mine || o.Name == d.FailedComponent
		}
	}
	d.Refused = d.Event == notify.UpgradeFailed && !touched
	switch {
	case res.BackupPath == "", d.Event == notify.UpgradeFailed && !mine:
		// The point holds nothing that its command should take back.
		d.BackupTimestamp, d.RollbackCommand = "", ""
	case d.FailedComponent != "" && d.Event != notify.RollbackCompleted:
		d.RollbackCommand = t.goBack(d.FailedComponent, others)
	}
}

// readTarget is the backup point that the rollback went back to which took the point
// in dir first; "" where that cannot be told.
func readTarget(dir string) string {
	var doc rollbackDoc
	data, err := os.ReadFile(filepath.Join(dir, "upgrade-plan.json"))
	if err != nil || json.Unmarshal(data, &doc) != nil || doc.Operation != run.Rollback {
		return ""
	}
	return doc.Target
}

// toldOf is an outcome as messages have it: OldVersion is before the upgrade, also
// where that is rolled back.
func toldOf(op run.Operation, o run.Outcome) notify.Component {
	c := notify.Component{Name: o.Name, Instance: o.Instance, OldVersion: o.From.String(), NewVersion: o.To.String()}
	if op == run.Rollback {
		c.OldVersion, c.NewVersion = c.NewVersion, c.OldVersion
	}
	return c
}

// kept are the components, or instances, of a run which did not all go well that stay
// elsewhere than those that the message is of: upgraded though another failed, not
// come to by a rollback, or back though another is not.
func kept(event string, res run.Result) []notify.Component {
	var out []notify.Component
	for _, o := range res.Components {
		c := toldOf(res.Operation, o)
		unsure := slices.ContainsFunc(res.Components, func(x run.Outcome) bool {
			return x.Name == o.Name && x.Instance == o.Instance && x.Status == run.RollbackFailed
		})
		switch {
		case unsure, event == notify.UpgradeCompleted:
			continue
		case o.Status == run.Upgraded, o.Status == run.RolledBack && res.Operation == run.Rollback && event == notify.RollbackRequired:
			c.CurrentVersion = o.To.String()
		case res.Operation == run.Rollback && (o.Status == run.NotAttempted || o.Status == run.Failed && event == notify.RollbackCompleted):
			c.CurrentVersion = o.From.String()
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

// culprit is the component, and the instance of it, that an error names.
func culprit(err error) (name, instance string) {
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Component != "" {
		name = refused.Component
	}
	var checks *ChecksError
	if name == "" && errors.As(err, &checks) {
		for _, c := range checks.Failed {
			name = cmp.Or(name, c.Component)
		}
	}
	name, instance, _ = strings.Cut(name, "@")
	return name, instance
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
	d.Status, d.Error, d.BackupTimestamp, d.RollbackCommand, d.Refused = run.StatusFailed, err.Error(), "", "", true
	name, instance := culprit(err)
	d.FailedComponent, d.FailedUnit = name, t.unit(name, instance)
	d.Next = s.Root.Typed(FirstMend(err, Next(run.Result{}, err), false))
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
