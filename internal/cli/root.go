// Package cli is the command line: one file per command, each with an options
// struct filled from flags and a function that does the work. Exit codes are
// decided in exit.go, and nowhere else.
package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
)

// IO is where a command reads and writes; tests give their own.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	Env      func(string) string
	InTTY    bool // a person can answer on In
	ErrTTY   bool // progress bars may be drawn on Err
	OutTTY   bool
	Width    int
	Guard    hostfs.Guard // fault injection in tests
}

// System is the process's own IO.
func System() IO {
	o := IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv, Width: 80}
	o.InTTY = term.IsTerminal(int(os.Stdin.Fd()))
	o.OutTTY = term.IsTerminal(int(os.Stdout.Fd()))
	o.ErrTTY = term.IsTerminal(int(os.Stderr.Fd()))
	if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && w > 0 {
		o.Width = w
	}
	return o
}

// global holds the flags that every command has.
type global struct {
	IO
	root      string
	output    string
	noColor   bool
	logLevel  string
	logFormat string
	quiet     bool

	logger *slog.Logger
	args   []string
}

// Main runs the program and returns its exit code.
func Main(args []string, o IO) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return Run(ctx, args, o)
}

// Run is Main with a context of the caller's. args[0] is the program's name:
// called observability-rollback or upgrade-rollback, it is `rollback`.
func Run(ctx context.Context, args []string, o IO) int {
	g := &global{IO: o}
	rest := args[1:]
	switch strings.TrimSuffix(filepath.Base(args[0]), ".exe") {
	case "observability-rollback", "upgrade-rollback":
		rest = append([]string{"rollback"}, rest...)
	}
	g.args = rest
	root := newRoot(g)
	root.SetArgs(rest)
	root.SetIn(o.In)
	root.SetOut(o.Out)
	root.SetErr(o.Err)
	err := root.ExecuteContext(ctx)
	return g.exit(ctx, err)
}

func newRoot(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "observability-upgrade",
		Short: "Upgrade a self-hosted observability stack, and never leave it broken",
		Long: `Upgrade a self-hosted observability stack on systemd hosts, and never leave it
broken: find new releases, plan a compatible set and order, check, back up,
download and verify, stop gracefully, swap atomically, prove health, and roll
back by itself when health is not proved.`,
		Example: `  observability-upgrade adopt                          # find what is installed
  observability-upgrade check                          # is there anything new?
  observability-upgrade plan                           # what would be done
  observability-upgrade apply                          # do it
  observability-upgrade rollback --previous            # take the last run back`,
		SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
		Args:              usageArgs(unknownCommand),
		PersistentPreRunE: func(*cobra.Command, []string) error { return g.init() },
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&g.root, "root", "/", "directory below which all files are looked for")
	f.StringVarP(&g.output, "output", "o", "text", "form of the result on standard output: text or json")
	f.BoolVar(&g.noColor, "no-color", false, "no colours (the environment variable NO_COLOR does the same)")
	f.StringVar(&g.logLevel, "log-level", "warn", "debug, info, warn or error; logs go to standard error")
	f.StringVar(&g.logFormat, "log-format", "text", "text or json")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "no progress, only the result")
	for flag, values := range map[string][]string{"output": {"text", "json"}, "log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"}} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
	}
	must(cmd.MarkPersistentFlagDirname("root"))
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if wantsJSON(g.args) {
			g.output = "json" // parsing stopped at the mistake, maybe before it
		}
		return &stack.UsageError{Message: err.Error(), Hint: c.CommandPath() + " --help"}
	})
	cmd.AddCommand(
		newCheck(g), newPlan(g), newApply(g), newRollback(g), newRecover(g), newStatus(g), newVerify(g), newRestart(g),
		newHold(g), newUnhold(g), newConfig(g), newAutoEnable(g), newAutoDisable(g), newAutoStatus(g), newHistory(g), newServe(g), newComponents(g), newAdopt(g), newDemo(g), newVersion(g),
	)
	cmd.InitDefaultCompletionCmd()
	strictHelp(cmd)
	wrapArgs(cmd)
	return cmd
}

// strictHelp makes `help` of a command that does not exist a usage error, as the
// command itself is one; cobra's own ends with 0.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err) // it was made in the line before
	}
	help.Args = cobra.ArbitraryArgs
	help.Run = nil
	help.RunE = func(_ *cobra.Command, args []string) error {
		c, rest, err := root.Find(args)
		if err == nil && len(rest) > 0 {
			err = unknownCommand(c, rest)
		}
		if err != nil {
			return &stack.UsageError{Message: err.Error(), Hint: "observability-upgrade --help"}
		}
		c.InitDefaultHelpFlag()
		return c.Help()
	}
}

// wantsJSON looks for --output=json in arguments that cannot be parsed.
func wantsJSON(args []string) bool {
	for i, a := range args {
		switch a {
		case "--":
			return false
		case "--output=json", "-o=json", "-ojson":
			return true
		case "--output", "-o":
			if i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}

// wrapArgs makes cobra's complaints about arguments usage errors like those
// about flags, on every command.
func wrapArgs(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		check := c.Args
		if check == nil {
			check = cobra.NoArgs
			if c.HasSubCommands() {
				check = unknownCommand
				if c.RunE == nil {
					c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
				}
			}
		}
		c.Args = usageArgs(check)
		wrapArgs(c)
	}
}

func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return &stack.UsageError{Message: err.Error(), Hint: c.CommandPath() + " --help"}
		}
		return nil
	}
}

func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q for %q; did you mean %q?", args[0], c.CommandPath(), near[0])
	}
	return fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
}

// init checks the global flags and makes the logger.
func (g *global) init() error {
	usage := func(flag, got, want string) error {
		return &stack.UsageError{Message: fmt.Sprintf("--%s=%s: want %s", flag, got, want), Hint: "observability-upgrade --help"}
	}
	if g.output != "text" && g.output != "json" {
		return usage("output", g.output, "text or json")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(g.logLevel)); err != nil {
		return usage("log-level", g.logLevel, "debug, info, warn or error")
	}
	opts := &slog.HandlerOptions{Level: level}
	switch g.logFormat {
	case "text":
		g.logger = slog.New(slog.NewTextHandler(g.Err, opts))
	case "json":
		g.logger = slog.New(slog.NewJSONHandler(g.Err, opts))
	default:
		return usage("log-format", g.logFormat, "text or json")
	}
	if st, err := os.Stat(g.root); err != nil || !st.IsDir() {
		return &stack.UsageError{Message: fmt.Sprintf("--root=%s is not a directory", g.root), Hint: "mkdir -p " + g.root}
	}
	abs, err := filepath.Abs(g.root)
	if err != nil {
		return err
	}
	g.root = abs
	return nil
}

func (g *global) json() bool { return g.output == "json" }

func (g *global) color() bool {
	return g.OutTTY && !g.noColor && g.Env("NO_COLOR") == "" && !g.json()
}

// open opens the stack with this command's front end attached.
func (g *global) open(ctx context.Context) (*stack.Stack, *display, error) {
	d := newDisplay(g)
	s, err := stack.Open(ctx, stack.Options{
		Root: layout.Root(g.root), Env: g.Env, Logger: g.logger, Progress: d, Events: d.event, Notice: d.notice,
		Build: Version().Version, Guard: g.Guard,
		ExitCode: func(err error) int { n, _ := classify(ctx, err); return n },
	})
	return s, d, err
}

func must(err error) {
	if err != nil {
		panic(err) // a flag named in this package does not exist: a mistake in the source
	}
}
