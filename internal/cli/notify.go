package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

func newNotify(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Try the notifications, see what is queued, deliver it",
		Long: `Try the notifications, see what is queued, deliver it. Channels and texts are
configured in /etc/observability/notifications.yaml; the queue is
/var/lib/observability/notify. An upgrade only puts messages into the queue, and a
process of its own delivers them, so that none is ever delayed by a mail server.`,
		Example: `  observability-upgrade notify test
  observability-upgrade notify status`,
	}
	cmd.AddCommand(newNotifyTest(g), newNotifyStatus(g), newNotifyDeliver(g), newNotifyRetry(g))
	return cmd
}

// notifications reads their configuration. A channel that needs what does not exist
// says so when it is used, and keeps no other from being used.
func (g *global) notifications() (*config.Notifications, error) {
	conf, _, err := g.loadNotifications()
	return conf, err
}

func (g *global) loadNotifications() (conf *config.Notifications, warnings, err error) {
	conf, warnings, err = config.LoadNotificationsAsFound(layout.Root(g.root), g.Env)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", stack.ErrConfig, err)
	}
	return conf, warnings, nil
}

// queueable reads them for a command that sends nothing itself, where a person is
// told at once what does not exist.
func (g *global) queueable() (*config.Notifications, error) {
	conf, warnings, err := g.loadNotifications()
	if err != nil {
		return nil, err
	}
	if warnings != nil {
		g.logger.Warn("notifications wait in the queue until this is mended", "error", warnings)
	}
	return conf, nil
}

func (g *global) host() *hostfs.Host { return &hostfs.Host{Guard: g.Guard} }

// enabledChannels are the channels that a test can go to: all that are enabled, or
// the one named.
func enabledChannels(conf *config.Notifications, name string) ([]config.Channel, error) {
	var out []config.Channel
	var names []string
	for _, ch := range conf.Channels {
		if ch.Enabled {
			out, names = append(out, ch), append(names, ch.Name)
		}
	}
	have := "enabled are " + strings.Join(names, ", ")
	if len(names) == 0 {
		have = "none is enabled"
	}
	const hint = "observability-upgrade notify status"
	if name == "" {
		if len(out) == 0 {
			return nil, &stack.UsageError{Message: "no channel is enabled in " + conf.File, Hint: hint}
		}
		return out, nil
	}
	ch, ok := conf.Channel(name)
	switch {
	case !ok:
		return nil, &stack.UsageError{Message: fmt.Sprintf("there is no channel %q in %s; %s", name, conf.File, have), Hint: hint}
	case !ch.Enabled:
		return nil, &stack.UsageError{Message: fmt.Sprintf("channel %s is not enabled, so its secrets are not looked up and nothing is ever sent by it; set enabled: true in %s; %s", name, conf.File, have), Hint: hint}
	}
	return []config.Channel{ch}, nil
}

func (g *global) completeChannels(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	conf, err := g.notifications()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, ch := range conf.Channels {
		if ch.Enabled {
			out = append(out, ch.Name+"\t"+ch.Type)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
