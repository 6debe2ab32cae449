package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	name   = "observability-upgrade"
	module = "github.com/observability-upgrade/observability-upgrade"
)

// target is a platform that is released for.
type target struct {
	name string   // as in the names of archives
	env  []string // of the compiler
	deb  string   // as Debian calls it
	nfpm string   // as nfpm does; it knows what RPM calls it
}

var targets = map[string]target{
	"amd64": {"linux-amd64", []string{"GOARCH=amd64", "GOAMD64=v1"}, "amd64", "amd64"},
	"arm64": {"linux-arm64", []string{"GOARCH=arm64", "GOARM64=v8.0"}, "arm64", "arm64"},
	"armv7": {"linux-armv7", []string{"GOARCH=arm", "GOARM=7"}, "armhf", "arm7"},
}

// builder builds what is published for one target.
type builder struct {
	source release
	target target
	out    string // where the results go
	tmp    string // for what is in between; made here
	nfpm   string
}

// base is the name of what is published, without its suffix.
func (b *builder) base() string { return name + "-" + b.source.version + "." + b.target.name }

func (b *builder) build(ctx context.Context) error {
	if err := os.MkdirAll(b.tmp, 0o755); err != nil {
		return err
	}
	binary := filepath.Join(b.tmp, name)
	if err := b.compile(ctx, binary); err != nil {
		return err
	}
	linked, err := b.linked(ctx, binary)
	if err != nil {
		return err
	}
	bom, err := b.bom(linked)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.out, b.base()+".cdx.json"), bom, 0o644); err != nil {
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	parts, err := b.parts(program, linked)
	if err != nil {
		return err
	}
	if err := b.archive(parts); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if b.nfpm == "" {
		return nil
	}
	return b.packages(ctx, parts)
}

// compile builds the program. What of the environment could change its bytes is
// set here.
func (b *builder) compile(ctx context.Context, to string) error {
	const cli = module + "/internal/cli."
	flags := []string{"-s", "-w", "-buildid=", "-X", cli + "buildVersion=" + b.source.version, "-X", cli + "buildDate=" + b.source.time.Format(time.RFC3339)}
	if b.source.commit != "" {
		flags = append(flags, "-X", cli+"buildCommit="+b.source.commit)
	}
	return b.goCommand(ctx, nil, "build", "-trimpath", "-buildvcs=false", "-ldflags", strings.Join(flags, " "), "-o", to, "./cmd/"+name)
}

// goCommand runs the go command for the target; out may be nil.
func (b *builder) goCommand(ctx context.Context, out *bytes.Buffer, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(clean(os.Environ()), "CGO_ENABLED=0", "GOOS=linux", "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off")
	cmd.Env = append(cmd.Env, b.target.env...)
	if out != nil {
		cmd.Stdout = out
	}
	return start(cmd)
}

// clean leaves out of an environment what says for which platform to build.
func clean(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"GOOS", "GOARCH", "GOARM", "GOAMD64", "GOARM64", "GOFLAGS"}, key)
	})
}

// start runs a command and puts what it said into the error.
func start(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if cmd.Stdout == nil {
		cmd.Stdout = &said
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// output is what a command prints, without white space around it.
func output(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout = &out
	err := start(cmd)
	return strings.TrimSpace(out.String()), err
}
