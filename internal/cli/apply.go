package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type applyOptions struct {
	planOptions
	yes        bool
	dryRun     bool
	continueOn bool
	skipHealth bool
	strategy   string
}

func newApply(g *global) *cobra.Command {
	o := &applyOptions{planOptions: planOptions{global: g}}
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Upgrade, prove health, and roll back by itself what does not prove healthy",
		Long: `Upgrade what the plan names. Everything is downloaded, verified, run for its
version and given the configuration in place to check before the first service
stops; then, one component at a time: back up, stop, swap, start, prove health.
A component that does not prove healthy is rolled back at once.

Ctrl+C before the first stop leaves everything as it was; after it, the
component being changed is rolled back and the run ends with exit code 130.

With --auto nobody is asked, the policies of auto_upgrade decide how far to go,
and the run begins only inside a maintenance window that is long enough for it;
outside, it ends with exit code 8 and nothing is touched.`,
		Example: `  observability-upgrade apply                                # shows the plan and asks
  observability-upgrade apply --yes
  observability-upgrade apply --component=prometheus@2.53.3 --yes
  observability-upgrade apply --auto                         # what the timer does
  observability-upgrade apply --dry-run`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.planFlags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "show the plan and its checks, change nothing")
	f.BoolVar(&o.continueOn, "continue-on-failure", false, "when a component fails, roll it back and go on with the others")
	f.StringVar(&o.strategy, "strategy", string(run.Graceful), "how services are restarted: graceful (stop, swap, start) or fast (swap under the running service, then the service manager's restart)")
	must(cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions([]string{"graceful", "fast"}, cobra.ShellCompDirectiveNoFileComp)))
	f.BoolVar(&o.skipHealth, "skip-health-checks", false, "dangerous: take a running process for a healthy one (needs --force)")
	f.BoolVar(&o.force, "force", false, "do what is refused otherwise: a downgrade, a blacklisted version, --skip-health-checks")
	return cmd
}

func (o *applyOptions) run(ctx context.Context) error {
	look, err := o.look()
	if err != nil {
		return err
	}
	if o.auto {
		o.yes, look.Begin = true, !o.dryRun
	}
	if o.skipHealth && !o.force {
		return &stack.UsageError{Message: "--skip-health-checks leaves a broken upgrade in place; it needs --force as well", Hint: "observability-upgrade apply --help"}
	}
	if o.strategy != string(run.Graceful) && o.strategy != string(run.Fast) {
		return &stack.UsageError{Message: "--strategy=" + o.strategy + ": want graceful or fast", Hint: "observability-upgrade apply --help"}
	}
	s, d, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	if o.dryRun {
		return o.dry(ctx, s, look)
	}
	if !o.yes && !o.InTTY {
		return o.notATerminal()
	}
	var res run.Result
	var p *plan.Plan
	err = s.Mutate(ctx, "apply", o.args, func(ctx context.Context) (string, error) {
		var err error
		res, p, err = o.apply(ctx, s, d, look)
		return res.ID, outcome(res, err)
	})
	if err == nil && res.Status == run.StatusNothingToDo {
		d.close()
		return o.print(resultDocument{Result: res}, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, nothingToDo(p))
			return err
		})
	}
	return o.finish(ctx, d, res, err)
}

// nothingToDo says why a plan has no steps.
func nothingToDo(p *plan.Plan) string {
	count := func(n int, what string) string {
		if n == 1 {
			return "1 component is " + what
		}
		return fmt.Sprintf("%d components are %s", n, what)
	}
	names := make([]string, len(p.Held))
	for i, h := range p.Held {
		names[i] = h.Component
	}
	held := count(len(names), "held back: "+strings.Join(names, ", "))
	switch n := len(p.UpToDate); {
	case len(names) > 0 && n > 0:
		return fmt.Sprintf("Nothing to do: %s, %s.", count(n, "at the version wanted"), held)
	case len(names) > 0:
		return "Nothing to do now: " + held + "."
	case n == 0:
		return "Nothing to do: no component that this program upgrades is installed here (observability-upgrade check)."
	}
	return "Nothing to do: every component is at the version wanted."
}

// continues reports whether a component that fails is left out or rolled back, and
// the run goes on with the others.
func (o *applyOptions) continues(s *stack.Stack) bool {
	return o.continueOn || s.Policy.OnFailure == "continue"
}

