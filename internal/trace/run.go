package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// errCutOff is the status of spans whose end was never told.
var errCutOff = errors.New("cut off: its end was never told")

// runSpans are the open spans of a run.
type runSpans struct {
	tracer  oteltrace.Tracer
	id      string
	root    oteltrace.Span
	own     bool // the root is this run's, and ends with it
	whole   *change
	changes map[changeKey]*change
	order   []*change
	last    time.Time // of its events
}

// changeKey tells the changes of a run apart: of one component there may be
// several, one after the other.
type changeKey struct{ component, instance, from, to string }

// change is one component's change, or, without a span of its own, what a run does
// as a whole.
type change struct {
	run   *runSpans
	span  oteltrace.Span
	attrs []slog.Attr // that its steps have too
	steps map[run.Step]oteltrace.Span
	last  time.Time // of its events
}

// Event makes spans of the events of a run. It is a sink for them.
func (t *Tracer) Event(ev run.Event) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case ev.Begin != nil:
		if t.run != nil {
			t.run.cutOff()
		}
		t.run = t.begin(ev)
	case t.run == nil || t.run.id != ev.Run: // its beginning was never told
	case ev.End != nil:
		t.run.end(ev)
		t.run = nil
	default:
		t.run.last = ev.Time
		t.run.of(ev).step(ev)
	}
}

// begin gives a run its root: the command's span, or for the recovery of an
// interrupted run one of its own, in a trace of its own.
func (t *Tracer) begin(ev run.Event) *runSpans {
	r := &runSpans{tracer: t.tracer, id: ev.Run, root: t.command, changes: map[changeKey]*change{}, last: ev.Time}
	if r.root == nil || ev.Recovery {
		r.root, r.own = t.root(ev), true
	}
	h := ev.Begin
	attrs := []slog.Attr{
		slog.String("run", ev.Run), slog.String("operation", string(h.Operation)), slog.String("triggered_by", h.Trigger),
		slog.String("detail", ev.Detail),
	}
	if h.Operation != run.Restart { // which has none
		attrs = append(attrs, slog.String("backup_path", h.BackupPath))
	}
	r.root.SetAttributes(convert(attrs)...)
	r.root.SetAttributes(attribute.StringSlice(Prefix+"components", planned(h.Components)))
	r.whole = &change{run: r, span: r.root, attrs: []slog.Attr{slog.String("run", ev.Run)}, steps: map[run.Step]oteltrace.Span{}, last: ev.Time}
	return r
}

func (t *Tracer) root(ev run.Event) oteltrace.Span {
	caller := t.parent
	if t.command != nil {
		caller = t.command.SpanContext()
	}
	ctx := context.Background()
	name, opts := string(ev.Begin.Operation), []oteltrace.SpanStartOption{oteltrace.WithTimestamp(ev.Time)}
	switch {
	case ev.Recovery:
		name = "recover"
		if caller.IsValid() {
			opts = append(opts, oteltrace.WithLinks(oteltrace.Link{SpanContext: caller}))
		}
	case caller.IsValid():
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, caller)
	}
	_, span := t.tracer.Start(ctx, name, opts...)
	return span
}

func planned(comps []run.Planned) []string {
	out := make([]string, 0, len(comps))
	for _, p := range comps {
		name := component.SetName(p.Name, p.Instance)
		if p.From != p.To {
			name += " " + p.From + " → " + p.To
		}
		out = append(out, name)
	}
	return out
}

// of finds, or begins, the change that an event is of.
func (r *runSpans) of(ev run.Event) *change {
	if ev.Component == "" {
		return r.whole
	}
	key := changeKey{ev.Component, ev.Instance, ev.From, ev.To}
	if c := r.changes[key]; c != nil {
		return c
	}
	attrs := []slog.Attr{
		slog.String("run", r.id), slog.String("component", ev.Component), slog.String("instance", ev.Instance),
		slog.String("from", ev.From), slog.String("to", ev.To),
	}
	c := &change{run: r, attrs: attrs, steps: map[run.Step]oteltrace.Span{}, last: ev.Time}
	c.span = r.start(r.root, "change "+component.SetName(ev.Component, ev.Instance), ev.Time, attrs)
	r.changes[key], r.order = c, append(r.order, c)
	return c
}

func (r *runSpans) start(parent oteltrace.Span, name string, at time.Time, attrs []slog.Attr) oteltrace.Span {
	ctx := oteltrace.ContextWithSpan(context.Background(), parent)
	_, span := r.tracer.Start(ctx, name, oteltrace.WithTimestamp(at), oteltrace.WithAttributes(convert(attrs)...))
	return span
}

