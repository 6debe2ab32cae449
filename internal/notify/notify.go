// Package notify tells people of upgrades: by e-mail, Slack, webhook and the
// services of the shoutrrr library (docs/notifications.md; specification,
// section 6).
//
// Sending is putting into a queue on the disk, one file for each message and
// channel: no network is touched, so a run is delayed by nothing. Delivery is the
// business of another process, which Kick starts: it tries again with growing
// pauses, and puts aside as dead letters what cannot be delivered. What happened
// is told once, however often a run is recovered and repeats itself; only a crash
// in the instant between a server's "accepted" and the note of it sends twice.
//
// Files hold what is to be said and never a secret: addresses, passwords and
// tokens are read from the configuration at the moment of each attempt, and
// blotted out of errors before those are logged or kept.
package notify

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// Notifier puts messages into the queue. It is safe for concurrent use, and so is
// the queue for several processes.
type Notifier struct {
	box  *box
	conf *config.Notifications
	log  *slog.Logger
	hide *scrubber
}

// Open returns the notifier of an installation; nothing is read or written yet.
func Open(root layout.Root, h *hostfs.Host, conf *config.Notifications, log *slog.Logger) *Notifier {
	secrets := slices.Clone(conf.Secrets)
	for _, ch := range conf.Channels {
		if ch.Enabled {
			secrets = append(secrets, secretsOf(ch)...)
		}
	}
	return &Notifier{box: &box{dir: root.NotifyDir(), host: h}, conf: conf, log: log, hide: wholeScrubber(secrets...)}
}

// Send writes a message into the queue of every channel that is enabled and lists
// the event, and returns once they are on the disk. A message that was sent, is
// queued or is a dead letter already is not written again: the same event, of the
// same run and failed component, is told once for each channel. Call it after what
// it tells is recorded (in the history, say), and Kick afterwards.
//
// It takes no context: it is over in a moment, and how a run ended is to be told
// also where that was by a signal.
//
// A template of the user's that fails does not lose the message: the built-in text
// is sent with a note. On an error the channels that it does not name have theirs.
func (n *Notifier) Send(d Data) error {
	if err := d.check(); err != nil {
		return err
	}
	d = n.fill(d)
	var errs []error
	for _, ch := range n.conf.Channels {
		if !ch.Wants(d.Event) {
			continue
		}
		m := &message{ID: d.id(ch.Name), Channel: ch.Name, Data: d, Created: d.Timestamp.Time}
		m.Subject, m.Body = render(n.conf, d)
		added, err := n.box.add(m)
		if err != nil {
			errs = append(errs, fmt.Errorf("queue the notification of %s for channel %s: %w", d.Event, ch.Name, err))
			continue
		}
		n.log.Debug("notification queued", "event", d.Event, "channel", ch.Name, "id", m.ID, "new", added)
	}
	return errors.Join(errs...)
}

// fill completes what the caller leaves out, and keeps secrets out of the rest.
func (n *Notifier) fill(d Data) Data {
	if d.Timestamp.IsZero() {
		d.Timestamp.Time = time.Now()
	}
	d.Timestamp.Time = d.Timestamp.UTC().Truncate(time.Second)
	if d.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			name = "unknown host"
		}
		d.Hostname = name
	}
	d.Error = clip(n.hide.text(d.Error), maxError)
	d.Components, d.Kept = complete(d.Event, d.Components), complete(d.Event, d.Kept)
	warnings := make([]string, 0, len(d.Warnings))
	for _, msg := range d.Warnings[:min(len(d.Warnings), maxWarnings)] {
		warnings = append(warnings, clip(n.hide.text(msg), maxError))
	}
	d.Warnings, d.Next = warnings, n.hide.text(d.Next)
	return d
}
