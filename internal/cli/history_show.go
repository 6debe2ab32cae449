package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

func newHistoryShow(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "show RUN|ID|last",
		Short: "Show a whole run: who, what, every step with its time, evidence, checks",
		Long: `Show a whole run: of an upgrade, a rollback or a restart, also while it is at
work. Name it by its id, by the number that "history" prints of one of its
upgrades, or "last" for the newest.

Of a run that is older than the newest retention.runs only what the history says
is left.`,
		Example: `  observability-upgrade history show last
  observability-upgrade history show 20261125_120000
  observability-upgrade history show 17 --output=json | jq '.steps[] | select(.error != "")'`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			ids, directive := g.completeRuns(cmd, args, toComplete)
			if len(ids) > 0 {
				ids = append([]string{"last\tthe newest run"}, ids...)
			}
			return ids, directive
		},
		RunE: func(cmd *cobra.Command, args []string) error { return g.showRun(cmd.Context(), args[0]) },
	}
}

func (g *global) showRun(ctx context.Context, ref string) error {
	d, err := runlog.Show(ctx, layout.Root(g.root), ref, time.Now())
	if err != nil {
		return unknownRun(err)
	}
	return g.print(d, func(w io.Writer) error {
		p := &runPage{Style: g.style(), root: layout.Root(g.root)}
		p.run(d)
		_, err := io.WriteString(w, p.String())
		return err
	})
}

// runPage lays out a run as text.
type runPage struct {
	strings.Builder
	plan.Style
	root layout.Root
}

func (p *runPage) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// must is for what writes into the page, which takes everything.
func (p *runPage) must(err error) {
	if err != nil {
		panic(err)
	}
}

// field writes a labelled value, wrapped.
func (p *runPage) field(label, value string) {
	p.WriteString(p.Paragraph(fmt.Sprintf("%-10s", label), strings.Repeat(" ", 10), plan.Default, value))
}

func (p *runPage) run(d *runlog.Details) {
	title := "Run " + d.ID
	if d.ID == "" {
		title = "Upgrade of another program"
	}
	p.WriteString(p.Heading(title + ": " + d.Status))
	p.head(d)
	p.state(d)
	p.components(d)
	p.paragraphs("Warnings:", d.Warnings)
	for _, e := range d.Evidence {
		p.evidence(d, e)
	}
	p.steps(d)
	for _, part := range []struct {
		there bool
		write func() error
	}{
		{len(d.Held) > 0, func() error { return plan.WriteHeld(p, d.Held, p.Style) }},
		{len(d.Checks) > 0, func() error { return plan.WriteChecks(p, d.Checks, p.Style) }},
	} {
		if part.there {
			p.line("")
			p.must(part.write())
		}
	}
	p.paragraphs("Could not be read:", d.Problems)
}

var (
	operations   = map[run.Operation]string{run.Apply: "Upgrade", run.Rollback: "Rollback", run.Restart: "Restart"}
	triggerWords = map[string]string{"manual": "by hand", "auto": "unattended", "scheduled": "unattended, by the timer"}
)

// head tells what, when and by whom.
func (p *runPage) head(d *runlog.Details) {
	what := operations[d.Operation]
	if what == "" {
		what = orDash(string(d.Operation))
	}
	if d.Target != "" {
		what += " to " + d.Target
	}
	if word := triggerWords[d.Trigger]; word != "" {
		what += ", " + word
	}
	p.field("What", what)
	p.field("When", when(d))
	recovery := func(e audit.Entry) bool { return e.Command == "recover" }
	switch {
	case slices.ContainsFunc(d.Audit, func(e audit.Entry) bool { return !recovery(e) }) || d.ID == "":
	case d.Status == runlog.StatusRunning:
		p.field("Who", "is written into the audit log when it ends")
	case d.AuditUnread():
		p.field("Who", "the audit log could not be read, see below")
	default:
		p.field("Who", "the audit log does not say")
	}
	for _, e := range d.Audit {
		label, who := "Who", fmt.Sprintf("%s, exit code %d", caller(e), e.ExitCode)
		if recovery(e) {
			label, who = "Recovered", "by "+who+", until "+e.Time.UTC().Format(time.DateTime)+" UTC"
		}
		p.field(label, who)
		p.line("%-10sobservability-upgrade %s", "", plan.Plain(commandLine(e.Args))) // whole, to be copied
	}
	var program []string
	if d.Program != "" {
		program = append(program, d.Program)
	}
	if d.PID != 0 {
		program = append(program, fmt.Sprintf("process %d", d.PID))
	}
	if len(program) > 0 {
		p.field("Program", strings.Join(program, ", "))
	}
	if d.Backup != nil {
		p.line("%-10s%s (%s)", "Backup", plan.Plain(d.Backup.Path), strings.ReplaceAll(d.Backup.State, "_", " "))
	}
	if d.Notified != nil {
		p.field("Notified", map[bool]string{true: "yes", false: "no, see: observability-upgrade notify status"}[*d.Notified])
	}
}

