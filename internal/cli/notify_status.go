package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
)

func newNotifyStatus(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show per channel what is queued, what was sent and what could not be",
		Long: `Show per channel what is queued, what was sent of late (30 days at most), and the
dead letters: messages that a server refused for good, or that could not be
delivered in eight attempts within about an hour.`,
		Example: `  observability-upgrade notify status
  observability-upgrade notify status --output=json | jq '.dead[].reason'`,
		RunE: func(*cobra.Command, []string) error { return g.notifyStatus() },
	}
}

func (g *global) notifyStatus() error {
	conf, err := g.queueable()
	if err != nil {
		return err
	}
	s, err := notify.Look(layout.Root(g.root), conf)
	if err != nil {
		return err
	}
	return g.print(s, func(w io.Writer) error { return writeNotifyStatus(w, s, layout.Root(g.root), conf.File, time.Now()) })
}

func writeNotifyStatus(w io.Writer, s notify.Status, root layout.Root, file string, now time.Time) error {
	if len(s.Channels) == 0 {
		fmt.Fprintf(w, "No channel is configured in %s.\n", file)
	} else {
		var rows [][]string
		for _, c := range s.Channels {
			state := "enabled"
			switch {
			case c.Type == "":
				state = "not configured"
			case !c.Enabled:
				state = "off"
			}
			last := "-"
			if c.LastSent != nil {
				last = ago(now, *c.LastSent)
			}
			rows = append(rows, []string{c.Name, orDash(c.Type), state, strconv.Itoa(c.Queued), strconv.Itoa(c.Sent), last, strconv.Itoa(c.Dead)})
		}
		if err := table(w, []string{"Channel", "Type", "State", "Queued", "Sent", "Last sent", "Dead"}, rows); err != nil {
			return err
		}
	}
	for _, c := range s.Channels {
		if c.Queued == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s: the oldest of the queue is of %s", c.Name, ago(now, *c.QueuedSince))
		if c.NextAttempt != nil && c.LastError != "" {
			fmt.Fprintf(w, ", next attempt in %s", max(c.NextAttempt.Sub(now), 0).Round(time.Second))
		}
		if c.LastError != "" {
			fmt.Fprintf(w, ": %s", c.LastError)
		}
		fmt.Fprintln(w)
	}
	queued := false
	for _, c := range s.Channels {
		queued = queued || c.Queued > 0
	}
	switch {
	case s.Delivering:
		fmt.Fprintf(w, "\nProcess %d is delivering.\n", s.DeliveryPID)
	case queued:
		fmt.Fprintf(w, "\nNobody is delivering.\nnext:  %s\n", root.Typed("observability-upgrade notify deliver"))
	}
	if len(s.Dead) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nDead letters:\n")
	for _, l := range s.Dead {
		if l.Channel == "" { // it cannot be read
			fmt.Fprintf(w, "  %s: %s\n", l.ID, l.Reason)
			continue
		}
		fmt.Fprintf(w, "  %s  %s by %s, given up %s after %s: %s\n", l.ID, l.Event, l.Channel, ago(now, l.Died), attempts(l.Attempts), l.Reason)
	}
	_, err := fmt.Fprintln(w, "next:  "+root.Typed("mend the cause, try it with observability-upgrade notify test, then: observability-upgrade notify retry --all"))
	return err
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// ago tells an age in its two biggest units.
func ago(now, then time.Time) string {
	d := max(now.Sub(then), 0).Round(time.Second)
	if d < time.Second {
		return "just now"
	}
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	var parts []string
	for _, u := range units {
		if n := d / u.size; n > 0 && len(parts) < 2 {
			parts = append(parts, fmt.Sprintf("%d%s", n, u.name))
		}
		d %= u.size
	}
	return strings.Join(parts, "") + " ago"
}
