package run_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/run/runtest"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// notifying is a manager whose units tell when they are ready, which takes a while.
type notifying struct {
	*runtest.World
	takes time.Duration
}

func (n notifying) Start(ctx context.Context, s service.Service) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(n.takes):
	}
	return n.World.Start(ctx, s)
}

// A component whose definition gives it longer than timeouts.start has that long,
// where its unit tells only when it is ready that it has started.
func TestSlowStart(t *testing.T) {
	for name, tt := range map[string]struct {
		takes, allowed time.Duration
		err            string
	}{
		"its definition allows it": {200 * time.Millisecond, time.Minute, ""},
		"it does not":              {time.Minute, 0, "did not start within 50ms"},
	} {
		t.Run(name, func(t *testing.T) {
			w := runtest.New(t)
			w.Install("prom", "1.0.0")
			req := w.Steps("prom 2.0.0")
			req.Changes[0].Health.Spec.Health.Timeout = component.Duration(tt.allowed)
			e := w.Engine(nil)
			e.Services, e.Timeouts.Start = notifying{w, tt.takes}, 50*time.Millisecond
			_, err := e.Execute(t.Context(), req)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%v, expected %q", err, tt.err)
			}
		})
	}
}
