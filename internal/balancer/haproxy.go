package balancer

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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
	flags, err := parseAdmin(text, h.backend, h.server)
	if flags != 0 {
		st.Admitted, st.Detail = false, st.Detail+", drained"
	}
	return st, err
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
		return &refusedError{fmt.Errorf("HAProxy refuses %q: %s", text, answer)}
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

// Admit ends a drain. A server that a person put into maintenance since is left
// there: HAProxy keeps no reason, but a drain is another state than maintenance,
// and each takes the other's place.
func (h *haproxy) Admit(ctx context.Context) error {
	text, err := h.command(ctx, "show servers state "+h.backend)
	if err != nil {
		return err
	}
	flags, err := parseAdmin(text, h.backend, h.server)
	if err != nil {
		return err
	}
	switch {
	case flags&forcedMaint != 0:
		return &NotOursError{Server: h.backend + "/" + h.server, State: "maintenance"}
	case flags&forcedDrain == 0:
		return nil
	}
	return h.set(ctx, "ready")
}

// What was set by command, of srv_admin_state in the answer to "show servers
// state": https://www.haproxy.com/documentation/haproxy-runtime-api/reference/show-servers-state/.
const (
	forcedMaint = 0x01
	forcedDrain = 0x08
)

// parseAdmin reads the answer to "show servers state": the format's version, a
// header that begins with "# ", and a line of words per server.
func parseAdmin(text, backend, server string) (int64, error) {
	var header []string
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) > 0 && words[0] == "#" {
			header = words[1:]
			continue
		}
		get := func(name string) string {
			if i := slices.Index(header, name); i >= 0 && i < len(words) {
				return words[i]
			}
			return ""
		}
		if header == nil || get("be_name") != backend || get("srv_name") != server {
			continue
		}
		flags, err := strconv.ParseInt(get("srv_admin_state"), 0, 64)
		if err != nil {
			return 0, fmt.Errorf("HAProxy's server states: the administrative state of %s/%s is %q", backend, server, get("srv_admin_state"))
		}
		return flags, nil
	}
	return 0, fmt.Errorf("HAProxy's server states: expected a line of %s/%s, found %.120q", backend, server, text)
}

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
