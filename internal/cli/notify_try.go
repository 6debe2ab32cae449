package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type notifyTestOptions struct {
	*global
	event string
}

func newNotifyTest(g *global) *cobra.Command {
	o := &notifyTestOptions{global: g}
	cmd := &cobra.Command{
		Use:   "test [CHANNEL]",
		Short: "Send a message by every channel now, and tell what came of it",
		Long: `Send a message by every channel that is enabled, or by one, now and once, on the
way that messages of an upgrade take, and tell what each server answered. With
--event the message is that of the event, in your own words where you have some,
on made-up data.

Exit code 1 when a channel failed, 2 when there is none of that name or the
configuration is wrong.`,
		Example: `  observability-upgrade notify test
  observability-upgrade notify test slack
  observability-upgrade notify test email --event=upgrade_failed
  observability-upgrade notify test --output=json | jq '.channels[] | select(.ok | not)'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completeChannels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), strings.Join(args, ""))
		},
	}
	cmd.Flags().StringVar(&o.event, "event", "", "send the text of this event: "+strings.Join(config.Events(), ", "))
	must(cmd.RegisterFlagCompletionFunc("event", cobra.FixedCompletions(config.Events(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// notifyTestDocument is the result of notify test.
type notifyTestDocument struct {
	Event    string         `json:"event"` // "test" without --event
	Channels []notify.Tried `json:"channels"`
}

func (o *notifyTestOptions) run(ctx context.Context, name string) error {
	if o.event != "" && !slices.Contains(config.Events(), o.event) {
		return &stack.UsageError{Message: fmt.Sprintf("--event=%s: want one of %s", o.event, strings.Join(config.Events(), ", ")), Hint: "observability-upgrade notify test --help"}
	}
	conf, err := o.notifications()
	if err != nil {
		return err
	}
	channels, err := enabledChannels(conf, name)
	if err != nil {
		return err
	}
	doc := notifyTestDocument{Event: o.event, Channels: notify.Try(ctx, layout.Root(o.root), conf, channels, o.event, o.logger)}
	if doc.Event == "" {
		doc.Event = "test"
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	failed := slices.ContainsFunc(doc.Channels, func(c notify.Tried) bool { return !c.OK })
	err = o.print(doc, func(w io.Writer) error {
		for _, c := range doc.Channels {
			state := "ok"
			if !c.OK {
				state = "FAILED: " + c.Error
			}
			fmt.Fprintf(w, "%s (%s, %.1fs): %s\n", c.Name, c.Type, c.Seconds, state)
		}
		return nil
	})
	if err == nil && failed {
		return codeError{exitError}
	}
	return err
}
