// Package browsertest drives a real Chromium in tests: what goes wrong in the
// browser fails the test.
package browsertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// limit is how long Until waits.
const limit = 30 * time.Second

// Browser is a real Chromium.
type Browser struct{ ctx context.Context }

// Find is the path of Chromium, or of a relative of it; "" where there is none.
func Find() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome-stable", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// New starts a Chromium of its own, which ends with the test. Without one here the
// test is skipped.
func New(t testing.TB) *Browser {
	t.Helper()
	path := Find()
	if path == "" {
		t.Skip("there is no Chromium here; as root: apt-get install chromium")
	}
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("force-device-scale-factor", "1"),
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	alloc, end := chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(end)
	first, endFirst := chromedp.NewContext(alloc)
	t.Cleanup(endFirst)
	if err := chromedp.Do(first); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{ctx: first}
}

// Look says how a tab shows pages; the zero Look is that of a wide, light screen.
type Look struct {
	Width, Height int64 // in CSS pixels
	Dark          bool
	NoScript      bool
	Still         bool // prefers-reduced-motion
}

// Tab is a tab of the browser. It is for one goroutine.
type Tab struct {
	// Close closes it. A browser has few connections to a host, and a stream takes one.
	Close context.CancelFunc

	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	troubles []string
}

// Tab opens a tab, which ends with the test or before.
func (b *Browser) Tab(t testing.TB, l Look) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	tb := &Tab{t: t, ctx: ctx, Close: cancel}
	if err := chromedp.Listen(ctx, tb.hear); err != nil {
		t.Fatal(err)
	}
	scheme, motion := "light", "no-preference"
	if l.Dark {
		scheme = "dark"
	}
	if l.Still {
		motion = "reduce"
	}
	if l.Width == 0 {
		l.Width, l.Height = 1280, 900
	}
	call(tb, log.Enable, cdp.Empty{})
	call(tb, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.Width, Height: l.Height, DeviceScaleFactor: 1, Mobile: l.Width < 500})
	call(tb, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
	}})
	call(tb, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: l.NoScript})
	return tb
}

// call gives the tab a command of the protocol.
func call[P, R any](tb *Tab, cmd cdp.Command[P, R], params P) R {
	tb.t.Helper()
	res, err := chromedp.Call(tb.ctx, cmd, params)
	if err != nil {
		tb.t.Fatalf("%s: %v", cmd.Method, err)
	}
	return res
}

// hear keeps what the browser complains of.
func (tb *Tab) hear(ev any) {
	text := ""
	switch e := ev.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			text = fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		text = fmt.Sprintf("%s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			text = fmt.Sprintf("console: %+v", e.Args)
		}
	}
	if text != "" {
		tb.mu.Lock()
		defer tb.mu.Unlock()
		tb.troubles = append(tb.troubles, text)
	}
}

func (tb *Tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	if err := chromedp.Do(tb.ctx, actions...); err != nil {
		tb.t.Fatal(err)
	}
}

// Open goes to a page and waits until it is there.
func (tb *Tab) Open(address string) {
	tb.t.Helper()
	tb.do(chromedp.Navigate(address))
}

// Eval is what an expression is in the page.
func Eval[T any](tb *Tab, expression string) T {
	tb.t.Helper()
	v, err := chromedp.Run(tb.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		tb.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// Until waits until an expression is true in the page, at most for limit.
func (tb *Tab) Until(what, expression string) {
	tb.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		if Eval[bool](tb, "!!("+expression+")") {
			return
		}
		if time.Now().After(deadline) {
			tb.t.Fatalf("%s: not within %s; the page says:\n%s", what, limit, Eval[string](tb, "document.body.innerText"))
		}
		select {
		case <-tb.ctx.Done():
			tb.t.Fatal(tb.ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Clean fails where the browser complained of anything since the last time.
func (tb *Tab) Clean() {
	tb.t.Helper()
	tb.mu.Lock()
	defer tb.mu.Unlock()
	for _, text := range tb.troubles {
		tb.t.Errorf("the browser complains: %s", text)
	}
	tb.troubles = nil
}

// Shoot takes a picture of the whole page into the directory that the environment
// variable SCREENSHOTS names; without it, it does nothing.
func (tb *Tab) Shoot(name string) {
	tb.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(tb.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		tb.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		tb.t.Fatal(err)
	}
}

// Text is what is written in the first element that a selector finds, in single
// spaces; it needs no script. A page that comes anew by itself, after the element was
// found and before it is read, is looked at again.
func (tb *Tab) Text(selector string) string {
	tb.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		text, err := chromedp.Run(tb.ctx, chromedp.TextContent(chromedp.CSS(selector)))
		var gone *cdproto.Error
		switch {
		case err == nil:
			return strings.Join(strings.Fields(text), " ")
		case !errors.As(err, &gone) || time.Now().After(deadline):
			tb.t.Fatalf("the text of %s: %v", selector, err)
		}
	}
}

// Press presses keys, of package kb.
func (tb *Tab) Press(keys string) {
	tb.t.Helper()
	tb.do(chromedp.KeyEvent(keys))
}
