package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/notify/notifytest"
)

const allEvents = "events: [upgrade_available, upgrade_started, upgrade_completed, upgrade_failed, rollback_required, rollback_completed]"

// hooks is a configuration of webhooks by name and address.
func hooks(addresses ...string) string {
	text := "channels:\n"
	for i := 0; i < len(addresses); i += 2 {
		text += fmt.Sprintf("  - {name: %s, type: webhook, enabled: true, config: {url: %q}, %s}\n", addresses[i], addresses[i+1], allEvents)
	}
	return text
}

// Each channel that lists the event gets it, once, and nothing else does.
func TestSend(t *testing.T) {
	w := newWorld(t, `channels:
  - {name: a, type: webhook, enabled: true, config: {url: "http://127.0.0.1:1/"}, events: [upgrade_failed]}
  - {name: b, type: webhook, enabled: true, config: {url: "http://127.0.0.1:1/"}, events: [upgrade_failed, upgrade_started]}
  - {name: off, type: webhook, enabled: false, config: {url: "http://127.0.0.1:1/"}, events: [upgrade_failed]}
`)
	for range 2 { // as a recovered run does
		w.send(UpgradeStarted)
		w.send(UpgradeFailed)
	}
	w.send(UpgradeFailed, func(d *Data) { d.FailedComponent = "loki" })
	w.send(UpgradeFailed, run("another"))
	var got []string
	list, damaged, err := w.box().all(queueDir)
	if err != nil || len(damaged) != 0 {
		t.Fatal(damaged, err)
	}
	for _, m := range list {
		got = append(got, m.Channel+" "+m.Data.Event+" "+m.Data.FailedComponent+" "+m.Data.RunID)
	}
	slices.Sort(got)
	want := []string{
		"a upgrade_failed loki 20241227_030000", "a upgrade_failed prometheus 20241227_030000", "a upgrade_failed prometheus another",
		"b upgrade_failed loki 20241227_030000", "b upgrade_failed prometheus 20241227_030000", "b upgrade_failed prometheus another", "b upgrade_started prometheus 20241227_030000",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if err := w.notifier().Send(Data{Event: "upgrade_faild"}); err == nil || !strings.Contains(err.Error(), "unknown event") {
		t.Errorf("%v", err)
	}
	if err := newWorld(t, "channels: []").notifier().Send(Sample(UpgradeFailed)); err != nil {
		t.Errorf("without channels: %v", err)
	}
}

// lacking is a world with a message in the queue of two channels, of which one needs a
// secret that does not exist.
func lacking(t *testing.T, url string) (*world, *Deliverer, *config.Notifications) {
	t.Helper()
	w := newWorld(t, `channels:
  - {name: lacking, type: webhook, enabled: true, config: {url: "%[1]s/lacking", headers: {Authorization: "Bearer ${SECRET:missing}"}}, `+allEvents+`}
  - {name: fine, type: webhook, enabled: true, config: {url: "%[1]s/fine"}, `+allEvents+`}
`, url)
	load := func() (*config.Notifications, error) {
		conf, _, err := config.LoadNotificationsAsFound(w.root, func(string) string { return "" })
		return conf, err
	}
	conf, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if err := Open(w.root, &hostfs.Host{}, conf, slog.New(slog.DiscardHandler)).Send(Sample(UpgradeFailed)); err != nil {
		t.Fatal(err)
	}
	d := w.deliverer()
	d.Load = load
	return w, d, conf
}

// A channel that needs what does not exist keeps no other from being sent by, and
// costs its own messages no attempt: they go out once it is there.
func TestUnresolvedChannel(t *testing.T) {
	s := httpServer(t)
	w, d, conf := lacking(t, s.URL)
	d.Log = w.logger()
	for i := range 2 * quick.attempts { // more often than a message is tried
		r, err := d.Run(t.Context())
		if want := (Report{Sent: max(0, 1-i), Left: 1}); err != nil || r != want {
			t.Fatalf("run %d: %+v, %v", i, r, err)
		}
	}
	if n := len(s.Requests()); n != 1 || s.Requests()[0].Path != "/fine" {
		t.Errorf("%d requests", n)
	}
	list, _, err := w.box().all(queueDir)
	if err != nil || len(list) != 1 || list[0].Attempts != 0 || !strings.Contains(list[0].LastError, "secret missing does not exist") {
		t.Errorf("%+v, %v", list, err)
	}
	if log := w.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "channel=lacking") || !strings.Contains(log, "secret missing does not exist") {
		t.Error(log)
	}
	tried := Try(t.Context(), w.root, conf, conf.Channels, "", slog.New(slog.DiscardHandler))
	if tried[0].OK || !strings.Contains(tried[0].Error, "secret missing does not exist") || !tried[1].OK {
		t.Errorf("%+v", tried)
	}
	w.write(filepath.Join(w.root.SecretsDir(), "missing"), "token", 0o600)
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Sent: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// What is missing is found while others are still tried.
func TestResolvedMeanwhile(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 503}, notifytest.Answer{Status: 200})
	w, d, _ := lacking(t, s.URL)
	load := d.Load
	d.Load = func() (*config.Notifications, error) {
		if len(s.Requests()) > 0 {
			w.write(filepath.Join(w.root.SecretsDir(), "missing"), "token", 0o600)
		}
		return load()
	}
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Sent: 2}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// What was sent, and what is dead, is not sent again.
func TestSendAgainAfterwards(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 200}, notifytest.Answer{Status: 404})
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	w.deliver()
	w.send(UpgradeFailed)
	w.deliver()
	w.send(UpgradeStarted)
	w.send(UpgradeFailed)
	if r := w.deliver(); r != (Report{}) || len(s.Requests()) != 2 {
		t.Errorf("%+v, %d requests", r, len(s.Requests()))
	}
	st := w.status()
	if c := st.Channels[0]; c.Sent != 1 || c.Dead != 1 || c.Queued != 0 || c.LastSent == nil || len(st.Dead) != 1 || st.Dead[0].Event != UpgradeFailed {
		t.Errorf("%+v", st)
	}
}

