// Package stack is the observability stack on this host as one thing: it ties
// catalogue, configuration, inventory, upstream and planner to the run engine,
// one method per operation a person asks for. It prints nothing and knows no
// flags; the command line and, later, other front ends call it.
package stack

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/artifact"
	"github.com/observability-upgrade/observability-upgrade/internal/audit"
	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/catalogue"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/filecache"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/inventory"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/runlog"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
	"github.com/observability-upgrade/observability-upgrade/internal/service/process"
	"github.com/observability-upgrade/observability-upgrade/internal/service/systemd"
	"github.com/observability-upgrade/observability-upgrade/internal/state"
	"github.com/observability-upgrade/observability-upgrade/internal/upstream"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// Options are what a front end gives.
type Options struct {
	Root     layout.Root
	Env      func(string) string
	Logger   *slog.Logger
	Progress artifact.Progress // downloads; may be nil
	Events   func(run.Event)   // steps of a run; may be nil
	Notice   func(string)      // things a person should know; may be nil
	Tracer   Tracer            // may be nil
	Build    string            // this program's version
	Here     bool              // leave out instances on other hosts
	Program  string            // path of this program, which delivers notifications in a process of its own; may be empty
	ExitCode func(error) int   // what the audit log gives as the exit code; may be nil
	Guard    hostfs.Guard      // fault injection in tests; nil otherwise
	Now      func() time.Time  // time.Now when nil
	// Window judges the maintenance windows for the pre-flight checks; nil leaves
	// them out. See preflight.Input.
	Window func(ctx context.Context) component.Check
	Needs  Needs
}

// Needs is what a command cannot do without of the configuration.
type Needs int

// What commands need.
const (
	// Everything: any mistake in any file is an error that wraps ErrConfig.
	Everything Needs = iota
	// Local is for going back, which asks nothing of the network: what the policy
	// says of upstream and of alerts is not read, nor the secrets in it.
	Local
	// Little is for looking: what holds is used, and the rest is told as a notice.
	Little
	// Show is for a service that shows what there is, maybe as a user without rights:
	// only Overview and Conditions are asked. What only acts is not read, nor the
	// secrets in it: upstream, alerts, hooks, notifications.
	Show
	// Journal is for recovery, which has all it must know in the journal: as Little,
	// and a health check whose secret cannot be had is left undecided.
	Journal
)

// Stack is opened once per command. It is not safe for concurrent use.
type Stack struct {
	Options
	Policy    *config.Policy
	Matrix    *config.Matrix
	Catalogue *catalogue.Catalogue

	services service.Manager
	upstream *upstream.Client
	http     *http.Client
	host     *hostfs.Host
	prober   *health.Prober
	now      func() time.Time
	log      *runlog.Writer
	tell     *teller
	totals   totals
	versions *filecache.Cache[string] // of installed programs

	holdsLock  bool                     // while Mutate runs
	surveys    map[string]backup.Survey // of data directories, as they were first looked at
	neighbours []*inventory.Installed   // what is installed, as far as it was looked for
	salvaged   bool                     // the policy could not be read whole
	cacheBad   bool                     // it was told that the cache is not used
	gapsTold   bool                     // it was told what the sandbox for new programs lacks
}

