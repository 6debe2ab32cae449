package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type recoverOptions struct {
	*global
	discardDamaged bool
}

func newRecover(g *global) *cobra.Command {
	o := &recoverOptions{global: g}
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Finish what an interrupted run left behind",
		Long: `Finish what a run left behind that crashed, was killed or lost power: a component
that was proved healthy stays at its new version, any other goes back to its old
one. Every other command that changes something does this first, and the unit
observability-upgrade-recover.service does it at boot. Without an interrupted
run there is nothing to do. The journal has all that is needed: configuration
that cannot be read, or a secret that is gone, is told and stops nothing.`,
		Example: `  observability-upgrade recover
  observability-upgrade recover --output=json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.discardDamaged, "discard-damaged", false, "move a journal that cannot be read aside, after a person has checked the host")
	return cmd
}

func (o *recoverOptions) run(ctx context.Context) error {
	s, d, err := o.openFor(ctx, stack.Journal)
	if err != nil {
		return err
	}
	defer s.Close()
	defer d.close()
	var results []run.Result
	var kept []string // damaged journals, where they are now
	err = s.Mutate(ctx, "recover", o.args, func(ctx context.Context) (string, error) {
		if o.discardDamaged {
			moved, err := s.DiscardDamaged()
			for _, path := range moved {
				kept = append(kept, "the damaged journal is kept as "+path)
				d.notice(kept[len(kept)-1])
			}
			if err != nil {
				return "", err
			}
		}
		var err error
		results, err = s.Recover(ctx)
		if n := len(results); n > 0 {
			if err != nil {
				err = &resultError{result: results[n-1], err: err}
			}
			return results[0].ID, err
		}
		return "", err
	})
	if err != nil && len(results) == 0 {
		return err
	}
	if len(results) == 0 {
		results = []run.Result{{Status: run.StatusNothingToDo, Operation: run.Apply, Trigger: "manual", StartedAt: time.Now().UTC(), Components: []run.Outcome{}, Warnings: kept}}
	}
	res := results[len(results)-1]
	perr := o.print(res, func(w io.Writer) error {
		if res.Status == run.StatusNothingToDo {
			msg := "Nothing to recover: the last run ended by itself."
			if len(kept) > 0 {
				msg = "The damaged journal was moved aside, so nobody knows how far its run came; nothing else was changed.\nCheck every component: observability-upgrade verify; then write down what is installed: observability-upgrade adopt --yes"
				msg = o.typed(msg)
			}
			_, err := fmt.Fprintln(w, msg)
			return err
		}
		for _, r := range results {
			fmt.Fprintf(w, "Run %s was recovered: %s\n", r.ID, stack.Summary(r))
			if err := o.writeResult(w, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, perr)
	}
	for _, r := range results {
		if r.Status == run.StatusRollbackFail {
			return &resultError{result: r, err: errors.New("a component could not be brought back to health")}
		}
	}
	return perr
}
