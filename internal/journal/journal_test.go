package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

type payload struct {
	N int    `json:"n"`
	S string `json:"s"`
}

func write(t *testing.T, n int) (path string) {
	t.Helper()
	w, err := Create(&hostfs.Host{}, t.TempDir(), "run1", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Append("step", payload{N: i, S: "line\nbreak"}); err != nil {
			t.Fatal(err)
		}
	}
	return w.Path()
}

func TestRoundTrip(t *testing.T) {
	path := write(t, 5)
	recs, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(recs) != 5 {
		t.Fatalf("read %d records, wrote 5", len(recs))
	}
	for i, r := range recs {
		var p payload
		if err := r.Decode(&p); err != nil || p.N != i || r.Seq != i+1 || p.S != "line\nbreak" {
			t.Fatalf("record %d = %+v, %v", i, p, err)
		}
	}
}

// Every cut of the last record must read as if it had never been written, and
// writing must go on from there.
func TestTornTailAtEveryByte(t *testing.T) {
	path := write(t, 3)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	twoLen := bytes.LastIndexByte(data[:len(data)-1], '\n') + 1
	for cut := twoLen + 1; cut < len(data); cut++ {
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		w, recs, err := Reopen(&hostfs.Host{}, path, time.Now)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if len(recs) != 2 {
			t.Fatalf("cut at %d: %d records, want 2", cut, len(recs))
		}
		if err := w.Append("step", payload{N: 9}); err != nil {
			t.Fatal(err)
		}
		if recs, err = Read(path); err != nil || len(recs) != 3 || recs[2].Seq != 3 {
			t.Fatalf("cut at %d, after append: %d records, %v", cut, len(recs), err)
		}
	}
}

// A flipped bit before the last record is damage, not a torn tail.
func TestDamageIsReported(t *testing.T) {
	path := write(t, 3)
	data, _ := os.ReadFile(path)
	data[20] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := Read(path); !errors.As(err, &damaged) || damaged.Line != 1 {
		t.Fatalf("err = %v, want DamagedError at line 1", err)
	}
}

// A record that could not be written whole, as on a full disk, takes no record with
// it that is written once there is space again.
func TestAppendAfterOneThatFailed(t *testing.T) {
	for _, left := range []string{"", "0000", "12345678 {\"seq\":2", "whole"} {
		w, err := Create(&hostfs.Host{}, t.TempDir(), "run1", time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append("begin", nil); err != nil {
			t.Fatal(err)
		}
		if size := w.size; left == "whole" { // it was written, and could not be synced
			if err := w.Append("lost", nil); err != nil {
				t.Fatal(err)
			}
			w.seq, w.size, left = 1, size, ""
		}
		f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(left); err != nil {
			t.Fatal(err)
		}
		f.Close()
		w.torn = true
		for _, kind := range []string{"stop", "undo"} {
			if err := w.Append(kind, nil); err != nil {
				t.Fatal(err)
			}
		}
		recs, err := Read(w.path)
		if err != nil || len(recs) != 3 || recs[1].Kind != "stop" || recs[2].Kind != "undo" {
			t.Errorf("after %q: %+v, %v", left, recs, err)
		}
	}
}

func TestPendingAndClose(t *testing.T) {
	dir := t.TempDir()
	h := &hostfs.Host{}
	w, err := Create(h, dir, "20260101_000000", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := Pending(dir); err != nil || len(p) != 0 {
		t.Fatalf("pending before the first record: %v, %v", p, err)
	}
	if err := w.Append("begin", nil); err != nil {
		t.Fatal(err)
	}
	p, err := Pending(dir)
	if err != nil || len(p) != 1 || ID(p[0]) != "20260101_000000" {
		t.Fatalf("pending = %v, %v", p, err)
	}
	if _, err := Create(h, dir, "20260101_000000", time.Now); err == nil {
		t.Fatal("a second journal of the same run was accepted")
	}
	dest := filepath.Join(t.TempDir(), "runs", "x", "journal")
	if err := w.Close(dest); err != nil {
		t.Fatal(err)
	}
	if p, err := Pending(dir); err != nil || len(p) != 0 {
		t.Fatalf("pending after close: %v, %v", p, err)
	}
	if recs, err := Read(dest); err != nil || len(recs) != 1 {
		t.Fatalf("archived journal: %v, %v", recs, err)
	}
	if p, err := Pending(filepath.Join(dir, "missing")); err != nil || p != nil {
		t.Fatalf("missing directory: %v, %v", p, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("garbage\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		recs, good, _, err := decode(data)
		if err != nil {
			return
		}
		again, goodAgain, _, err := decode(data[:good])
		if err != nil || len(again) != len(recs) || goodAgain != good {
			t.Fatalf("the acknowledged part does not read back: %v", err)
		}
	})
}
