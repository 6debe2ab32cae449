// Command release builds what is published of a version: for each platform a static
// binary in an archive with manual pages, completions, units and an install script,
// a Debian and an RPM package, a bill of materials; then SHA256SUMS of all, and its
// signature where there is a key.
//
// The same commit, built by the same version of Go, gives the same bytes: whenever,
// wherever and as often as it is built. Nothing is taken from the clock, the host
// or the directory; times are those of the commit.
//
//	release -out dist -nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
//	release -out dist -sign                        # only sign what is in dist
//
// It is started in the module's root directory; see docs/releasing.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	out      string
	targets  []target
	version  string
	epoch    string
	nfpm     string
	signOnly bool
}

func parse(args []string, env func(string) string) (options, error) {
	var o options
	f := flag.NewFlagSet("release", flag.ContinueOnError)
	f.StringVar(&o.out, "out", "dist", "directory for the release; it must be empty, or not be there")
	names := f.String("targets", "amd64,arm64,armv7", "for which processors")
	f.StringVar(&o.version, "version", env("VERSION"), "of the release; what git describes when empty")
	f.StringVar(&o.epoch, "epoch", env("SOURCE_DATE_EPOCH"), "time of the release in seconds; the commit's when empty")
	f.StringVar(&o.nfpm, "nfpm", "", "Go package of nfpm with its version, or the absolute path of the program; without it no packages are built")
	f.BoolVar(&o.signOnly, "sign", false, "sign the release in -out, and build nothing")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	for name := range strings.SplitSeq(*names, ",") {
		t, ok := targets[name]
		if !ok {
			return o, fmt.Errorf("-targets: no target %q; there are amd64, arm64, armv7", name)
		}
		o.targets = append(o.targets, t)
	}
	return o, nil
}

func run(ctx context.Context, args []string, env func(string) string, out io.Writer) error {
	o, err := parse(args, env)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.signOnly {
		return sign(o.out, env, true, out)
	}
	src, err := source(ctx, o)
	if err != nil {
		return err
	}
	if src.dirty {
		fmt.Fprintln(out, "note: there are changes that are in no commit; nobody else can build this release")
	}
	if entries, err := os.ReadDir(o.out); err == nil && len(entries) > 0 {
		return fmt.Errorf("expected %s to be empty, found %d files; next: rm -r %s", o.out, len(entries), o.out)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "obsup-release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for _, t := range o.targets {
		b := &builder{source: src, target: t, out: o.out, tmp: filepath.Join(tmp, t.name), nfpm: o.nfpm}
		if err := b.build(ctx); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		fmt.Fprintf(out, "built %s for %s\n", src.version, t.name)
	}
	if err := writeSums(o.out); err != nil {
		return err
	}
	return sign(o.out, env, false, out)
}

// release is what is built.
type release struct {
	version string // a semantic version, without "v"
	commit  string // "" where there is no git
	time    time.Time
	dirty   bool
}

// source asks git what there is to release; version and time can be given where
// there is no git.
func source(ctx context.Context, o options) (release, error) {
	var r release
	described, gitErr := output(ctx, "git", "describe", "--tags", "--always", "--dirty", "--match", "v[0-9]*")
	r.dirty = strings.HasSuffix(described, "-dirty")
	if commit, err := output(ctx, "git", "rev-parse", "HEAD"); err == nil {
		r.commit = commit
	}
	r.version = o.version
	if r.version == "" {
		if gitErr != nil {
			return r, fmt.Errorf("which version this is: %w; next: VERSION=1.2.3 SOURCE_DATE_EPOCH=SECONDS make release", gitErr)
		}
		r.version = described
	}
	var err error
	if r.version, err = semantic(r.version); err != nil {
		return r, err
	}
	if o.epoch == "" {
		if o.epoch, err = output(ctx, "git", "log", "-1", "--format=%ct"); err != nil {
			return r, fmt.Errorf("when this was committed: %w; next: SOURCE_DATE_EPOCH=SECONDS make release", err)
		}
	}
	seconds, err := strconv.ParseInt(o.epoch, 10, 64)
	if err != nil || seconds <= 0 {
		return r, fmt.Errorf("SOURCE_DATE_EPOCH=%q: want seconds since 1970", o.epoch)
	}
	r.time = time.Unix(seconds, 0).UTC()
	return r, nil
}
