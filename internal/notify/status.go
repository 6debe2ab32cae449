package notify

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
)

// Status is the document of `notify status`.
type Status struct {
	Channels    []ChannelStatus `json:"channels"`
	Dead        []Letter        `json:"dead"`        // newest first
	Delivering  bool            `json:"delivering"`  // a process is at it
	DeliveryPID int             `json:"deliver_pid"` // that process; 0 where there is none, or it does not tell
}

// ChannelStatus is one channel, one that is configured or one of which messages are
// left.
type ChannelStatus struct {
	Name        string     `json:"name"`
	Type        string     `json:"type"` // empty: it is not configured any more
	Enabled     bool       `json:"enabled"`
	Events      []string   `json:"events"`
	Queued      int        `json:"queued"`
	QueuedSince *time.Time `json:"queued_since"` // the oldest queued message
	NextAttempt *time.Time `json:"next_attempt"` // of any queued message; null: at once
	LastError   string     `json:"last_error"`   // of a queued message, the latest
	Sent        int        `json:"sent"`         // of late: at most 30 days
	LastSent    *time.Time `json:"last_sent"`
	Dead        int        `json:"dead"`
}

// Letter is a message that could not be delivered.
type Letter struct {
	ID       string    `json:"id"`
	Channel  string    `json:"channel"`
	Event    string    `json:"event"`
	RunID    string    `json:"run_id"`
	Subject  string    `json:"subject"`
	Created  time.Time `json:"created"`
	Died     time.Time `json:"died"`
	Attempts int       `json:"attempts"`
	Reason   string    `json:"reason"`
}

func letter(m *message) Letter {
	return Letter{
		ID: m.ID, Channel: m.Channel, Event: m.Data.Event, RunID: m.Data.RunID, Subject: m.Subject,
		Created: m.Created, Died: m.Died, Attempts: m.Attempts, Reason: m.LastError,
	}
}

// Look tells how things are with the queue.
func Look(root layout.Root, conf *config.Notifications) (Status, error) {
	b := &box{dir: root.NotifyDir()}
	s := Status{Channels: []ChannelStatus{}, Dead: []Letter{}}
	for _, ch := range conf.Channels {
		s.Channels = append(s.Channels, ChannelStatus{Name: ch.Name, Type: ch.Type, Enabled: ch.Enabled, Events: append([]string{}, ch.Events...)})
	}
	s.DeliveryPID, s.Delivering = lock.Holder(filepath.Join(b.dir, "deliver.lock"))
	queued, _, err := b.all(queueDir)
	if err != nil {
		return s, err
	}
	latest := map[string]time.Time{}
	for _, m := range queued {
		c := s.channel(m.Channel)
		c.Queued++
		if c.QueuedSince == nil {
			c.QueuedSince = &m.Created
		}
		if !m.NextAttempt.IsZero() && (c.NextAttempt == nil || m.NextAttempt.Before(*c.NextAttempt)) {
			c.NextAttempt = &m.NextAttempt
		}
		if m.LastError != "" && m.LastAttempt.After(latest[m.Channel]) {
			latest[m.Channel], c.LastError = m.LastAttempt, m.LastError
		}
	}
	notes, err := b.notes()
	if err != nil {
		return s, err
	}
	for _, n := range notes {
		c := s.channel(n.Channel)
		c.Sent++
		if c.LastSent == nil {
			c.LastSent = &n.SentAt
		}
	}
	dead, damaged, err := b.all(deadDir)
	if err != nil {
		return s, err
	}
	for _, m := range dead {
		s.channel(m.Channel).Dead++
		s.Dead = append(s.Dead, letter(m))
	}
	slices.SortStableFunc(s.Dead, func(a, b Letter) int { return b.Died.Compare(a.Died) })
	for _, bad := range damaged {
		s.Dead = append(s.Dead, Letter{ID: strings.TrimSuffix(filepath.Base(bad.Path), ".json"), Reason: fmt.Sprintf("%v; look at it, then: rm %s", bad, bad.Path)})
	}
	return s, nil
}

// channel finds or adds a row.
func (s *Status) channel(name string) *ChannelStatus {
	for i := range s.Channels {
		if s.Channels[i].Name == name {
			return &s.Channels[i]
		}
	}
	s.Channels = append(s.Channels, ChannelStatus{Name: name, Events: []string{}})
	return &s.Channels[len(s.Channels)-1]
}

// NoLetterError says that there is no dead letter of that id.
type NoLetterError struct{ ID string }

func (e *NoLetterError) Error() string { return "there is no dead letter " + e.ID }

// Retry puts one dead letter back into the queue, or with an empty id all that can
// be read, and has messages that wait for their next attempt tried at once. A
// deliverer must be started, or be at work, for anything to be sent.
func Retry(root layout.Root, h *hostfs.Host, id string) ([]Letter, error) {
	b := &box{dir: root.NotifyDir(), host: h}
	if id != "" && !idPattern.MatchString(id) {
		return nil, &NoLetterError{ID: id}
	}
	var list []*message
	if id != "" {
		m, err := b.read(deadDir, id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NoLetterError{ID: id}
		}
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	} else {
		var err error
		if list, _, err = b.all(deadDir); err != nil {
			return nil, err
		}
	}
	out := []Letter{}
	for _, m := range list {
		l := letter(m)
		if err := b.revive(m); err != nil {
			return out, fmt.Errorf("put %s back into the queue: %w", m.ID, err)
		}
		out = append(out, l)
	}
	if ids, err := b.list(queueDir); err != nil || len(ids) == 0 {
		return out, err
	}
	return out, b.wake()
}
