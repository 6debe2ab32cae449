package stack

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// ErrConfig marks bad configuration: nothing was touched.
var ErrConfig = errors.New("bad configuration")

// UsageError is a command that cannot be carried out as it was given.
type UsageError struct {
	Message string
	Hint    string
}

func (e *UsageError) Error() string { return e.Message }

// RefusedError says that something was refused before anything on the host was
// touched.
type RefusedError struct {
	Component string
	Check     string // which check refused
	Err       error
	Next      string // command to type next
}

func (e *RefusedError) Error() string {
	var b strings.Builder
	if e.Component != "" {
		fmt.Fprintf(&b, "%s: ", e.Component)
	}
	if e.Check != "" {
		fmt.Fprintf(&b, "%s: ", e.Check)
	}
	b.WriteString(e.Err.Error())
	return b.String()
}

func (e *RefusedError) Unwrap() error { return e.Err }

// notInstalled refuses a component that was named and is not on this host.
func notInstalled(name string) *UsageError {
	return &UsageError{Message: name + " is not installed on this host", Hint: "observability-upgrade components list"}
}

// UpstreamUnknownError says that no upstream could be asked at all.
type UpstreamUnknownError struct{ Errs map[string]error }

func (e *UpstreamUnknownError) Error() string {
	names := slices.Sorted(maps.Keys(e.Errs))
	if len(names) == 0 {
		return noUpstream
	}
	msg := fmt.Sprintf("%s: %s: %v", noUpstream, names[0], e.Errs[names[0]])
	if more := names[1:]; len(more) > 0 {
		msg += "; nor could those of " + strings.Join(more, ", ")
	}
	return msg
}

const noUpstream = "no upstream could be asked, so nothing is known about new releases"

// ChecksError carries the pre-flight checks that refused a run.
type ChecksError struct{ Failed []component.Check }

// Error lists every failure on a line of its own: what was expected, what was
// found and what to type next.
func (e *ChecksError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d failed, and nothing was touched:", len(e.Failed))
	for _, c := range e.Failed {
		b.WriteString("\n  ")
		if c.Component != "" {
			b.WriteString(c.Component + ": ")
		}
		b.WriteString(c.Name + ": " + c.Detail)
		if c.Next != "" {
			b.WriteString("; next: " + c.Next)
		}
	}
	return b.String()
}

// CutOffError says how far a restart came before a signal ended it.
type CutOffError struct {
	Done, Left []string // restarted and healthy; not begun
	Err        error    // what became of the one at work; may be nil
}

func (e *CutOffError) Error() string {
	parts := []string{"interrupted by a signal"}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	if len(e.Done) > 0 {
		parts = append(parts, "restarted: "+strings.Join(e.Done, ", "))
	}
	if len(e.Left) > 0 {
		parts = append(parts, "not begun: "+strings.Join(e.Left, ", "))
	}
	return strings.Join(parts, "; ")
}

// Unwrap is what became of the one at work.
func (e *CutOffError) Unwrap() error { return e.Err }
