// Package runlog keeps what happened in a run for people to read afterwards, and
// while it goes on: one JSON line per event in runs/ID/events.jsonl. Recovery
// reads the journal, never this: it is written without waiting for the disk, and
// a line that cannot be written is left out rather than failing the run.
package runlog

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// Entry is one line of the log.
type Entry struct {
	Time      time.Time       `json:"time"`
	Step      run.Step        `json:"step"`
	Component string          `json:"component,omitempty"`
	Instance  string          `json:"instance,omitempty"`
	Done      bool            `json:"done,omitempty"`
	Detail    string          `json:"detail,omitempty"`
	Reason    string          `json:"reason,omitempty"` // with step "undo": why
	Error     string          `json:"error,omitempty"`
	Begin     *run.Header     `json:"begin,omitempty"`  // with step "begin"
	Plan      json.RawMessage `json:"plan,omitempty"`   // with step "begin": the document of `plan`
	Result    *run.Result     `json:"result,omitempty"` // with step "end"
}

// Writer writes the events of runs as they happen. It is safe for concurrent use.
type Writer struct {
	root   layout.Root
	logger *slog.Logger

	mu     sync.Mutex
	id     string
	file   *os.File
	broken bool // of the run id: nothing more is tried
}

// NewWriter returns a writer for the runs below root.
func NewWriter(root layout.Root, logger *slog.Logger) *Writer {
	return &Writer{root: root, logger: logger}
}

// Event writes one event; it is a sink for run.Engine.Report.
func (w *Writer) Event(ev run.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ev.Run != w.id {
		w.close()
		w.id = ev.Run
		w.open()
	}
	if w.broken {
		return
	}
	e := Entry{
		Time: ev.Time.UTC(), Step: ev.Step, Component: ev.Component, Instance: ev.Instance, Done: ev.Done, Detail: ev.Detail, Reason: ev.Reason,
		Begin: ev.Begin, Result: ev.End,
	}
	if ev.Err != nil {
		e.Error = ev.Err.Error()
	}
	err := e.setPlan(ev.Plan)
	var line []byte
	if err == nil {
		line, err = json.Marshal(e)
	}
	if err == nil {
		_, err = w.file.Write(append(line, '\n'))
	}
	if err != nil {
		w.fail(err)
	}
	if ev.Step == run.StepEnd {
		w.close()
		w.id = ""
	}
}

func (e *Entry) setPlan(plan any) (err error) {
	if plan != nil {
		e.Plan, err = json.Marshal(plan)
	}
	return err
}

// open opens the run's log. Its directory may not exist yet; readers without
// rights of their own may read it, as they may read the run's result, whatever the
// umask.
func (w *Writer) open() {
	path := file(w.root, w.id)
	err := (&hostfs.Host{}).MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		w.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	}
	if err == nil {
		err = w.file.Chmod(0o644)
	}
	if err != nil {
		w.fail(err)
	}
}

func (w *Writer) fail(err error) {
	w.broken = true
	w.logger.Warn("the run's log is not written; nothing depends on it", "run", w.id, "error", err)
}

func (w *Writer) close() {
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.broken = nil, false
}

// Close closes the log of a run that has not ended.
func (w *Writer) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close()
	w.id = ""
}

func file(root layout.Root, id string) string {
	return filepath.Join(root.RunsDir(), id, "events.jsonl")
}
