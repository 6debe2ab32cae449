package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/journal"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/lock"
	"github.com/observability-upgrade/observability-upgrade/internal/notify"
	"github.com/observability-upgrade/observability-upgrade/internal/run"
	"github.com/observability-upgrade/observability-upgrade/internal/stack"
	"github.com/observability-upgrade/observability-upgrade/internal/vulnerability"
)

// The exit codes of the contract.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitUpdates     = 3
	exitRefused     = 4
	exitRolledBack  = 5
	exitRollback    = 6
	exitLocked      = 7
	exitWindow      = 8
	exitUpstream    = 9
	exitInterrupted = 130
)

// ExitCode is one of the codes with which commands end, and what it says.
type ExitCode struct {
	Code    int
	Meaning string
}

// ExitCodes are all of them, in order, for manuals.
func ExitCodes() []ExitCode {
	return []ExitCode{
		{exitOK, "Done, or nothing to do."},
		{exitError, "An error that no other code is for; verify: something is not healthy."},
		{exitUsage, "Wrong usage or bad configuration; nothing was touched."},
		{exitUpdates, "check --exit-code: updates are available."},
		{exitRefused, "Refused before anything was touched: by the planner, a pre-flight check, the download, the verification, the probe or the check of the configuration."},
		{exitRolledBack, "An upgrade failed, and every component it touched was rolled back and is healthy."},
		{exitRollback, "A rollback failed: a person is needed."},
		{exitLocked, "Another run holds the lock."},
		{exitWindow, "Outside the maintenance window (--auto only)."},
		{exitUpstream, "No upstream could be asked."},
		{exitInterrupted, "Interrupted by a signal; the component at work was rolled back."},
	}
}

// codeError ends a command with an exit code after it has printed its own
// result; nothing more is printed for it.
type codeError struct{ code int }

