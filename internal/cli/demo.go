package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/observability-upgrade/observability-upgrade/internal/demo"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

type demoOptions struct {
	*global
	keep bool
}

func newDemo(g *global) *cobra.Command {
	o := &demoOptions{global: g}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole thing in a sandbox: an upgrade, a failing one, a rollback",
		Long: `Show the whole thing in a sandbox directory: no root, no systemd, no network
beyond this machine. Two small components run under the process manager, a
release server offers new versions, and this very program checks, plans and
upgrades them; a faulty release rolls back by itself; a rollback is made by
hand. Nothing is left behind, unless --keep is given.`,
		Example: `  observability-upgrade demo
  observability-upgrade demo --keep      # then play with it`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.keep, "keep", false, "leave the sandbox, its services and its release server running")
	cmd.AddCommand(newDemoComponent(), newDemoServer(), newDemoEnd(g))
	return cmd
}

// newDemoComponent is what the demo's components run.
func newDemoComponent() *cobra.Command {
	var name, release, listen string
	var faulty bool
	cmd := &cobra.Command{
		Use: "component", Hidden: true, Short: "Play a component of the demo",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Serve(cmd.Context(), name, release, listen, faulty)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "component")
	cmd.Flags().StringVar(&release, "release", "", "version")
	cmd.Flags().StringVar(&listen, "listen", "", "address")
	cmd.Flags().BoolVar(&faulty, "faulty", false, "end a moment after being ready")
	return cmd
}

// newDemoServer is the demo's release server.
func newDemoServer() *cobra.Command {
	var dir, urlFile string
	cmd := &cobra.Command{
		Use: "server", Hidden: true, Short: "Serve the demo's releases",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			l, err := releaseserver.New(releaseserver.Options{Dir: dir}).Listen(ctx, "127.0.0.1:0")
			if err != nil {
				return err
			}
			tmp := urlFile + ".tmp"
			if err := os.WriteFile(tmp, []byte(l.URL+"\n"), 0o644); err != nil {
				return err
			}
			if err := os.Rename(tmp, urlFile); err != nil {
				return err
			}
			<-ctx.Done()
			return l.Close(context.WithoutCancel(ctx))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of releases")
	cmd.Flags().StringVar(&urlFile, "url-file", "", "file that gets the server's URL")
	return cmd
}

// newDemoEnd is what a demo that is kept says to type.
func newDemoEnd(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "end DIR", Hidden: true, Short: "Stop all that a kept demo runs, and delete it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			box, err := demo.Open(args[0])
			if err != nil {
				return &stack.UsageError{Message: err.Error(), Hint: "observability-upgrade demo --help"}
			}
			if err := box.Remove(cmd.Context()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(g.Out, "%s and all that ran in it are gone.\n", box.Dir)
			return err
		},
	}
}

// step is one command of the demo with the exit code it must end with.
type step struct {
	say  string
	args []string
	code int
	pre  func() error
}

func (o *demoOptions) run(ctx context.Context) (err error) {
	if o.json() {
		return &stack.UsageError{Message: "--output=json: the demo is a story for people and has no such form", Hint: "observability-upgrade demo"}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	box, err := demo.New(ctx, program)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() {
		if !o.keep {
			if rmErr := box.Remove(ctx); err == nil {
				err = rmErr
			}
		}
	}()
	o.say("A sandbox with two small components, pulse and beacon, at 1.0.0, and a release server at %s.", box.URL)
	steps := []step{
		{say: "Start both components and prove them healthy.", args: []string{"restart", "--component=pulse,beacon"}},
		{say: "Find what is installed and write it down in the state file.", args: []string{"adopt", "--yes"}},
		{say: "Is there anything new?", args: []string{"check"}},
		{say: "What would an upgrade do? Nothing is changed yet.", args: []string{"plan"}},
		{say: "Do it: everything is verified before the first stop; each component is proved healthy before the next.", args: []string{"apply", "--yes"}},
		{say: "The same again finds nothing to do.", args: []string{"apply", "--yes"}},
		{
			say:  "Now upstream publishes pulse 1.2.0, which starts, is ready, and dies a moment later. It must roll back by itself (exit code 5).",
			args: []string{"apply", "--yes"}, code: exitRolledBack, pre: func() error { return box.Publish("pulse", "1.2.0", true) },
		},
		{say: "The old version runs, and the failed one is held, with the reason.", args: []string{"check"}},
		{say: "Take the first upgrade back by hand, too: no network is needed.", args: []string{"rollback", "--previous", "--yes"}},
		{say: "What is running now?", args: []string{"status"}},
		{say: "And what happened?", args: []string{"history"}},
	}
	for i, st := range steps {
		if o.unread() && !o.keep {
			return nil // nobody looks on
		}
		if st.pre != nil {
			if err := st.pre(); err != nil {
				return err
			}
		}
		o.say("%d. %s", i+1, st.say)
		if err := o.play(ctx, box, st); err != nil {
			return err
		}
	}
	if o.keep {
		o.say("The sandbox is kept, its services run. Try:\n  observability-upgrade --root=%s status\nPublish releases into %s. To end it:\n  observability-upgrade demo end %s",
			box.Root, filepath.Join(box.Dir, "releases"), box.Dir)
		return nil
	}
	o.say("Done. Everything the demo made is removed.")
	return nil
}

func (o *demoOptions) say(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	if o.color() {
		msg = "\x1b[1m" + msg + "\x1b[0m"
	}
	fmt.Fprintf(o.Out, "\n%s\n", msg)
}

// play runs one command of this program, in this process, and insists on its
// exit code.
func (o *demoOptions) play(ctx context.Context, box *demo.Sandbox, st step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "\n$ observability-upgrade %s\n", strings.Join(st.args, " "))
	io := IO{
		In: strings.NewReader(""), Out: o.Out, Err: mergedErr(o.IO), Width: o.Width, OutTTY: o.OutTTY,
		Env: func(k string) string {
			if k == "OBSERVABILITY_UPGRADE_GITHUB_API_URL" || k == "GITHUB_TOKEN" {
				return "" // the caller's own must not leak into the sandbox
			}
			return o.Env(k)
		},
	}
	args := append([]string{"observability-upgrade", "--root=" + string(box.Root)}, st.args...)
	if o.noColor {
		args = append(args, "--no-color")
	}
	if code := Run(ctx, args, io); code != st.code {
		return fmt.Errorf("demo: `%s` ended with exit code %d, expected %d", strings.Join(st.args, " "), code, st.code)
	}
	return nil
}

// mergedErr keeps the steps' progress in line with their results: the demo is
// one story on one stream.
func mergedErr(o IO) io.Writer { return o.Out }
