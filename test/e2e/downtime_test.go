package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkDowntime measures the outage of an upgrade against that of
// `systemctl restart` of the same unit, in pairs within one run, both seen from
// outside by one observer that asks /-/ready all the time. The figure that
// counts is the ratio of the medians. A large Prometheus has a million samples
// of 100,000 series in its head, which it must read when it starts.
func BenchmarkDowntime(b *testing.B) {
	b.Run("small", func(b *testing.B) { downtime(b, 10, func(*host) {}) })
	b.Run("large", func(b *testing.B) { downtime(b, 5, (*host).fill) })
}

func downtime(b *testing.B, pairs int, prepare func(*host)) {
	h := newHost(b, map[string]string{"prometheus": "2.42"}, map[string][]string{"prometheus": {"2.53"}})
	h.settle("prometheus", "500ms")
	h.upgrade(0, "adopt", "--yes")
	prepare(h)
	var restarts, upgrades []time.Duration
	for b.Loop() {
		for range pairs {
			h.upgrade(0, "apply", "--yes") // to 2.53, so that both act on the same version
			restarts = append(restarts, h.outage(func() { h.MustRun(h.ctx, "systemctl", "restart", "prometheus.service") }))
			h.upgrade(0, "rollback", "--previous", "--yes")
			upgrades = append(upgrades, h.outage(func() { h.upgrade(0, "apply", "--yes") }))
			h.upgrade(0, "rollback", "--previous", "--yes")
		}
	}
	r, u := median(restarts), median(upgrades)
	b.ReportMetric(float64(u)/float64(r), "upgrade/restart")
	b.ReportMetric(float64(r.Milliseconds()), "restart-ms")
	b.ReportMetric(float64(u.Milliseconds()), "upgrade-ms")
	b.Logf("restarts %v\nupgrades %v", restarts, upgrades)
}

// fill has Prometheus collect a million samples, and then no more.
func (h *host) fill() {
	h.t.Helper()
	const series, scrapes = 100_000, 10
	var page strings.Builder
	for i := range series {
		fmt.Fprintf(&page, "filled{series=\"%d\"} %d\n", i, i)
	}
	l, err := h.Listen(h.ctx, "tcp", "127.0.0.1:9999")
	h.check(err)
	asked := make(chan struct{}, 1000)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, page.String())
		asked <- struct{}{}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	const file = "/etc/prometheus/prometheus.yml"
	was, err := h.ReadFile(file)
	h.check(err)
	h.file(file, "global: {scrape_interval: 3s}\nscrape_configs: [{job_name: fill, static_configs: [{targets: [\"127.0.0.1:9999\"]}]}]\n")
	h.MustRun(h.ctx, "systemctl", "restart", "prometheus.service")
	for range scrapes + 1 { // the last may still be on its way into the database
		select {
		case <-asked:
		case <-h.ctx.Done():
			h.t.Fatal("Prometheus does not ask for what it is to collect")
		}
	}
	h.file(file, string(was))
	h.MustRun(h.ctx, "systemctl", "restart", "prometheus.service")
	h.check(h.WaitHTTP(h.ctx, "http://127.0.0.1:9090/-/ready", func(status int, _ []byte) bool { return status == http.StatusOK }))
	h.check(srv.Close())
	<-done
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

// outage is how long Prometheus did not answer as ready while do ran.
func (h *host) outage(do func()) time.Duration {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.ctx)
	lost := make(chan time.Duration, 1)
	client := h.HTTP()
	go func() {
		var from, to time.Time
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			ok := ready(ctx, client)
			switch {
			case ctx.Err() != nil:
				lost <- to.Sub(from)
				return
			case !ok && from.IsZero():
				from = time.Now()
			case ok && !from.IsZero() && to.IsZero():
				to = time.Now()
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	do()
	h.check(h.WaitHTTP(h.ctx, "http://127.0.0.1:9090/-/ready", func(status int, _ []byte) bool { return status == http.StatusOK }))
	// The observer sees it too within a tick or two.
	time.Sleep(50 * time.Millisecond)
	cancel()
	d := <-lost
	if d <= 0 {
		h.t.Fatal("the observer saw no outage")
	}
	return d
}

func ready(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9090/-/ready", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
