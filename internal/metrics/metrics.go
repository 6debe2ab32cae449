// Package metrics shows an overview of the stack in Prometheus's form: to a
// scrape, once on a writer, or as a file for node_exporter's textfile collector.
// It keeps nothing between one reading and the next.
//
// Names are those of the specification, section 11. One of its forms is no valid
// exposition: a sample's value is a number, so a version such as 2.48.1 is a label
// of a metric that is always 1 (observability_component_version_info), the way
// that Prometheus's own build_info goes. Labels have values from fixed sets, but
// for components, their versions and the vulnerabilities of these.
package metrics

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

// Handler serves the metrics, and those of the extra collectors, in the form that
// the scraper asks for. Each request reads an overview of its own and gives up
// when the request is gone; where nothing can be read the answer is 503. It is
// safe for concurrent use. Extra collectors that do not fit each other are a
// mistake in the source, and a panic.
func Handler(src overview.Source, extra ...prometheus.Collector) http.Handler {
	others := prometheus.NewRegistry()
	others.MustRegister(extra...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o, err := src.Overview(r.Context())
		if err != nil {
			http.Error(w, fmt.Sprintf("the stack cannot be read: %v", err), http.StatusServiceUnavailable)
			return
		}
		own, err := gatherer(snapshot{Overview: o, live: true})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		promhttp.HandlerFor(prometheus.Gatherers{own, others}, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
	})
}

// Write prints the metrics once, as a scrape would get them.
func Write(w io.Writer, o *overview.Overview) error {
	return write(w, snapshot{Overview: o, live: true})
}

func write(w io.Writer, s snapshot) error {
	own, err := gatherer(s)
	if err != nil {
		return err
	}
	families, err := own.Gather()
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	enc := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return fmt.Errorf("write metrics: %w", err)
		}
	}
	return nil
}

// gatherer checks what is gathered: no series twice, none without its labels.
func gatherer(s snapshot) (prometheus.Gatherer, error) {
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(s); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return r, nil
}

// render is the text that a file gets: without what only a scrape can tell.
func render(ctx context.Context, src overview.Source) ([]byte, error) {
	o, err := src.Overview(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = write(&b, snapshot{Overview: o})
	return b.Bytes(), err
}
