package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/history"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type notifyDeliverOptions struct {
	*global
	wait time.Duration
}

func newNotifyDeliver(g *global) *cobra.Command {
	o := &notifyDeliverOptions{global: g}
	cmd := &cobra.Command{
		Use:   "deliver [--wait=DURATION]",
		Short: "Send what is queued, as the process does that an upgrade starts",
		Long: `Send what is queued, as the process does that an upgrade starts. What fails is
tried again after growing pauses, so with a server that is away it takes an hour
until nothing is queued any more; --wait bounds that, and what is queued then
stays. Where another process delivers already, it finds new messages too and there
is nothing to do; with --wait this one takes over if that one ends.

Exit code 1 when a message was not delivered.`,
		Example: `  observability-upgrade notify deliver
  observability-upgrade notify deliver --wait=10m      # what systemd units run at their end`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().DurationVar(&o.wait, "wait", 0, "end after so long at the latest; 0: when nothing is queued")
	return cmd
}

func (o *notifyDeliverOptions) run(ctx context.Context) error {
	if o.wait < 0 {
		return &stack.UsageError{Message: fmt.Sprintf("--wait=%s is negative", o.wait), Hint: "observability-upgrade notify deliver --help"}
	}
	d := notify.Deliverer{
		Root: layout.Root(o.root), Host: o.host(), Log: o.logger, Load: o.notifications, Notified: o.notified, Wait: o.wait,
	}
	r, err := d.Run(ctx)
	if err != nil {
		return err
	}
	nothing := r == notify.Report{}
	if !o.quiet || o.json() || !nothing {
		err = o.print(r, func(w io.Writer) error {
			switch {
			case r.Busy:
				fmt.Fprintf(w, "Process %d is delivering already.\n", r.PID)
			case nothing:
				fmt.Fprintln(w, "Nothing is queued.")
			default:
				fmt.Fprintf(w, "%d sent, %d dead, %d still queued.\n", r.Sent, r.Dead, r.Left)
			}
			return nil
		})
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return codeError{exitInterrupted}
	case !r.Busy && r.Dead+r.Left > 0:
		return codeError{exitError}
	}
	return nil
}

// notified notes in the history that a run was told of, or could not be.
func (o *notifyDeliverOptions) notified(ctx context.Context, runID string, sent bool) error {
	path := layout.Root(o.root).History()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // there is nothing it could be noted of
	}
	db, err := history.Open(ctx, path)
	if err != nil {
		return err
	}
	return errors.Join(db.MarkNotified(ctx, runID, sent), db.Close())
}

type notifyRetryOptions struct {
	*global
	all bool
}

func newNotifyRetry(g *global) *cobra.Command {
	o := &notifyRetryOptions{global: g}
	cmd := &cobra.Command{
		Use:   "retry (ID | --all)",
		Short: "Put dead letters back into the queue and send them",
		Long: `Put a dead letter, or all of them, back into the queue, and start the process that
delivers. Messages that wait for their next attempt are tried at once as well.
notify status lists the dead letters with their ids.`,
		Example: `  observability-upgrade notify retry --all
  observability-upgrade notify retry 3f2a9c0de1b45678`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completeLetters,
		RunE:              func(_ *cobra.Command, args []string) error { return o.run(args) },
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "all dead letters")
	return cmd
}

func (g *global) completeLetters(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	conf, err := g.notifications()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	s, err := notify.Look(layout.Root(g.root), conf)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, l := range s.Dead {
		if l.Channel != "" {
			out = append(out, fmt.Sprintf("%s\t%s by %s", l.ID, l.Event, l.Channel))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// notifyRetryDocument is the result of notify retry.
type notifyRetryDocument struct {
	Requeued []notify.Letter `json:"requeued"`
}

func (o *notifyRetryOptions) run(args []string) error {
	if o.all == (len(args) == 1) {
		return &stack.UsageError{Message: "give the id of a dead letter, or --all", Hint: "observability-upgrade notify status"}
	}
	if _, err := o.queueable(); err != nil {
		return err // nothing could be sent
	}
	id := ""
	if len(args) == 1 {
		id = args[0]
		if id == "" {
			return &stack.UsageError{Message: "the id of a dead letter is empty", Hint: "observability-upgrade notify status"}
		}
	}
	list, err := o.retry(id)
	if err != nil {
		return err
	}
	return o.print(notifyRetryDocument{Requeued: list}, func(w io.Writer) error {
		if len(list) == 0 {
			fmt.Fprintln(w, "There is no dead letter.")
		}
		for _, l := range list {
			fmt.Fprintf(w, "%s (%s by %s) is queued again.\n", l.ID, l.Event, l.Channel)
		}
		return nil
	})
}

func (o *notifyRetryOptions) retry(id string) ([]notify.Letter, error) {
	root := layout.Root(o.root)
	list, err := notify.Retry(root, o.host(), id)
	var missing *notify.NoLetterError
	if errors.As(err, &missing) {
		return nil, &stack.UsageError{Message: missing.Error(), Hint: "observability-upgrade notify status"}
	}
	if err == nil {
		err = notify.Kick(root, o.Program)
	}
	entry := audit.Entry{Command: "notify retry", Args: o.args, Outcome: "ok"}
	if err != nil {
		entry.Outcome, entry.Detail, entry.ExitCode = "error", err.Error(), exitError
	}
	if auditErr := audit.New(o.host(), root.Audit()).Write(entry); auditErr != nil {
		newDisplay(o.global).notice(fmt.Sprintf("audit log: %v", auditErr))
	}
	return list, err
}