// trigger is how the run came about, as history tells it. The timer's service
// says of itself that it is scheduled.
func (o *applyOptions) trigger() string {
	switch {
	case !o.auto:
		return "manual"
	case o.Env("OBSERVABILITY_UPGRADE_TRIGGER") == "scheduled":
		return "scheduled"
	}
	return "auto"
}

// notATerminal refuses to ask where nobody can answer.
func (g *global) notATerminal() error {
	return &stack.UsageError{
		Message: "standard input is not a terminal, so nobody can confirm; nothing was done",
		Hint:    "observability-upgrade " + commandLine(append(slices.Clone(g.args), "--yes")),
	}
}

func (o *applyOptions) dry(ctx context.Context, s *stack.Stack, look stack.LookOptions) error {
	prop, err := s.Propose(ctx, look, o.skipHealth)
	if err != nil {
		return err
	}
	res := run.Result{ID: prop.Plan.ID, Operation: run.Apply, Trigger: o.trigger(), StartedAt: time.Now().UTC(), Status: run.StatusDryRun, Components: []run.Outcome{}}
	for _, st := range prop.Plan.Steps() {
		res.Components = append(res.Components, run.Outcome{Name: st.Component, From: st.From, To: st.To, Status: run.Skipped})
	}
	refusal := prop.Refusal(o.continues(s))
	if refusal == nil {
		for _, left := range prop.LeftOut() {
			for i, c := range res.Components {
				if c.Name == left.Name && c.To.Equal(left.To) {
					res.Components[i].Error = left.Error
				}
			}
		}
	}
	var refused error
	doc := resultDocument{Result: res}
	if refusal != nil {
		refused = &resultError{result: res, err: refusal}
		doc.Error = o.errorOf(ctx, refused)
	}
	err = o.print(doc, func(w io.Writer) error {
		if err := plan.WritePlan(w, prop.Plan, o.style()); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "\nDry run: nothing was changed.")
		return err
	})
	return cmp.Or(err, refused)
}

// apply proposes, asks where it must, and carries out; the plan is nil where there is
// none.
func (o *applyOptions) apply(ctx context.Context, s *stack.Stack, d *display, look stack.LookOptions) (run.Result, *plan.Plan, error) {
	prop, err := s.Propose(ctx, look, o.skipHealth)
	if err != nil {
		return run.Result{}, nil, err
	}
	var warnings []string
	if len(prop.Plan.Steps()) == 0 || o.yes { // the plan, which tells them, is not shown
		warnings = append(warnings, o.tellHeld(prop.Plan.Held)...)
		for _, c := range prop.Warned() {
			warnings = append(warnings, strings.TrimPrefix(c.Component+": ", ": ")+strings.ReplaceAll(c.Name, "_", " ")+": "+c.Detail)
			d.notice(warnings[len(warnings)-1])
		}
	}
	if len(prop.Plan.Steps()) > 0 && !o.yes {
		if err := plan.WritePlan(o.Err, prop.Plan, o.style()); err != nil {
			return run.Result{}, prop.Plan, err
		}
		if prop.Refusal(o.continues(s)) == nil {
			for _, left := range prop.LeftOut() {
				fmt.Fprintf(o.Err, "\n%s %s → %s would be left out: %s\n", left.Name, left.From, left.To, left.Error)
			}
			if err := o.confirm(ctx, "\nProceed with the upgrade?"); err != nil {
				return run.Result{ID: prop.Plan.ID, Operation: run.Apply, Trigger: o.trigger(), StartedAt: time.Now().UTC(), Status: run.StatusCancelled, Components: []run.Outcome{}}, prop.Plan, err
			}
		}
	}
	res, err := s.Apply(ctx, prop, stack.ApplyOptions{
		Trigger: o.trigger(), ContinueOnFailure: o.continues(s), SkipHealth: o.skipHealth, DataBackup: o.dataBackup,
		Strategy: run.Strategy(o.strategy),
	})
	if o.json() {
		res.Warnings = append(warnings, res.Warnings...)
	}
	return res, prop.Plan, err
}

// tellHeld says what is held back and why, and returns it for the document.
func (o *applyOptions) tellHeld(held []plan.Held) (told []string) {
	for _, h := range held {
		text := fmt.Sprintf("held: %s %s: %s", h.Component, h.Versions(), h.Reason)
		told = append(told, text)
		switch {
		case o.records:
			o.logger.Info("held: "+h.Reason, "component", h.Component, "from", h.Current.String(), "to", h.Candidate.String())
		case !o.json():
			fmt.Fprintln(o.Err, text)
		}
	}
	return told
}

