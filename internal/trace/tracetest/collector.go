// Package tracetest is a collector of traces for tests: a real receiver of OTLP,
// over HTTP and over gRPC, that keeps what it was sent.
package tracetest

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Span is what was received of one span, in a form that compares well.
type Span struct {
	Name   string
	Parent string // its name; "" for a root, "?ID" for one that was not received
	Trace  string
	Attrs  map[string]string
	Error  string   // message of the status; "" where that is no error
	Events []string // name and detail
	Links  int
	Start  time.Time
	End    time.Time

	depth int // how many spans received it is within
}

// Collector keeps what it is sent. It is safe for concurrent use.
type Collector struct {
	collector.UnimplementedTraceServiceServer

	mu       sync.Mutex
	resource map[string]string
	scope    string
	headers  http.Header
	raw      []*otlp.Span
	problems []string
}

// ServeHTTP takes OTLP over HTTP, as protobuf.
func (c *Collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := decode(r)
	if err != nil {
		c.mu.Lock()
		c.problems = append(c.problems, err.Error())
		c.mu.Unlock()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.add(req, r.Header)
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty message: all was taken
}

func decode(r *http.Request) (*collector.ExportTraceServiceRequest, error) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		return nil, fmt.Errorf("%s %s with Content-Type %s is no OTLP request", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		body = zr
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	req := new(collector.ExportTraceServiceRequest)
	return req, proto.Unmarshal(data, req)
}

// Export takes OTLP over gRPC.
func (c *Collector) Export(ctx context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	h := http.Header{}
	for k, v := range md {
		h.Set(k, strings.Join(v, ","))
	}
	c.add(req, h)
	return &collector.ExportTraceServiceResponse{}, nil
}

func (c *Collector) add(req *collector.ExportTraceServiceRequest, h http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers = h.Clone()
	for _, rs := range req.ResourceSpans {
		c.resource = attrs(rs.Resource.Attributes)
		for _, ss := range rs.ScopeSpans {
			c.scope = ss.Scope.Name + "@" + ss.Scope.Version
			c.raw = append(c.raw, ss.Spans...)
		}
	}
}

// Listen serves OTLP over HTTP on loopback; close stops it.
func (c *Collector) Listen() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return "http://" + l.Addr().String(), func() { _ = srv.Close(); <-done }, nil
}

// ListenGRPC serves OTLP over gRPC on loopback.
func (c *Collector) ListenGRPC() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := grpc.NewServer()
	collector.RegisterTraceServiceServer(srv, c)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return "http://" + l.Addr().String(), func() { srv.Stop(); <-done }, nil
}

// Resource is that of the last request, its scope, and its headers.
func (c *Collector) Resource() (resource map[string]string, scope string, headers http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resource, c.scope, c.headers
}

// Problems are the requests that were no OTLP.
func (c *Collector) Problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.problems)
}

// Reset forgets what was received.
func (c *Collector) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = nil
}

// Spans are those received so far, in the order they began, an outer one before
// those within.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	names, parents := map[string]string{"": ""}, map[string]string{}
	for _, s := range c.raw {
		names[string(s.SpanId)], parents[string(s.SpanId)] = s.Name, string(s.ParentSpanId)
	}
	out := make([]Span, 0, len(c.raw))
	for _, s := range c.raw {
		parent, ok := names[string(s.ParentSpanId)]
		if !ok {
			parent = "?" + hex.EncodeToString(s.ParentSpanId)
		}
		got := Span{
			Name: s.Name, Parent: parent, Trace: hex.EncodeToString(s.TraceId), Attrs: attrs(s.Attributes), Links: len(s.Links),
			Start: time.Unix(0, int64(s.StartTimeUnixNano)).UTC(), End: time.Unix(0, int64(s.EndTimeUnixNano)).UTC(),
		}
		if s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR {
			got.Error = s.Status.Message
		}
		for _, e := range s.Events {
			got.Events = append(got.Events, strings.TrimSpace(e.Name+" "+attrs(e.Attributes)["obsup.detail"]))
		}
		for id := string(s.ParentSpanId); id != ""; id = parents[id] {
			got.depth++
		}
		out = append(out, got)
	}
	slices.SortStableFunc(out, func(a, b Span) int {
		return cmp.Or(a.Start.Compare(b.Start), b.End.Compare(a.End), cmp.Compare(a.depth, b.depth))
	})
	return out
}

func attrs(list []*common.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		out[kv.Key] = text(kv.Value)
	}
	return out
}

func text(v *common.AnyValue) string {
	switch v := v.Value.(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_BoolValue:
		return fmt.Sprint(v.BoolValue)
	case *common.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *common.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	case *common.AnyValue_ArrayValue:
		var parts []string
		for _, e := range v.ArrayValue.Values {
			parts = append(parts, text(e))
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprintf("%T", v.Value)
}
