package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/plan"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// display shows how a command goes on, on standard error: progress bars on a
// terminal, a line per step elsewhere, nothing with --quiet. Where progress is
// logged, it writes log records alone.
type display struct {
	g    *global
	mu   sync.Mutex
	bars *mpb.Progress
	bar  map[string]*mpb.Bar
	got  map[string]int64
}

func newDisplay(g *global) *display {
	d := &display{g: g, bar: map[string]*mpb.Bar{}, got: map[string]int64{}}
	if g.ErrTTY && !g.quiet && !g.records && g.Env("TERM") != "dumb" {
		d.bars = mpb.New(mpb.WithOutput(stream(g.Err)), mpb.WithWidth(40), mpb.WithRefreshRate(120*time.Millisecond))
	}
	return d
}

// line prints one line above any bars.
func (d *display) line(format string, args ...any) {
	if d.g.quiet || d.g.records {
		return
	}
	msg := quoted(fmt.Sprintf(format, args...)) + "\n"
	if d.bars != nil {
		_, _ = d.bars.Write(harmless([]byte(msg)))
		return
	}
	_, _ = io.WriteString(d.g.Err, msg)
}

func (d *display) notice(msg string) {
	msg = d.g.typed(msg)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.g.records {
		d.g.logger.Warn(msg)
		return
	}
	if d.g.quiet { // a warning is no progress: it is shown all the same
		fmt.Fprintf(d.g.Err, "note: %s\n", quoted(msg))
		return
	}
	d.line("note: %s", msg)
}

// Start begins a download; with Add and Done it makes display an artifact.Progress.
func (d *display) Start(component, name string, total int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got[component] = 0
	d.g.logger.Debug(run.StepMessage, "component", component, "step", "download", "done", false, "detail", name)
	if d.bars == nil {
		if total > 0 {
			d.line("%-20s download  %s (%s)", component, name, plan.Bytes(total))
		} else {
			d.line("%-20s download  %s", component, name)
		}
		return
	}
	d.bar[component] = d.bars.AddBar(total,
		mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-20s ", component)), decor.CountersKibiByte("% .1f / % .1f")),
		mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageSpeed(decor.SizeB1024(0), "% .1f")),
	)
}

// Add counts bytes.
func (d *display) Add(component string, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got[component] += n
	if b := d.bar[component]; b != nil {
		b.IncrInt64(n)
	}
}

// Done ends a download.
func (d *display) Done(component, source string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.bar[component]; b != nil {
		if err != nil {
			b.Abort(false)
		} else {
			b.SetTotal(-1, true)
		}
		b.Wait()
		delete(d.bar, component)
	}
	if err != nil {
		d.g.logger.Error(run.StepMessage, "component", component, "step", "download", "done", true, "error", err)
		return
	}
	detail := plan.Bytes(d.got[component])
	if d.got[component] == 0 {
		detail = "from the cache"
	}
	word := "verified"
	if source == artifact.Unverified {
		word = "UNVERIFIED"
	}
	d.line("%-20s %-9s %s", component, word, detail)
	d.g.logger.Info(run.StepMessage, "component", component, "step", "download", "done", true, "detail", detail, "bytes", d.got[component])
	d.g.logger.Info(run.StepMessage, "component", component, "step", "verify", "done", true, "detail", source)
}

// close waits for the bars to be drawn to their end.
func (d *display) close() {
	if d.bars != nil {
		d.bars.Shutdown()
	}
}

// event prints a step of a run.
func (d *display) event(ev run.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Long work on data says how far it is.
	far := (ev.Step == run.StepData || ev.Step == run.StepRestore) && ev.Detail != ""
	if ev.Step == run.StepEnd || !ev.Done && ev.Step != run.StepUndo && ev.Step != run.StepHealth && !far {
		return
	}
	name := component.SetName(ev.Component, ev.Instance)
	if name == "" {
		name = "-"
	}
	detail := ev.Detail
	switch {
	case errors.Is(ev.Err, context.Canceled):
		detail = "interrupted by a signal"
	case ev.Err != nil:
		detail = "FAILED: " + ev.Err.Error()
	case !ev.Done && ev.Step == run.StepHealth && detail == "":
		detail = "waiting until it is ready and stays so"
	case detail == "":
		detail = "done"
	}
	d.line("%-20s %-9s %s", name, stepLabel(ev.Step), detail)
}

// stepLabel is what people call a step.
func stepLabel(st run.Step) string {
	if st == run.StepUndo {
		return "rollback"
	}
	return string(st)
}

// print writes a document as JSON, or calls text.
func (g *global) print(doc any, text func(io.Writer) error) error {
	if g.json() {
		enc := json.NewEncoder(g.Out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(doc)
	}
	return text(g.Out)
}

// style is how the text output is drawn.
func (g *global) style() plan.Style { return plan.Style{Color: g.color(), Width: g.Width} }

var errCancelled = errors.New("cancelled")

// confirm asks a yes/no question and returns errCancelled for anything but yes, a
// signal included.
// It reads in a goroutine of its own only as long as the context lives.
func (g *global) confirm(ctx context.Context, question string) error {
	fmt.Fprintf(g.Err, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { answer <- readLine(g.In) }()
	select {
	case <-ctx.Done():
		fmt.Fprintln(g.Err)
		return fmt.Errorf("%w: %w", errCancelled, ctx.Err())
	case a := <-answer:
		switch strings.ToLower(strings.TrimSpace(a)) {
		case "y", "yes":
			return nil
		}
		return errCancelled
	}
}

func readLine(r io.Reader) string {
	var line []byte
	buf := make([]byte, 1)
	for {
		n, err := r.Read(buf)
		if n == 1 && buf[0] == '\n' || err != nil {
			return string(line)
		}
		line = append(line, buf[:n]...)
	}
}

// table prints rows under a header in aligned columns.
func table(w io.Writer, header []string, rows [][]string) error {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	line := func(row []string) string {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-len([]rune(cell))+2))
			}
		}
		return strings.TrimRight(b.String(), " ") + "\n"
	}
	out := line(header)
	total := 2 * (len(header) - 1)
	for _, n := range width {
		total += n
	}
	out += strings.Repeat("-", total) + "\n"
	for _, row := range rows {
		out += line(row)
	}
	_, err := io.WriteString(w, out)
	return err
}
