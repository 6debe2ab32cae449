package script

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/observability-upgrade/observability-upgrade/internal/cli"
	"github.com/observability-upgrade/observability-upgrade/internal/demo"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/trace"
	"github.com/observability-upgrade/observability-upgrade/internal/trace/tracetest"
)

type collectorKey struct{}

// collect is `collect`: a collector of traces, whose address is in $COLLECTOR;
// called again, it forgets what it received.
func collect(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) == 0, "collect")
	c := ts.Value(collectorKey{}).(*tracetest.Collector)
	if ts.Getenv("COLLECTOR") != "" {
		c.Reset()
		return
	}
	url, stop, err := c.Listen()
	ts.Check(err)
	ts.Setenv("COLLECTOR", url)
	ts.Defer(func() {
		stop()
		if p := c.Problems(); len(p) > 0 {
			ts.Fatalf("what was no OTLP: %v", p)
		}
	})
}

// spans is `spans COUNT [KEY=REGEXP]...`: so many of the spans received match. KEY
// is name, parent, error, event (one of them), links or an attribute; KEY= is one
// that is empty or not there.
func spans(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, len(args) >= 1, "spans COUNT [KEY=REGEXP]...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	all := ts.Value(collectorKey{}).(*tracetest.Collector).Spans()
	for _, s := range all {
		if spanMatches(ts, s, args[1:]) {
			got++
		}
	}
	if got != want {
		var list strings.Builder
		for _, s := range all {
			fmt.Fprintf(&list, "%s < %s error=%q events=%v links=%d %v\n", s.Name, s.Parent, s.Error, s.Events, s.Links, s.Attrs)
		}
		ts.Fatalf("%d spans match %v, want %d:\n%s", got, args[1:], want, &list)
	}
}

func spanMatches(ts *testscript.TestScript, s tracetest.Span, want []string) bool {
	for _, pair := range want {
		key, pattern, _ := strings.Cut(pair, "=")
		re, err := regexp.Compile("^(?s:" + pattern + ")$")
		ts.Check(err)
		values := []string{s.Attrs[key]}
		switch key {
		case "name":
			values = []string{s.Name}
		case "parent":
			values = []string{s.Parent}
		case "error":
			values = []string{s.Error}
		case "links":
			values = []string{strconv.Itoa(s.Links)}
		case "event":
			values = s.Events
		}
		ok := false
		for _, v := range values {
			ok = ok || re.MatchString(v)
		}
		if !ok {
			return false
		}
	}
	return true
}

// firstWrite calls first when the first bytes are written.
type firstWrite struct {
	bytes.Buffer
	once  sync.Once
	first func()
}

// Write implements io.Writer.
func (w *firstWrite) Write(p []byte) (int, error) {
	w.once.Do(w.first)
	return w.Buffer.Write(p)
}

// A collector that takes a request and never answers delays nothing: the result is
// printed and the lock is free while it is still waited for, and that is bounded.
func TestHangingCollector(t *testing.T) {
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	box, err := demo.New(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	release := make(chan struct{})
	asked := make(chan struct{}, 100)
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		asked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release); hang.Close() })
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", hang.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	upgrade := func(args ...string) (printed time.Duration, logs string) {
		t.Helper()
		var at time.Time
		var logged bytes.Buffer
		out := &firstWrite{first: func() {
			at = time.Now()
			l, err := lock.Acquire(box.Root.Lock(), "test")
			if err != nil {
				t.Errorf("%v: the result is printed under the lock: %v", args, err)
				return
			}
			l.Release()
		}}
		code := cli.Run(t.Context(), append([]string{program, "--root=" + string(box.Root), "--log-format=json"}, args...),
			cli.IO{In: strings.NewReader(""), Out: out, Err: &logged, Env: os.Getenv})
		if code != 0 {
			t.Fatalf("%v: exit code %d\n%s%s", args, code, &out.Buffer, &logged)
		}
		return time.Since(at), logged.String()
	}
	upgrade("restart", "--component=pulse,beacon")
	upgrade("adopt", "--yes")
	after, logs := upgrade("apply", "--yes")
	select {
	case <-asked:
	default:
		t.Error("the collector was never asked")
	}
	if after < trace.Flush/2 || after > trace.Flush+20*time.Second {
		t.Errorf("the command ended %s after its result", after)
	}
	if strings.Count(logs, "traces were not delivered") != 1 || !strings.Contains(logs, `"level":"WARN","msg":"traces were not delivered`) {
		t.Error(logs)
	}
	if strings.Contains(logs, `"level":"ERROR"`) {
		t.Errorf("a hanging collector is no error:\n%s", logs)
	}
}