// Open reads the configuration and connects to the service manager. Errors in
// configuration wrap ErrConfig; nothing is written.
func Open(ctx context.Context, o Options) (*Stack, error) {
	s := &Stack{Options: o, now: o.Now, host: &hostfs.Host{Guard: o.Guard}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Notice == nil {
		s.Notice = func(string) {}
	}
	if s.Tracer == nil {
		s.Tracer = untraced{}
	}
	if err := s.readConfig(); err != nil {
		return nil, err
	}
	for _, e := range misnamed(s.Root) {
		s.Notice(e.String())
	}
	s.log = runlog.NewWriter(o.Root, s.Logger)
	if o.Needs == Show {
		return s, nil
	}
	s.http = &http.Client{Transport: newTransport()}
	var err error
	if s.services, err = s.openServices(ctx); err != nil {
		return nil, err
	}
	remembered := ""
	if s.trustCache() == nil {
		remembered = filepath.Join(s.Root.Cache(), "versions.json")
	}
	s.versions = filecache.Open[string](remembered, "", s.now, s.Logger)
	s.prober = &health.Prober{
		Services: s.services, Logger: s.Logger, Expand: config.Expander(o.Root, o.Env), Exec: artifact.RunTool,
		SpareSecrets: o.Needs == Journal,
	}
	return s, nil
}

// readConfig reads as much of the configuration as the command needs.
func (s *Stack) readConfig() error {
	if s.Needs == Little || s.Needs == Journal {
		s.salvageConfig()
		if err := s.openNotifications(); err != nil {
			s.Notice(fmt.Sprintf("nobody is notified of this: %v", err))
			s.notifyWith(&config.Notifications{File: s.Root.Notifications()})
		}
		return nil
	}
	var unread []string
	switch s.Needs {
	case Local:
		unread = []string{"upstream", "alert_gate"}
	case Show:
		unread = []string{"upstream", "alert_gate", "hooks", "vulnerabilities"}
	}
	var errs [5]error
	s.Policy, errs[0] = config.LoadPolicy(s.Root, s.Env, unread...)
	s.Matrix, errs[1] = config.LoadMatrix(s.Root)
	s.Catalogue, errs[2] = catalogue.Load(s.Root.ComponentsDir())
	if s.Needs != Show {
		errs[3] = s.openNotifications()
		errs[4] = yamlfile.CheckSecure(s.Root.Environment()) // the units read it
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	s.Matrix.Add(config.Knowledge())
	if err := config.CheckConflicts(s.Policy, s.Matrix); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if wrong, _ := config.Cross(s.Policy, s.Matrix, s.Catalogue.Names()); len(wrong) > 0 {
		return fmt.Errorf("%w: %w", ErrConfig, wrong)
	}
	return nil
}

// salvageConfig goes on with what holds of the configuration. Which service
// manager an interrupted run used is in its journal.
func (s *Stack) salvageConfig() {
	tell := func(err error, what string) {
		if err != nil {
			s.Notice(fmt.Sprintf("%v; this command goes on %s; observability-upgrade config validate", err, what))
		}
	}
	var err error
	s.Policy, err = config.SalvagePolicy(s.Root, s.Env)
	tell(err, "with the defaults for what is wrong there")
	s.salvaged = err != nil
	if s.Matrix, err = config.LoadMatrix(s.Root); err != nil {
		s.Matrix = &config.Matrix{File: s.Root.Matrix()}
		tell(err, "without it")
	}
	s.Matrix.Add(config.Knowledge())
	s.Catalogue, err = catalogue.Salvage(s.Root.ComponentsDir())
	tell(err, "without the components that are defined wrongly")
	if !s.salvaged || s.Policy.ServiceManager != "auto" {
		return
	}
	if in, err := run.FindInterrupted(s.Root.JournalDir()); err == nil && in != nil && in.Manager != "" {
		s.Policy.ServiceManager = in.Manager
	}
}

// ask is the upstream client. refresh makes it ask even when its last answer is
// recent.
func (s *Stack) ask(refresh bool) *upstream.Client {
	u := s.Policy.Upstream
	return upstream.New(upstream.Options{
		GitHubURL: u.GitHub.APIURL, GitHubToken: string(u.GitHub.Token),
		GitLabURL: u.GitLab.APIURL, GitLabToken: string(u.GitLab.Token), GrafanaURL: u.Grafana.APIURL,
		CacheDir: s.cacheDir(), TTL: u.CacheTTL.Std(), Refresh: refresh, Concurrency: u.Concurrency,
		HTTP: s.http, Logger: s.Logger, Root: s.Root.Prefix(), UserAgent: "observability-upgrade/" + s.Build,
	})
}

func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 60 * time.Second
	// Of a mirror that speaks HTTP/1.1 so many things are asked at a time.
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost = 8, 8
	t.MaxResponseHeaderBytes = 1 << 20 // of one answer; the default is 10 MiB
	return t
}

// Close releases the connection to the service manager.
func (s *Stack) Close() error {
	s.log.Close()
	if s.services == nil {
		return nil // Show
	}
	return s.services.Close()
}

// report hands an event of a run to all who look on.
func (s *Stack) report(ev run.Event) {
	s.log.Event(ev)
	s.tell.event(ev)
	s.Tracer.Event(ev)
	if s.Events != nil {
		s.Events(ev)
	}
}

func (s *Stack) openServices(ctx context.Context) (service.Manager, error) {
	kind := s.Policy.ServiceManager
	if kind == "auto" {
		kind = "process"
		if _, err := os.Stat("/run/systemd/system"); err == nil && s.Root.IsHost() {
			kind = "systemd"
		}
	}
	if kind == "systemd" {
		m, err := systemd.New(ctx, systemd.Options{Logger: s.Logger})
		if err != nil {
			return nil, fmt.Errorf("connect to systemd: %w; on a host without it set service_manager: process in %s", err, s.Root.Policy())
		}
		return m, nil
	}
	return process.New(process.Options{Dir: s.Root.ProcessDir(), LogDir: s.Root.LogDir(), Logger: s.Logger}), nil
}

// Components returns the named components, or all, and a UsageError for a name
// that the catalogue does not have.
func (s *Stack) Components(names []string) ([]*component.Component, error) {
	if len(names) == 0 {
		return s.Catalogue.All(), nil
	}
	var out []*component.Component
	seen := map[string]bool{}
	for _, n := range names {
		c, ok := s.Catalogue.Get(n)
		if !ok {
			e := &UsageError{Message: fmt.Sprintf("unknown component %q", n), Hint: "observability-upgrade components list"}
			if near := s.Catalogue.Suggest(n); near != "" {
				e.Message += fmt.Sprintf("; did you mean %q?", near)
			}
			return nil, e
		}
		if !seen[n] {
			out = append(out, c)
		}
		seen[n] = true
	}
	return out, nil
}

// State reads the state file for looking at: a missing one is empty, and of one
// that cannot be read nothing is known, which is reported and left as it is.
func (s *Stack) State() (*state.File, error) {
	f, err := state.Load(s.Root.State())
	var corrupt *state.CorruptError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state.New(), nil
	case errors.As(err, &corrupt):
		s.Notice(fmt.Sprintf("%v; the next apply, rollback, recover or adopt moves it aside and rebuilds it from what is installed", err))
		return state.New(), nil
	}
	return f, err
}

