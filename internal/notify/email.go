package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	netmail "net/mail"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
	"github.com/observability-upgrade/observability-upgrade/internal/layout"
)

// email sends one mail to all recipients by SMTP (RFC 5321), over TLS as the
// configuration says (RFC 3207, RFC 8314).
type email struct {
	conf config.Email
	tls  *tls.Config
	log  *slog.Logger
	from *netmail.Address
	to   []*netmail.Address
	helo string
}

func newEmail(root layout.Root, conf config.Email, log *slog.Logger) (*email, error) {
	e := &email{conf: conf, log: log, helo: "localhost"}
	var err error
	if e.tls, err = tlsConfig(root, conf.CAFile, conf.SMTPHost); err != nil {
		return nil, err
	}
	// Who can strip STARTTLS from the server's greeting can read everything, so a
	// certificate proves nothing where encryption is optional (RFC 7435); insisting
	// on a valid one would only turn local mail servers away.
	e.tls.InsecureSkipVerify = conf.TLSSkipVerify || conf.TLS == config.Opportunistic && conf.CAFile == ""
	if e.from, err = netmail.ParseAddress(conf.From); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	for _, text := range conf.To {
		a, err := netmail.ParseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("to: %w", err)
		}
		e.to = append(e.to, a)
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		e.helo = name
	}
	return e, nil
}

