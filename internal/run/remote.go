package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/backup"
	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/health"
)

// remoteLimit bounds what an instance's own host does: it has its own timeouts.
const remoteLimit = 2 * time.Hour

// prober probes an instance; of one on another host only what it answers.
func (r *running) prober(ch Change) *health.Prober {
	if !ch.remote() {
		return r.Prober
	}
	p := *r.Prober
	p.Services = nil
	return &p
}

// remoteResult is what this program prints on another host.
type remoteResult struct {
	Status     string    `json:"status"`
	Error      ErrorText `json:"error"`
	Components []struct {
		Name, Status, Error, To string
	} `json:"components"`
}

// ErrorText reads the "error" of any document that this program prints: a text in
// the result of a run, {code, hint, message} where there was none.
type ErrorText string

// UnmarshalJSON reads either form.
func (e *ErrorText) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*e = ErrorText(text)
		return nil
	}
	var doc struct {
		Message string `json:"message"`
	}
	err := json.Unmarshal(data, &doc)
	*e = ErrorText(doc.Message)
	return err
}

// RemoteArgs are the words that run this program on an instance's host: before is
// the command of its definition. What it does there it does there alone, and never
// asks this host in its turn: instances may know of each other.
func RemoteArgs(before []string, args ...string) []string {
	return append(append(slices.Clone(before), args...), "--here", "--output=json")
}

// ask runs this program on an instance's host.
func (r *running) ask(ctx context.Context, ch Change, out any, args ...string) error {
	words := RemoteArgs(ch.Rolling.Remote, args...)
	text, err := r.Remote(ctx, words, remoteLimit)
	if jsonErr := json.Unmarshal([]byte(text), out); jsonErr != nil {
		return fmt.Errorf("`%s`: expected one JSON document, found %.200q: %w", strings.Join(words, " "), text, errors.Join(err, jsonErr))
	}
	return nil // a refusal or a failure is in the document
}

// away brings an instance on another host to a version: the program there
// downloads, verifies, backs up, swaps, proves, and rolls back by itself.
func (r *running) away(ctx context.Context, ch Change) error {
	return r.step(ctx, ch, StepRemote, func() (string, error) {
		if err := r.Host.Check("remote.apply", ch.Set()); err != nil {
			return "", err
		}
		var res remoteResult
		if err := r.ask(ctx, ch, &res, ch.Rolling.Args...); err != nil {
			return "", err
		}
		if res.Status != StatusSuccess && res.Status != StatusNothingToDo {
			return "", fmt.Errorf("its own host reports %s: %s", res.Status, res.reason(ch.Component))
		}
		return fmt.Sprintf("its own host reports %s", res.Status), nil
	})
}

func (res *remoteResult) reason(name string) string {
	for _, c := range res.Components {
		if c.Name == name && c.Error != "" {
			return c.Error
		}
	}
	return string(res.Error)
}

// restoreAway brings an instance on another host back: what was interrupted there
// is recovered, and a version that went in is rolled back.
func (r *running) restoreAway(ctx context.Context, ch Change, ready func(time.Time)) (bool, error) {
	if err := r.Host.Check("remote.recover", ch.Set()); err != nil {
		return false, err
	}
	var ignored any
	if err := r.ask(ctx, ch, &ignored, "recover"); err != nil {
		return false, err
	}
	var status struct {
		Components []struct{ Name, Current string } `json:"components"`
	}
	if err := r.ask(ctx, ch, &status, "status"); err != nil {
		return false, err
	}
	for _, c := range status.Components {
		if c.Name != ch.Component {
			continue
		}
		at, err := component.ParseVersion(c.Current)
		if err != nil {
			return false, fmt.Errorf("its own host says that it is at %q: %w", c.Current, err)
		}
		if !at.SameRelease(ch.From) {
			stamp, err := BackupOf(func(doc any, args ...string) error { return r.ask(ctx, ch, doc, args...) }, ch.Component, ch.From)
			if err != nil {
				return false, err
			}
			var res remoteResult
			if err := r.ask(ctx, ch, &res, "rollback", "--to="+stamp, "--yes", "--component="+ch.Component); err != nil {
				return false, err
			}
			if res.Status != StatusSuccess {
				return false, fmt.Errorf("the rollback on its own host reports %s: %s", res.Status, res.reason(ch.Component))
			}
		}
		_, err = r.prove(ctx, ch, ch.From.String(), ready)
		return true, err
	}
	return false, fmt.Errorf("its own host knows of no %s", ch.Component)
}

// BackupOf asks the program on another host for the newest backup point that holds
// a component at a version: points have other names there than here.
func BackupOf(ask func(doc any, args ...string) error, name string, v component.Version) (string, error) {
	var list struct {
		Backups []struct {
			Timestamp  string
			Complete   bool
			Components []struct{ Name, Version string }
		}
		Error ErrorText
	}
	if err := ask(&list, "rollback", "--list"); err != nil {
		return "", err
	}
	var have []string
	for _, b := range list.Backups {
		for _, c := range b.Components {
			at, err := component.ParseVersion(c.Version)
			if c.Name != name || err != nil || !b.Complete || !backup.IsStamp(b.Timestamp) {
				continue // what is no name of a point would mean something else in a command
			}
			if at.SameRelease(v) {
				return b.Timestamp, nil
			}
			have = append(have, c.Version)
		}
	}
	found := "none of it"
	if list.Error != "" {
		found = string(list.Error)
	} else if len(have) > 0 {
		found = strings.Join(slices.Compact(have), ", ")
	}
	return "", fmt.Errorf("expected a backup of %s %s on its host, found %s", name, v, found)
}
