package rig

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// notifySocket receives systemd's readiness messages, see sd_notify(3).
type notifySocket struct {
	*net.UnixConn
	name string
}

// listenNotify listens on an abstract socket, which leaves no file behind.
func listenNotify(container string) (*notifySocket, error) {
	name := "@observability-upgrade-" + container
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen for the container's readiness: %w", err)
	}
	return &notifySocket{UnixConn: conn, name: name}, nil
}

// await reads messages until the container is ready, and returns the process id
// of its first process on the machine. Closing the socket ends the wait.
func (s *notifySocket) await() (leader int, err error) {
	buf := make([]byte, 4096)
	for ready := false; !ready || leader == 0; {
		n, err := s.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return 0, errors.New("systemd-nspawn ended, or time ran out, before the container was ready")
		}
		if err != nil {
			return 0, err
		}
		for line := range bytes.Lines(buf[:n]) {
			key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte("="))
			switch {
			case string(key) == "READY" && string(value) == "1":
				ready = true
			case string(key) == "X_NSPAWN_LEADER_PID":
				if leader, err = strconv.Atoi(string(value)); err != nil {
					return 0, fmt.Errorf("systemd-nspawn's leader: %w", err)
				}
			}
		}
	}
	return leader, nil
}