// send gives the mail to the server for all recipients that do not have it yet.
// One whose address is refused does not keep it from the others.
func (e *email) send(ctx context.Context, m *message) error {
	mail, err := e.compose(m)
	if err != nil {
		return permanent(err)
	}
	var missing []string
	for _, a := range e.to {
		if !slices.Contains(m.Done, digest(a.Address)) {
			missing = append(missing, a.Address)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	address := net.JoinHostPort(e.conf.SMTPHost, e.conf.SMTPPort)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("mail server %s: %w", address, cause(ctx, err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	done, err := e.deliver(ctx, conn, mail, missing)
	for _, a := range done {
		m.Done = append(m.Done, digest(a))
	}
	if err != nil {
		if ctx.Err() != nil {
			err = cause(ctx, err)
		}
		return fmt.Errorf("mail server %s: %w", address, err)
	}
	return nil
}

// deliver speaks SMTP on a connection and tells which recipients got the mail.
func (e *email) deliver(ctx context.Context, conn net.Conn, mail []byte, to []string) (done []string, err error) {
	c, err := e.greet(ctx, conn)
	if err != nil {
		return nil, err
	}
	if err := c.Mail("<" + e.from.Address + ">"); err != nil {
		return nil, fromSMTP("sender "+e.from.Address, err)
	}
	var refused []error
	for _, address := range to {
		if err := c.Rcpt("<" + address + ">"); err != nil {
			refused = append(refused, fromSMTP("recipient "+address, err))
			continue
		}
		done = append(done, address)
	}
	if len(done) == 0 {
		return nil, severest(refused)
	}
	w, err := c.Data()
	if err != nil {
		return nil, fromSMTP("DATA", err)
	}
	if _, err := w.Write(mail); err != nil {
		return nil, fmt.Errorf("send the mail: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fromSMTP("the mail", err)
	}
	if err := c.Quit(); err != nil { // the server has the mail
		e.log.Debug("mail server did not part in peace", "error", err)
	}
	return done, severest(refused)
}

// severest joins what the server said of recipients: it is worth another attempt
// as long as that is so for one of them.
func severest(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	f := &failure{err: err, permanent: true}
	for _, one := range errs {
		f.permanent = f.permanent && classify(one).permanent
	}
	return f
}

// greet begins the session: TLS, then authentication.
func (e *email) greet(ctx context.Context, conn net.Conn) (*smtp.Client, error) {
	if e.conf.TLS == config.ImplicitTLS {
		t := tls.Client(conn, e.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, e.handshake(err)
		}
		conn = t
	}
	c, err := smtp.NewClient(conn, e.conf.SMTPHost)
	if err != nil {
		return nil, fromSMTP("greeting", err)
	}
	if err := c.Hello(e.helo); err != nil {
		return nil, fromSMTP("EHLO", err)
	}
	if e.conf.TLS == config.StartTLS || e.conf.TLS == config.Opportunistic {
		offered, _ := c.Extension("STARTTLS")
		switch {
		case offered:
			if err := c.StartTLS(e.tls.Clone()); err != nil {
				return nil, e.handshake(fromSMTP("STARTTLS", err))
			}
		case e.conf.TLS == config.StartTLS:
			return nil, permanent(errors.New("it does not offer STARTTLS, and without it nothing is sent; tls: implicit is for servers that begin with TLS, mostly on port 465"))
		}
	}
	if e.conf.Password == "" {
		return c, nil
	}
	return c, e.authenticate(c)
}

// handshake says what to do about a certificate that is not trusted.
func (e *email) handshake(err error) error {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("%w; ca_file must be the PEM file of who signed the server's certificate, and smtp_host a name in it", err)
	}
	return err
}

// authenticate chooses the best way that the server offers (RFC 4954). The
// configuration is such that the connection is encrypted.
func (e *email) authenticate(c *smtp.Client) error {
	_, offered := c.Extension("AUTH")
	user, password := e.conf.Username, string(e.conf.Password)
	for _, way := range []struct {
		name string
		auth smtp.Auth
	}{
		{"SCRAM-SHA-256", smtp.ScramSHA256Auth(user, password)},
		{"SCRAM-SHA-1", smtp.ScramSHA1Auth(user, password)},
		{"PLAIN", smtp.PlainAuth("", user, password, e.conf.SMTPHost, false)},
		{"LOGIN", smtp.LoginAuth(user, password, e.conf.SMTPHost, false)},
		{"CRAM-MD5", smtp.CRAMMD5Auth(user, password)},
	} {
		if !slices.Contains(strings.Fields(strings.ToUpper(offered)), way.name) {
			continue
		}
		if err := c.Auth(way.auth); err != nil {
			return fromSMTP("authentication ("+way.name+") as "+user, err)
		}
		return nil
	}
	if offered == "" {
		offered = "none"
	}
	return permanent(fmt.Errorf("it offers no authentication that is known here (SCRAM-SHA-256, SCRAM-SHA-1, PLAIN, LOGIN, CRAM-MD5) but %s", offered))
}

// compose writes the mail (RFC 5322, MIME). Its Message-ID is the same in each
// attempt, so that a mail that comes twice can be told; those of a run refer to a
// common one, so that readers show them together.
func (e *email) compose(m *message) ([]byte, error) {
	msg := mail.NewMsg(mail.WithCharset(mail.CharsetUTF8), mail.WithEncoding(mail.EncodingQP), mail.WithNoDefaultUserAgent())
	if err := msg.From(e.from.String()); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	var to []string
	for _, a := range e.to {
		to = append(to, a.String())
	}
	if err := msg.To(to...); err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	domain := "observability-upgrade.invalid"
	if i := strings.LastIndexByte(e.from.Address, '@'); i >= 0 {
		domain = e.from.Address[i+1:]
	}
	msg.Subject(m.Subject)
	msg.SetDateWithValue(m.Created.In(time.UTC))
	msg.SetMessageIDWithValue("observability-upgrade." + m.ID + "@" + domain)
	if m.Data.RunID != "" {
		msg.SetGenHeader(mail.HeaderReferences, "<observability-upgrade.run."+m.Data.RunID+"@"+domain+">")
	}
	if failing(m.Data.Event) {
		msg.SetImportance(mail.ImportanceHigh)
	}
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // no out-of-office answers, RFC 3834
	msg.SetGenHeader("X-Observability-Event", m.Data.Event)
	msg.SetBodyString(mail.TypeTextPlain, m.Body)
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
