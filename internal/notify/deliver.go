package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
)

// Deliverer sends what is queued. One runs at a time on an installation.
type Deliverer struct {
	Root layout.Root
	Host *hostfs.Host
	Log  *slog.Logger
	// Load reads the configuration. It is called before the first attempt, and
	// again before later ones, so that a mistake can be mended while messages wait.
	Load func() (*config.Notifications, error)
	// Notified is told, once for each message of an event that ends a run, whether
	// one went out; false only where none of the run's did so far. May be nil.
	Notified func(ctx context.Context, runID string, sent bool) error
	// Wait bounds how long Run takes; 0 is until nothing is queued, which with a
	// server that is away takes an hour.
	Wait time.Duration

	rules rules // zero: standardRules
}

// rules are how often and how long it is tried.
type rules struct {
	attempts   int
	first, max time.Duration // pauses between attempts
	growth     float64
	jitter     float64       // part of a pause that is left to chance
	poll       time.Duration // how often new messages are looked for
}

// standardRules give up after some 55 minutes: pauses of 10 s, 25 s, 1, 3, 7, 16
// and 30 minutes, give or take a fifth.
var standardRules = rules{attempts: 8, first: 10 * time.Second, max: 30 * time.Minute, growth: 2.5, jitter: 0.2, poll: time.Second}

// hookTimeout bounds a call of Notified.
const hookTimeout = 30 * time.Second

// pause is how long to wait after the given attempt, which counts from 1.
func (r rules) pause(attempt int) time.Duration {
	b := &backoff.ExponentialBackOff{InitialInterval: r.first, MaxInterval: r.max, Multiplier: r.growth}
	b.Reset()
	for range attempt - 1 {
		b.NextBackOff()
	}
	b.RandomizationFactor = r.jitter
	return b.NextBackOff()
}

// Report is what a deliverer did.
type Report struct {
	Sent int  `json:"sent"`
	Dead int  `json:"dead"`
	Left int  `json:"left"` // still queued
	Busy bool `json:"busy"` // another deliverer is at work, so this one did nothing
	PID  int  `json:"pid"`  // of that one; 0 where it does not tell, or there is none
}

// Run delivers until nothing is queued, Wait is over or the context ends; what is
// queued then stays, with what is known of its attempts. Where another deliverer is
// at work, that one finds new messages too: Run reports it and ends, or, with Wait,
// takes over when it ends. Errors are those of the file system and of Load.
//
// No message is forgotten between two deliverers: one that finds the queue empty
// looks once more after it has given up the lock, and whoever adds a message looks
// for the lock after that.
func (d *Deliverer) Run(ctx context.Context) (Report, error) {
	if d.rules.attempts == 0 {
		d.rules = standardRules
	}
	if d.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.Wait, errors.New("the time to wait is over"))
		defer cancel()
	}
	w := &work{
		Deliverer: d, box: &box{dir: d.Root.NotifyDir(), host: d.Host},
		known: map[string]*message{}, skip: map[string]bool{}, wait: map[string]time.Time{}, busy: map[string]bool{}, paused: map[string]time.Time{},
		done: make(chan batch), senders: map[string]cached{},
	}
	for {
		empty, err := w.idle()
		if err != nil || empty || ctx.Err() != nil {
			return w.report, errors.Join(err, w.left())
		}
		if err := w.box.make(); err != nil {
			return w.report, err
		}
		l, err := lock.Acquire(filepath.Join(w.box.dir, "deliver.lock"), "observability-upgrade notify deliver")
		var held *lock.HeldError
		switch {
		case errors.As(err, &held) && d.Wait > 0:
			continue // Acquire has waited a moment
		case errors.As(err, &held):
			w.report.Busy, w.report.PID = true, held.PID
			return w.report, w.left()
		case err != nil:
			return w.report, err
		}
		err = w.all(ctx)
		if err := errors.Join(err, l.Release()); err != nil || ctx.Err() != nil {
			return w.report, errors.Join(err, w.left())
		}
	}
}

