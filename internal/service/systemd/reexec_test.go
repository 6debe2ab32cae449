package systemd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/service/servicetest"
)

// fakeBus answers calls on a socket of its own, each with an empty dictionary, or
// with the error of that name.
type fakeBus struct {
	path string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	error string
	hang  bool // end the connection in place of an answer
	calls int
}

func (f *fakeBus) listen(t *testing.T) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", f.path)
	if err != nil {
		t.Error(err)
		return
	}
	f.mu.Lock()
	f.l = l
	f.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, c)
			f.mu.Unlock()
			go f.serve(c)
		}
	}()
}

// leave ends all connections. The socket that nobody listens on stays where keep is set.
func (f *fakeBus) leave(keep bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.l.(*net.UnixListener).SetUnlinkOnClose(!keep)
	_ = f.l.Close()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
}

func (f *fakeBus) say(name string, hang bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.error, f.hang = name, hang
}

func (f *fakeBus) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fakeBus) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for begun := false; !begun; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch words := strings.Fields(strings.TrimLeft(line, "\x00")); {
		case len(words) == 1 && words[0] == "AUTH":
			_, _ = fmt.Fprint(c, "REJECTED EXTERNAL\r\n")
		case words[0] == "BEGIN":
			begun = true
		case words[0] == "NEGOTIATE_UNIX_FD":
			_, _ = fmt.Fprint(c, "ERROR\r\n")
		case words[0] == "DATA", len(words) == 3:
			_, _ = fmt.Fprintf(c, "OK %032x\r\n", 1)
		default:
			_, _ = fmt.Fprint(c, "DATA\r\n")
		}
	}
	for {
		msg, err := godbus.DecodeMessage(in)
		if err != nil {
			return
		}
		name, hang := "", false
		if msg.Headers[godbus.FieldMember].Value() != "AddMatch" {
			f.mu.Lock()
			f.calls++
			name, hang = f.error, f.hang
			f.mu.Unlock()
		}
		if hang {
			return
		}
		if err := answer(c, msg.Serial(), name); err != nil {
			return
		}
	}
}

func answer(c net.Conn, to uint32, name string) error {
	msg := &godbus.Message{Type: godbus.TypeMethodReply, Headers: map[godbus.HeaderField]godbus.Variant{godbus.FieldReplySerial: godbus.MakeVariant(to)}}
	if name != "" {
		msg.Type = godbus.TypeError
		msg.Headers[godbus.FieldErrorName] = godbus.MakeVariant(name)
	} else {
		msg.Body = []any{map[string]godbus.Variant{}}
		msg.Headers[godbus.FieldSignature] = godbus.MakeVariant(godbus.SignatureOf(msg.Body...))
	}
	// A message that a peer sends has a serial, which the package gives on its own connections only.
	var buf strings.Builder
	if err := msg.EncodeTo(&buf, binary.LittleEndian); err != nil {
		return err
	}
	raw := []byte(buf.String())
	binary.LittleEndian.PutUint32(raw[8:], to)
	_, err := c.Write(raw)
	return err
}

func (f *fakeBus) dial(ctx context.Context) (*dbus.Conn, error) {
	return dbus.NewConnection(func() (*godbus.Conn, error) {
		conn, err := godbus.Dial("unix:path="+f.path, godbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		if err := conn.Auth([]godbus.Auth{godbus.AuthExternal("0")}); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	})
}

func newFake(t *testing.T, patience time.Duration) (*fakeBus, *Manager) {
	t.Helper()
	f := &fakeBus{path: filepath.Join(t.TempDir(), "s")}
	f.listen(t)
	m := &Manager{log: slog.New(slog.DiscardHandler), dial: f.dial, patience: patience}
	if _, err := m.look(t.Context(), "a.service"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.Close()
		f.leave(false)
	})
	return f, m
}

