package web

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/overview"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
)

const (
	// pollEvery is how often the newest run's log is looked at while somebody
	// listens.
	pollEvery = 200 * time.Millisecond
	// settled is how long a directory must have been left alone for its time of
	// change to tell that nothing was added: file systems count in ticks.
	settled = time.Second
	// maxListeners bounds the streams.
	maxListeners = 32
)

var (
	errFull   = errors.New("so many listen already that no more are let in")
	errClosed = errors.New("this service is about to end")
)

// message is one event of a stream.
type message struct {
	event string
	id    string // RUN:LINE; "" where there is nothing to go on from
	data  []byte
}

// stateMessage is the data of event "state".
type stateMessage struct {
	Phase overview.Phase `json:"phase"`
	Run   string         `json:"run"` // the newest; "" where there is none
}

// hub watches the newest run while anybody listens: one watcher, whatever the
// number of listeners. It keeps no events: a listener is told what is so now of
// what changed since it was last told.
type hub struct {
	root   layout.Root
	logger *slog.Logger
	poll   time.Duration
	now    func() time.Time

	mu        sync.Mutex
	closed    bool
	listeners map[*listener]struct{}
	stop      context.CancelFunc // of the watcher; nil while there is none
	watchers  sync.WaitGroup     // one, and for a moment those that end

	// What the watcher knows. It is let go of when nobody listens.
	newest   string    // id of the run at work, or cut off, or else of the newest
	last     string    // id of the newest run in the directory
	listed   time.Time // time of change of the directory when it was listed
	follower *runlog.Follower
	lines    []int // by step: the line that changed it last
	line     int   // the last line read
	phase    overview.Phase
	trouble  string // the last thing that went wrong, logged once
}

// listener is one stream.
type listener struct {
	wake  chan struct{} // has room for one: there is something to take
	run   string        // what it was told of
	line  int
	phase overview.Phase
}

func newHub(root layout.Root, logger *slog.Logger) *hub {
	return &hub{root: root, logger: logger, poll: pollEvery, now: time.Now, listeners: map[*listener]struct{}{}}
}

// join adds a listener that was told up to last, an id of a message; "" for one
// that knows nothing.
func (h *hub) join(last string) (*listener, error) {
	l := &listener{wake: make(chan struct{}, 1)}
	l.run, l.line = parseLast(last)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, errClosed
	case len(h.listeners) >= maxListeners:
		return nil, errFull
	}
	h.listeners[l] = struct{}{}
	if h.stop == nil {
		h.look()
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		h.watchers.Add(1)
		go h.watch(ctx)
	}
	return l, nil
}

// leave removes a listener; with the last one the watcher ends.
func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.listeners, l)
	if len(h.listeners) == 0 {
		h.endWatch()
	}
}

// close ends the watcher, waits for it, and lets nobody in any more.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	h.endWatch()
	h.mu.Unlock()
	h.watchers.Wait()
}

// endWatch needs h.mu.
func (h *hub) endWatch() {
	if h.stop != nil {
		h.stop()
	}
	h.stop = nil
	h.newest, h.last, h.listed, h.follower, h.lines, h.line, h.phase = "", "", time.Time{}, nil, nil, 0, ""
}

func (h *hub) watch(ctx context.Context) {
	defer h.watchers.Done()
	tick := time.NewTicker(h.poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.mu.Lock()
		if ctx.Err() == nil && h.look() {
			for l := range h.listeners {
				select {
				case l.wake <- struct{}{}:
				default:
				}
			}
		}
		h.mu.Unlock()
	}
}

// look reads what is new and reports whether anything is. It needs h.mu.
func (h *hub) look() (changed bool) {
	id, err := overview.OpenRun(h.root)
	open := id != ""
	if err == nil && !open {
		id, err = h.newestRun()
	}
	h.report(err)
	if err == nil && id != h.newest {
		h.newest, h.lines, h.line, h.follower, changed = id, nil, 0, nil, true
		if id != "" {
			h.follower, err = runlog.Follow(h.root, id)
			h.report(err)
		}
	}
	var rec *runlog.Record
	if h.follower != nil {
		changes, err := h.follower.Poll()
		h.report(err)
		for _, c := range changes {
			changed = true
			h.line = c.Line
			for len(h.lines) < len(h.follower.Record.Steps) {
				h.lines = append(h.lines, 0)
			}
			if c.Step >= 0 {
				h.lines[c.Step] = c.Line
			}
		}
		rec = h.follower.Record
	}
	switch {
	case !open:
		rec = nil
	case rec == nil: // it has no name of ours, and no log
		rec = &runlog.Record{ID: id}
	}
	_, held := lock.Holder(h.root.Lock())
	if phase := overview.PhaseOf(rec, held); phase != h.phase {
		h.phase, changed = phase, true
	}
	return changed
}

// report logs what went wrong, once until it is another thing.
func (h *hub) report(err error) {
	if err == nil || err.Error() == h.trouble {
		return
	}
	h.trouble = err.Error()
	h.logger.Warn("the run at work cannot be followed", "error", err)
}

// newestRun lists the runs only where one may have been added.
func (h *hub) newestRun() (string, error) {
	st, err := os.Stat(h.root.RunsDir())
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if st.ModTime().Equal(h.listed) {
		return h.last, nil
	}
	ids, err := runlog.IDs(h.root)
	if err != nil {
		return "", err
	}
	h.listed, h.last = time.Time{}, ""
	if len(ids) > 0 {
		h.last = ids[0]
	}
	if h.now().Sub(st.ModTime()) > settled {
		h.listed = st.ModTime()
	}
	return h.last, nil
}

// take returns what a listener was not told yet, in the order it was logged, so
// that who was told a part can go on from there.
func (h *hub) take(l *listener) []message {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.run != h.newest {
		l.run, l.line, l.phase = h.newest, 0, ""
	}
	state := message{event: "state", data: encode(stateMessage{h.phase, h.newest})}
	fresh := l.phase == ""
	var out []message
	if fresh {
		out = append(out, state)
	}
	// Who comes anew has a page that shows a run that is over.
	if !fresh || l.line > 0 || h.phase == overview.Running {
		out = append(out, h.stepsAfter(l.line)...)
	}
	if !fresh && l.phase != h.phase {
		out = append(out, state)
	}
	l.line, l.phase = h.line, h.phase
	return out
}

// stepsAfter tells of the steps that changed after a line. It needs h.mu.
func (h *hub) stepsAfter(line int) []message {
	var changed []int
	if h.follower == nil {
		return nil
	}
	for i, at := range h.lines {
		if at > line {
			changed = append(changed, i)
		}
	}
	slices.SortFunc(changed, func(a, b int) int { return h.lines[a] - h.lines[b] })
	var out []message
	c := course{
		id: h.newest, steps: h.follower.Record.Steps, recoveries: h.follower.Record.Recoveries, changes: len(h.follower.Record.Header.Components),
		alive: h.phase == overview.Running,
	}
	for _, i := range changed {
		out = append(out, message{"step", h.newest + ":" + strconv.Itoa(h.lines[i]), encode(c.view(i, h.now()))})
	}
	return out
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers can be encoded
	}
	return data
}

// parseLast reads the id of a message; zero where it is none of ours.
func parseLast(s string) (run string, line int) {
	id, number, ok := strings.Cut(s, ":")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 0 || !stampName.MatchString(id) {
		return "", 0
	}
	return id, n
}
