// Package web is the status page: what is installed and how it is, what could be
// upgraded and why it is not, the run at work step by step, past runs, and backups.
// It reads and never changes anything, and it runs no program.
//
// Pages are made on the server and work without JavaScript; a small script adds
// what happens while one looks. Whatever is shown, such as names, reasons and
// errors, is taken for hostile.
package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
)

// Options are what the page is made from. Source and Root are required.
type Options struct {
	Source overview.Source
	Root   layout.Root // below it are the runs and the history
	// Conditions asks how components are, by their names and the versions they must
	// report. It is asked at most once in 15 s, and only while somebody looks. nil:
	// not known.
	Conditions func(ctx context.Context, versions map[string]string) map[string]Condition
	// Metrics answers /metrics; nil: there is none.
	Metrics http.Handler
	Logger  *slog.Logger // nil: nothing is logged
}

// Condition is how a component is at a moment.
type Condition struct {
	Health Health
	Detail string // what is wrong, or why nothing is known
}

// Health is a component's state.
type Health int

// The states. The zero Health is not known.
const (
	Unknown Health = iota
	Healthy
	Unhealthy
	Stopped
)

const (
	// atOnce bounds how many pages are made at a time, and with it the memory.
	atOnce = 4
	// pageTimeout bounds the making of a page.
	pageTimeout = 20 * time.Second
)

// policy is what a browser may do with a page of ours: nothing but show it, and
// load its own style, script and pictures. There is nothing to send.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

// Handler answers the requests. Close ends what goes on in it.
type Handler struct {
	o       Options
	mux     *http.ServeMux
	views   *views
	hub     *hub
	live    *conditions
	slots   chan struct{}
	now     func() time.Time
	beat    time.Duration // between two signs of life of a stream
	within  time.Duration // how long a listener may take to receive what is sent
	closing chan struct{}
	once    sync.Once
}

// New returns the handler. It starts nothing before somebody looks.
func New(o Options) *Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		o: o, mux: http.NewServeMux(), views: newViews(), hub: newHub(o.Root, o.Logger), slots: make(chan struct{}, atOnce),
		now: time.Now, beat: heartbeat, within: writeWithin, closing: make(chan struct{}),
	}
	h.live = newConditions(o.Conditions)
	h.mux.HandleFunc("GET /{$}", h.page(h.home))
	h.mux.HandleFunc("GET /runs/{id}", h.page(h.run))
	h.mux.HandleFunc("GET /history", h.page(h.history))
	h.mux.HandleFunc("GET /backups", h.page(h.backups))
	h.mux.HandleFunc("GET /events", h.events)
	h.mux.HandleFunc("GET /healthz", h.healthz)
	h.mux.HandleFunc("GET /assets/{file}", h.asset)
	h.mux.HandleFunc("GET /", h.page(func(*http.Request) (view, error) {
		return view{}, &statusError{http.StatusNotFound, "There is no such page."}
	}))
	if o.Metrics != nil {
		h.mux.Handle("GET /metrics", o.Metrics)
	}
	return h
}

// Close ends streams and waits for all that the handler started. Requests after
// it are answered, but for streams.
func (h *Handler) Close() {
	h.once.Do(func() { close(h.closing) })
	h.hub.close()
	h.live.close()
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	Protect(w.Header())
	h.mux.ServeHTTP(w, r)
}

// Protect sets the headers that every answer carries, whoever gives it.
func Protect(header http.Header) {
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
}

// healthz tells whether the page could be made.
func (h *Handler) healthz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	release, err := h.slot(r.Context())
	if err == nil {
		defer release()
		_, err = h.o.Source.Overview(r.Context())
	}
	if err != nil {
		h.o.Logger.Warn("the overview cannot be read", "error", err)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("the overview cannot be read; the log of this service says why\n"))
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

// slot waits until a page may be made.
func (h *Handler) slot(ctx context.Context) (release func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// statusError is an answer other than a page.
type statusError struct {
	code    int
	message string
}

func (e *statusError) Error() string { return e.message }

// page makes a handler of what makes a view.
func (h *Handler) page(make func(r *http.Request) (view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		release, err := h.slot(ctx)
		var v view
		if err == nil {
			defer release()
			v, err = make(r.WithContext(ctx))
		}
		code := http.StatusOK
		if err != nil {
			v, code = h.trouble(r, err)
		}
		if err := h.views.render(w, code, v, h.now()); err != nil {
			h.o.Logger.Error("a page was not made to its end", "path", r.URL.Path, "error", err)
		}
	}
}

// trouble is the page of an error.
func (h *Handler) trouble(r *http.Request, err error) (view, int) {
	var known *statusError
	if errors.As(err, &known) {
		return view{Title: http.StatusText(known.code), Template: "trouble.html", Body: known.message}, known.code
	}
	h.o.Logger.Error("a page cannot be made", "path", r.URL.Path, "error", err)
	return view{
		Title: "This page cannot be made", Template: "trouble.html",
		Body: "What it shows cannot be read: " + err.Error() + ". On the host, `observability-upgrade status` may tell more.",
	}, http.StatusServiceUnavailable
}