// Inventory finds what is installed, of all components or of those named.
func (s *Stack) Inventory(ctx context.Context, comps []*component.Component) ([]*inventory.Installed, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	if !s.holdsLock { // a run that finds nothing to do changes no file
		defer s.versions.Save()
	}
	return s.finder().Find(ctx, comps, st.Components)
}

// probe asks a program for its version, or remembers what it told: programs are
// large, and asking 40 of them takes longer than asking upstream.
func (s *Stack) probe(ctx context.Context, path string, v component.VersionProbe) (component.Version, error) {
	path = filepath.Join(path, v.Path)
	text, err := s.versions.Get(path, fmt.Sprintf("%q %q", v.Args, v.Regexp), func() (string, bool, error) {
		ver, _, err := artifact.Probe(ctx, artifact.ProbeSpec{Path: path, Args: v.Args, Regexp: v.Regexp, Installed: true})
		return ver.String(), isELF(path), err
	})
	if err != nil {
		return component.Version{}, untold(path, v.Args, err)
	}
	return component.ParseVersion(text)
}

// isELF reports whether a file is a program itself. A script may start another file
// and tell that one's version, which can change while the script does not.
func isELF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == elf.ELFMAG
}

// Mutate runs do under the lock, after recovering what an interrupted run left
// behind, and writes the outcome to the audit log.
func (s *Stack) Mutate(ctx context.Context, command string, args []string, do func(ctx context.Context) (string, error)) error {
	return s.traced(ctx, command, func(ctx context.Context) error { return s.underLock(ctx, command, args, do) })
}

func (s *Stack) underLock(ctx context.Context, command string, args []string, do func(ctx context.Context) (string, error)) error {
	l, err := lock.Acquire(s.Root.Lock(), "observability-upgrade "+command)
	if err != nil {
		s.audit(audit.Entry{Command: command, Args: args}, err)
		return err
	}
	defer l.Release()
	s.holdsLock = true
	defer func() { s.holdsLock = false }()
	if err := artifact.ClearProbes(s.now()); err != nil {
		s.Logger.Debug("left-overs of killed probes are not removed", "error", err)
	}
	id := ""
	if command != "recover" {
		err = s.recoverFirst(ctx)
	}
	if err == nil {
		// A state file that cannot be read is rebuilt before anything is decided.
		_, err = s.books().State(ctx)
	}
	if err == nil {
		id, err = do(ctx)
	}
	s.recordBackups()
	s.writeTextfile()
	s.audit(audit.Entry{Command: command, Args: args, RunID: id}, err)
	return err
}

