package runlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// readAtOnce bounds what one Poll reads, so that a follower of a long log needs
// little memory.
const readAtOnce = 1 << 20

// Follower reads the log of one run as it grows. It is not safe for concurrent
// use.
type Follower struct {
	Record *Record // what was read so far

	path string
	at   int64 // bytes read: whole lines
	line int   // lines read
}

// Change is one line of the log and what it changed in the record.
type Change struct {
	Line  int // from 1
	Entry Entry
	Step  int // index in Record.Steps; -1 for the begin and the end of the run
}

// Follow follows the log of a run from its start; the log need not exist yet.
// NotFoundError for what cannot be a run's id.
func Follow(root layout.Root, id string) (*Follower, error) {
	if !backup.IsStamp(id) {
		return nil, &NotFoundError{ID: id}
	}
	return &Follower{Record: &Record{ID: id, Steps: []Step{}}, path: file(root, id)}, nil
}

// Poll reads what was added since the last Poll and tells what changed. A line
// that is not ended yet is left for the next Poll; one that cannot be read is
// left out, as Read leaves it out.
func (f *Follower) Poll() ([]Change, error) {
	var out []Change
	for {
		more, full, err := f.read()
		out = append(out, more...)
		if err != nil || !full {
			return out, err
		}
	}
}

// read reads one piece; full tells that there may be more.
func (f *Follower) read() (changes []Change, full bool, err error) {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	st, err := file.Stat()
	switch {
	case err != nil:
		return nil, false, err
	case st.Size() == f.at:
		return nil, false, nil
	case st.Size() > maxLog:
		return nil, false, fmt.Errorf("%s has %d bytes, at most %d are read", f.path, st.Size(), maxLog)
	case st.Size() < f.at:
		return nil, false, fmt.Errorf("%s has %d bytes, %d were read already: it was cut", f.path, st.Size(), f.at)
	}
	data := make([]byte, min(st.Size()-f.at, readAtOnce))
	n, err := file.ReadAt(data, f.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("read %s: %w", f.path, err)
	}
	data = data[:n]
	ended := bytes.LastIndexByte(data, '\n') + 1
	if ended == 0 && n == readAtOnce { // no line of ours is so long
		return nil, false, fmt.Errorf("%s, line %d: longer than %d bytes", f.path, f.line+1, readAtOnce)
	}
	f.at += int64(ended)
	for line := range bytes.Lines(data[:ended]) {
		f.line++
		var e Entry
		if json.Unmarshal(bytes.Trim(line, "\x00\n"), &e) != nil {
			continue
		}
		changes = append(changes, Change{Line: f.line, Entry: e, Step: f.Record.add(e)})
	}
	return changes, n == readAtOnce, nil
}
