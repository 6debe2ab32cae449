// Package journal is the write-ahead log of a run: an append-only file of
// records, each with a checksum and synced to disk before Append returns. It
// knows nothing of what the records mean.
//
// A file is one line per record: eight hex digits of CRC-32C over the rest of
// the line, a space, and a JSON object. A last line that is cut short or fails
// its checksum is what a power cut leaves behind: it was never acknowledged, so
// Read drops it. Damage anywhere before is reported.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

const suffix = ".journal"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one entry.
type Record struct {
	Seq  int             `json:"seq"` // from 1, without gaps
	Time time.Time       `json:"time"`
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Decode reads the record's data into out.
func (r Record) Decode(out any) error {
	if err := json.Unmarshal(r.Data, out); err != nil {
		return fmt.Errorf("journal record %d (%s): %w", r.Seq, r.Kind, err)
	}
	return nil
}

// DamagedError reports a journal whose acknowledged part cannot be read.
type DamagedError struct {
	Path string
	Line int
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("journal %s is damaged at line %d: %v", e.Path, e.Line, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// Writer appends records to one journal. It is safe for concurrent use.
type Writer struct {
	mu   sync.Mutex
	host *hostfs.Host
	path string
	seq  int
	size int64 // of what is acknowledged
	torn bool  // an Append failed, and may have left a part of its record
	now  func() time.Time
}

// Create starts the journal of a run. It fails if one of that name exists.
func Create(host *hostfs.Host, dir, id string, now func() time.Time) (*Writer, error) {
	if err := host.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, id+suffix)
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("journal %s: %w", path, fs.ErrExist)
	}
	return &Writer{host: host, path: path, now: now}, nil
}

// Reopen continues a journal that an interrupted run left behind. A torn last
// line is cut off first, so that the next record starts on a line of its own.
func Reopen(host *hostfs.Host, path string, now func() time.Time) (*Writer, []Record, error) {
	records, good, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if int64(good) < st.Size() {
		if err := host.Truncate(path, int64(good)); err != nil { // which works on a full disk
			return nil, nil, err
		}
	}
	return &Writer{host: host, path: path, seq: len(records), size: int64(good), now: now}, records, nil
}

// Path is the journal's file.
func (w *Writer) Path() string { return w.path }

// Append writes one record; when it returns nil the record is on disk. What an Append
// that failed may have left is cut off first: a record after it would be lost with it.
func (w *Writer) Append(kind string, data any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("journal %s: %w", kind, err)
	}
	line, err := json.Marshal(Record{Seq: w.seq + 1, Time: w.now().UTC(), Kind: kind, Data: raw})
	if err != nil {
		return fmt.Errorf("journal %s: %w", kind, err)
	}
	buf := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(line, castagnoli), line)
	if err := w.mend(); err != nil {
		return fmt.Errorf("journal %s: %w", w.path, err)
	}
	if err := w.host.Append(w.path, buf, 0o600); err != nil {
		w.torn = !errors.Is(err, hostfs.ErrCrashed)
		return errors.Join(fmt.Errorf("journal %s: %w", w.path, err), w.mend())
	}
	w.seq++
	w.size += int64(len(buf))
	return nil
}

// mend cuts off what an Append that failed has left.
func (w *Writer) mend() error {
	if !w.torn {
		return nil
	}
	if err := w.host.Truncate(w.path, w.size); err != nil && (w.size > 0 || !errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("cut off a record that could not be written: %w", err)
	}
	w.torn = false
	return nil
}

// Close moves the finished journal to dest: from then on no run is in progress.
func (w *Writer) Close(dest string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.host.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	if w.seq == 0 {
		return nil
	}
	return w.host.Rename(w.path, dest)
}

// Pending lists the journals in dir, oldest first; there is at most one unless
// something else wrote there.
func Pending(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	sort.Strings(paths)
	return paths, nil
}

// ID is the run a journal's path belongs to.
func ID(path string) string { return strings.TrimSuffix(filepath.Base(path), suffix) }

// Read returns the acknowledged records of a journal.
func Read(path string) ([]Record, error) {
	records, _, err := read(path)
	return records, err
}

func read(path string) (records []Record, good int, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	records, good, line, err := decode(data)
	if err != nil {
		return nil, 0, &DamagedError{Path: path, Line: line, Err: err}
	}
	return records, good, nil
}

// decode parses a journal. good is the length of the acknowledged part; line is
// where an error lies.
func decode(data []byte) (records []Record, good, line int, err error) {
	for len(data) > good {
		line++
		rest := data[good:]
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return records, good, line, nil // torn
		}
		rec, err := decodeLine(rest[:end])
		if err == nil && rec.Seq != len(records)+1 {
			err = fmt.Errorf("record %d found where %d was expected", rec.Seq, len(records)+1)
		}
		if err != nil {
			if good+end+1 == len(data) {
				return records, good, line, nil // torn, though the newline made it to disk
			}
			return nil, good, line, err
		}
		records = append(records, rec)
		good += end + 1
	}
	return records, good, line, nil
}

func decodeLine(line []byte) (Record, error) {
	var rec Record
	if len(line) < 10 || line[8] != ' ' {
		return rec, errors.New("not a journal record")
	}
	var sum uint32
	if _, err := fmt.Sscanf(string(line[:8]), "%08x", &sum); err != nil {
		return rec, fmt.Errorf("checksum: %w", err)
	}
	if have := crc32.Checksum(line[9:], castagnoli); have != sum {
		return rec, fmt.Errorf("checksum is %08x, expected %08x", have, sum)
	}
	if err := json.Unmarshal(line[9:], &rec); err != nil {
		return rec, err
	}
	return rec, nil
}
