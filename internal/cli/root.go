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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/journald"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
	"github.com/observability-upgrade/observability-upgrade/internal/trace"
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
	Program  string       // path of this program, for processes that go on without it
	Journal  string       // socket of the journal that Err is connected to; "" where it is not
	Guard    hostfs.Guard // fault injection in tests

	Now func() time.Time // the clock that runs, backups and holds go by; time.Now when nil
}

// System is the process's own IO.
func System() IO {
	o := IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv, Width: 80}
	o.InTTY = term.IsTerminal(int(os.Stdin.Fd()))
	o.OutTTY = term.IsTerminal(int(os.Stdout.Fd()))
	o.ErrTTY = term.IsTerminal(int(os.Stderr.Fd()))
	if path, err := os.Executable(); err == nil {
		o.Program = path
	}
	if w, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && w > 0 {
		o.Width = w
	}
	if journald.IsStderr() {
		o.Journal = journald.Socket
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
	here      bool

	flags   *pflag.FlagSet // those of all commands
	logger  *slog.Logger   // nil until the flags are parsed
	records bool           // progress and errors are log records, not lines for people
	closers []io.Closer    // closed when the command has ended
	args    []string
}

// Main runs the program and returns its exit code.
func Main(args []string, o IO) int {
	keepMemory()
	collectLate()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()
	// Caught and never looked at, so that writing to a reader that has gone is an
	// error and not the end (os/signal, SIGPIPE). Ignored, it would be so for the
	// services that are started here too.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	return Run(ctx, args, o)
}

// Run is Main with a context of the caller's. args[0] is the program's name:
// called observability-rollback or upgrade-rollback, it is `rollback`.
func Run(ctx context.Context, args []string, o IO) int {
	o.Out, o.Err = &output{to: o.Out}, &output{to: o.Err}
	g := &global{IO: o}
	rest := args[1:]
	switch strings.TrimSuffix(filepath.Base(args[0]), ".exe") {
	case "observability-rollback", "upgrade-rollback":
		rest = asRollback(rest)
	}
	g.args = rest
	root := newRoot(g)
	root.SetArgs(rest)
	root.SetIn(o.In)
	root.SetOut(o.Out)
	root.SetErr(o.Err)
	err := root.ExecuteContext(ctx)
	defer g.close()
	return g.exit(ctx, err)
}

// asRollback are the arguments of a program that is called as `rollback`. The
// shell's question how to complete comes before the command it is about.
func asRollback(args []string) []string {
	if len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		return append([]string{args[0], "rollback"}, args[1:]...)
	}
	return append([]string{"rollback"}, args...)
}

// Commands is the tree of all commands, for what writes manuals and completions of
// them. They are there to be read: none can be run.
func Commands() *cobra.Command {
	return newRoot(&global{IO: IO{Env: func(string) string { return "" }}})
}

// close ends what was opened for the command, the newest first.
func (g *global) close() {
	for _, c := range slices.Backward(g.closers) {
		if err := c.Close(); err != nil {
			g.logger.Debug("not closed", "error", err)
		}
	}
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
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return g.init(cmd) },
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := cmd.PersistentFlags()
	g.flags = f
	f.StringVar(&g.root, "root", "/", "directory below which all files are looked for")
	f.StringVarP(&g.output, "output", "o", "text", "form of the result on standard output: text or json; lists of the history also csv")
	f.BoolVar(&g.noColor, "no-color", false, "no colours (the environment variable NO_COLOR does the same)")
	f.StringVar(&g.logLevel, "log-level", "warn", "debug, info, warn or error; logs go to standard error (info where progress is logged too: as JSON, in the journal)")
	f.StringVar(&g.logFormat, "log-format", "text", "text or json")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "no progress, only the result")
	f.BoolVar(&g.here, "here", false, "leave out instances on other hosts; the host that leads a rolling change asks the others so")
	must(cmd.RegisterFlagCompletionFunc("output", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return outputs(cmd), cobra.ShellCompDirectiveNoFileComp
	}))
	for flag, values := range map[string][]string{"log-level": {"debug", "info", "warn", "error"}, "log-format": {"text", "json"}} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
	}
	must(cmd.MarkPersistentFlagDirname("root"))
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		// Parsing stopped at the mistake, maybe before these.
		if asks(g.args, "output", "o", "json") {
			g.output = "json"
		}
		if asks(g.args, "log-format", "", "json") {
			g.logFormat = "json"
		}
		return &stack.UsageError{Message: err.Error(), Hint: c.CommandPath() + " --help"}
	})
	cmd.AddCommand(
		newCheck(g), newPlan(g), newApply(g), newRollback(g), newRecover(g), newStatus(g), newVerify(g), newRestart(g),
		newHold(g), newUnhold(g), newConfig(g), newAutoEnable(g), newAutoDisable(g), newAutoStatus(g),
		newHistory(g), newVulnerabilities(g), newNotify(g), newMetrics(g), newMonitoring(g), newServe(g),
		newComponents(g), newAdopt(g), newDemo(g), newVersion(g),
	)
	cmd.InitDefaultCompletionCmd()
	completionExamples(cmd)
	strictHelp(cmd)
	wrapArgs(cmd)
	return cmd
}

