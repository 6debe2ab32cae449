// Package journald writes log records to systemd's journal in its own protocol,
// so that each key of a record is a field that journalctl can look for:
//
//	journalctl OBSUP_COMPONENT=prometheus OBSUP_STEP=health
//
// The rules are those of systemd's "Native Journal Protocol" and, for when to use
// it, of JOURNAL_STREAM in systemd.exec(5). go-systemd's own Send is not used: it
// waits as long as journald likes, and an upgrade must not.
package journald

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

// Socket is where journald takes records.
const Socket = "/run/systemd/journal/socket"

// Prefix begins the name of every field that is made from a key of a record.
const Prefix = "OBSUP_"

// Identifier is the SYSLOG_IDENTIFIER of all records: `journalctl -t` takes it.
const Identifier = "observability-upgrade"

// maxName is how long journald lets a field's name be.
const maxName = 64

// IsStderr reports whether standard error is connected to the journal.
func IsStderr() bool {
	ok, err := journal.StderrIsJournalStream()
	return ok && err == nil
}

// Options configure a Handler.
type Options struct {
	Socket string       // "": Socket
	Level  slog.Leveler // nil: info
	// Fallback takes the records that the socket refuses; nil drops them.
	Fallback slog.Handler
}

// Handler is a slog.Handler that sends each record to the journal: MESSAGE is a
// line for people with all the keys in it, PRIORITY comes from the level, and
// every key is a field of its own besides, its name in capitals behind Prefix.
//
// A record is sent before Handle returns. A journald that does not keep up holds
// the caller for a moment at most, once; what it did not take is dropped, counted,
// and the count told as soon as it takes records again. Use New.
type Handler struct {
	out      *sender
	level    slog.Leveler
	text     slog.Handler // writes the line for people into out.line
	fallback slog.Handler
	fields   []byte // of With
	group    string // prefix of the names to come
}

// New returns a handler. It must be closed.
func New(o Options) *Handler {
	if o.Socket == "" {
		o.Socket = Socket
	}
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	h := &Handler{out: &sender{socket: o.Socket}, level: o.Level, fallback: o.Fallback}
	h.text = slog.NewTextHandler(&h.out.line, &slog.HandlerOptions{
		Level: slog.LevelDebug - 100, // it is asked only for what is to be written
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
				return slog.Attr{} // the journal has them
			}
			return a
		},
	})
	return h
}

// Close waits until journald has dealt with all records, for five seconds at most,
// and closes the socket.
func (h *Handler) Close() error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.settle(farewell)
	return h.out.close()
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.text = h.text.WithAttrs(attrs)
	n.fields = bytes.Clone(h.fields)
	for _, a := range attrs {
		n.fields = appendAttr(n.fields, h.group, a)
	}
	if h.fallback != nil {
		n.fallback = h.fallback.WithAttrs(attrs)
	}
	return &n
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.text = h.text.WithGroup(name)
	n.group = h.group + name + "_"
	if h.fallback != nil {
		n.fallback = h.fallback.WithGroup(name)
	}
	return &n
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.line.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return err
	}
	message := r.Message
	if rest := strings.TrimSuffix(h.out.line.String(), "\n"); rest != "" {
		message += " " + rest
	}
	data := record(priority(r.Level), message)
	data = append(data, h.fields...)
	r.Attrs(func(a slog.Attr) bool {
		data = appendAttr(data, h.group, a)
		return true
	})
	if err := h.out.send(data); err != nil {
		if h.fallback == nil {
			return err
		}
		return h.fallback.Handle(ctx, r)
	}
	return nil
}

// record begins a record of this program.
func record(p journal.Priority, message string) []byte {
	data := appendField(nil, "PRIORITY", strconv.Itoa(int(p)))
	data = appendField(data, "SYSLOG_IDENTIFIER", Identifier)
	return appendField(data, "MESSAGE", message)
}

// priority is the syslog priority of a level.
func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// appendAttr adds a key, or those of a group, as fields.
func appendAttr(data []byte, group string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "_"
		}
		for _, in := range v.Group() {
			data = appendAttr(data, group, in)
		}
		return data
	}
	if a.Key == "" {
		return data
	}
	return appendField(data, Name(group+a.Key), text(v))
}

func text(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339Nano)
	case slog.KindAny:
		if err, ok := v.Any().(error); ok {
			return err.Error()
		}
		return fmt.Sprint(v.Any())
	}
	return v.String()
}

// Name is the journal's field for a key: capitals, digits and underscores behind
// Prefix, as journald asks of names.
func Name(key string) string {
	name := Prefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), maxName)]
}

// appendField adds a field. A value of several lines is told by its length.
func appendField(data []byte, name, value string) []byte {
	data = append(data, name...)
	if !strings.Contains(value, "\n") {
		data = append(data, '=')
	} else {
		data = append(data, '\n')
		data = binary.LittleEndian.AppendUint64(data, uint64(len(value)))
	}
	data = append(data, value...)
	return append(data, '\n')
}

// sender has the socket. Its fields are used under mu.
type sender struct {
	socket string

	mu   sync.Mutex
	line bytes.Buffer
	conn *net.UnixConn // nil before the first record
	lost int           // records dropped since journald last took one
}