// audit writes how a command ended to the audit log.
func (s *Stack) audit(entry audit.Entry, err error) {
	entry.Outcome = "ok"
	if err != nil {
		entry.Outcome, entry.Detail, entry.ExitCode = "error", err.Error(), s.exitCode(err)
		if entry.ExitCode == 0 {
			entry.Outcome = "cancelled" // somebody said no
		}
	}
	log := audit.New(s.host, s.Root.Audit())
	if auditErr := log.Write(entry); auditErr != nil && !errors.Is(auditErr, hostfs.ErrCrashed) {
		s.Notice(auditErr.Error())
	}
}

// recoverFirst finishes an interrupted run before anything new begins.
func (s *Stack) recoverFirst(ctx context.Context) error {
	results, err := s.Recover(ctx)
	for _, r := range results {
		s.Notice(fmt.Sprintf("run %s had been interrupted; it was recovered first: %s", r.ID, Summary(r)))
	}
	return err
}

// Summary tells in one line what became of each component of a run.
func Summary(r run.Result) string {
	msg := ""
	for i, o := range r.Components {
		if o.Instance != "" {
			o.Name += "@" + o.Instance
		}
		if i > 0 {
			msg += ", "
		}
		switch o.Status {
		case run.Upgraded:
			msg += fmt.Sprintf("%s is at %s", o.Name, o.To)
		case run.Failed:
			switch {
			case r.Operation == run.Restart && o.Healthy:
				msg += o.Name + " was started again"
				continue
			case r.Operation == run.Rollback && o.Healthy:
				msg += fmt.Sprintf("%s is back at %s: its rollback to %s was undone", o.Name, o.From, o.To)
				continue
			}
			msg += fmt.Sprintf("%s: %s", o.Name, o.Status)
		case run.RolledBack:
			v := o.From
			if r.Operation == run.Rollback {
				v = o.To
			}
			msg += fmt.Sprintf("%s is back at %s", o.Name, v)
		case run.NotAttempted:
			msg += fmt.Sprintf("%s was not touched", o.Name)
		default:
			msg += fmt.Sprintf("%s: %s", o.Name, o.Status)
		}
	}
	if msg == "" {
		msg = "nothing had been touched"
	}
	return msg
}

// Recover finishes interrupted runs; the caller holds the lock. Results are
// those of the runs recovered. A journal that somebody else could have planted is
// a RefusedError.
func (s *Stack) Recover(ctx context.Context) ([]run.Result, error) {
	if err := s.trustJournal(); err != nil {
		return nil, err
	}
	results, err := s.engine().Recover(ctx)
	for i := range results {
		r := &results[i]
		if r.Operation == run.Apply {
			s.hooksAfter(ctx, hook{trigger: r.Trigger}, r)
		}
		s.tell.ended(*r, err)
	}
	return results, err
}

func (s *Stack) engine() *run.Engine {
	t := s.Policy.Timeouts
	return &run.Engine{
		Root: s.Root, Host: s.host, Services: s.services, Prober: s.prober,
		Recorder: s.books(),
		Timeouts: run.Timeouts{Stop: t.Stop.Std(), Start: t.Start.Std(), Health: t.Health.Std()},
		Now:      s.now, Logger: s.Logger, Report: s.report, Build: s.Build, Manager: s.services.Kind(),
		Balancer: s.openBalancer, Remote: runRemote,
	}
}

func (s *Stack) books() *run.Books {
	keep := s.Policy.Retention
	b := &run.Books{Root: s.Root, Host: s.host, Now: s.now, Retain: keep.Backups, RetainRuns: keep.Runs, Rebuild: s.rebuildState, Notice: s.Notice}
	if s.salvaged {
		b.Retain, b.RetainRuns = 0, 0 // nobody knows how many are to be kept
	}
	return b
}

// Services is the service manager in use.
func (s *Stack) Services() service.Manager { return s.services }

// DiscardDamaged moves journals that cannot be read aside and returns where
// they are now; the caller holds the lock.
func (s *Stack) DiscardDamaged() ([]string, error) {
	paths, err := journal.Pending(s.Root.JournalDir())
	if err != nil {
		return nil, err
	}
	var moved []string
	for _, p := range paths {
		var damaged *journal.DamagedError
		if _, err := journal.Read(p); !errors.As(err, &damaged) {
			continue
		}
		to, err := s.engine().DiscardDamaged(p)
		if err != nil {
			return moved, err
		}
		moved = append(moved, to)
	}
	return moved, nil
}