// While systemd executes itself anew there is nobody who answers; calls wait for it.
func TestAway(t *testing.T) {
	for name, tt := range map[string]struct{ leave, back func(*fakeBus) }{
		"nobody listens": {func(f *fakeBus) { f.leave(true) }, func(f *fakeBus) { _ = os.Remove(f.path); f.listen(t) }},
		"no socket":      {func(f *fakeBus) { f.leave(false) }, func(f *fakeBus) { f.listen(t) }},
		"cut off":        {func(f *fakeBus) { f.say("", true) }, func(f *fakeBus) { f.say("", false) }},
		"no reply":       {named("org.freedesktop.DBus.Error.NoReply"), named("")},
		"no owner":       {named("org.freedesktop.DBus.Error.NameHasNoOwner"), named("")},
		"not known":      {named("org.freedesktop.DBus.Error.ServiceUnknown"), named("")},
		"not activated":  {named("org.freedesktop.DBus.Error.Spawn.ChildExited"), named("")},
	} {
		t.Run(name, func(t *testing.T) {
			f, m := newFake(t, time.Minute)
			tt.leave(f)
			timer := time.AfterFunc(300*time.Millisecond, func() { tt.back(f) })
			defer timer.Stop()
			if _, err := m.look(t.Context(), "a.service"); err != nil {
				t.Errorf("look: %v", err)
			}
		})
	}
}

func named(name string) func(*fakeBus) { return func(f *fakeBus) { f.say(name, false) } }

// One that stays away is told of, when patience or the caller's time is over; a
// refusal is told at once.
func TestAwayForGood(t *testing.T) {
	f, m := newFake(t, 200*time.Millisecond)
	f.say("org.freedesktop.systemd1.NoSuchUnit", false)
	before := f.count()
	if err := m.resetFailed(t.Context(), "a.service"); err != nil || f.count() != before+1 {
		t.Errorf("a refusal: %v after %d calls, expected one", err, f.count()-before)
	}
	f.leave(false)
	if _, err := m.look(t.Context(), "a.service"); err == nil || !strings.Contains(err.Error(), "systemd has not answered for 200ms") {
		t.Errorf("away for good: %v", err)
	}
	m.patience = time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.look(ctx, "a.service"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("away longer than the caller waits: %v", err)
	}
	f.listen(t) // for the end of the test
}

// A host without systemd is told at once.
func TestNoSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/private"); err == nil {
		return // it has one
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	began := time.Now()
	if _, err := New(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "system bus: ") || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Whatever is asked while systemd executes itself anew is done once it is back. A
// generator that dawdles is what a busy host has many of; nobody listens for a moment
// only in a container with few units, so it is TestAway that has that last.
func TestAskedDuringReexec(t *testing.T) {
	m := newManager(t)
	s := install(t, m, "svctest-reexec", text(t, servicetest.Serve))
	const dir = "/run/systemd/system-generators"
	generator := filepath.Join(dir, "svctest-dawdles")
	t.Cleanup(func() {
		if err := os.Remove(generator); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(generator, []byte("#!/bin/sh\nsleep 0.2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var times atomic.Int32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			// One that meets systemd away has no effect.
			if exec.CommandContext(ctx, "systemctl", "daemon-reexec").Run() == nil {
				times.Add(1)
			}
			// It is away for longer than a second where the host is slow, and is to be
			// back for some time between any two.
			pause(ctx, 100*time.Millisecond)
			for ctx.Err() == nil && exec.CommandContext(ctx, "systemctl", "show", "--property=Version").Run() != nil {
				pause(ctx, 100*time.Millisecond)
			}
			pause(ctx, time.Second)
		}
	}()
	for end := time.Now().Add(6 * time.Second); (times.Load() < 3 || time.Now().Before(end)) && !t.Failed(); {
		if err := m.Start(ctx, s); err != nil {
			t.Errorf("Start: %v", err)
		}
		if st, err := m.Status(ctx, s); err != nil || !st.Active {
			t.Errorf("Status: %+v, %v, expected an active unit", st, err)
		}
		if _, err := m.Stop(ctx, s, 5*time.Second); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if st, err := m.Status(ctx, s); err != nil || st.Active {
			t.Errorf("Status: %+v, %v, expected an inactive unit", st, err)
		}
	}
	cancel()
	<-ended
	// The last one may be at work still.
	servicetest.Await(t, "systemd", func() bool {
		_, err := m.Status(t.Context(), service.Service{Unit: s.Unit})
		return err == nil
	})
}
