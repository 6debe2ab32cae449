// Package httpd serves a handler over HTTP: to this host as it is, to others only
// with TLS and authentication. Where to listen is told by an address, or by
// systemd, which hands over sockets (sd_listen_fds(3)).
package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

const (
	// Limits on every connection. An answer that goes on sets its own.
	readHeader = 5 * time.Second
	readWhole  = 15 * time.Second
	writeWhole = time.Minute
	idle       = time.Minute
	maxHeader  = 16 << 10
	// maxConnections bounds those of one listener.
	maxConnections = 256
	// grace is how long answers on their way may take when the server ends.
	grace = 5 * time.Second
)

// Options say where to listen and with what to protect it.
type Options struct {
	Listen    string // HOST:PORT; not used where systemd hands over sockets
	WebConfig string // file of TLS and authentication, as Prometheus' exporters read it; "" for none
	Logger    *slog.Logger
}

// RefusedError says why the server does not begin. Nothing was served.
type RefusedError struct {
	Message string
	Hint    string
}

func (e *RefusedError) Error() string { return e.Message }

// Server listens, and serves once Serve is called.
type Server struct {
	o         Options
	listeners []listener
}

type listener struct {
	net.Listener
	local bool // only this host can reach it
}

// Open listens. It refuses, with a RefusedError, what others could reach without
// TLS and authentication.
func Open(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := validate(o.WebConfig); err != nil {
		return nil, err
	}
	s := &Server{o: o}
	handed, err := activated()
	if err != nil {
		return nil, err
	}
	if len(handed) == 0 {
		l, err := listen(ctx, o)
		if err != nil {
			return nil, err
		}
		handed = []net.Listener{l}
	}
	for _, l := range handed {
		s.listeners = append(s.listeners, listener{Listener: l, local: isLocal(l.Addr())})
	}
	for _, l := range s.listeners {
		if l.local {
			continue
		}
		if err := protected(o.WebConfig); err != nil {
			return nil, errors.Join(refusal(l.Addr().String(), o.WebConfig, err), s.Close())
		}
	}
	return s, nil
}

// activated are the sockets that systemd hands over.
func activated() ([]net.Listener, error) {
	list, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	for i, l := range list {
		if l == nil {
			return nil, fmt.Errorf("sockets of systemd: the one of number %d is no stream socket; want ListenStream= in its unit", i+1)
		}
	}
	return list, nil
}

// listen listens where it is told to, and not before it is known that nobody else
// than may can reach it.
func listen(ctx context.Context, o Options) (net.Listener, error) {
	address, local, err := resolve(ctx, o.Listen)
	if err != nil {
		return nil, err
	}
	if !local {
		if err := protected(o.WebConfig); err != nil {
			return nil, refusal(o.Listen, o.WebConfig, err)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("listen on %s: something else does already; `ss -ltnp 'sport = :%s'` shows what: %w", o.Listen, port, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Listen, err)
	}
	return l, nil
}

// Addresses are where the server can be reached.
func (s *Server) Addresses() []string {
	scheme := "http"
	if encrypted(s.o.WebConfig) {
		scheme = "https"
	}
	var out []string
	for _, l := range s.listeners {
		if l.Addr().Network() == "unix" {
			out = append(out, "unix:"+l.Addr().String())
			continue
		}
		out = append(out, scheme+"://"+l.Addr().String()+"/")
	}
	return out
}

// Close stops listening; what Serve closed is closed already.
func (s *Server) Close() error {
	var errs []error
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Serve serves until ctx ends; then it calls ending, which ends answers that would
// go on, waits a little for the others, and returns nil. around, which may be nil,
// wraps what answers those who are turned away, too.
func (s *Server) Serve(ctx context.Context, handler http.Handler, around func(http.Handler) http.Handler, ending func()) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		own := handler
		switch {
		case !l.local:
			own = guard(s.o, handler)
		case l.Addr().Network() == "tcp":
			own = onlyFor(hosts(s.o.Listen, l.Addr()), s.o.Logger, handler)
		}
		srv := &http.Server{
			Handler: own, ReadHeaderTimeout: readHeader, ReadTimeout: readWhole, WriteTimeout: writeWhole, IdleTimeout: idle, MaxHeaderBytes: maxHeader,
			ErrorLog: slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
		}
		first := &firstAccept{Listener: netutil.LimitListener(l, maxConnections)}
		if around != nil {
			first.before = func() { srv.Handler = around(srv.Handler) }
		}
		g.Go(func() error {
			// One server each: the toolkit changes the handler of what it is given.
			err := web.Serve(first, srv, &web.FlagConfig{WebConfigFile: &s.o.WebConfig}, s.o.Logger)
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return err
		})
		g.Go(func() error {
			<-gctx.Done()
			return shutdown(srv)
		})
	}
	g.Go(func() error {
		<-gctx.Done()
		if ending != nil {
			ending()
		}
		return nil
	})
	return errors.Join(g.Wait(), s.Close())
}

// shutdown waits for answers on their way, and ends them when they take long.
func shutdown(srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return srv.Close()
}

// firstAccept calls before once, when the server is about to take its first
// connection: the toolkit has put its own handler around ours by then, and what
// must be around that can be put there.
type firstAccept struct {
	net.Listener
	once   sync.Once
	before func()
}

func (f *firstAccept) Accept() (net.Conn, error) {
	if f.before != nil {
		f.once.Do(f.before)
	}
	return f.Listener.Accept()
}

// guard looks at each request that comes from elsewhere whether it still had to
// prove who it is: the file may have been changed since the start, and the toolkit
// reads it anew each time.
func guard(o Options, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := protected(o.WebConfig)
		if err == nil && r.TLS == nil {
			err = errors.New("the connection has no TLS")
		}
		if err != nil {
			o.Logger.Error("a request is refused: TLS and authentication are no longer demanded", "from", r.RemoteAddr, "error", err)
			http.Error(w, "TLS and authentication are no longer demanded here, so nothing is shown; see the log of this service.", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}
