package trace

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/grpclog"
)

// Retries of a batch that the collector did not take: soon, so that the flush at
// the end has more than one.
const (
	firstRetry = 250 * time.Millisecond
	maxRetry   = 5 * time.Second
	maxElapsed = time.Minute
)

// The protocols of OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	overHTTP = "http/protobuf"
	overGRPC = "grpc"
)

// asked is the protocol that the environment asks for traces by; "" where it asks
// for none. The SDK reads the variables that are not looked at here.
func asked(env func(string) string) (protocol string, err error) {
	get := func(names ...string) (value, name string) {
		for _, name = range names {
			if value = strings.TrimSpace(env(name)); value != "" {
				return value, name
			}
		}
		return "", name
	}
	off, _ := get("OTEL_SDK_DISABLED")
	endpoint, name := get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	kind, _ := get("OTEL_TRACES_EXPORTER")
	if strings.EqualFold(off, "true") || endpoint == "" || kind == "none" {
		return "", nil
	}
	if kind != "" && kind != "otlp" {
		return "", fmt.Errorf("OTEL_TRACES_EXPORTER=%s: want otlp or none", kind)
	}
	// The endpoint is not shown: it may hold a password.
	if u, err := url.Parse(endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%s is not a URL as http://collector:4318", name)
	}
	protocol, name = get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	switch protocol {
	case "":
		return overHTTP, nil
	case overHTTP, overGRPC:
		return protocol, nil
	}
	return "", fmt.Errorf("%s=%s: want %s or %s", name, protocol, overHTTP, overGRPC)
}

// gRPC prints its own errors on standard error unless told otherwise before its
// first use; the exporter's carry what there is to know.
func init() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

func newExporter(ctx context.Context, protocol string) (sdktrace.SpanExporter, error) {
	if protocol == overGRPC {
		return otlptracegrpc.New(ctx, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: maxElapsed,
		}))
	}
	return otlptracehttp.New(ctx, otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
		Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: maxElapsed,
	}))
}

// exporter is an exporter that can be told to give up, and that tells of its
// errors once, at the end.
type exporter struct {
	sdktrace.SpanExporter
	logger *slog.Logger
	hide   replacer
	ctx    context.Context // cancelled by giveUp
	giveUp context.CancelFunc

	mu   sync.Mutex
	lost int // spans that were not delivered
	last string
}

func newBounded(exp sdktrace.SpanExporter, logger *slog.Logger, hide replacer) *exporter {
	e := &exporter{SpanExporter: exp, logger: logger, hide: hide}
	e.ctx, e.giveUp = context.WithCancel(context.Background())
	return e
}

// ExportSpans implements sdktrace.SpanExporter. Errors are kept for report.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost += len(spans)
	e.last = e.hide.Replace(err.Error())
	if e.ctx.Err() != nil {
		e.last = fmt.Sprintf("the collector took longer than %s at the end of the command", Flush)
	}
	e.logger.Debug("spans were not delivered", "spans", len(spans), "error", e.last)
	return nil
}

// report tells of what was lost.
func (e *exporter) report() {
	e.giveUp() // frees the context
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost > 0 {
		e.logger.Warn("traces were not delivered; nothing depends on them", "spans", e.lost, "error", e.last)
	}
}

// replacer hides secrets in what is logged.
type replacer interface{ Replace(string) string }

// secrets hides the values of headers and the passwords of endpoints: a collector
// may repeat them in its answer, the SDK in an error.
func secrets(env func(string) string) replacer {
	var hide []string
	add := func(s string) {
		if len(s) >= 4 { // what is shorter is no secret, and would spoil the words
			hide = append(hide, s, "…")
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		for pair := range strings.SplitSeq(env(name), ",") {
			_, value, found := strings.Cut(pair, "=")
			if !found {
				value = pair
			}
			value = strings.TrimSpace(value)
			plain, err := url.PathUnescape(value)
			if err != nil {
				plain = value
			}
			for _, s := range []string{value, strings.TrimSpace(plain)} {
				add(s)
				if _, token, ok := strings.Cut(s, " "); ok {
					add(token) // what follows Bearer
				}
			}
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if _, rest, ok := strings.Cut(env(name), "://"); ok {
			if user, _, ok := strings.Cut(rest, "@"); ok {
				add(user)
			}
		}
	}
	return strings.NewReplacer(hide...)
}

// sdkLogger takes what the SDK says of itself. Only its errors are of interest;
// of their values only file names are shown, since others may be secrets.
func sdkLogger(logger *slog.Logger, hide replacer) logr.Logger {
	return logr.New(sink{logger: logger, hide: hide})
}

type sink struct {
	logger *slog.Logger
	hide   replacer
}

// Init implements logr.LogSink.
func (sink) Init(logr.RuntimeInfo) {}

// Enabled implements logr.LogSink.
func (sink) Enabled(int) bool { return false }

// Info implements logr.LogSink.
func (sink) Info(int, string, ...any) {}

// Error implements logr.LogSink.
func (s sink) Error(err error, msg string, pairs ...any) {
	args := []any{"problem", msg}
	if err != nil {
		args = append(args, "error", s.hide.Replace(err.Error()))
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] == "file" {
			args = append(args, "file", pairs[i+1])
		}
	}
	s.logger.Warn("OpenTelemetry: see the variables OTEL_*", args...)
}

// WithValues implements logr.LogSink.
func (s sink) WithValues(...any) logr.LogSink { return s }

// WithName implements logr.LogSink.
func (s sink) WithName(string) logr.LogSink { return s }
