// Package trace tells an OpenTelemetry collector what a command did: one trace per
// run, with a span for what preceded it, for each component that was changed and
// for each of its steps. It reads what a run reports and nothing depends on it: a
// collector that is away, or hangs, neither delays nor fails an upgrade.
//
// Whether there are traces, and where they go, is said by the environment
// variables of the OpenTelemetry specification, docs/logs-and-traces.md. Their
// values come from the process's environment, which the SDK reads.
package trace

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Flush is how long Close waits for what was not delivered yet.
const Flush = 2 * time.Second

// Prefix begins the names of this program's own attributes.
const Prefix = "obsup."

// Options are what a front end gives.
type Options struct {
	Env     func(string) string // says whether there are traces
	Logger  *slog.Logger
	Version string // this program's
}

// Tracer makes spans of what a command does and of the events of its runs. A nil
// Tracer does nothing. It is safe for concurrent use.
type Tracer struct {
	logger   *slog.Logger
	tracer   oteltrace.Tracer
	provider *sdktrace.TracerProvider
	exporter *exporter
	parent   oteltrace.SpanContext // TRACEPARENT; not valid where there is none

	mu      sync.Mutex
	command oteltrace.Span // the root of the command at work; nil for none
	run     *runSpans      // the run at work; nil for none
}

// Open returns a Tracer, or nil where the environment asks for no traces. What is
// wrong with its variables is a warning: traces are not worth failing an upgrade.
// Nothing is connected yet. The Tracer must be closed.
func Open(ctx context.Context, o Options) *Tracer {
	protocol, err := asked(o.Env)
	if err == nil && protocol == "" {
		return nil
	}
	hide := secrets(o.Env)
	listen(o.Logger, hide)
	var exp sdktrace.SpanExporter
	if err == nil {
		exp, err = newExporter(ctx, protocol)
	}
	if err != nil {
		o.Logger.Warn("no traces are sent", "error", hide.Replace(err.Error()))
		return nil
	}
	res, err := resource.New(ctx,
		resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("observability-upgrade"), semconv.ServiceVersion(o.Version)),
		resource.WithFromEnv(), // OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME have the last word
	)
	if err != nil {
		o.Logger.Warn("the resource of the traces is not complete", "error", hide.Replace(err.Error()))
	}
	t := &Tracer{logger: o.Logger, exporter: newBounded(exp, o.Logger, hide), parent: parent(o)}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithBatcher(t.exporter), sdktrace.WithResource(res))
	t.tracer = t.provider.Tracer("github.com/observability-upgrade/observability-upgrade/internal/trace", oteltrace.WithInstrumentationVersion(o.Version))
	return t
}

// parent is the span that the environment names as the caller's.
func parent(o Options) oteltrace.SpanContext {
	header := o.Env("TRACEPARENT")
	if header == "" {
		return oteltrace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": header, "tracestate": o.Env("TRACESTATE")})
	sc := oteltrace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		o.Logger.Warn("TRACEPARENT is not a W3C trace context (00-TRACE-SPAN-FLAGS); the trace has no parent", "value", header)
	}
	return sc
}

// Command begins the root of a command's trace, below TRACEPARENT. The returned
// context carries it; the function ends it, with what became of it.
func (t *Tracer) Command(ctx context.Context, name string) (context.Context, func(error, ...slog.Attr)) {
	if t == nil {
		return ctx, func(error, ...slog.Attr) {}
	}
	if t.parent.IsValid() {
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, t.parent)
	}
	ctx, span := t.tracer.Start(ctx, name)
	t.mu.Lock()
	t.command = span
	t.mu.Unlock()
	return ctx, func(err error, attrs ...slog.Attr) {
		t.cutOff()
		finish(span, err, attrs)
	}
}

// Span begins a span within that of ctx; without one it does nothing. The returned
// context carries it; the function ends it, with what became of it.
func (t *Tracer) Span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error, ...slog.Attr)) {
	if t == nil || !oteltrace.SpanContextFromContext(ctx).IsValid() {
		return ctx, func(error, ...slog.Attr) {}
	}
	ctx, span := t.tracer.Start(ctx, name, oteltrace.WithAttributes(convert(attrs)...))
	return ctx, func(err error, attrs ...slog.Attr) { finish(span, err, attrs) }
}

func finish(span oteltrace.Span, err error, attrs []slog.Attr) {
	span.SetAttributes(convert(attrs)...)
	fail(span, err)
	span.End()
}

// cutOff ends a run that told of no end, and the command's time as a root.
func (t *Tracer) cutOff() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.run != nil {
		t.run.cutOff()
	}
	t.run, t.command = nil, nil
}

// Close delivers what was not delivered yet, for Flush at most; what a collector
// did not take by then is lost, with a warning.
func (t *Tracer) Close() error {
	if t == nil {
		return nil
	}
	t.cutOff()
	done := make(chan error, 1)
	go func() { done <- t.provider.Shutdown(context.Background()) }()
	timer := time.NewTimer(Flush)
	defer timer.Stop()
	var err error
	select {
	case err = <-done:
	case <-timer.C:
		t.exporter.giveUp()
		err = <-done
	}
	t.exporter.report()
	return err
}

// fail gives a span the status of an error; none for nil.
func fail(span oteltrace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
}

// convert gives log attributes the names and types of OpenTelemetry.
func convert(attrs []slog.Attr) []attribute.KeyValue {
	out := make([]attribute.KeyValue, 0, len(attrs))
	for _, a := range attrs {
		key, v := Prefix+a.Key, a.Value.Resolve()
		switch v.Kind() {
		case slog.KindBool:
			out = append(out, attribute.Bool(key, v.Bool()))
		case slog.KindInt64:
			out = append(out, attribute.Int64(key, v.Int64()))
		case slog.KindFloat64:
			out = append(out, attribute.Float64(key, v.Float64()))
		default:
			if s := v.String(); s != "" {
				out = append(out, attribute.String(key, s))
			}
		}
	}
	return out
}

var _ sdktrace.SpanExporter = (*exporter)(nil)

// listen makes the SDK, which has no other way, tell what is wrong through the
// logger instead of as plain text on standard error.
func listen(logger *slog.Logger, hide replacer) {
	otel.SetLogger(sdkLogger(logger, hide))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Warn("OpenTelemetry", "error", hide.Replace(err.Error()))
	}))
}