// step begins a step's span, ends it, or tells how it gets on. What is done while
// the old version is brought back is below the span of that.
func (c *change) step(ev run.Event) {
	c.last = ev.Time
	undo := c.steps[run.StepUndo]
	span := c.steps[ev.Step]
	switch {
	case span == nil && undo != nil && ev.Step == run.StepHealth && !ev.Done:
		progress(undo, ev) // the proof of the old version has no end of its own
		return
	case span != nil && !ev.Done:
		progress(span, ev)
		return
	case span == nil:
		parent := c.span
		if undo != nil {
			parent = undo
		}
		span = c.run.start(parent, string(ev.Step), ev.Time, append(c.attrs, slog.String("step", string(ev.Step))))
		c.steps[ev.Step] = span
		if ev.Step == run.StepUndo {
			c.tellRollback(ev)
		}
	}
	span.SetAttributes(convert([]slog.Attr{slog.String("detail", ev.Detail)})...)
	if !ev.Done {
		return
	}
	fail(span, ev.Err)
	span.End(oteltrace.WithTimestamp(ev.Time))
	delete(c.steps, ev.Step)
}

func progress(span oteltrace.Span, ev run.Event) {
	span.AddEvent("progress", oteltrace.WithTimestamp(ev.Time), oteltrace.WithAttributes(convert([]slog.Attr{slog.String("detail", ev.Detail)})...))
}

// tellRollback marks the moment on the component and on the run.
func (c *change) tellRollback(ev run.Event) {
	attrs := oteltrace.WithAttributes(convert([]slog.Attr{
		slog.String("component", ev.Component), slog.String("instance", ev.Instance), slog.String("detail", ev.Detail),
	})...)
	c.span.AddEvent("rollback", oteltrace.WithTimestamp(ev.Time), attrs)
	c.run.root.AddEvent("rollback", oteltrace.WithTimestamp(ev.Time), attrs)
}

// end ends the steps that told of no end. That is no error where the component's
// own end is told, as after a failed restart, whose undo tells of none.
func (c *change) end(err error) {
	for _, span := range c.steps {
		fail(span, err)
		span.End(oteltrace.WithTimestamp(c.last))
	}
	clear(c.steps)
}

// end ends a run with its result.
func (r *runSpans) end(ev run.Event) {
	for _, o := range ev.End.Components {
		r.outcome(ev, o)
	}
	for _, c := range r.order {
		c.end(nil)
		c.span.End(oteltrace.WithTimestamp(c.last))
	}
	r.whole.end(nil)
	for _, w := range ev.End.Warnings {
		r.root.AddEvent("warning", oteltrace.WithTimestamp(ev.Time), oteltrace.WithAttributes(convert([]slog.Attr{slog.String("detail", w)})...))
	}
	r.root.SetAttributes(convert([]slog.Attr{slog.String("status", ev.End.Status), slog.Float64("duration_seconds", ev.End.Duration)})...)
	if ev.End.Status != run.StatusSuccess {
		fail(r.root, fmt.Errorf("the run ended with status %s", ev.End.Status))
	}
	if r.own {
		r.root.End(oteltrace.WithTimestamp(ev.Time))
	}
}

// outcome tells what became of a component: on its span, or, where the run never
// came to it, on the run's.
func (r *runSpans) outcome(ev run.Event, o run.Outcome) {
	c := r.changes[changeKey{o.Name, o.Instance, o.From.String(), o.To.String()}]
	if c == nil {
		r.root.AddEvent(string(o.Status), oteltrace.WithTimestamp(ev.Time), oteltrace.WithAttributes(convert([]slog.Attr{
			slog.String("component", o.Name), slog.String("instance", o.Instance),
			slog.String("from", o.From.String()), slog.String("to", o.To.String()), slog.String("detail", o.Error),
		})...))
		return
	}
	c.span.SetAttributes(convert([]slog.Attr{
		slog.String("status", string(o.Status)), slog.Bool("healthy", o.Healthy), slog.Float64("downtime_seconds", o.Downtime),
		slog.Float64("duration_seconds", o.Duration), slog.String("evidence", o.Evidence),
	})...)
	switch {
	case o.Status == run.RolledBack && ev.End.Operation == run.Rollback: // as it was to be
	case o.Status == run.Failed, o.Status == run.RolledBack, o.Status == run.RollbackFailed:
		fail(c.span, errors.New(o.Error))
	}
}

// cutOff ends the spans of a run whose end was never told.
func (r *runSpans) cutOff() {
	for _, c := range append(r.order, r.whole) {
		c.end(errCutOff)
	}
	for _, c := range r.order {
		fail(c.span, errCutOff)
		c.span.End(oteltrace.WithTimestamp(c.last))
	}
	fail(r.root, errCutOff)
	if r.own {
		r.root.End(oteltrace.WithTimestamp(r.last))
	}
}
