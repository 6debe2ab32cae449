package journald

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

// How long a record waits for a journald that does not keep up: the first that
// finds it so, and those after it.
const (
	patience   = 50 * time.Millisecond
	impatience = time.Millisecond
)

// farewell is how long the end of the program waits for journald to have taken
// its last records.
const farewell = 5 * time.Second

// send sends one record. An error says that the socket refuses it; one that
// merely is not taken in time is counted and dropped.
func (s *sender) send(data []byte) error {
	err := s.try(data)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.lost++
		return nil
	}
	if err != nil || s.lost == 0 {
		return err
	}
	note := record(journal.PriWarning, fmt.Sprintf("%d log records were dropped: journald did not take them in time", s.lost))
	if err := s.try(note); err == nil {
		s.lost = 0
	}
	return nil
}

// try sends once, and once more over a new connection where journald has closed
// the old one.
func (s *sender) try(data []byte) error {
	fresh := s.conn == nil
	if fresh {
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.socket, Net: "unixgram"})
		if err != nil {
			return err
		}
		s.conn = c
	}
	err := s.write(data)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	_ = s.close() // it is of no use any more
	if fresh {
		return err
	}
	return s.try(data)
}

func (s *sender) write(data []byte) error {
	wait := patience
	if s.lost > 0 {
		wait = impatience
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, err := s.conn.Write(data)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		return s.writeFile(data)
	}
	return err
}

// writeFile hands over a record that is too long for a datagram: in a file that
// exists in memory only and can no longer be changed.
func (s *sender) writeFile(data []byte) error {
	fd, err := unix.MemfdCreate("observability-upgrade-log", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "log record")
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	rights := unix.UnixRights(int(f.Fd()))
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), nil, rights, nil, 0)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, os.NewSyscallError("sendmsg", sent))
}

// settle waits until journald has dealt with all that was sent. It tells a record's
// unit by looking at the process that sent it, so a process that ends too soon has
// records that `journalctl -u` does not find (systemd issue 2913). The kernel tells
// what the other side has not read yet; the datagram without content, which
// journald drops, tells that it is done with the one before. A journald that does
// not keep up is not waited for.
func (s *sender) settle(wait time.Duration) {
	if s.conn == nil || s.lost > 0 {
		return
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	end := time.Now().Add(wait)
	if s.conn.SetWriteDeadline(end) != nil {
		return
	}
	if _, err := s.conn.Write(nil); err != nil {
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for time.Now().Before(end) {
		unread := 0
		if raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil || unread == 0 {
			return
		}
		<-tick.C
	}
}

func (s *sender) close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