// work is the state of one Run.
type work struct {
	*Deliverer
	box    *box
	report Report

	conf    *config.Notifications
	known   map[string]*message  // queued
	skip    map[string]bool      // sent or dead, but their files could not be moved
	wait    map[string]time.Time // whose channel is not resolved; not tried again before
	busy    map[string]bool      // channels at which a batch is
	paused  map[string]time.Time // channels that asked for a pause
	done    chan batch
	failed  error             // of the file system; the first
	mu      sync.Mutex        // guards senders
	senders map[string]cached // by channel
}

// batch is what a channel has to do at a time.
type batch struct {
	channel string
	list    []*message
	results []result
}

// result is what came of one attempt.
type result struct {
	m      *message
	err    error // nil: sent
	ended  time.Time
	before bool // the context ended before it was clear; it does not count
}

// idle reports whether there is nothing to do. What waits for its channel to be
// resolved is left to another process, which may have what this one lacks.
func (w *work) idle() (bool, error) {
	ids, err := w.box.list(queueDir)
	return !slices.ContainsFunc(ids, func(id string) bool { return !w.skip[id] && w.wait[id].IsZero() }), err
}

// left counts what stays queued.
func (w *work) left() error {
	ids, err := w.box.list(queueDir)
	w.report.Left = len(ids)
	return err
}

