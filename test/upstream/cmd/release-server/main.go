// Command release-server serves release archives from a directory over the
// release APIs of GitHub, GitLab and Grafana, and as a plain mirror.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

const usage = `Usage: release-server [--listen HOST:PORT] --dir DIR [--fault MATCH=KIND[:ARG][xN]]... [--port-file FILE]

Serves the releases below DIR over the APIs that observability-upgrade asks:

  DIR/github/OWNER/REPO/TAG/ASSET        api_url: http://ADDR
  DIR/gitlab/GROUP/PROJECT/TAG/ASSET     api_url: http://ADDR/api/v4
  DIR/grafana/PRODUCT/VERSION/ASSET      api_url: http://ADDR/api
  DIR/plain/NAME/VERSION/ASSET           source url: http://ADDR/plain/NAME/ or http://ADDR/index/NAME/

DIR is read anew on each request: releases may be added while it runs. A missing
sha256sums.txt is made up from the files. DIR/.../TAG/.release.json may hold
{"draft":true, "prerelease":true, "published_at":"2026-01-31T12:00:00Z",
"no_digest":true, "no_checksums":true}.

The first line on standard output is the address. SIGTERM and SIGINT stop it.

Faults strike requests whose path contains MATCH (or matches it as a regular
expression), at most N times with xN:
  wrong-sum  truncate:BYTES  slow:BYTES_PER_SECOND  status:CODE  redirect:HOST:PORT
  missing  html  no-range  wrong-length[:DELTA]  endless  hang

Examples:
  release-server --dir ./releases
  release-server --dir ./releases --listen 127.0.0.1:8080 --fault 'linux-amd64=truncate:100000x2'
  release-server --dir ./releases --fault '/repos/=status:403' --port-file /tmp/port

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "release-server:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "release-server:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("see release-server --help")

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("release-server", flag.ContinueOnError)
	fs.SetOutput(stderr)
	listen := fs.String("listen", "127.0.0.1:0", "`address` to listen on; port 0 picks a free one")
	dir := fs.String("dir", "", "`directory` of the releases (required)")
	portFile := fs.String("port-file", "", "`file` that receives HOST:PORT once the server answers")
	token := fs.String("token", "", "demand this `token` on API requests")
	rateLimit := fs.Int("rate-limit", 0, "answer this many API requests, then 403; 0 is no limit")
	verbose := fs.Bool("verbose", false, "print each request on standard error")
	type fault struct {
		match string
		fault releaseserver.Fault
	}
	var faults []fault
	fs.Func("fault", "misbehave: `MATCH=KIND[:ARG][xN]`; may be repeated", func(text string) error {
		m, f, err := releaseserver.ParseFault(text)
		faults = append(faults, fault{m, f})
		return err
	})
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %w", err, errUsage)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: %w", fs.Arg(0), errUsage)
	}
	if info, err := os.Stat(*dir); *dir == "" || err != nil || !info.IsDir() {
		return fmt.Errorf("--dir %q is not a directory: %w", *dir, errUsage)
	}
	level := slog.LevelError
	if *verbose {
		level = slog.LevelDebug
	}
	srv := releaseserver.New(releaseserver.Options{
		Dir: *dir, Token: *token, RateLimit: *rateLimit,
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
	})
	for _, f := range faults {
		srv.Fault(f.match, f.fault)
	}
	l, err := srv.Listen(ctx, *listen)
	if err != nil {
		return err
	}
	if err := announce(l.URL, *portFile, stdout); err != nil {
		return errors.Join(err, l.Close(ctx))
	}
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return l.Close(grace)
}

// announce prints the address and writes the port file in one step, so that a
// reader never sees half of it.
func announce(url, portFile string, stdout io.Writer) error {
	if portFile != "" {
		tmp, err := os.CreateTemp(filepath.Dir(portFile), ".release-server-*")
		if err != nil {
			return fmt.Errorf("port file: %w", err)
		}
		_, err = tmp.WriteString(url[len("http://"):] + "\n")
		if err = errors.Join(err, tmp.Close()); err == nil {
			err = os.Rename(tmp.Name(), portFile)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("port file: %w", err), os.Remove(tmp.Name()))
		}
	}
	if _, err := fmt.Fprintln(stdout, url); err != nil {
		return fmt.Errorf("print the address: %w", err)
	}
	return nil
}
