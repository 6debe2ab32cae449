// Package demo builds a sandbox in which the real program does its real work on
// small components: a directory of releases, a release server and two services,
// without root, systemd or network.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/custody"
	"github.com/observability-upgrade/observability-upgrade/internal/freeport"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/service/process"
)

// Components are the demo's two services, in the order they are set up.
var Components = []string{"pulse", "beacon"}

// By these a sandbox is known: how its directory's name begins, and a file in it.
const (
	prefix    = "observability-upgrade-demo-"
	serverURL = "server-url"
)

// Sandbox is a root directory with everything in it.
type Sandbox struct {
	Dir  string // holds Root and the releases
	Root layout.Root

	program string // this program, which plays the components too
	ports   map[string]int
	claims  []io.Closer // of the ports, while this process lives
	manager *process.Manager
	server  service.Service
	URL     string // of the release server
}

// New makes a sandbox in a new directory and starts its release server.
func New(ctx context.Context, program string) (*Sandbox, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	b := &Sandbox{Dir: dir, Root: layout.Root(filepath.Join(dir, "root")), program: program, ports: map[string]int{}}
	b.manage()
	if err := b.build(ctx); err != nil {
		return nil, errors.Join(err, b.Remove(ctx))
	}
	return b, nil
}

// Open is a sandbox that was kept, for Remove.
func Open(dir string) (*Sandbox, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := custody.Dir(dir); err != nil {
		return nil, err
	}
	b := &Sandbox{Dir: dir, Root: layout.Root(filepath.Join(dir, "root"))}
	if _, err := os.Stat(filepath.Join(dir, serverURL)); err != nil || !strings.HasPrefix(filepath.Base(dir), prefix) {
		return nil, fmt.Errorf("%s: expected the directory of a demo that was kept, as demo --keep printed it; it is left alone", dir)
	}
	b.manage()
	return b, nil
}

func (b *Sandbox) manage() {
	b.manager = process.New(process.Options{Dir: b.Root.ProcessDir(), LogDir: b.Root.LogDir()})
	b.server.Name = "release-server"
}

func (b *Sandbox) build(ctx context.Context) error {
	for _, d := range []string{b.Root.ComponentsDir(), b.Root.Path("usr/local/bin"), filepath.Join(b.Dir, "releases")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, name := range Components {
		port, claim, err := freeport.Claim()
		if err != nil {
			return err
		}
		b.ports[name], b.claims = port, append(b.claims, claim)
		if err := b.write(filepath.Join(b.Root.ComponentsDir(), name+".yaml"), b.definition(name), 0o644); err != nil {
			return err
		}
		if err := b.write(b.Root.Path("usr/local/bin", name), b.script(name, "1.0.0", false), 0o755); err != nil {
			return err
		}
		if err := b.write(b.Root.Path("etc", name, name+".conf"), "# configuration of "+name+"\n", 0o644); err != nil {
			return err
		}
		for _, v := range []string{"1.0.0", "1.1.0"} {
			if err := b.Publish(name, v, false); err != nil {
				return err
			}
		}
	}
	if err := b.startServer(ctx); err != nil {
		return err
	}
	return b.write(b.Root.Policy(), fmt.Sprintf(`# The demo's policy: releases come from the sandbox's own server.
upstream:
  github: {api_url: %q}
  cache_ttl: 0s
service_manager: process
timeouts: {stop: 5s, start: 30s, health: 10s}
`, b.URL), 0o644)
}

func (b *Sandbox) write(path, content string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func (b *Sandbox) definition(name string) string {
	return strings.NewReplacer("NAME", name, "PORT", fmt.Sprint(b.ports[name])).Replace(`description: The demo's component NAME
role: exporter
source: {type: github, repo: demo/NAME, tag: "v{version}"}
asset: "NAME-{version}.{os}-{arch}.tar.gz"
checksums: "sha256sums.txt"
binaries:
  - {name: NAME, path: "NAME-{version}.{os}-{arch}/NAME", install: /usr/local/bin/NAME}
version: {args: ["--version"], regexp: 'version (\S+)'}
process: {command: ["{root}/usr/local/bin/NAME"]}
config: {paths: [/etc/NAME]}
health: {url: "http://127.0.0.1:PORT/-/ready", metrics_url: "http://127.0.0.1:PORT/metrics", expected_metric: NAME_build_info, settle: 1s}
`)
}

// script is the component's program: this program in another role.
func (b *Sandbox) script(name, version string, faulty bool) string {
	flag := ""
	if faulty {
		flag = " --faulty"
	}
	return fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = --version ]; then echo '%s, version %s'; exit 0; fi\nexec %q demo component --name %s --release %s --listen \"${LISTEN:-127.0.0.1:%d}\"%s\n",
		name, version, b.program, name, version, b.ports[name], flag)
}

// Publish adds a release to the server's directory.
func (b *Sandbox) Publish(name, version string, faulty bool) error {
	arch := runtime.GOARCH
	if arch == "arm" {
		arch = "armv7"
	}
	top := fmt.Sprintf("%s-%s.%s-%s", name, version, runtime.GOOS, arch)
	data, err := releaseserver.Archive("tar.gz", top, map[string]releaseserver.File{
		name: {Body: []byte(b.script(name, version, faulty)), Mode: 0o755},
	})
	if err != nil {
		return err
	}
	return b.write(filepath.Join(b.Dir, "releases/github/demo", name, "v"+version, top+".tar.gz"), string(data), 0o644)
}

// startServer runs the release server as a service of its own, so that a kept
// sandbox still has it when this program has ended.
func (b *Sandbox) startServer(ctx context.Context) error {
	portFile := filepath.Join(b.Dir, serverURL)
	b.server.Command = []string{b.program, "demo", "server", "--dir", filepath.Join(b.Dir, "releases"), "--url-file", portFile}
	if err := b.manager.Start(ctx, b.server); err != nil {
		return err
	}
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if data, err := os.ReadFile(portFile); err == nil && len(data) > 0 {
			b.URL = strings.TrimSpace(string(data))
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return errors.New("the demo's release server did not start within 10 s")
		case <-tick.C:
		}
	}
}

// Remove stops everything that was started in the sandbox, what a person added to it
// too, and deletes it.
func (b *Sandbox) Remove(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	names, err := b.manager.Recorded()
	errs := []error{err}
	for _, name := range names {
		_, err := b.manager.Stop(ctx, service.Service{Name: name}, 5*time.Second)
		errs = append(errs, err)
	}
	for _, claim := range b.claims {
		errs = append(errs, claim.Close())
	}
	b.claims = nil
	return errors.Join(append(errs, os.RemoveAll(b.Dir))...)
}
