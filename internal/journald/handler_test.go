package journald

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fake is a socket that takes records as journald does.
type fake struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newFake(t *testing.T) *fake {
	dir, err := os.MkdirTemp("", "obsup") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fake{t: t, path: filepath.Join(dir, "s")}
	f.listen()
	t.Cleanup(func() { f.conn.Close() })
	return f
}

func (f *fake) listen() {
	f.t.Helper()
	if err := os.RemoveAll(f.path); err != nil {
		f.t.Fatal(err)
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: f.path, Net: "unixgram"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.conn = c
}

// next reads one record, from the datagram or from the file that came with it.
func (f *fake) next() map[string]string {
	f.t.Helper()
	if err := f.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		f.t.Fatal(err)
	}
	data, oob := make([]byte, 1<<20), make([]byte, 128)
	n, on, _, _, err := f.conn.ReadMsgUnix(data, oob)
	if err != nil {
		f.t.Fatal(err)
	}
	data = data[:n]
	if on > 0 {
		data = f.readFile(oob[:on])
	}
	return f.decode(data)
}

func (f *fake) readFile(oob []byte) []byte {
	f.t.Helper()
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(msgs) != 1 {
		f.t.Fatal(err, len(msgs))
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		f.t.Fatal(err, fds)
	}
	file := os.NewFile(uintptr(fds[0]), "record")
	defer file.Close()
	seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL; err != nil || seals&want != want {
		f.t.Errorf("the file is not sealed: %x %v", seals, err)
	}
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<30))
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// decode reads the native protocol.
func (f *fake) decode(data []byte) map[string]string {
	f.t.Helper()
	fields := map[string]string{}
	for len(data) > 0 {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			f.t.Fatalf("a field without an end: %q", data)
		}
		name, value, short := strings.Cut(string(line), "=")
		if !short {
			size := binary.LittleEndian.Uint64(rest)
			value, rest = string(rest[8:8+size]), rest[8+size:]
			if rest[0] != '\n' {
				f.t.Fatalf("%s: no newline behind its value", name)
			}
			rest = rest[1:]
		}
		if _, twice := fields[name]; twice {
			f.t.Errorf("%s is there twice", name)
		}
		fields[name] = value
		data = rest
	}
	return fields
}