func when(d *runlog.Details) string {
	at := d.StartedAt.UTC().Format(time.DateTime) + " UTC"
	switch {
	case d.EndedAt != nil:
		at += ", took " + clock(d.Duration)
	case d.Status == runlog.StatusRunning:
		at += ", for " + clock(d.Duration) + " by now"
	case len(d.Steps) > 0:
		last := d.Steps[len(d.Steps)-1]
		at += "; last heard of " + clock(last.Offset+last.Seconds) + " later"
	}
	return at
}

// caller names who called the program.
func caller(e audit.Entry) string {
	if e.SudoUser != "" && e.SudoUser != e.User {
		return e.User + " (sudo by " + e.SudoUser + ")"
	}
	return e.User
}

// commandLine joins arguments as a shell would need them.
func commandLine(args []string) string {
	quoted := make([]string, 0, len(args))
	for _, a := range args {
		quoted = append(quoted, layout.Quoted(a))
	}
	return strings.Join(quoted, " ")
}

// state tells what is unusual about the run.
func (p *runPage) state(d *runlog.Details) {
	say := func(text, next string) {
		p.line("")
		p.WriteString(p.Paragraph("", "", plan.Default, text))
		if next != "" {
			p.line("next:  %s", p.root.Typed(next))
		}
	}
	switch {
	case d.Status == runlog.StatusRunning:
		say("It is at work now.", "")
	case d.Open && d.EndedAt == nil:
		say("INTERRUPTED: it was cut off, and is not recovered yet.", "observability-upgrade recover")
	case d.Open:
		say("NOT FINISHED: not all could be put back; recovery tries again once the cause is gone.", "observability-upgrade recover")
	case d.Status == runlog.StatusUnknown:
		say("It is over, and nothing says how it ended.", "observability-upgrade status")
	}
	switch d.Kept {
	case runlog.KeptResult:
		say("Only its result is kept: an older program made it, or its log could not be written.", "")
	case runlog.KeptJournal:
		say("Only its journal is kept: an older program made it, or its log could not be written.", "")
	case runlog.KeptRow:
		if d.ID == "" {
			say("Another program wrote it into the history; there is nothing more of it.", "")
			return
		}
		say("Its details were removed, as retention.runs in the policy says; this is what the history has of it.", "")
	}
}

func (p *runPage) components(d *runlog.Details) {
	if len(d.Components) == 0 {
		return
	}
	var rows [][]string
	for _, c := range d.Components {
		down, took := downCell(c.Status, c.Healthy, tenths(c.Downtime)), tenths(c.Duration)
		if d.EndedAt == nil && d.Kept != runlog.KeptRow || c.Status == string(run.NotAttempted) {
			down, took = "-", "-"
		}
		row := []string{plan.Plain(component.SetName(c.Name, c.Instance)), orDash(plan.Plain(c.From)), orDash(plan.Plain(c.To)), plan.Plain(c.Status), down, took}
		if d.Operation == run.Restart {
			row = slices.Delete(row, 2, 3)
			row[2] = map[string]string{string(run.Upgraded): "restarted"}[c.Status]
			if row[2] == "" {
				row[2] = c.Status
			}
		}
		rows = append(rows, row)
	}
	header := []string{"Component", "From", "To", "Status", "Down", "Took"}
	if d.Operation == run.Restart {
		header = []string{"Component", "Version", "Status", "Down", "Took"}
	}
	p.line("")
	p.must(table(p, header, rows))
	for _, c := range d.Components {
		name := component.SetName(c.Name, c.Instance)
		if c.Error != "" {
			p.line("")
			p.WriteString(p.Paragraph("", "  ", plan.Default, name+": "+c.Error))
		}
		if c.RolledBackAt != nil {
			p.line("")
			p.WriteString(p.Paragraph("", "  ", plan.Default, fmt.Sprintf("%s: taken back by the run of %s UTC", name, c.RolledBackAt.UTC().Format(time.DateTime))))
		}
	}
}

