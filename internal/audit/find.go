package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// maxLine bounds what is read of one line.
const maxLine = 1 << 20

// Find returns the entries of a run in the log at path, oldest first, of those
// written at since or later. A missing log has none. A line that names the run
// and cannot be read is an error; what was found is returned with it.
func Find(path, runID string, since time.Time) ([]Entry, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	defer f.Close()
	found, err := find(f, runID, since)
	if err != nil {
		return found, fmt.Errorf("audit log %s: %w", path, err)
	}
	return found, nil
}

func find(r io.Reader, runID string, since time.Time) (found []Entry, failure error) {
	since = since.Truncate(time.Millisecond) // as Write does
	name := []byte(runID)
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 1; ; n++ {
		line, err := readLine(in)
		if len(line) > 0 && bytes.Contains(line, name) {
			var e Entry
			switch err := json.Unmarshal(line, &e); {
			case err != nil:
				failure = errors.Join(failure, fmt.Errorf("line %d: %w", n, err))
			case e.RunID == runID && !e.Time.Before(since):
				found = append(found, e)
			}
		}
		if errors.Is(err, io.EOF) {
			return found, failure
		}
		if err != nil {
			return found, errors.Join(failure, err)
		}
	}
}

// readLine returns the next line; of one that is too long to be an entry, its
// beginning.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line) < maxLine {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
