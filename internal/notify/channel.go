package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// sender is a channel's way out.
type sender interface {
	// send makes one attempt and returns when it is clear what came of it, or soon
	// after the context has ended. An error that trying again would not mend is
	// marked (permanent); errors may hold secrets, which the caller blots out. It is
	// called for one message at a time, and may be called again for one that was
	// sent.
	send(ctx context.Context, m *message) error
}

// Compile-time checks.
var (
	_ sender = (*email)(nil)
	_ sender = (*slack)(nil)
	_ sender = (*webhook)(nil)
	_ sender = (*service)(nil)
)

// newSender makes the sender of a channel. It touches no network.
func newSender(root layout.Root, ch config.Channel, log *slog.Logger) (sender, error) {
	switch {
	case ch.Email != nil:
		return newEmail(root, *ch.Email, log)
	case ch.Slack != nil:
		return newSlack(*ch.Slack), nil
	case ch.Webhook != nil:
		return newWebhook(root, *ch.Webhook)
	case ch.Shoutrrr != nil:
		return newService(*ch.Shoutrrr)
	}
	return nil, fmt.Errorf("channel %s has no type", ch.Name)
}

// timeoutOf bounds one attempt of a channel.
func timeoutOf(ch config.Channel) time.Duration {
	switch {
	case ch.Email != nil:
		return ch.Email.Timeout.Std()
	case ch.Slack != nil:
		return ch.Slack.Timeout.Std()
	case ch.Webhook != nil:
		return ch.Webhook.Timeout.Std()
	}
	return ch.Shoutrrr.Timeout.Std()
}

// try makes one attempt in the time that the channel has for it. No secret of the
// configuration is in the error.
func try(ctx context.Context, s sender, conf *config.Notifications, ch config.Channel, m *message) error {
	timeout := timeoutOf(ch)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no end after %s (the channel's timeout)", timeout))
	defer cancel()
	return scrub(s.send(ctx, m), conf, ch)
}

// maxReason bounds the text of an error, in bytes.
const maxReason = 600

// scrub blots secrets out of an error. What it wraps is no longer to be had.
func scrub(err error, conf *config.Notifications, ch config.Channel) error {
	if err == nil {
		return nil
	}
	f := classify(err)
	hide := scrubberOf(append(secretsOf(ch), conf.Secrets...)...)
	f.err = errors.New(clip(strings.Join(strings.Fields(hide.text(err.Error())), " "), maxReason))
	return &f
}

// cached is a sender that lives as long as its channel's configuration is the
// same.
type cached struct {
	ch config.Channel
	s  sender
}

// attempt sends a message by its channel as the configuration has it now.
func (w *work) attempt(ctx context.Context, conf *config.Notifications, m *message) error {
	ch, ok := conf.Channel(m.Channel)
	switch {
	case !ok:
		return gone(m, fmt.Errorf("there is no channel %s in %s any more", m.Channel, conf.File))
	case !ch.Enabled:
		return gone(m, fmt.Errorf("channel %s is not enabled in %s any more", m.Channel, conf.File))
	}
	if ch.Unresolved != nil {
		return &unresolvedError{ch.Unresolved}
	}
	s, err := w.sender(ch)
	if err != nil {
		return scrub(err, conf, ch)
	}
	return try(ctx, s, conf, ch, m)
}

// unresolvedError says that a channel cannot be used by this process, as what ${…}
// stands for in it does not exist here. It tells names, and no value.
type unresolvedError struct{ err error }

func (e *unresolvedError) Error() string { return e.err.Error() }

// gone makes it permanent that a message's channel is not configured, where the
// attempt before found the same. Once is not enough: a file that is being written
// is empty or away for a moment, which reads as one without channels.
func gone(m *message, err error) error {
	if m.Attempts > 0 && m.LastError == err.Error() {
		return permanent(err)
	}
	return err
}

func (w *work) sender(ch config.Channel) (sender, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.senders[ch.Name]; ok && reflect.DeepEqual(c.ch, ch) {
		return c.s, nil
	}
	s, err := newSender(w.Root, ch, w.Log)
	if err != nil {
		return nil, err
	}
	w.senders[ch.Name] = cached{ch, s}
	return s, nil
}

// Check tells what is wrong with channels and templates beyond what reading the
// file tells: certificates that cannot be read, addresses that no service takes,
// templates that fail. It touches no network.
func Check(root layout.Root, conf *config.Notifications) yamlfile.Errors {
	errs := CheckTemplates(conf)
	for i, ch := range conf.Channels {
		if !ch.Enabled {
			continue
		}
		if _, err := newSender(root, ch, slog.New(slog.DiscardHandler)); err != nil {
			e := conf.Root.Errorf([]any{"channels", i, "config"}, "%v", scrub(err, conf, ch))
			e.File = conf.File
			errs = append(errs, e)
		}
	}
	return errs
}

// tlsConfig trusts the certificates of a PEM file below root, which nobody else
// may write, or without one those that the system trusts.
func tlsConfig(root layout.Root, caFile, serverName string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if caFile == "" {
		return c, nil
	}
	path := root.Path(caFile)
	data, err := yamlfile.ReadSecure(path)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("ca_file: %s holds no certificate; want PEM, from -----BEGIN CERTIFICATE-----; type: openssl x509 -in %s -noout -subject", path, path)
	}
	return c, nil
}