// completionExamples gives cobra's own command what all others have.
func completionExamples(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() != "completion" {
			continue
		}
		c.Example = "  source <(observability-upgrade completion bash)"
		for _, shell := range c.Commands() {
			shell.Example = map[string]string{
				"bash":       "  source <(observability-upgrade completion bash)",
				"zsh":        "  source <(observability-upgrade completion zsh)",
				"fish":       "  observability-upgrade completion fish | source",
				"powershell": "  observability-upgrade completion powershell | Out-String | Invoke-Expression",
			}[shell.Name()]
		}
	}
}

// strictHelp makes `help` of a command that does not exist a usage error, as the
// command itself is one; cobra's own ends with 0.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		panic(err) // it was made in the line before
	}
	help.Args, help.Example = cobra.ArbitraryArgs, "  observability-upgrade help rollback"
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

// wrapArgs makes cobra's complaints about arguments usage errors like those
// about flags, on every command.
func wrapArgs(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		check := c.Args
		switch {
		case c.HasSubCommands() && (check == nil || !c.Runnable()): // cobra's own completion, too
			check, c.SuggestionsMinimumDistance = unknownCommand, 2
			if !c.Runnable() {
				c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
			}
		case check == nil:
			check = cobra.NoArgs
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

// printsCSV marks a command that has --output=csv.
var printsCSV = map[string]string{"output": "csv"}

// outputs are the forms in which a command can print its result.
func outputs(cmd *cobra.Command) []string {
	forms := []string{"text", "json"}
	if more := cmd.Annotations["output"]; more != "" {
		forms = append(forms, more)
	}
	return forms
}

// init checks the global flags and makes the logger.
func (g *global) init(cmd *cobra.Command) error {
	if forms := outputs(cmd); !slices.Contains(forms, g.output) {
		last := len(forms) - 1
		return badFlag("output", g.output, strings.Join(forms[:last], ", ")+" or "+forms[last])
	}
	if err := g.startLog(); err != nil {
		return err
	}
	if st, err := os.Stat(g.root); err != nil || !st.IsDir() {
		return &stack.UsageError{Message: fmt.Sprintf("--root=%s is not a directory", g.root), Hint: "mkdir -p " + layout.Quoted(g.root)}
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
	return g.openFor(ctx, stack.Everything)
}

// openFor opens the stack for a command that can do without some of the
// configuration.
func (g *global) openFor(ctx context.Context, needs stack.Needs) (*stack.Stack, *display, error) {
	d := newDisplay(g)
	t := trace.Open(ctx, trace.Options{Env: g.Env, Logger: g.logger, Version: Version().Version})
	g.closers = append(g.closers, t)
	s, err := stack.Open(ctx, stack.Options{
		Root: layout.Root(g.root), Env: g.Env, Logger: g.logger, Progress: d, Events: d.event, Notice: d.notice, Tracer: t,
		Build: Version().Version, Program: g.Program, Guard: g.Guard, Now: g.Now, Here: g.here, Needs: needs,
		ExitCode: func(err error) int { n, _ := classify(ctx, err); return n },
	})
	return s, d, err
}

func must(err error) {
	if err != nil {
		panic(err) // a flag named in this package does not exist: a mistake in the source
	}
}