// Nothing is asked of the network while an upgrade runs, however slow it is.
func TestSendIsQuick(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Hang: true})
	w := newWorld(t, "%s", hooks("a", s.URL))
	began := time.Now()
	w.send(UpgradeStarted)
	if took := time.Since(began); took > 20*time.Second || len(s.Requests()) != 0 {
		t.Errorf("%s, %d requests", took, len(s.Requests()))
	}
}

// A channel that hangs holds up no other, and its message stays when the deliverer
// is told to end.
func TestHangingChannel(t *testing.T) {
	hangs, works := httpServer(t, notifytest.Answer{Hang: true}), httpServer(t)
	w := newWorld(t, "%s", hooks("hangs", hangs.URL, "works", works.URL))
	for i := range 5 {
		w.send(UpgradeStarted, run(fmt.Sprint(i)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var r Report
	var err error
	done := make(chan struct{})
	go func() { defer close(done); r, err = w.deliverer().Run(ctx) }()
	eventually(t, "the others are sent", func() bool { return w.status().Channels[1].Sent == 5 })
	w.send(UpgradeCompleted) // new ones too, while the other still hangs
	eventually(t, "a new one is sent", func() bool { return w.status().Channels[1].Sent == 6 })
	if s := w.status(); len(hangs.Requests()) != 1 || !s.Delivering || s.DeliveryPID != os.Getpid() {
		t.Errorf("%d requests, %+v", len(hangs.Requests()), s)
	}
	cancel()
	<-done
	if err != nil || r != (Report{Sent: 6, Left: 6}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, m := range must(w.box().all(queueDir)) {
		if m.Attempts != 0 || m.Channel != "hangs" {
			t.Errorf("%+v", m)
		}
	}
}

func must(list []*message, _ []*DamagedError, err error) []*message {
	if err != nil {
		panic(err)
	}
	return list
}

// Wait bounds a deliverer, one that waits for another included.
func TestWait(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Hang: true})
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	d := w.deliverer()
	d.Wait = 50 * time.Millisecond
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Left: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	l, err := lock.Acquire(filepath.Join(w.root.NotifyDir(), "deliver.lock"), "another")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := w.deliverer().Run(t.Context()); err != nil || r != (Report{Left: 1, Busy: true, PID: os.Getpid()}) {
		t.Errorf("beside another: %+v, %v", r, err)
	}
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Left: 1}) {
		t.Errorf("waiting for another: %+v, %v", r, err)
	}
	d.Wait = 10 * time.Second
	works := httpServer(t)
	w.configure("%s", hooks("a", works.URL))
	go func() {
		time.Sleep(50 * time.Millisecond)
		l.Release()
	}()
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Sent: 1}) {
		t.Errorf("after another: %+v, %v", r, err)
	}
}

