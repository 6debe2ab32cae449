package web

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// heartbeat is how often a stream shows that it is alive, so that whoever is
	// between does not end it, and one whose reader is gone is found out.
	heartbeat = 15 * time.Second
	// writeWithin is how long a listener may take to receive what is sent.
	writeWithin = 10 * time.Second
	// comeBackAfter is when a browser connects again after a stream ended, in ms.
	comeBackAfter = 2000
)

// events is the stream of what happens, as server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html): "state" when a
// run begins, ends or is cut off, and "step" for each step of it as it begins, goes
// on and ends. A stream that was cut goes on where it was, by Last-Event-ID.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	l, err := h.hub.join(r.Header.Get("Last-Event-ID"))
	if err != nil {
		if errors.Is(err, errFull) {
			w.Header().Set("Retry-After", "30")
		}
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer h.hub.leave(l)
	w.Header().Set("Content-Type", "text/event-stream")
	c := http.NewResponseController(w)
	// The server's limit on reading a request is none on how long a stream may be.
	if err := c.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.o.Logger.Debug("a stream keeps the limit of a request", "error", err)
	}
	send := func(text string) error {
		limit := func(at time.Time) error {
			if err := c.SetWriteDeadline(at); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
			return nil
		}
		if err := limit(time.Now().Add(h.within)); err != nil {
			return err
		}
		if _, err := fmt.Fprint(w, text); err != nil { //nolint:gosec // text/event-stream, which a browser does not take for a page; what is shown of it is set as text
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
		return limit(time.Time{}) // with HTTP/2, one that passes ends the stream
	}
	beat := time.NewTicker(h.beat)
	defer beat.Stop()
	err = send(fmt.Sprintf("retry: %d\n\n", comeBackAfter))
	for err == nil {
		for _, m := range h.hub.take(l) {
			if err = send(m.text()); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
		select {
		case <-l.wake:
		case <-beat.C:
			err = send(": still here\n\n")
		case <-r.Context().Done():
			return
		case <-h.closing:
			return
		}
	}
	h.o.Logger.Debug("a stream ended", "from", r.RemoteAddr, "error", err)
}

// text is the message as it is sent. Its data is JSON, and so one line.
func (m message) text() string {
	text := "event: " + m.event + "\n"
	if m.id != "" {
		text += "id: " + m.id + "\n"
	}
	return text + "data: " + string(m.data) + "\n\n"
}
