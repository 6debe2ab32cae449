package web

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

const (
	// checkOld is how old the last check may be before that is worth a warning: a
	// daily one was then missed.
	checkOld = 48 * time.Hour
	// recentRuns is how many runs the first page lists.
	recentRuns = 8
)

// homeView is the first page.
type homeView struct {
	Phase       overview.Phase
	Newest      string // id of the run it shows as going on or cut off; "" for none
	Pending     bool   // components are being asked how they are
	Preparing   *overview.Process
	Running     *runView
	Interrupted *runView
	Broken      []string // components whose rollback failed
	Headline    mark
	Facts       []fact
	Components  []componentView
	HealthAt    stamp
	Runs        []runLine
	Holds       []holdView
	Windows     []string
	Window      string
	Auto        overview.Auto
	Backups     backupSummary
	Problems    []string
}

// fact is one line of the summary.
type fact struct {
	Name  string
	Value mark
	Note  string
	Link  string
}

// componentView is one row of the table of components.
type componentView struct {
	Name, Role      string
	Version         string
	Previous        string
	Health          mark
	HealthDetail    string
	Available       mark
	Reason          string
	Notes           string // address of the release notes
	Behind          string
	Vulnerable      mark
	VulnerableWhy   string // of unknown: why; else what should be known besides
	Vulnerabilities []vulnerabilityView
	More            int // vulnerabilities that are not listed
	count           int // of all
	Upgraded        stamp
	UpgradedHow     string // where it was not upgraded: installed, or nothing
	History         string
}

// vulnerabilityView is one that the installed version has.
type vulnerabilityView struct {
	ID       string
	Severity string // "" where the record does not say
	FixedIn  string
	Summary  string
	Of       string // what of the component has it, where it is not the component itself
}

type runLine struct {
	ID, Operation string
	Status        mark
	What          string
	Lasted        string
	Trigger       string
	Began         stamp
}

type holdView struct {
	Component, Versions, Reason string
	Until                       stamp
}

type backupSummary struct {
	Text   string
	Newest stamp
}

// home makes the first page.
func (h *Handler) home(r *http.Request) (view, error) {
	ctx := r.Context()
	o, err := h.o.Source.Overview(ctx)
	if err != nil {
		return view{}, err
	}
	now := h.now()
	v := &homeView{Phase: overview.Idle, Preparing: o.Preparing, Broken: o.Broken, Auto: o.Auto, Problems: slices.Clone(o.Problems)}
	switch {
	case o.Running != nil:
		v.Phase, v.Newest = overview.Running, o.Running.ID
		v.Running = newRunView(h.details(ctx, o.Running, v.Phase), now)
	case o.Interrupted != nil:
		v.Phase, v.Newest = overview.Interrupted, o.Interrupted.ID
		v.Interrupted = newRunView(h.details(ctx, o.Interrupted, v.Phase), now)
	case o.Preparing != nil:
		v.Phase = overview.Preparing
	}
	answers, at, pending := h.live.get(ctx, versionsOf(o))
	v.Pending, v.HealthAt = pending, stampOf(at, now)
	for i := range o.Components {
		v.Components = append(v.Components, componentRow(&o.Components[i], answers, pending, now))
	}
	for i, s := range o.Runs {
		if i == recentRuns {
			break
		}
		v.Runs = append(v.Runs, newRunLine(s, now))
	}
	for _, hold := range o.Holds {
		v.Holds = append(v.Holds, newHoldView(hold, now))
	}
	v.Windows, v.Window = o.Windows.List, windowText(o.Windows, now)
	v.Backups = summarize(o.Backups, now)
	v.Facts = v.facts(o, now)
	v.Headline = v.headline(o)
	return view{
		Title: o.Host, Template: "home.html", Page: "status", Host: o.Host, Build: o.Build, Live: true,
		Refresh: o.Running != nil || o.Preparing != nil, Body: v,
	}, nil
}

// versionsOf lists what is installed, with the version it must report.
func versionsOf(o *overview.Overview) map[string]string {
	out := map[string]string{}
	for _, c := range o.Components {
		if c.Version != "" {
			out[c.Name] = c.Version
		}
	}
	return out
}

func componentRow(c *overview.Component, answers map[string]Condition, pending bool, now time.Time) componentView {
	v := componentView{
		Name: c.Name, Role: string(c.Role), Version: c.Version, Previous: c.Previous, Upgraded: stampOf(c.UpgradedAt, now),
		History: "/history?" + url.Values{"component": {c.Name}}.Encode(),
	}
	if c.UpgradedAt.IsZero() && !c.InstalledAt.IsZero() {
		v.Upgraded, v.UpgradedHow = stampOf(c.InstalledAt, now), "installed"
	}
	v.Health, v.HealthDetail = healthMark(c, answers, pending)
	v.Available, v.Reason = availableMark(c)
	if k := c.Candidate; k != nil {
		v.Notes = webAddress(k.NotesURL)
		if k.VersionsBehind > 0 {
			v.Behind = plural(k.VersionsBehind, "version behind", "versions behind")
		}
	}
	v.vulnerable(c)
	return v
}

func healthMark(c *overview.Component, answers map[string]Condition, pending bool) (mark, string) {
	a, ok := answers[c.Name]
	switch {
	case !ok && pending:
		return mark{"none", "Being asked"}, ""
	case !ok:
		return mark{"none", "Not known"}, ""
	}
	switch a.Health {
	case Healthy:
		return mark{"ok", "Healthy"}, a.Detail
	case Unhealthy:
		return mark{"bad", "Unhealthy"}, a.Detail
	case Stopped:
		return mark{"bad", "Not running"}, a.Detail
	}
	return mark{"none", "Not known"}, strings.TrimPrefix(a.Detail, "not known: ")
}

