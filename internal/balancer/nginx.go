package balancer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
)

// nginx marks a server of an upstream as down in the file that holds it, proves
// the configuration and reloads: old workers finish what they have begun
// (https://nginx.org/en/docs/control.html).
type nginx struct {
	file, upstream, server string
	check, reload          []string
	o                      Options
}

func newNginx(b component.Balancer, server string, o Options) *nginx {
	n := &nginx{file: o.Root.Path(b.File), upstream: b.Backend, server: server, check: b.Check, reload: b.Reload, o: o}
	if n.o.Host == nil {
		n.o.Host = &hostfs.Host{}
	}
	if len(n.check) == 0 {
		n.check = []string{"nginx", "-t"}
	}
	if len(n.reload) == 0 {
		n.reload = []string{"nginx", "-s", "reload"}
	}
	return n
}

func (n *nginx) State(context.Context) (State, error) {
	data, err := os.ReadFile(n.file)
	if err != nil {
		return State{}, fmt.Errorf("nginx's upstream file: %w", err)
	}
	servers, mine, err := n.find(data)
	if err != nil {
		return State{}, err
	}
	st := State{Admitted: !servers[mine].down, Up: true, Sessions: connections(n.server), Detail: "up"}
	if servers[mine].down {
		st.Detail = "down in " + n.file
	}
	for i, s := range servers {
		if i != mine && !s.down && !s.backup {
			st.Others++
		}
	}
	return st, nil
}

func (n *nginx) find(data []byte) ([]upstreamServer, int, error) {
	servers, err := parseUpstream(data, n.upstream)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", n.file, err)
	}
	var names []string
	for i, s := range servers {
		if s.address == n.server {
			return servers, i, nil
		}
		names = append(names, s.address)
	}
	return nil, 0, fmt.Errorf("%s: upstream %s has no server %s; it has %s", n.file, n.upstream, n.server, strings.Join(names, ", "))
}

func (n *nginx) Drain(ctx context.Context) error { return n.edit(ctx, drainServer) }

// Admit takes away this program's mark; a server that somebody marked down besides
// stays out.
func (n *nginx) Admit(ctx context.Context) error {
	if err := n.edit(ctx, admitServer); err != nil {
		return err
	}
	st, err := n.State(ctx)
	if err == nil && !st.Admitted {
		return &NotOursError{Server: n.server, State: st.Detail}
	}
	return err
}

// edit rewrites the file, proves it and reloads; a configuration that nginx
// refuses is taken back.
func (n *nginx) edit(ctx context.Context, change func([]byte, upstreamServer) ([]byte, error)) error {
	old, err := os.ReadFile(n.file)
	if err != nil {
		return fmt.Errorf("nginx's upstream file: %w", err)
	}
	file, err := filepath.EvalSymlinks(n.file) // often a link in sites-enabled, which stays one
	if err != nil {
		return fmt.Errorf("nginx's upstream file: %w", err)
	}
	servers, mine, err := n.find(old)
	if err != nil {
		return err
	}
	fresh, err := change(old, servers[mine])
	if err != nil {
		return fmt.Errorf("%s: %w", n.file, err)
	}
	if !bytes.Equal(fresh, old) {
		if err := n.o.Host.WriteFile(file, fresh, 0o644); err != nil {
			return err
		}
		if out, err := n.o.Exec(ctx, n.check, commandLimit); err != nil {
			err = &refusedError{fmt.Errorf("nginx refuses the configuration with %s changed: `%s`: %w: %.300q", n.file, strings.Join(n.check, " "), err, strings.TrimSpace(out))}
			return errors.Join(err, n.o.Host.WriteFile(file, old, 0o644))
		}
	}
	// Also where the file is as it should be: a crash may have come before the reload.
	before := nginxWorkers()
	if out, err := n.o.Exec(ctx, n.reload, commandLimit); err != nil {
		return fmt.Errorf("`%s`: %w: %.300q", strings.Join(n.reload, " "), err, strings.TrimSpace(out))
	}
	return n.taken(ctx, before)
}

// marker follows a server that this program took out.
const marker = " down # " + Reason + "\n"

// drainServer adds "down" to a server's line, with a mark and a line end.
func drainServer(data []byte, s upstreamServer) ([]byte, error) {
	if s.down {
		return data, nil
	}
	out := append([]byte{}, data[:s.end]...)
	out = append(out, marker...)
	return append(out, data[s.end:]...), nil
}

// admitServer takes away what drainServer added; a "down" of another's is left.
func admitServer(data []byte, s upstreamServer) ([]byte, error) {
	if !s.down {
		return data, nil
	}
	start := s.end - len(marker)
	if start < 0 || string(data[start:s.end]) != marker {
		return nil, &NotOursError{Server: s.address, State: "marked down"}
	}
	return append(append([]byte{}, data[:start]...), data[s.end:]...), nil
}

// upstreamServer is one "server" of an upstream block.
type upstreamServer struct {
	address      string
	down, backup bool
	end          int // offset of its semicolon
}

