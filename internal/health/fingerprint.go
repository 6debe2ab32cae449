package health

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Fingerprint is what a component answered to the tests that recognise its
// data, at one moment. Readiness is green on an empty store too: only answers
// tell whether the history is still there.
type Fingerprint struct {
	At     time.Time `json:"at"` // the moment PromQL queries are evaluated at, before and after
	Values []Value   `json:"values"`
}

// Value is the answer to one test.
type Value struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	// Missing says why there is none; such a test is not compared.
	Missing string `json:"missing,omitempty"`

	spared bool // it is missing for want of a secret
	silent bool // it is missing for want of any answer
}

// Known counts the values there are.
func (f Fingerprint) Known() int {
	n := 0
	for _, v := range f.Values {
		if v.Missing == "" {
			n++
		}
	}
	return n
}

// Missing joins what could not be read, for people; "" when nothing.
func (f Fingerprint) Missing() string {
	var parts []string
	for _, v := range f.Values {
		if v.Missing != "" {
			parts = append(parts, v.Name+": "+v.Missing)
		}
	}
	return strings.Join(parts, "; ")
}

// Fingerprint takes the answers now. at is the moment that queries are
// evaluated at, so that the same question can be asked again later.
func (p *Prober) Fingerprint(ctx context.Context, client component.Client, tests []component.Test, at time.Time) Fingerprint {
	f := Fingerprint{At: at}
	for _, t := range tests {
		o := p.Test(ctx, client, t, at)
		v := Value{Name: t.Name, Value: o.Value}
		switch {
		case o.Status != OK:
			v = Value{Name: t.Name, Missing: o.Detail, spared: o.secret, silent: o.silent}
		case t.HTTP != nil && t.HTTP.JSON != "" && o.Value == "null": // the answer has no such part
			v = Value{Name: t.Name, Missing: fmt.Sprintf("%s is null in the answer of %s", t.HTTP.JSON, t.HTTP.URL)}
		}
		f.Values = append(f.Values, v)
	}
	return f
}

// LostDataError says that a component is up but does not answer as it did.
type LostDataError struct {
	Component   string
	Differences []Difference
}

// Difference is one answer that is not as it was.
type Difference struct {
	Name, Before, After string
}

func (e *LostDataError) Error() string {
	var parts []string
	for _, d := range e.Differences {
		parts = append(parts, fmt.Sprintf("%s was %s, is %s", d.Name, d.Before, d.After))
	}
	return fmt.Sprintf("%s answers, but not as before: %s", e.Component, strings.Join(parts, "; "))
}

// SilentError says that a component is up and does not tell whether it answers as
// it did: what it was asked it does not answer, and nothing that it answers differs.
type SilentError struct {
	Component string
	Missing   string // what was asked in vain, and how it ended
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("%s does not tell whether it answers as before: %s", e.Component, e.Missing)
}

// Compare takes the answers again, at the same moment, until they are as they
// were or wait is over, and returns what differs. A store may need a while after
// it is ready to show all it has. One that gives no answer, as its caches are cold,
// gets as long as a functional test; then the error is a SilentError, as no answer is
// none that differs.
func (p *Prober) Compare(ctx context.Context, client component.Client, tests []component.Test, before Fingerprint, wait time.Duration) ([]Difference, error) {
	deadline := time.Now().Add(wait)
	patience := time.Now().Add(max(wait, p.patience()))
	poll := newPoll()
	defer poll.stop()
	for {
		after := p.Fingerprint(ctx, client, tests, before.At)
		diff, silent, now := Differences(tests, before, after), silence(before, after), time.Now()
		switch {
		case ctx.Err() != nil, len(diff) == 0 && silent == "", len(diff) > 0 && now.After(deadline):
			return diff, ctx.Err()
		case len(diff) > 0:
		case now.After(patience):
			return nil, &SilentError{Missing: silent}
		default:
			deadline = now.Add(wait) // it has shown nothing yet
		}
		if err := poll.wait(ctx); err != nil {
			return diff, err
		}
	}
}

// silence joins what was known before and had no answer after, for people; "" when
// nothing.
func silence(before, after Fingerprint) string {
	known := map[string]bool{}
	for _, v := range before.Values {
		known[v.Name] = v.Missing == ""
	}
	var f Fingerprint
	for _, v := range after.Values {
		if v.silent && known[v.Name] {
			f.Values = append(f.Values, v)
		}
	}
	return f.Missing()
}

// Differences compares two fingerprints by the rules of their tests. A value
// that was not known before is not compared; one that is no longer known is a
// difference, unless there was no answer at all, or it could not be asked for want of
// a secret that this prober spares.
func Differences(tests []component.Test, before, after Fingerprint) []Difference {
	rule := map[string]string{}
	for _, t := range tests {
		rule[t.Name] = t.Compare
	}
	now := map[string]Value{}
	for _, v := range after.Values {
		now[v.Name] = v
	}
	var out []Difference
	for _, was := range before.Values {
		is, asked := now[was.Name]
		if was.Missing != "" || !asked || is.spared || is.silent {
			continue
		}
		switch {
		case is.Missing != "":
			out = append(out, Difference{was.Name, was.Value, "not known: " + is.Missing})
		case !same(rule[was.Name], was.Value, is.Value):
			out = append(out, Difference{was.Name, was.Value, is.Value})
		}
	}
	return out
}

func same(rule, before, after string) bool {
	if before == after {
		return true
	}
	b, errB := strconv.ParseFloat(before, 64)
	a, errA := strconv.ParseFloat(after, 64)
	if errA != nil || errB != nil {
		return false
	}
	if rule == "some" {
		return a > 0 || b <= 0
	}
	// Sums of floating-point samples depend on the order they are read in.
	return rule == "at_least" && a > b || abs(a-b) <= 1e-9*max(abs(a), abs(b))
}

func abs(f float64) float64 { return max(f, -f) }
