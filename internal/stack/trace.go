package stack

import (
	"context"
	"errors"
	"log/slog"

	"github.com/observability-upgrade/observability-upgrade/internal/run"
)

// Tracer makes a trace of what a command does. Each method that begins something
// returns a context for what is within it, and a function that ends it with what
// became of it. None of them waits for anything.
type Tracer interface {
	// Command begins a command.
	Command(ctx context.Context, name string) (context.Context, func(error, ...slog.Attr))
	// Span begins a part of the command that ctx is of; elsewhere it does nothing.
	Span(ctx context.Context, name string, attrs ...slog.Attr) (context.Context, func(error, ...slog.Attr))
	// Event is told the steps of a run.
	Event(ev run.Event)
}

// untraced is a Tracer that does nothing.
type untraced struct{}

// Command implements Tracer.
func (untraced) Command(ctx context.Context, _ string) (context.Context, func(error, ...slog.Attr)) {
	return ctx, func(error, ...slog.Attr) {}
}

// Span implements Tracer.
func (untraced) Span(ctx context.Context, _ string, _ ...slog.Attr) (context.Context, func(error, ...slog.Attr)) {
	return ctx, func(error, ...slog.Attr) {}
}

// Event implements Tracer.
func (untraced) Event(run.Event) {}

// traced does a command as a trace. Each run that `recover` recovers has a trace of
// its own, so that command has none. Outside its maintenance window, and where a
// person said no, nothing went wrong.
func (s *Stack) traced(ctx context.Context, command string, do func(context.Context) error) error {
	if command == "recover" {
		return do(ctx)
	}
	ctx, end := s.Tracer.Command(ctx, command)
	err := do(ctx)
	var outside *WindowError
	if s.exitCode(err) == 0 || errors.As(err, &outside) {
		end(nil)
	} else {
		end(err)
	}
	return err
}

// exitCode is the command's exit code for an error.
func (s *Stack) exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case s.ExitCode != nil:
		return s.ExitCode(err)
	}
	return 1
}