// parseUpstream finds the servers of one upstream block in a configuration file,
// by the tokens of nginx's syntax: words, quoted words, comments, ; { and }.
func parseUpstream(data []byte, name string) ([]upstreamServer, error) {
	var servers []upstreamServer
	var words []string
	depth, inside, found := 0, -1, false
	for pos := 0; ; {
		word, kind, end := nextToken(data, pos)
		pos = end
		switch kind {
		case tokenEnd:
			switch {
			case depth != 0:
				return nil, fmt.Errorf("expected as many } as {, found %d fewer", depth)
			case !found:
				return nil, fmt.Errorf("there is no upstream %s", name)
			}
			return servers, nil
		case tokenBad:
			return nil, errors.New("a quoted text does not end")
		case tokenWord:
			words = append(words, word)
		case '{':
			depth++
			if len(words) == 2 && words[0] == "upstream" && words[1] == name {
				if found {
					return nil, fmt.Errorf("upstream %s is there twice", name)
				}
				inside, found = depth, true
			}
			words = nil
		case '}':
			if inside == depth {
				inside = -1
			}
			if depth--; depth < 0 {
				return nil, errors.New("a } too many")
			}
			words = nil
		case ';':
			if inside == depth && len(words) > 1 && words[0] == "server" {
				s := upstreamServer{address: words[1], end: end - 1}
				for _, w := range words[2:] {
					s.down = s.down || w == "down"
					s.backup = s.backup || w == "backup"
				}
				servers = append(servers, s)
			}
			words = nil
		}
	}
}

const (
	tokenEnd  = 0
	tokenWord = 'w'
	tokenBad  = '!'
)

// nextToken reads the token at or after pos and returns the offset behind it.
func nextToken(data []byte, pos int) (word string, kind byte, end int) {
	for pos < len(data) {
		switch c := data[pos]; c {
		case ' ', '\t', '\r', '\n':
			pos++
		case '#':
			for pos < len(data) && data[pos] != '\n' {
				pos++
			}
		case ';', '{', '}':
			return "", c, pos + 1
		case '"', '\'':
			var b strings.Builder
			for i := pos + 1; i < len(data); i++ {
				switch {
				case data[i] == '\\' && i+1 < len(data):
					i++
					b.WriteByte(data[i])
				case data[i] == c:
					return b.String(), tokenWord, i + 1
				default:
					b.WriteByte(data[i])
				}
			}
			return "", tokenBad, len(data)
		default:
			start := pos
			for pos < len(data) && !bytes.ContainsRune([]byte(" \t\r\n;{}"), rune(data[pos])) {
				if data[pos] == '\\' && pos+1 < len(data) {
					pos++
				} else if data[pos] == '$' && pos+1 < len(data) && data[pos+1] == '{' {
					pos++ // a variable, ${name}
					for pos < len(data) && data[pos] != '}' {
						pos++
					}
				}
				pos++
			}
			pos = min(pos, len(data))
			return string(data[start:pos]), tokenWord, pos
		}
	}
	return "", tokenEnd, len(data)
}

// connections counts this host's established connections to host:port; -1 when
// that cannot be known.
func connections(server string) int {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		return -1
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return -1
	}
	addrs, err := net.LookupIP(host)
	if err != nil {
		return -1
	}
	want := map[netip.Addr]bool{}
	for _, ip := range addrs {
		if a, ok := netip.AddrFromSlice(ip); ok {
			want[a.Unmap()] = true
		}
	}
	total, known := 0, false
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return -1
		}
		known = true
		total += countEstablished(data, want, uint16(number))
	}
	if !known {
		return -1
	}
	return total
}

// countEstablished reads a table of the kernel's (proc_net_tcp): remote address
// in the host's byte order, in words of four bytes, and state 01 for established.
func countEstablished(table []byte, want map[netip.Addr]bool, port uint16) int {
	n := 0
	sc := bufio.NewScanner(bytes.NewReader(table))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 4 || f[3] != "01" {
			continue
		}
		addr, p, ok := parseHexAddr(f[2])
		if ok && p == port && want[addr] {
			n++
		}
	}
	return n
}

func parseHexAddr(text string) (netip.Addr, uint16, bool) {
	hexAddr, hexPort, ok := strings.Cut(text, ":")
	port, err := strconv.ParseUint(hexPort, 16, 16)
	if !ok || err != nil || len(hexAddr) != 8 && len(hexAddr) != 32 {
		return netip.Addr{}, 0, false
	}
	raw := make([]byte, 0, 16)
	for i := 0; i < len(hexAddr); i += 8 {
		w, err := strconv.ParseUint(hexAddr[i:i+8], 16, 32)
		if err != nil {
			return netip.Addr{}, 0, false
		}
		raw = append(raw, byte(w), byte(w>>8), byte(w>>16), byte(w>>24)) //nolint:gosec // the bytes of a number, one by one
	}
	a, ok := netip.AddrFromSlice(raw)
	return a.Unmap(), uint16(port), ok
}
