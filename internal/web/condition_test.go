package web

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestConditionsAreKept(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var rounds atomic.Int32
	now := time.Now()
	c := newConditions(func(_ context.Context, versions map[string]string) map[string]Condition {
		rounds.Add(1)
		out := map[string]Condition{}
		for name := range versions {
			out[name] = Condition{Health: Healthy}
		}
		return out
	})
	defer c.close()
	c.now = func() time.Time { return now }
	ask := func(versions map[string]string, want int32) {
		t.Helper()
		answers, at, pending := c.get(t.Context(), versions)
		if len(answers) != len(versions) || pending || now.Sub(at) >= freshFor {
			t.Errorf("%v %v %v", answers, at, pending)
		}
		if got := rounds.Load(); got != want {
			t.Errorf("%d rounds, want %d", got, want)
		}
	}
	one, other := map[string]string{"a": "1"}, map[string]string{"a": "2"}
	ask(one, 1)
	now = now.Add(freshFor - time.Second)
	ask(one, 1)
	ask(other, 2) // an upgrade happened in between
	now = now.Add(freshFor)
	ask(other, 3)
	if answers, at, pending := newConditions(nil).get(t.Context(), one); answers != nil || !at.IsZero() || pending {
		t.Error("somebody answers though nobody can be asked")
	}
}

// A component that hangs does not keep the page, one round is on its way however
// many look, and the end of the service ends it.
func TestConditionsThatHang(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var rounds atomic.Int32
	began := make(chan struct{}, 10)
	c := newConditions(func(ctx context.Context, _ map[string]string) map[string]Condition {
		rounds.Add(1)
		began <- struct{}{}
		<-ctx.Done()
		return map[string]Condition{"a": {Health: Unknown, Detail: "cut"}}
	})
	versions := map[string]string{"a": "1"}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan bool, 5)
	for range cap(done) {
		go func() {
			answers, _, pending := c.get(ctx, versions)
			done <- pending && answers == nil
		}()
	}
	<-began
	cancel() // those who look are gone; the round goes on
	for range cap(done) {
		if !<-done {
			t.Error("an answer came before there was one")
		}
	}
	if answers, _, pending := c.get(ctx, versions); !pending || answers != nil || rounds.Load() != 1 {
		t.Errorf("%v %v, %d rounds", answers, pending, rounds.Load())
	}
	c.close()
	answers, _, pending := c.get(t.Context(), versions)
	if pending || answers["a"].Detail != "cut" || rounds.Load() != 1 {
		t.Errorf("%v %v, %d rounds", answers, pending, rounds.Load())
	}
	// Nothing is asked after the end.
	c.now = func() time.Time { return time.Now().Add(time.Hour) }
	if _, _, pending := c.get(t.Context(), versions); pending || rounds.Load() != 1 {
		t.Errorf("%d rounds", rounds.Load())
	}
}

func TestPendingPage(t *testing.T) {
	h := newHost(t)
	o := h.options()
	release := make(chan struct{})
	o.Conditions = func(ctx context.Context, v map[string]string) map[string]Condition {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return h.conditions(ctx, v)
	}
	handler, url := h.serve(o)
	d := get(t, url+"/")
	if !has(d.id("now"), "data-pending") || d.row("grafana")["Health"] != "– Being asked" {
		t.Errorf("%v", d.row("grafana"))
	}
	close(release)
	handler.live.wg.Wait()
	d = get(t, url+"/")
	if has(d.id("now"), "data-pending") || d.row("loki")["Health"] != "✓ Healthy" {
		t.Errorf("%v", d.row("loki"))
	}
}