// all delivers until nothing is queued or the context ends. Each channel has a
// goroutine of its own while it has something to send, so that one that hangs
// holds up nothing but itself; all have ended when all returns.
func (w *work) all(ctx context.Context) error {
	if err := w.reload(); err != nil {
		return err
	}
	tick := time.NewTicker(w.rules.poll)
	defer tick.Stop()
	for {
		if ctx.Err() == nil && w.failed == nil {
			w.failed = w.scan()
		}
		if ctx.Err() == nil && w.failed == nil {
			w.begin(ctx)
		}
		ending := ctx.Err() != nil || w.failed != nil
		switch {
		case len(w.busy) == 0 && (ending || w.only(w.wait)):
			return errors.Join(w.failed, w.box.prune(time.Now()))
		case ending:
			w.settle(<-w.done)
			continue
		}
		select {
		case b := <-w.done:
			w.settle(b)
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// only reports whether every message that is known is one of these.
func (w *work) only(these map[string]time.Time) bool {
	for id := range w.known {
		if these[id].IsZero() {
			return false
		}
	}
	return true
}

// scan reads the messages that are new in the queue, and puts aside what cannot be
// read.
func (w *work) scan() error {
	ids, err := w.box.list(queueDir)
	if err != nil {
		return err
	}
	maps.DeleteFunc(w.known, func(id string, m *message) bool { // somebody removed it
		return !w.busy[m.Channel] && !slices.Contains(ids, id)
	})
	for _, id := range ids {
		if w.known[id] != nil || w.skip[id] {
			continue
		}
		m, err := w.box.read(queueDir, id)
		var bad *DamagedError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.As(err, &bad):
			w.Log.Error("notification put aside: its file cannot be read", "error", bad)
			w.report.Dead++
			if err := w.box.discard(id); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case w.box.wasSent(id): // the process ended between the note and the removal
			if err := w.Host.Remove(w.box.path(queueDir, id)); err != nil {
				return err
			}
			continue
		case !m.Died.IsZero(): // the process ended while it buried it
			if err := w.dead(m); err != nil {
				return err
			}
			continue
		}
		w.known[id] = m
	}
	return nil
}

// begin starts a batch for each channel that has something due.
func (w *work) begin(ctx context.Context) {
	now, woken := time.Now(), w.box.woken()
	due := map[string][]*message{}
	for _, m := range w.known {
		asked := woken.After(m.LastAttempt) && !m.LastAttempt.IsZero()
		setBack := m.NextAttempt.Sub(now) > 2*maxRetryAfter // the clock: no pause is so long
		if w.busy[m.Channel] || now.Before(w.paused[m.Channel]) || (now.Before(m.NextAttempt) || now.Before(w.wait[m.ID])) && !asked && !setBack {
			continue
		}
		due[m.Channel] = append(due[m.Channel], m)
	}
	if len(due) > 0 {
		if err := w.reload(); err != nil {
			w.Log.Warn("the configuration cannot be read; what was read before is used", "error", err)
		}
	}
	for name, list := range due {
		slices.SortFunc(list, byAge)
		w.busy[name] = true
		conf := w.conf
		go func() { w.done <- w.deliver(ctx, conf, batch{channel: name, list: list}) }()
	}
}

func (w *work) reload() error {
	conf, err := w.Load()
	if err == nil {
		w.conf = conf
	}
	return err
}

// deliver makes one attempt for each message of a batch, in their order. It ends
// early with the context, and when the channel asks for a pause.
func (w *work) deliver(ctx context.Context, conf *config.Notifications, b batch) batch {
	for _, m := range b.list {
		if ctx.Err() != nil {
			break
		}
		err := w.attempt(ctx, conf, m)
		r := result{m: m, err: err, ended: time.Now(), before: err != nil && ctx.Err() != nil}
		b.results = append(b.results, r)
		if err != nil && classify(err).retryAfter > 0 {
			break
		}
	}
	return b
}

// settle writes down what came of a batch.
func (w *work) settle(b batch) {
	delete(w.busy, b.channel)
	for _, r := range b.results {
		if err := w.record(r); err != nil {
			w.failed = errors.Join(w.failed, fmt.Errorf("notification %s for channel %s: %w", r.m.ID, r.m.Channel, err))
		}
	}
}

// record writes down what came of an attempt. It goes on after the context has
// ended: what was sent was sent.
func (w *work) record(r result) error {
	m := r.m
	log := w.Log.With("id", m.ID, "event", m.Data.Event, "channel", m.Channel)
	if r.err == nil {
		log.Info("notification sent", "attempts", m.Attempts+1)
		w.report.Sent++
		delete(w.known, m.ID)
		delete(w.wait, m.ID)
		err := w.box.sent(m, r.ended)
		w.skip[m.ID] = err != nil // it must not be sent again
		w.tell(m, true)
		return err
	}
	if r.before {
		return w.box.write(queueDir, m) // Done may have grown
	}
	var lacks *unresolvedError
	if errors.As(r.err, &lacks) { // no attempt was made
		if w.wait[m.ID].IsZero() {
			log.Error("notification waits until its channel can be used", "error", r.err)
		}
		w.wait[m.ID] = r.ended.Add(w.rules.pause(1))
		m.LastAttempt, m.LastError = r.ended.UTC(), r.err.Error()
		return w.box.write(queueDir, m)
	}
	delete(w.wait, m.ID)
	f := classify(r.err)
	m.Attempts++
	m.LastAttempt, m.LastError = r.ended.UTC(), r.err.Error()
	if f.permanent || m.Attempts >= w.rules.attempts {
		log.Error("notification not delivered; `observability-upgrade notify status` shows it", "attempts", m.Attempts, "error", r.err)
		delete(w.known, m.ID)
		return w.dead(m)
	}
	pause := w.rules.pause(m.Attempts)
	if f.retryAfter > 0 {
		pause = max(pause, f.retryAfter)
		w.paused[m.Channel] = r.ended.Add(f.retryAfter)
	}
	m.NextAttempt = r.ended.Add(pause).UTC()
	log.Warn("notification not sent yet", "attempts", m.Attempts, "next", m.NextAttempt, "error", r.err)
	return w.box.write(queueDir, m)
}

// dead buries a message.
func (w *work) dead(m *message) error {
	w.report.Dead++
	err := w.box.bury(m, time.Now())
	w.skip[m.ID] = err != nil
	w.tell(m, false)
	return err
}

// tell calls the hook. That a run was told of on one channel is not taken back
// because another one failed.
func (w *work) tell(m *message, sent bool) {
	if w.Notified == nil || !ending(m.Data.Event) || m.Data.RunID == "" {
		return
	}
	sent = sent || len(m.Done) > 0 // some recipients have it
	if !sent {
		notes, err := w.box.notes()
		if err != nil || slices.ContainsFunc(notes, func(n note) bool { return n.RunID == m.Data.RunID && ending(n.Event) }) {
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), hookTimeout)
	defer cancel()
	if err := w.Notified(ctx, m.Data.RunID, sent); err != nil {
		w.Log.Warn("that the run was told of could not be noted", "run", m.Data.RunID, "sent", sent, "error", err)
	}
}
