package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/httpd"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/metrics"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
	"github.com/observability-upgrade/observability-upgrade/internal/web"
)

type serveOptions struct {
	*global
	listen    string
	webConfig string
}

func newServe(g *global) *cobra.Command {
	o := &serveOptions{global: g}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve a status page, and metrics",
		Long: `Serve a status page at /, metrics at /metrics and /healthz, until SIGTERM or
Ctrl+C. It only reads, and needs no rights but to read what everybody may read.

It listens on this host alone. An address that others can reach takes TLS and
authentication: a file in the format of Prometheus' exporters, given with
--web-config. Sockets that systemd hands over are used in place of --listen.
Configuration that changes is read again; while it cannot be, what was read before
holds, and the page says so.`,
		Example: `  observability-upgrade serve
  observability-upgrade serve --listen=:9099 --web-config=/etc/observability/web.yml
  ssh -L 9099:127.0.0.1:9099 HOST                      # from elsewhere, without either`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:9099", "HOST:PORT to listen on")
	f.StringVar(&o.webConfig, "web-config", "", "file of TLS and authentication, in the format of Prometheus' exporters")
	must(cmd.MarkFlagFilename("web-config", "yml", "yaml"))
	return cmd
}

func (o *serveOptions) run(ctx context.Context) error {
	source, err := newServeSource(ctx, stack.Options{
		Root: layout.Root(o.root), Env: o.Env, Logger: o.logger, Build: Version().Version, Needs: stack.Show,
	})
	if err != nil {
		return err
	}
	srv, err := httpd.Open(ctx, httpd.Options{Listen: o.listen, WebConfig: o.webConfig, Logger: o.logger})
	var refused *httpd.RefusedError
	if errors.As(err, &refused) {
		return &stack.UsageError{Message: refused.Message, Hint: refused.Hint}
	}
	if err != nil {
		return err
	}
	pages := web.New(web.Options{
		Source: source, Root: layout.Root(o.root), Conditions: source.conditions, Metrics: metrics.Handler(source), Logger: o.logger,
	})
	defer pages.Close()
	if err := o.announce(srv.Addresses()); err != nil {
		return errors.Join(err, srv.Close())
	}
	giveBackMemory(o.logger)
	handler := newFrugal(pages, func() { giveBackMemory(o.logger) })
	defer handler.stop()
	o.notify("READY=1\nSTATUS=Serving at " + strings.Join(srv.Addresses(), " "))
	err = srv.Serve(ctx, handler, protect, func() {
		o.notify("STOPPING=1")
		pages.Close()
	})
	if ctx.Err() != nil && err != nil {
		o.logger.Warn("the end was not clean", "error", err)
		return nil // it was told to end, and did
	}
	return err
}

// protect puts the headers of the page on every answer, also on those to who is
// turned away before the page is asked.
func protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.Protect(w.Header())
		next.ServeHTTP(w, r)
	})
}

// announce tells where to look.
func (o *serveOptions) announce(addresses []string) error {
	doc := struct {
		Addresses []string `json:"addresses"`
	}{addresses}
	return o.print(doc, func(w io.Writer) error {
		if o.quiet {
			return nil
		}
		_, err := fmt.Fprintf(w, "Serving at %s\n", strings.Join(addresses, " and "))
		return err
	})
}

// notify tells systemd, where it listens (sd_notify(3)).
func (o *serveOptions) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		o.logger.Warn("systemd is not told", "state", state, "error", err)
	}
}