// cancelled ends a command at whose question a person did not say yes; a signal is
// an answer as well, with an exit code of its own.
func (g *global) cancelled(ctx context.Context, doc any, done string) error {
	err := g.print(doc, func(w io.Writer) error { _, err := fmt.Fprintf(w, "Cancelled: nothing was %s.\n", done); return err })
	if err == nil && ctx.Err() != nil {
		return codeError{exitInterrupted}
	}
	return err
}

// finish prints a run's result and turns it into the command's error.
func (g *global) finish(ctx context.Context, d *display, res run.Result, err error) error {
	d.close()
	if errors.Is(err, errCancelled) {
		return g.cancelled(ctx, res, "changed")
	}
	if res.Status == "" {
		return err // it never came to a run
	}
	err = outcome(res, err)
	doc := resultDocument{Result: res}
	if err != nil {
		doc.Error = g.errorOf(ctx, err)
	}
	if perr := g.print(doc, func(w io.Writer) error { return g.writeResult(w, res) }); perr != nil {
		return errors.Join(err, perr)
	}
	return err
}

// outcome is the error of a run that did not do all it was to do, with its result,
// by which the exit code is decided.
func outcome(res run.Result, err error) error {
	var have *resultError
	switch {
	case errors.As(err, &have), errors.Is(err, errCancelled):
		return err
	case res.Status == "":
		return err
	case err != nil:
		return &resultError{result: res, err: err}
	}
	switch res.Status {
	case run.StatusSuccess, run.StatusNothingToDo, run.StatusDryRun:
		return nil
	}
	return &resultError{result: res, err: fmt.Errorf("the run ended with status %s", res.Status)}
}

// resultDocument is a run's result with what went wrong and what to type next.
type resultDocument struct {
	run.Result
	Error *errorDocument `json:"error,omitempty"`
}

// downCell is how long a component was down; one that could not be brought back has
// no end to tell of.
func downCell(status string, healthy bool, down string) string {
	if status == string(run.RollbackFailed) && !healthy {
		return "still down"
	}
	return down
}

func (g *global) writeResult(w io.Writer, res run.Result) error {
	if res.Status == run.StatusNothingToDo {
		_, err := fmt.Fprintln(w, "Nothing to do: everything is as the backup has it.")
		return err
	}
	rows := make([][]string, 0, len(res.Components))
	for _, o := range res.Components {
		rows = append(rows, []string{
			component.SetName(o.Name, o.Instance), o.From.String(), o.To.String(), string(o.Status),
			downCell(string(o.Status), o.Healthy, fmt.Sprintf("%.1fs", o.Downtime)), fmt.Sprintf("%.1fs", o.Duration),
		})
	}
	title := map[run.Operation]string{run.Apply: "Upgrade", run.Rollback: "Rollback", run.Restart: "Restart"}[res.Operation]
	fmt.Fprintf(w, "%s %s: %s\n\n", title, res.ID, res.Status)
	if err := table(w, []string{"Component", "From", "To", "Status", "Down", "Took"}, rows); err != nil {
		return err
	}
	for _, o := range res.Components {
		if o.Error != "" {
			name := component.SetName(o.Name, o.Instance) + ": " // a refusal names its component itself
			fmt.Fprintf(w, "\n%s%s\n", name, strings.TrimPrefix(o.Error, name))
		}
		if o.Evidence != "" {
			fmt.Fprintf(w, "  evidence: %s\n", o.Evidence)
		}
	}
	for _, msg := range res.Warnings {
		fmt.Fprintf(w, "\nwarning: %s\n", g.typed(msg))
	}
	if res.Operation == run.Rollback {
		told := map[string]bool{} // of several instances once
		for _, o := range res.Components {
			if o.Status == run.RolledBack && o.To.Less(o.From) && !told[o.Name] {
				told[o.Name] = true
				// A hold of the version that it is at keeps it there, whatever else is out.
				fmt.Fprintf(w, "\nThe next apply may upgrade %s again, to %s or newer; to stay at %s: %s\n", o.Name, o.From, o.To,
					g.typed(fmt.Sprintf("observability-upgrade hold %s@%s --reason=…", o.Name, o.To.Core())))
			}
		}
	}
	if res.BackupPath != "" {
		fmt.Fprintf(w, "\nBackup: %s\n", res.BackupPath)
	}
	return nil
}