func (e codeError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// resultError carries a run's result to its exit code.
type resultError struct {
	result run.Result
	err    error
}

func (e *resultError) Error() string {
	switch e.result.Status {
	case run.StatusInterrupted, run.StatusCancelled:
		return plain(e.err.Error())
	}
	return e.err.Error()
}

// plain says in words what the libraries call a cancelled context: there is one
// only after a signal.
func plain(msg string) string {
	return strings.ReplaceAll(msg, context.Canceled.Error(), "interrupted by a signal")
}

func (e *resultError) Unwrap() error { return e.err }

// exit maps an error to the exit code and prints it with what to do next.
func (g *global) exit(ctx context.Context, err error) int {
	var code codeError
	if errors.As(err, &code) {
		return code.code
	}
	if err == nil {
		return exitOK
	}
	n, hint := judge(ctx, err)
	hint = g.typed(hint)
	msg := err.Error()
	if ctx.Err() != nil {
		msg = plain(msg)
	}
	if g.logger == nil { // a mistake in the flags came first
		_ = g.startLog() // it is the flags' mistake that is told
	}
	if g.records {
		g.logger.Error(msg, "hint", hint, "exit_code", n)
	}
	var res *resultError
	if g.json() {
		if errors.As(err, &res) {
			return n // the result document was printed and holds the errors
		}
		doc := struct {
			Error *errorDocument `json:"error"`
		}{&errorDocument{Code: n, Message: msg, Hint: hint}}
		enc := json.NewEncoder(g.Out)
		enc.SetEscapeHTML(false)
		if enc.Encode(doc) == nil {
			return n
		}
		// Nobody reads it there: as without JSON.
	}
	if g.records {
		return n
	}
	fmt.Fprintf(g.Err, "error: %s\n", quoted(msg))
	if hint != "" {
		fmt.Fprintf(g.Err, "next:  %s\n", hint)
	}
	return n
}

// errorDocument is an error in JSON mode.
type errorDocument struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

func (g *global) errorOf(ctx context.Context, err error) *errorDocument {
	code, hint := judge(ctx, err)
	return &errorDocument{Code: code, Message: err.Error(), Hint: g.typed(hint)}
}

// typed is a text whose commands act where this one did.
func (g *global) typed(text string) string { return layout.Root(g.root).Typed(text) }

// judge is classify, with what to type first where a file system is the cause.
func judge(ctx context.Context, err error) (code int, hint string) {
	code, hint = classify(ctx, err)
	return code, stack.FirstMend(err, hint, code == exitRollback)
}

// classify is the one place that turns an error into an exit code and a hint.
func classify(ctx context.Context, err error) (code int, hint string) {
	var (
		usage    *stack.UsageError
		refused  *stack.RefusedError
		unknown  *stack.UpstreamUnknownError
		held     *lock.HeldError
		unsafe   *lock.UnsafeError
		planted  *notify.UnsafeError
		rollback *run.RollbackError
		stopped  *run.NotStartedError
		result   *resultError
		missing  *backup.NotFoundError
		damaged  *journal.DamagedError
		newer    *run.NewerError
		window   *stack.WindowError
		away     *vulnerability.UnreachableError
		lying    *vulnerability.LyingError
		cutOff   *stack.CutOffError
	)
	switch {
	case errors.As(err, &usage):
		return exitUsage, usage.Hint
	case errors.Is(err, stack.ErrConfig):
		return exitUsage, stack.Next(run.Result{}, err)
	case errors.As(err, &window):
		return exitWindow, "nothing was touched; a run by hand is not bound by the windows: observability-upgrade apply"
	case errors.As(err, &missing):
		return exitUsage, "observability-upgrade rollback --list"
	case errors.As(err, &held):
		return exitLocked, fmt.Sprintf("wait for process %d to end; `observability-upgrade status` shows it", held.PID)
	case errors.As(err, &unsafe), errors.As(err, &planted):
		return exitRefused, "do what the message says and run the same command again"
	case errors.As(err, &stopped), errors.As(err, &rollback):
		return exitRollback, stack.Next(run.Result{}, err)
	case errors.As(err, &damaged):
		return exitError, "observability-upgrade recover --discard-damaged keeps the file aside; check every component with observability-upgrade verify first"
	case errors.As(err, &newer):
		return exitError, "install that version of observability-upgrade again, then: observability-upgrade recover"
	case errors.As(err, &result):
		return resultCode(ctx, result)
	case errors.As(err, &refused):
		return exitRefused, refused.Next
	case errors.As(err, &unknown):
		return exitUpstream, stack.Next(run.Result{}, err)
	case errors.As(err, &away):
		return exitUpstream, "check the network and vulnerabilities in the policy; what is here stays in use: observability-upgrade vulnerabilities"
	case errors.As(err, &lying):
		return exitError, "observability-upgrade vulnerabilities --refresh, later; then look at the source that the message names"
	case errors.As(err, &cutOff):
		return exitInterrupted, "observability-upgrade status; run the same command again to go on"
	case errors.Is(err, errCancelled) && ctx.Err() == nil:
		return exitOK, ""
	case ctx.Err() != nil:
		return exitInterrupted, "nothing was touched; run the same command again"
	}
	return exitError, "observability-upgrade status"
}

func resultCode(ctx context.Context, e *resultError) (int, string) {
	hint := stack.Next(e.result, e.err)
	switch e.result.Status {
	case run.StatusRollbackFail:
		return exitRollback, hint
	case run.StatusInterrupted, run.StatusCancelled:
		return exitInterrupted, hint
	case run.StatusRolledBack:
		return exitRolledBack, hint
	}
	if ctx.Err() != nil {
		return exitInterrupted, "run the same command again"
	}
	if stack.PartlyDone(e.result) {
		return exitRolledBack, hint
	}
	if e.result.Status == run.StatusFailed || errors.As(e.err, new(*stack.RefusedError)) {
		return exitRefused, hint
	}
	return exitError, hint
}
