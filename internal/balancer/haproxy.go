package balancer

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// haproxy speaks the runtime API, at "level admin":
// https://www.haproxy.com/documentation/haproxy-runtime-api/.
type haproxy struct {
	network, address string
	backend, server  string
}

func newHAProxy(b component.Balancer, server string, o Options) *haproxy {
	h := &haproxy{network: "unix", address: o.Root.Path(b.Socket), backend: b.Backend, server: server}
	if b.Socket == "" {
		h.network, h.address = "tcp", b.Address
	}
	return h
}

// command sends one command on a connection of its own and returns the answer.
func (h *haproxy) command(ctx context.Context, text string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, h.network, h.address)
	if err != nil {
		return "", fmt.Errorf("HAProxy's runtime API at %s: %w; look at `stats socket` in haproxy.cfg", h.address, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if _, err := io.WriteString(conn, text+"\n"); err != nil {
		return "", fmt.Errorf("HAProxy's runtime API at %s: %w", h.address, err)
	}
	answer, err := io.ReadAll(io.LimitReader(bufio.NewReader(conn), 16<<20))
	if err != nil {
		return "", fmt.Errorf("HAProxy's runtime API at %s: %w", h.address, err)
	}
	return string(answer), nil
}

func (h *haproxy) State(ctx context.Context) (State, error) {
	text, err := h.command(ctx, "show stat")
	if err != nil {
		return State{}, err
	}
	st, err := parseStats(text, h.backend, h.server)
	if err != nil || !st.Admitted || st.Up {
		return st, err
	}
	// Of a server that is down the statistics do not tell whether it was drained.
	if text, err = h.command(ctx, "show servers state "+h.backend); err != nil {
		return st, err
	}
	drained, err := parseDrained(text, h.server)
	if drained {
		st.Admitted, st.Detail = false, st.Detail+", drained"
	}
	return st, err
}

// parseDrained reads the answer to "show servers state": a version, a line of
// names that begins with "#", one line per server. Any bit of srv_admin_state takes
// a server out: for maintenance, or to drain it. See "show servers state" in
// HAProxy's management guide.
func parseDrained(text, server string) (bool, error) {
	column := map[string]int{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0] == "#" {
			for i, name := range f[1:] {
				column[name] = i
			}
			continue
		}
		name, known := column["srv_name"]
		state, told := column["srv_admin_state"]
		if !known || !told || max(name, state) >= len(f) || f[name] != server {
			continue
		}
		bits, err := strconv.ParseUint(f[state], 10, 32)
		if err != nil {
			return false, fmt.Errorf("HAProxy's state of the server %s: srv_admin_state is %q", server, f[state])
		}
		return bits != 0, nil
	}
	return false, fmt.Errorf("HAProxy tells no state of the server %s: %.120q", server, text)
}

// set changes the administrative state; the API answers a success with an empty
// line, and every failure with words.
func (h *haproxy) set(ctx context.Context, state string) error {
	text := fmt.Sprintf("set server %s/%s state %s", h.backend, h.server, state)
	answer, err := h.command(ctx, text)
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return fmt.Errorf("HAProxy refuses %q: %s", text, answer)
	}
	return nil
}

// Drain stops new connections; health checks go on, and sessions end by themselves.
func (h *haproxy) Drain(ctx context.Context) error {
	st, err := h.State(ctx)
	if err != nil || !st.Admitted {
		return err
	}
	return h.set(ctx, "drain")
}

func (h *haproxy) Admit(ctx context.Context) error { return h.set(ctx, "ready") }

// parseStats reads the answer to "show stat": CSV with a header that begins with
// "# ", one row per proxy and server.
func parseStats(text, backend, server string) (State, error) {
	st := State{}
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(strings.TrimSpace(text), "# ")))
	r.FieldsPerRecord = -1
	r.LazyQuotes = true
	head, err := r.Read()
	if err != nil {
		return st, fmt.Errorf("HAProxy's statistics: expected CSV, found %.80q", text)
	}
	column := map[string]int{}
	for i, name := range head {
		column[name] = i
	}
	for _, need := range []string{"pxname", "svname", "status", "scur"} {
		if _, ok := column[need]; !ok {
			return st, fmt.Errorf("HAProxy's statistics have no column %s: %.120q", need, head)
		}
	}
	found := false
	var servers []string
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return st, fmt.Errorf("HAProxy's statistics: %w", err)
		}
		get := func(name string) string {
			if i := column[name]; i < len(row) {
				return row[i]
			}
			return ""
		}
		name := get("svname")
		if get("pxname") != backend || name == "BACKEND" || name == "FRONTEND" {
			continue
		}
		servers = append(servers, name)
		status := get("status")
		admitted, up := haproxyStatus(status)
		if name != server {
			if admitted && up {
				st.Others++
			}
			continue
		}
		found = true
		st.Admitted, st.Up, st.Detail = admitted, up, status
		if st.Sessions, err = strconv.Atoi(get("scur")); err != nil {
			return st, fmt.Errorf("HAProxy's statistics: sessions of %s/%s are %q", backend, server, get("scur"))
		}
	}
	switch {
	case len(servers) == 0:
		return st, fmt.Errorf("HAProxy has no backend %s with servers", backend)
	case !found:
		return st, fmt.Errorf("HAProxy's backend %s has no server %s; it has %s", backend, server, strings.Join(servers, ", "))
	}
	return st, nil
}

// haproxyStatus reads words such as "UP", "UP 1/3", "DOWN", "no check", "MAINT",
// "MAINT (via …)", "DRAIN", "NOLB".
func haproxyStatus(status string) (admitted, up bool) {
	word, _, _ := strings.Cut(status, " ")
	switch word {
	case "UP", "no", "OPEN":
		return true, true
	case "DRAIN", "NOLB":
		return false, true
	case "MAINT":
		return false, false
	}
	return true, false // DOWN: it would take traffic if it worked
}
