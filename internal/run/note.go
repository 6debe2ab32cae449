package run

import (
	"context"

	"github.com/observability-upgrade/observability-upgrade/internal/health"
)

// note is what the journal has besides Header and Change.
type note struct {
	Component string   `json:"component,omitempty"`
	Instance  string   `json:"instance,omitempty"`
	To        string   `json:"to,omitempty"` // the change's: a component may have several
	Reason    string   `json:"reason,omitempty"`
	Started   bool     `json:"started,omitempty"` // with Reason: what is undone was started
	Outcome   *Outcome `json:"outcome,omitempty"`
	Status    string   `json:"status,omitempty"`

	Fingerprint *health.Fingerprint `json:"fingerprint,omitempty"`
	Was         *health.Fingerprint `json:"was,omitempty"`
}

// of reports whether a record is one of a change. Those of earlier versions of this
// program do not tell its version.
func (n *note) of(ch *Change) bool {
	return ch.Component == n.Component && ch.Instance == n.Instance && (n.To == "" || n.To == ch.To.String())
}

func (r *running) note(step Step, data any) error { return r.journal.Append(string(step), data) }

// noteOf journals a step of a change.
func (r *running) noteOf(ch Change, step Step, n note) error {
	n.Component, n.Instance, n.To = ch.Component, ch.Instance, ch.To.String()
	return r.note(step, n)
}

// intend writes down, synced, what is about to be done.
func (r *running) intend(ctx context.Context, ch Change, st Step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.noteOf(ch, st, note{})
}
