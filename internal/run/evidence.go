package run

import (
	"context"
	"encoding/json"
	"net/url"
	"path/filepath"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/health"
	"github.com/observability-upgrade/observability-upgrade/internal/hostfs"
	"github.com/observability-upgrade/observability-upgrade/internal/service"
)

// Evidence is what was found of a failed component before it was rolled back:
// afterwards it is gone.
type Evidence struct {
	Component string            `json:"component"`
	Instance  string            `json:"instance,omitempty"`
	From      string            `json:"from"`
	To        string            `json:"to"`
	TakenAt   time.Time         `json:"taken_at"`
	Reason    string            `json:"reason"`
	Status    service.Status    `json:"status"`
	Report    health.Report     `json:"health"`
	Readiness string            `json:"readiness_answer,omitempty"`
	Digests   map[string]string `json:"sha256"`
	Logs      []service.LogLine `json:"logs"`
	Missing   []string          `json:"missing,omitempty"` // what could not be read, and why
}

// logs are the newest lines of all starts of the new version: its manager may have
// started it anew since it failed.
func (r *running) logs(ctx context.Context, ch Change) ([]service.LogLine, error) {
	const limit = 200
	if since, ok := r.starts[ch.key()]; ok {
		if lines, err := r.Services.Logs(ctx, ch.Service, since, limit); err != nil || len(lines) > 0 {
			return lines, err
		}
	}
	return r.Services.Logs(ctx, ch.Service, time.Time{}, limit) // the clock may have been set back
}

// saveEvidence writes the evidence and returns its file; it never stops an
// undo: what cannot be had is named in the file.
func (r *running) saveEvidence(ctx context.Context, ch Change, reason string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	ev := Evidence{
		Component: ch.Component, Instance: ch.Instance, From: ch.From.String(), To: ch.To.String(), TakenAt: r.Now().UTC(), Reason: reason,
		Digests: map[string]string{},
	}
	miss := func(what string, err error) {
		if err != nil {
			ev.Missing = append(ev.Missing, what+": "+err.Error())
		}
	}
	var err error
	if ch.hasService() {
		ev.Status, err = r.Services.Status(ctx, ch.Service)
		miss("status", err)
		ev.Logs, err = r.logs(ctx, ch)
		miss("logs", err)
	}
	if t, err := r.target(ch, ch.To.String()); err == nil {
		ev.Report = r.Prober.Once(ctx, t)
		ev.Readiness = ev.Report.Body
	} else {
		miss("health", err)
	}
	for _, s := range ch.Swaps {
		ev.Digests[s.Path], err = hostfs.Digest(s.Path)
		miss(s.Path, err)
	}
	data, err := json.MarshalIndent(ev, "", "  ")
	if err != nil {
		r.warn("%s: evidence: %v", ch.Set(), err)
		return ""
	}
	// What a directory calls an instance may have a slash in it.
	path := filepath.Join(r.Root.RunsDir(), r.head.ID, "evidence", url.PathEscape(ch.Set())+".json")
	// Who may not read the evidence may read the rest of the run's record.
	err = r.Host.MkdirAll(filepath.Dir(filepath.Dir(path)), 0o755)
	if err == nil {
		err = r.Host.MkdirAll(filepath.Dir(path), 0o750)
	}
	if err != nil {
		r.warn("%s: evidence: %v", ch.Set(), err)
		return ""
	}
	if err := r.Host.WriteFile(path, append(data, '\n'), 0o640); err != nil {
		r.warn("%s: evidence: %v", ch.Set(), err)
		return ""
	}
	return path
}
