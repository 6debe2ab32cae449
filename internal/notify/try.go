package notify

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// Tried is what came of a test of one channel.
type Tried struct {
	Name    string  `json:"name"`
	Type    string  `json:"type"`
	OK      bool    `json:"ok"`
	Error   string  `json:"error"`
	Seconds float64 `json:"seconds"`
}

// Try sends one message by each of the channels now, all at once and past the
// queue, on the way that messages of the queue take. Without an event the text says
// that it is a test; with one it is that event's, on sample data, as the user's
// templates have it.
func Try(ctx context.Context, root layout.Root, conf *config.Notifications, channels []config.Channel, event string, log *slog.Logger) []Tried {
	out := make([]Tried, len(channels))
	var wg sync.WaitGroup
	for i, ch := range channels {
		wg.Go(func() {
			began := time.Now()
			err := try1(ctx, root, conf, ch, event, log)
			out[i] = Tried{Name: ch.Name, Type: ch.Type, OK: err == nil, Seconds: time.Since(began).Seconds()}
			if err != nil {
				out[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	return out
}

func try1(ctx context.Context, root layout.Root, conf *config.Notifications, ch config.Channel, event string, log *slog.Logger) error {
	if ch.Unresolved != nil {
		return ch.Unresolved
	}
	s, err := newSender(root, ch, log)
	if err != nil {
		return scrub(err, conf, ch)
	}
	m, err := testMessage(conf, ch.Name, event)
	if err != nil {
		return err
	}
	return try(ctx, s, conf, ch, m)
}

// testMessage is new each time, so that no receiver takes it for one that it has.
func testMessage(conf *config.Notifications, channel, event string) (*message, error) {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		return nil, errors.New("this host's name cannot be read: " + err.Error())
	}
	d := Data{Event: testEvent, Components: []Component{}}
	if event != "" {
		d = Sample(event)
	}
	d.Hostname, d.Timestamp = name, Time{time.Now().UTC().Truncate(time.Second)}
	m := &message{ID: hex.EncodeToString(id), Channel: channel, Data: d, Created: d.Timestamp.Time}
	m.Subject, m.Body = render(conf, d)
	if event != "" {
		m.Subject = "[Test] " + m.Subject
	}
	return m, nil
}