func TestRecords(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	h := New(Options{Socket: f.path, Level: slog.LevelDebug})
	defer h.Close()
	log := slog.New(h)
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		write func()
		want  map[string]string
	}{
		{
			"a step",
			func() { log.Info("step", "component", "prometheus", "step", "stop", "done", true) },
			map[string]string{
				"MESSAGE": "step component=prometheus step=stop done=true", "PRIORITY": "6",
				"OBSUP_COMPONENT": "prometheus", "OBSUP_STEP": "stop", "OBSUP_DONE": "true",
			},
		},
		{"no keys", func() { log.Warn("beware") }, map[string]string{"MESSAGE": "beware", "PRIORITY": "4"}},
		{"debug", func() { log.Debug("d") }, map[string]string{"MESSAGE": "d", "PRIORITY": "7"}},
		{
			"an error of several lines",
			func() { log.Error("it failed", "error", errors.New("one\ntwo"), "exit_code", 5) },
			map[string]string{"MESSAGE": `it failed error="one\ntwo" exit_code=5`, "PRIORITY": "3", "OBSUP_ERROR": "one\ntwo", "OBSUP_EXIT_CODE": "5"},
		},
		{
			"a message of several lines, and an equals sign",
			func() { log.Info("a\nb", "x", "k=v") },
			map[string]string{"MESSAGE": "a\nb x=\"k=v\"", "PRIORITY": "6", "OBSUP_X": "k=v"},
		},
		{
			"groups, With and names that journald would refuse",
			func() {
				log.With("run", "1").WithGroup("g").Info("m", slog.Group("in", "Über-8", at), "d", time.Second)
			},
			map[string]string{
				"MESSAGE":  "m run=1 g.in.Über-8=2026-11-25T12:00:00.000Z g.d=1s",
				"PRIORITY": "6", "OBSUP_RUN": "1", "OBSUP_G_IN__BER_8": "2026-11-25T12:00:00Z", "OBSUP_G_D": "1s",
			},
		},
		{
			"what cannot forge a field",
			func() { log.Info("m", "detail", "x\nPRIORITY=0\n") },
			map[string]string{"MESSAGE": `m detail="x\nPRIORITY=0\n"`, "PRIORITY": "6", "OBSUP_DETAIL": "x\nPRIORITY=0\n"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			c.write()
			c.want["SYSLOG_IDENTIFIER"] = "observability-upgrade"
			if diff := cmp.Diff(c.want, f.next()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestName(t *testing.T) {
	for key, want := range map[string]string{"run": "OBSUP_RUN", "exit_code": "OBSUP_EXIT_CODE", "a.b c": "OBSUP_A_B_C", "": "OBSUP_"} {
		if got := Name(key); got != want {
			t.Errorf("%q: %s, want %s", key, got, want)
		}
	}
	if got := Name(strings.Repeat("k", 100)); len(got) != maxName {
		t.Errorf("%d characters", len(got))
	}
}

func TestLevel(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	h := New(Options{Socket: f.path})
	defer h.Close()
	slog.New(h).Debug("not this")
	slog.New(h).Info("this")
	if got := f.next()["MESSAGE"]; got != "this" {
		t.Error(got)
	}
}

// A record that fits no datagram goes in a sealed file.
func TestLong(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	h := New(Options{Socket: f.path})
	defer h.Close()
	long := strings.Repeat("0123456789abcdef", 1<<16)
	slog.New(h).Info("long", "detail", long)
	got := f.next()
	if got["OBSUP_DETAIL"] != long || got["MESSAGE"] != "long detail="+long {
		t.Errorf("the record was damaged: %v", slices.Collect(maps.Keys(got)))
	}
}

// What the socket refuses goes to the fallback; once it takes records again they
// go there, also after journald was started anew.
func TestFallback(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	var lines bytes.Buffer
	h := New(Options{Socket: f.path, Fallback: slog.NewTextHandler(&lines, nil)})
	defer h.Close()
	log := slog.New(h).With("run", "7").WithGroup("g")
	log.Info("first", "k", 1)
	if got := f.next(); got["OBSUP_G_K"] != "1" || got["OBSUP_RUN"] != "7" {
		t.Error(got)
	}
	f.conn.Close()
	log.Info("second", "k", 2)
	if got := lines.String(); !strings.Contains(got, "msg=second run=7 g.k=2") || strings.Contains(got, "first") {
		t.Errorf("fallback: %q", got)
	}
	lines.Reset()
	f.listen()
	log.Info("third", "k", 3)
	if got := f.next(); got["OBSUP_G_K"] != "3" || lines.Len() > 0 {
		t.Errorf("%v %s", got, &lines)
	}

	without := New(Options{Socket: f.path + "-none"})
	defer without.Close()
	if err := without.Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelInfo, "m", 0)); err == nil {
		t.Error("a socket that is not there took a record")
	}
}

// A journald that takes nothing holds nobody; what it missed is counted.
func TestStuck(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	var lines bytes.Buffer
	h := New(Options{Socket: f.path, Fallback: slog.NewTextHandler(&lines, nil)})
	defer h.Close()
	log := slog.New(h)
	const n = 700
	began := time.Now()
	for i := range n { // more than the socket's queue holds
		log.Info("m", "i", i)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%d records took %s", n, took)
	}
	h.out.mu.Lock()
	lost := h.out.lost
	h.out.mu.Unlock()
	if lost == 0 || lost == n {
		t.Fatalf("%d of %d records lost", lost, n)
	}
	if lines.Len() > 0 {
		t.Errorf("dropped records went to the fallback: %.200s", &lines)
	}
	for i := range n - lost {
		if got := f.next()["OBSUP_I"]; got != fmt.Sprint(i) {
			t.Fatalf("record %d is %s", i, got)
		}
	}
	log.Info("again")
	if got := f.next()["MESSAGE"]; got != "again" {
		t.Error(got)
	}
	got := f.next()
	if want := fmt.Sprintf("%d log records were dropped: journald did not take them in time", lost); got["MESSAGE"] != want || got["PRIORITY"] != "4" {
		t.Errorf("%v, want %s", got, want)
	}
}

// The end waits until journald has dealt with the last record, which is when it has
// taken what follows it; one that reads nothing is left after a while.
func TestClose(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	h := New(Options{Socket: f.path})
	slog.New(h).Info("the last")
	closed := make(chan error)
	go func() { closed <- h.Close() }()
	if got := f.next()["MESSAGE"]; got != "the last" {
		t.Error(got)
	}
	select {
	case <-closed:
		t.Fatal("closed before the record was dealt with")
	case <-time.After(50 * time.Millisecond):
	}
	began := time.Now()
	if n, err := f.conn.Read(make([]byte, 1)); n != 0 || err != nil {
		t.Fatalf("%d bytes, %v: want none", n, err)
	}
	if err := <-closed; err != nil || time.Since(began) > farewell {
		t.Errorf("%v after %s", err, time.Since(began))
	}

	h = New(Options{Socket: f.path})
	slog.New(h).Info("nobody reads it")
	began = time.Now()
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < farewell || took > 10*farewell {
		t.Errorf("closed after %s", took)
	}
}

// Where JOURNAL_STREAM names another file, or nothing, standard error is not the
// journal.
func TestIsStderr(t *testing.T) {
	var sys unix.Stat_t
	if err := unix.Fstat(int(os.Stderr.Fd()), &sys); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{
		"":                                       false,
		"nonsense":                               false,
		fmt.Sprintf("%d:%d", sys.Dev, sys.Ino+1): false,
		fmt.Sprintf("%d:%d", sys.Dev, sys.Ino):   true,
	} {
		t.Setenv("JOURNAL_STREAM", value)
		if got := IsStderr(); got != want {
			t.Errorf("JOURNAL_STREAM=%s: %t", value, got)
		}
	}
}

// Whatever is logged comes out as it went in, as one field: nothing can forge
// another.
func FuzzField(f *testing.F) {
	f.Add("detail", "one line")
	f.Add("error", "two\nPRIORITY=0\n")
	f.Add("", "\x00\n\xff=")
	f.Fuzz(func(t *testing.T, key, value string) {
		data := appendAttr(record(6, value), "", slog.String(key, value))
		got := (&fake{t: t}).decode(data)
		want := map[string]string{"PRIORITY": "6", "SYSLOG_IDENTIFIER": Identifier, "MESSAGE": value}
		if key != "" {
			want[Name(key)] = value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}