// availableMark says what could be installed, and why it is not.
func availableMark(c *overview.Component) (mark, string) {
	k := c.Candidate
	if k == nil {
		if c.CheckError != "" {
			return mark{"none", "Not known"}, "upstream could not be asked: " + c.CheckError
		}
		return mark{"none", "Not known"}, "no check has looked for it"
	}
	reason := k.Reason
	if c.CheckError != "" && !strings.Contains(reason, c.CheckError) {
		reason = strings.TrimPrefix(reason+"; the last answer is old: "+c.CheckError, "; ")
	}
	switch {
	case k.Action == plan.ActionUpgrade:
		to := k.Target
		if to.IsZero() {
			to = k.Latest
		}
		if !to.Equal(k.Latest) && !k.Latest.IsZero() {
			reason = strings.TrimSuffix(fmt.Sprintf("newest is %s; %s", k.Latest, reason), "; ")
		}
		return mark{"new", to.String()}, reason
	case unchecked(k):
		return mark{"none", "Not known"}, fmt.Sprintf("%s is the newest; %s", k.Latest, reason)
	case k.Latest.IsZero():
		return mark{"none", "Not known"}, reason
	case k.Action == plan.ActionHold:
		return mark{"hold", k.Latest.String() + " held"}, reason
	case k.Action == plan.ActionBlocked:
		return mark{"hold", k.Latest.String() + " blocked"}, reason
	case k.VersionsBehind == 0 && k.Type == component.BumpNone:
		if reason == "up to date" {
			reason = ""
		}
		return mark{"ok", "Up to date"}, reason
	}
	return mark{"none", k.Latest.String() + " left alone"}, reason
}

// unchecked reports whether what a check found does not say what could be done.
func unchecked(k *plan.Candidate) bool {
	return k.Action == plan.ActionSkip && k.Reason == overview.Unchecked && k.VersionsBehind > 0
}

// maxListed is how many vulnerabilities of a component are listed; the worst come
// first.
const maxListed = 5

// vulnerable fills in what is known of vulnerabilities. The unknown is never taken
// for safe.
func (v *componentView) vulnerable(c *overview.Component) {
	r := c.Vulnerability
	if r == nil {
		v.Vulnerable = mark{"none", "Not known"}
		return
	}
	v.VulnerableWhy = r.Reason
	switch r.State {
	case vulnerability.Affected:
		v.Vulnerable = mark{"bad", plural(len(r.Vulnerabilities), "known", "known")}
	case vulnerability.None:
		v.Vulnerable = mark{"ok", "None known"}
	default:
		v.Vulnerable = mark{"none", "Not known"}
	}
	for i, f := range r.Vulnerabilities {
		if i == maxListed {
			v.More = len(r.Vulnerabilities) - i
			break
		}
		one := vulnerabilityView{ID: f.ID, FixedIn: f.FixedIn, Summary: f.Summary}
		if f.Severity != vulnerability.SeverityUnknown {
			one.Severity = string(f.Severity)
		}
		if f.Source != vulnerability.SourceComponent {
			one.Of = strings.TrimSpace(f.Module + " " + f.Version)
		}
		v.Vulnerabilities = append(v.Vulnerabilities, one)
	}
	v.count = len(r.Vulnerabilities)
}

// webAddress is an address that a link may lead to; "" for anything else.
func webAddress(s string) string {
	if u, err := url.Parse(s); err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" {
		return s
	}
	return ""
}

func newRunLine(s state.RunSummary, now time.Time) runLine {
	what := strings.Join(s.ComponentsUpgraded, ", ")
	if what == "" {
		what = "nothing was changed"
	}
	status := statusMark(s.Status)
	if s.Operation == "rollback" && s.Status == "rolled_back" {
		status = mark{"ok", "Rolled back"}
	}
	return runLine{
		ID: s.ID, Operation: cmp.Or(map[string]string{"apply": "Upgrade", "rollback": "Rollback", "restart": "Restart"}[s.Operation], s.Operation, "Upgrade"),
		Status: status, What: what, Lasted: seconds(float64(s.DurationSeconds)), Trigger: trigger(s.TriggeredBy), Began: stampOf(s.Timestamp, now),
	}
}

func newHoldView(h plan.Hold, now time.Time) holdView {
	v := holdView{Component: h.Component, Versions: "all versions", Reason: h.Reason, Until: stampOf(h.Until, now)}
	if h.Range != nil {
		v.Versions = h.Range.String()
	}
	return v
}

func windowText(w overview.Windows, now time.Time) string {
	switch {
	case len(w.List) == 0:
		return "There are none: an unattended run may begin at any time."
	case w.Open:
		return "One is open now."
	case w.Next.IsZero():
		return "When the next one opens is not known."
	}
	s := stampOf(w.Next, now)
	return fmt.Sprintf("The next one opens %s, at %s.", s.Ago, s.Text)
}

func summarize(list []overview.Backup, now time.Time) backupSummary {
	if len(list) == 0 {
		return backupSummary{Text: "No backup point is known. The first upgrade takes one."}
	}
	var bytes int64
	broken := 0
	for _, b := range list {
		bytes += b.Bytes
		if !b.Complete {
			broken++
		}
	}
	s := backupSummary{Text: fmt.Sprintf("%s, %s", plural(len(list), "backup point", "backup points"), plan.Bytes(bytes)), Newest: stampOf(backupTime(list[0].Timestamp), now)}
	if broken > 0 {
		s.Text += fmt.Sprintf("; %d not complete", broken)
	}
	return s
}

// backupTime is the moment in the name of a backup point, or of a run.
func backupTime(name string) time.Time {
	const form = "20060102_150405"
	t, err := time.Parse(form, name[:min(len(name), len(form))])
	if err != nil {
		return time.Time{}
	}
	return t
}
