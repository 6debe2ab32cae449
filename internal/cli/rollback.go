package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type rollbackOptions struct {
	*global
	list       bool
	previous   bool
	to         string
	components []string
	yes        bool
	force      bool
	data       bool
}

func newRollback(g *global) *cobra.Command {
	o := &rollbackOptions{global: g}
	cmd := &cobra.Command{
		Use:   "rollback (--list | --previous | --to=TIMESTAMP)",
		Short: "Go back to a backup point",
		Long: `Go back to a backup point: binaries, configuration and unit files as they were
when it was taken. The backup is proved intact before anything stops. A rollback
takes a backup point of its own first, so it can be undone with --to. It needs
no network. Files that were added since the backup are left in place.`,
		Example: `  observability-upgrade rollback --list
  observability-upgrade rollback --previous
  observability-upgrade rollback --to=20241227_030000
  observability-upgrade rollback --to=20241227_030000 --component=prometheus --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.list, "list", false, "list the backup points")
	f.BoolVar(&o.previous, "previous", false, "undo the newest successful upgrade that was not rolled back yet")
	f.StringVar(&o.to, "to", "", "the backup point to go back to")
	o.componentFlag(cmd, &o.components, false)
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.force, "force", false, "do not ask, and go back over a one-way door without its data, by the instances of the last run where they cannot be looked up, without those on hosts that cannot be asked, and over data that lies in a directory which is replaced whole")
	f.BoolVar(&o.data, "restore-data", false, "put the data back as the backup holds it too; what was collected since is lost")
	must(cmd.RegisterFlagCompletionFunc("to", g.completeBackups))
	return cmd
}

func (o *rollbackOptions) run(ctx context.Context) error {
	chosen := 0
	for _, b := range []bool{o.list, o.previous, o.to != ""} {
		if b {
			chosen++
		}
	}
	if chosen != 1 {
		return &stack.UsageError{Message: "give exactly one of --list, --previous and --to=TIMESTAMP", Hint: "observability-upgrade rollback --list"}
	}
	needs := stack.Local
	if o.list {
		needs = stack.Little
	}
	s, d, err := o.openFor(ctx, needs)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	if o.list {
		return o.listBackups(s)
	}
	ask := !o.yes && !o.force
	if ask && !o.InTTY {
		return o.notATerminal()
	}
	var res run.Result
	err = s.Mutate(ctx, "rollback", o.args, func(ctx context.Context) (string, error) {
		p, err := s.PlanRollback(ctx, stack.RollbackOptions{To: o.to, Previous: o.previous, Components: o.components, RestoreData: o.data, Force: o.force})
		if err != nil {
			return "", err
		}
		if len(p.Changes) > 0 {
			if err := o.show(d, p, ask); err != nil {
				return "", err
			}
		}
		if ask && len(p.Changes) > 0 {
			if err := o.confirm(ctx, "\nProceed with the rollback?"); err != nil {
				res = run.Result{Operation: run.Rollback, Trigger: "manual", StartedAt: time.Now().UTC(), Status: run.StatusCancelled, Components: []run.Outcome{}}
				return "", err
			}
		}
		res, err = s.Rollback(ctx, p, "manual")
		return res.ID, outcome(res, err)
	})
	return o.finish(ctx, d, res, err)
}

// show tells what a rollback is about to do, also where nobody is asked: what is lost
// by it in any case, the whole of it where lines for people are wanted.
func (o *rollbackOptions) show(d *display, p *stack.RollbackPlan, ask bool) error {
	if ask || !o.quiet && !o.records {
		return writeRollbackPlan(o.Err, p)
	}
	for _, n := range p.Notes {
		d.notice(n)
	}
	return nil
}

func writeRollbackPlan(w io.Writer, p *stack.RollbackPlan) error {
	fmt.Fprintf(w, "Rollback Plan:\n==============\nBackup: %s (intact)\n\n", p.Point.Timestamp)
	var rows [][]string
	for _, c := range p.Changes {
		action := "Downgrade"
		switch c.From.Compare(c.To) {
		case -1:
			action = "Upgrade"
		case 0:
			action = "Restore"
		}
		rows = append(rows, []string{c.Component, c.From.String(), c.To.String(), action, fmt.Sprintf("%d files", len(c.Swaps))})
	}
	if err := table(w, []string{"Component", "Current", "Target", "Action", "Changes"}, rows); err != nil {
		return err
	}
	if len(p.Skipped) > 0 {
		fmt.Fprintf(w, "\nAlready as in the backup: %s\n", strings.Join(p.Skipped, ", "))
	}
	for _, n := range p.Notes {
		fmt.Fprintf(w, "\n%s\n", n)
	}
	return nil
}

type backupEntry struct {
	Timestamp  string            `json:"timestamp"`
	Path       string            `json:"path"`
	Components []backupComponent `json:"components"`
	Complete   bool              `json:"complete"`
	Bytes      int64             `json:"bytes"`
	Operation  string            `json:"operation"`
}

type backupComponent struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// holding keeps the points that hold one of the components asked for. A component
// that is defined no more may still be in one.
func (o *rollbackOptions) holding(s *stack.Stack, points []*backup.Point) ([]*backup.Point, error) {
	if len(o.components) == 0 {
		return points, nil
	}
	found := map[string]bool{}
	var out []*backup.Point
	for _, p := range points {
		here := false
		for _, name := range o.components {
			if _, ok := p.Component(name); ok {
				found[name], here = true, true
			}
		}
		if here {
			out = append(out, p)
		}
	}
	for _, name := range o.components {
		if _, err := s.Components([]string{name}); err != nil && !found[name] {
			return nil, err
		}
	}
	return out, nil
}

func (o *rollbackOptions) listBackups(s *stack.Stack) error {
	points, err := s.Backups()
	if err != nil {
		return err
	}
	if points, err = o.holding(s, points); err != nil {
		return err
	}
	doc := struct {
		Backups []backupEntry `json:"backups"`
	}{Backups: []backupEntry{}}
	for _, p := range points {
		for _, problem := range []error{p.Damage, p.SizeErr} {
			if problem != nil {
				s.Notice(problem.Error())
			}
		}
		e := backupEntry{Timestamp: p.Timestamp, Path: p.Path, Complete: p.Complete, Bytes: p.Bytes, Operation: p.Manifest.Operation, Components: []backupComponent{}}
		for _, c := range p.Manifest.Components {
			e.Components = append(e.Components, backupComponent{c.Name, c.Version})
		}
		doc.Backups = append(doc.Backups, e)
	}
	return o.print(doc, func(w io.Writer) error {
		if len(doc.Backups) == 0 {
			none := "There are no backup points yet: the first apply takes one."
			if len(o.components) > 0 {
				none = "No backup point holds " + strings.Join(o.components, " or ") + "."
			}
			_, err := fmt.Fprintln(w, none)
			return err
		}
		var rows [][]string
		for _, e := range doc.Backups {
			var parts []string
			for _, c := range e.Components {
				parts = append(parts, c.Name+" "+c.Version)
			}
			state := "complete"
			if !e.Complete {
				state = "INCOMPLETE"
			}
			rows = append(rows, []string{e.Timestamp, "before " + e.Operation, state, plan.Bytes(e.Bytes), strings.Join(parts, ", ")})
		}
		return table(w, []string{"Timestamp", "Taken", "State", "Size", "Holds"}, rows)
	})
}