// Retry-After is a pause for the whole channel.
func TestRetryAfter(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 429, Header: map[string]string{"Retry-After": "1"}}, notifytest.Answer{Status: 200})
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	w.send(UpgradeCompleted)
	began := time.Now()
	if r := w.deliver(); r != (Report{Sent: 2}) || len(s.Requests()) != 3 {
		t.Errorf("%+v, %d requests", r, len(s.Requests()))
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"": 0, "30": 30 * time.Second, " 5 ": 5 * time.Second, "-3": 0, "soon": 0, "99999999": time.Hour, "99999999999999999999": 0,
		"Thu, 01 Jan 2026 00:01:00 GMT": time.Minute, "Wed, 31 Dec 2025 00:00:00 GMT": 0, "Fri, 02 Jan 2026 00:00:00 GMT": time.Hour,
	} {
		if got := retryAfter(h, now); got != want {
			t.Errorf("%q: %s, want %s", h, got, want)
		}
	}
}

// All attempts together take about an hour.
func TestPauses(t *testing.T) {
	for range 100 {
		total := time.Duration(0)
		for i := 1; i < standardRules.attempts; i++ {
			p := standardRules.pause(i)
			if i == 1 && (p < 8*time.Second || p > 12*time.Second) || p > 36*time.Minute {
				t.Errorf("pause %d is %s", i, p)
			}
			total += p
		}
		if total < 45*time.Minute || total > 70*time.Minute {
			t.Errorf("in all %s", total)
		}
	}
}

// A dead letter says why, and can be brought back.
func TestDeadLettersComeBack(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 410, Body: "gone"}, notifytest.Answer{Status: 404}, notifytest.Answer{Status: 200})
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	w.send(UpgradeFailed)
	if r := w.deliver(); r != (Report{Dead: 2}) {
		t.Fatalf("%+v", r)
	}
	dead := w.status().Dead
	if len(dead) != 2 || dead[0].Attempts != 1 || dead[0].Died.IsZero() || dead[0].Channel != "a" || !strings.Contains(dead[0].Reason+dead[1].Reason, `410 Gone ("gone")`) {
		t.Fatalf("%+v", dead)
	}
	for _, id := range []string{"../queue/x", "0123456789abcdef", "x"} {
		var missing *NoLetterError
		if _, err := Retry(w.root, &hostfs.Host{}, id); !errors.As(err, &missing) {
			t.Errorf("%q: %v", id, err)
		}
	}
	got, err := Retry(w.root, &hostfs.Host{}, dead[0].ID)
	if err != nil || len(got) != 1 || got[0].ID != dead[0].ID {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err = Retry(w.root, &hostfs.Host{}, ""); err != nil || len(got) != 1 || got[0].ID != dead[1].ID {
		t.Fatalf("%+v, %v", got, err)
	}
	if r := w.deliver(); r != (Report{Sent: 2}) || len(w.status().Dead) != 0 {
		t.Errorf("%+v, %+v", r, w.status())
	}
}

// A deliverer that waits for the next attempt makes it when it is asked to.
func TestWake(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 500}, notifytest.Answer{Status: 200})
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	d := w.deliverer()
	d.rules.first, d.rules.max = time.Hour, time.Hour
	done := make(chan error, 1)
	go func() { _, err := d.Run(t.Context()); done <- err }()
	eventually(t, "the first attempt", func() bool { return w.status().Channels[0].LastError != "" })
	if next := w.status().Channels[0].NextAttempt; next == nil || time.Until(*next) < 30*time.Minute {
		t.Errorf("next %v", next)
	}
	if _, err := Retry(w.root, &hostfs.Host{}, ""); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || len(s.Requests()) != 2 {
		t.Errorf("%v, %d requests", err, len(s.Requests()))
	}
}

// A file that somebody removes is not sent.
func TestRemovedFromTheQueue(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 500})
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	d := w.deliverer()
	d.rules.first, d.rules.max = time.Hour, time.Hour
	done := make(chan Report, 1)
	go func() { r, _ := d.Run(t.Context()); done <- r }()
	eventually(t, "the first attempt", func() bool { return w.status().Channels[0].LastError != "" })
	if err := os.Remove(w.box().path(queueDir, Sample(UpgradeStarted).id("a"))); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r != (Report{}) || len(s.Requests()) != 1 {
		t.Errorf("%+v, %d requests", r, len(s.Requests()))
	}
}