func (p *runPage) paragraphs(title string, texts []string) {
	if len(texts) == 0 {
		return
	}
	p.line("\n%s", p.Paint(plan.Bold, title))
	for _, t := range texts {
		p.WriteString(p.Paragraph("  ! ", "    ", plan.Default, t))
	}
}

func (p *runPage) evidence(d *runlog.Details, e runlog.Evidence) {
	title := "Evidence of " + plan.Plain(component.SetName(e.Component, e.Instance))
	if e.TakenAt != nil {
		title += ", taken at +" + clock(e.TakenAt.Sub(d.StartedAt).Seconds())
	}
	p.line("\n%s:", p.Paint(plan.Bold, title))
	field := func(label, value string) {
		if value != "" {
			p.WriteString(p.Paragraph(fmt.Sprintf("  %-10s", label), strings.Repeat(" ", 12), plan.Default, value))
		}
	}
	p.line("  %s", plan.Plain(e.Path))
	switch e.State {
	case "removed":
		p.line("  The file was removed.")
		return
	case "unreadable":
		field("problem", e.Problem)
		return
	}
	field("reason", e.Reason)
	if u := e.Unit; u != nil {
		text := orDash(u.SubState)
		if u.Result != "" && u.Result != "success" {
			text += ", " + u.Result
		}
		if u.PID != 0 {
			text += fmt.Sprintf(", process %d", u.PID)
		}
		if u.Restarts > 0 {
			text += fmt.Sprintf(", restarted %d times", u.Restarts)
		}
		field("unit", text)
	}
	for _, c := range e.Failing {
		field("check", fmt.Sprintf("%s: %s: %s", c.Name, c.Status, c.Detail))
	}
	field("answer", e.Answer)
	for i, l := range e.Logs {
		label := ""
		if i == 0 {
			label = "log"
		}
		text := l.Message
		if l.Time != nil {
			text = l.Time.UTC().Format(time.TimeOnly) + " " + text
		}
		field(label, text)
	}
	for _, m := range e.Missing {
		field("missing", m)
	}
}

// steps writes every step below its component: when it began, how long it took,
// and what was done.
func (p *runPage) steps(d *runlog.Details) {
	if len(d.Steps) == 0 {
		return
	}
	p.line("\n%s", p.Paint(plan.Bold, "Steps, with the time since the start and how long each took:"))
	told, of := 0, "-"
	for i := range d.Steps {
		s := &d.Steps[i]
		for told < len(d.Recoveries) && !s.Began.Before(d.Recoveries[told]) {
			p.line("  %9s  recovery of the interrupted run", "+"+clock(d.Recoveries[told].Sub(d.StartedAt).Seconds()))
			told, of = told+1, "-"
		}
		if name := component.SetName(s.Component, s.Instance); name != of {
			if of = name; name != "" {
				p.line("  %s", plan.Plain(name))
			}
		}
		took, detail := clock(s.Seconds), s.Detail
		if d.Backup != nil && detail == d.Backup.Path {
			detail = "" // it is told above
		}
		switch {
		case s.Error != "":
			detail = "FAILED: " + s.Error
		case s.Ended != nil:
		case d.Going(s):
			took, detail = "…", strings.TrimSuffix("at work: "+detail, ": ")
		default:
			took, detail = "-", strings.TrimSuffix("cut off: "+detail, ": ")
		}
		lead := fmt.Sprintf("  %9s  %8s  %-11s", "+"+clock(s.Offset), took, stepLabel(s.Step.Step))
		if detail == "" {
			p.line("%s", strings.TrimRight(lead, " "))
			continue
		}
		p.WriteString(p.Paragraph(lead+"  ", strings.Repeat(" ", 36), plan.Default, detail))
	}
	for ; told < len(d.Recoveries); told++ {
		p.line("  %9s  recovery of the interrupted run", "+"+clock(d.Recoveries[told].Sub(d.StartedAt).Seconds()))
	}
}

// clock writes seconds in at most eight columns: with milliseconds below a
// minute, with tenths below an hour.
func clock(s float64) string {
	d := time.Duration(max(0, s) * float64(time.Second)).Round(time.Millisecond)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.3fs", d.Seconds())
	case d < time.Hour:
		d = d.Round(100 * time.Millisecond)
		return fmt.Sprintf("%dm%04.1fs", d/time.Minute, (d % time.Minute).Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%dh%02dm%02ds", d/time.Hour, d%time.Hour/time.Minute, d%time.Minute/time.Second)
}