// A clock that was set back keeps no message waiting.
func TestClockSetBack(t *testing.T) {
	s := httpServer(t)
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	m := must(w.box().all(queueDir))[0]
	m.Attempts, m.LastAttempt, m.NextAttempt = 1, time.Now().Add(48*time.Hour), time.Now().Add(49*time.Hour)
	if err := w.box().write(queueDir, m); err != nil {
		t.Fatal(err)
	}
	if r := w.deliver(); r != (Report{Sent: 1}) {
		t.Errorf("%+v", r)
	}
}

// The configuration is mended while messages wait.
func TestMendedConfiguration(t *testing.T) {
	bad, good := httpServer(t, notifytest.Answer{Status: 500}), httpServer(t)
	w := newWorld(t, "%s", hooks("a", bad.URL))
	w.send(UpgradeStarted)
	d := w.deliverer()
	d.rules.attempts = 1000
	done := make(chan error, 1)
	go func() { _, err := d.Run(t.Context()); done <- err }()
	eventually(t, "an attempt", func() bool { return len(bad.Requests()) > 0 })
	w.configure("nonsense: [") // half written: what was read before is used
	was := len(bad.Requests())
	eventually(t, "another attempt", func() bool { return len(bad.Requests()) > was })
	w.configure("%s", hooks("a", good.URL))
	if err := <-done; err != nil || len(good.Requests()) != 1 {
		t.Errorf("%v, %d requests", err, len(good.Requests()))
	}
}

// The configuration is being written where it is read: for a moment it is empty,
// and no channel is in it.
func TestConfigurationBeingWritten(t *testing.T) {
	bad, good := httpServer(t, notifytest.Answer{Status: 500}), httpServer(t)
	w := newWorld(t, "%s", hooks("a", bad.URL))
	w.send(UpgradeStarted)
	d, reads := w.deliverer(), 0
	d.Load = func() (*config.Notifications, error) {
		switch reads++; reads {
		case 3: // at the start, before the first attempt, before the second
			w.configure("")
		case 4:
			w.configure("%s", hooks("a", good.URL))
		}
		return w.load()
	}
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Sent: 1}) || reads != 4 || len(good.Requests()) != 1 {
		t.Errorf("%+v, %v, read %d times, %d requests", r, err, reads, len(good.Requests()))
	}
}

// A configuration that cannot be read keeps every message.
func TestBrokenConfiguration(t *testing.T) {
	w := newWorld(t, "%s", hooks("a", "http://127.0.0.1:1/"))
	w.send(UpgradeStarted)
	w.configure("channels: [{}]")
	if r, err := w.deliverer().Run(t.Context()); err == nil || !strings.Contains(err.Error(), "name is not given") || r != (Report{Left: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	w.configure("%s", strings.Replace(hooks("a", "http://127.0.0.1:1/"), "enabled: true", "enabled: false", 1))
	if r := w.deliver(); r != (Report{Dead: 1}) || !strings.Contains(w.status().Dead[0].Reason, "channel a is not enabled in") {
		t.Errorf("%+v", w.status().Dead)
	}
	w.configure("channels: []")
	if _, err := Retry(w.root, &hostfs.Host{}, ""); err != nil {
		t.Fatal(err)
	}
	if r := w.deliver(); r != (Report{Dead: 1}) || !strings.Contains(w.status().Dead[0].Reason, "there is no channel a in") {
		t.Errorf("%+v", w.status().Dead)
	}
	if s := w.status(); len(s.Channels) != 1 || s.Channels[0].Type != "" || s.Channels[0].Dead != 1 {
		t.Errorf("%+v", s)
	}
}

// Many that add and many that deliver at once: each message goes out exactly once,
// and none is left behind.
func TestNoWakeUpIsLost(t *testing.T) {
	s := httpServer(t)
	w := newWorld(t, "%s", hooks("a", s.URL))
	const writers, each = 8, 10
	conf := w.conf()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			n := Open(w.root, &hostfs.Host{}, conf, slog.New(slog.DiscardHandler))
			for j := range each {
				d := Sample(UpgradeStarted)
				d.RunID = fmt.Sprint(i, "-", j)
				if err := n.Send(d); err != nil {
					t.Error(err)
				}
				if _, err := w.deliverer().Run(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// The last deliverer may still have been at it when the others looked.
	if st := w.status(); st.Channels[0].Queued != 0 || st.Channels[0].Sent != writers*each {
		t.Errorf("%+v", st.Channels[0])
	}
	seen := map[string]int{}
	for _, r := range s.Requests() {
		seen[r.Header.Get("Idempotency-Key")]++
	}
	if len(seen) != writers*each {
		t.Errorf("%d messages", len(seen))
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
}

// The hook is told how a run was told of: true as soon as one message went out,
// false where none did.
func TestNotified(t *testing.T) {
	good, bad := httpServer(t), httpServer(t, notifytest.Answer{Status: 404})
	for _, c := range []struct {
		name, conf string
		events     []string
		want       []string
	}{
		{"sent", hooks("a", good.URL), []string{UpgradeStarted, UpgradeCompleted}, []string{"r true"}},
		{"dead", hooks("a", bad.URL), []string{UpgradeStarted, UpgradeFailed}, []string{"r false"}},
		{"no end", hooks("a", good.URL), []string{UpgradeStarted, UpgradeAvailable}, nil},
		{"failed and rolled back", hooks("a", good.URL), []string{UpgradeFailed, RollbackCompleted}, []string{"r true", "r true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "%s", c.conf)
			for _, e := range c.events {
				w.send(e, run("r"))
			}
			var got []string
			d := w.deliverer()
			d.Notified = func(_ context.Context, id string, sent bool) error {
				got = append(got, fmt.Sprint(id, " ", sent))
				return errors.New("which delays nothing")
			}
			if _, err := d.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	w := newWorld(t, "%s", hooks("a", good.URL))
	w.send(UpgradeCompleted, run("r"))
	w.deliver()
	w.configure("%s", hooks("a", good.URL, "b", bad.URL))
	w.send(UpgradeCompleted, run("r"))
	d := w.deliverer()
	d.Notified = func(context.Context, string, bool) error {
		t.Error("what was told on one channel is taken back")
		return nil
	}
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Dead: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// A kill at any of its writes loses no message: the next deliverer sends it, and a
// message is sent twice only where the kill came between the sending and the note.
func TestKilledAtEveryWrite(t *testing.T) {
	for _, answers := range [][]notifytest.Answer{{{Status: 200}}, {{Status: 404}}, {{Status: 500}, {Status: 200}}} {
		for kill := 1; ; kill++ {
			s := httpServer(t, answers...)
			w := newWorld(t, "%s", hooks("a", s.URL))
			seen := 0
			guard := func(string, string) error {
				if seen++; seen >= kill {
					return hostfs.ErrCrashed
				}
				return nil
			}
			n := w.notifier()
			n.box.host = &hostfs.Host{Guard: guard}
			sendErr := n.Send(Sample(UpgradeStarted))
			d := w.deliverer()
			d.Host = &hostfs.Host{Guard: guard}
			_, deliverErr := d.Run(t.Context())
			if sendErr != nil {
				w.send(UpgradeStarted) // recovery tells it again
			}
			w.deliver()
			st := w.status().Channels[0]
			if st.Queued != 0 || st.Sent+st.Dead != 1 {
				t.Fatalf("killed at %d: %+v", kill, st)
			}
			if most := len(answers) + 1; len(s.Requests()) > most {
				t.Errorf("killed at %d: %d requests", kill, len(s.Requests()))
			}
			if sendErr == nil && deliverErr == nil {
				if kill < 5 {
					t.Errorf("only %d writes", kill)
				}
				break
			}
		}
	}
}

// A full disk after the sending does not send for ever.
func TestFullDisk(t *testing.T) {
	s := httpServer(t)
	w := newWorld(t, "%s", hooks("a", s.URL))
	w.send(UpgradeStarted)
	d := w.deliverer()
	full := errors.New("no space left on device")
	d.Host = &hostfs.Host{Guard: func(op, target string) error {
		if strings.Contains(target, sentDir+"/") || op == "remove" {
			return full
		}
		return nil
	}}
	if r, err := d.Run(t.Context()); !errors.Is(err, full) || r != (Report{Sent: 1, Left: 1}) || len(s.Requests()) != 1 {
		t.Errorf("%+v, %v, %d requests", r, err, len(s.Requests()))
	}
}

// Some recipients are better than none.
func TestNotifiedOfSome(t *testing.T) {
	s := mailServer(t, notifytest.MailOptions{Refuse: map[string]int{"ops@example.com": 550}})
	w := newWorld(t, mailConfig, s.PortText(), "tls: none")
	w.send(UpgradeFailed)
	d, got := w.deliverer(), []bool{}
	d.Notified = func(_ context.Context, _ string, sent bool) error {
		got = append(got, sent)
		return nil
	}
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Dead: 1}) || !slices.Equal(got, []bool{true}) {
		t.Errorf("%+v, %v, %v", r, err, got)
	}
}

// A message that could not be read again is not written.
func TestTooLarge(t *testing.T) {
	w := newWorld(t, "%s", hooks("a", "http://127.0.0.1:1/"))
	d := Sample(UpgradeAvailable)
	d.Components[0].Vulnerabilities = IDs{strings.Repeat("x", maxMessage)}
	if err := w.notifier().Send(d); err == nil || !strings.Contains(err.Error(), "more than 1048576") {
		t.Errorf("%v", err)
	}
}

// What was configured when a message was queued does not matter: secrets are read
// at the moment of the attempt.
func TestSecretsAreReadLate(t *testing.T) {
	s := httpServer(t)
	w := newWorld(t, webhookConfig, s.URL, `headers: {Authorization: "${SECRET:planted}"}`)
	w.send(UpgradeFailed, func(d *Data) { d.Error = "upstream said " + planted })
	w.hidden()
	w.write(filepath.Join(w.root.SecretsDir(), "planted"), "rotated", 0o600)
	if r := w.deliver(); r != (Report{Sent: 1}) || s.Requests()[0].Header.Get("Authorization") != "rotated" {
		t.Errorf("%+v", s.Requests())
	}
	if body := string(s.Requests()[0].Body); !strings.Contains(body, "upstream said [redacted]") {
		t.Errorf("%s", body)
	}
}

// Logs hold no secret either.
func TestLogs(t *testing.T) {
	s := httpServer(t, notifytest.Answer{Status: 500, Echo: true}, notifytest.Answer{Status: 403, Echo: true})
	w := newWorld(t, webhookConfig, s.URL, `headers: {Authorization: "Bearer ${SECRET:planted}"}`)
	w.send(UpgradeFailed)
	d := w.deliverer()
	d.Log = w.logger()
	if r, err := d.Run(t.Context()); err != nil || r != (Report{Dead: 1}) {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, want := range []string{"notification not sent yet", "notification not delivered", "403 Forbidden", "[redacted]"} {
		if !strings.Contains(w.log.String(), want) {
			t.Errorf("%q is not in %s", want, w.log)
		}
	}
	w.hidden(w.log.String())
}

func TestScrubber(t *testing.T) {
	for _, c := range []struct{ secret, text, want string }{
		{"hunter2", "hunter2 and hunter22", "[redacted] and [redacted]2"},
		{"ab", "ab", "ab"},
		{`quo"te` + "\n", `it said "quo\"te\n"`, `it said "[redacted]"`},
		{"a b/c?", "a+b%2Fc%3F a%20b%2Fc%3F", "[redacted] [redacted]"},
		{"https://u:hunter2@hooks.example.com/services/T0/xoxb-1?key=s3cret", "hooks.example.com: /services/T0/xoxb-1 key=s3cret u:hunter2", "hooks.example.com: /[redacted]/T0/[redacted] [redacted] u:[redacted]"},
		{"pushover://shoutrrr:token12@userkey/", "token12 at userkey", "[redacted] at [redacted]"},
		{"Bearer abcdef", "token abcdef is wrong", "token [redacted] is wrong"},
		{"pass", "AUTH cGFzcw==", "AUTH [redacted]"},
		{"", "nothing", "nothing"},
	} {
		if got := scrubberOf(config.Secret(c.secret)).text(c.text); got != c.want {
			t.Errorf("%q: %q, want %q", c.secret, got, c.want)
		}
	}
	whole := wholeScrubber("https://hooks.slack.com/services/T0/secret1")
	if got := whole.text("2 services failed: https://hooks.slack.com/services/T0/secret1"); got != "2 services failed: [redacted]" {
		t.Errorf("%q", got)
	}
}
