// Package notifytest has real servers for tests of notifications: SMTP with
// STARTTLS, implicit TLS and authentication, and HTTP, each on a loopback port.
package notifytest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Mail is one mail as the server took it.
type Mail struct {
	From      string
	To        []string
	Encrypted bool
	User      string // who authenticated; empty for nobody
	Data      []byte
}

// MailOptions say how a mail server behaves.
type MailOptions struct {
	STARTTLS, Implicit bool
	User, Password     string         // demanded where set
	Login              bool           // LOGIN is the only way to authenticate, else PLAIN
	Refuse             map[string]int // code by recipient
	RefuseMail         []int          // codes of the first answers to a mail's end
	Hang               bool           // accepts connections and says nothing
}

// MailServer is a mail server on 127.0.0.1.
type MailServer struct {
	Port int
	Cert *Certificate // it has one in any case

	o        MailOptions
	server   *smtp.Server
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	mails  []Mail
	refuse []int
	open   []net.Conn
}

// StartMail starts a mail server.
func StartMail(o MailOptions) (*MailServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return ServeMail(l, o)
}

// ServeMail starts a mail server on a listener, which it closes.
func ServeMail(l net.Listener, o MailOptions) (*MailServer, error) {
	cert, err := NewCertificate()
	if err != nil {
		return nil, err
	}
	m := &MailServer{Port: l.Addr().(*net.TCPAddr).Port, Cert: cert, o: o, listener: l, refuse: slices.Clone(o.RefuseMail)}
	if o.Hang {
		m.wg.Go(m.hang)
		return m, nil
	}
	m.server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{server: m, conn: c}, nil }))
	m.server.Domain, m.server.ReadTimeout, m.server.WriteTimeout = "mail.test", time.Minute, time.Minute
	m.server.ErrorLog = discard{} // clients that turn away a certificate
	conf := &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
	if o.STARTTLS {
		m.server.TLSConfig = conf
	}
	if o.Implicit {
		l = tls.NewListener(l, conf)
	}
	m.server.AllowInsecureAuth = !o.STARTTLS && !o.Implicit
	m.wg.Go(func() { _ = m.server.Serve(l) })
	return m, nil
}

func (m *MailServer) hang() {
	for {
		c, err := m.listener.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		m.open = append(m.open, c)
		m.mu.Unlock()
	}
}

// Close ends the server.
func (m *MailServer) Close() error {
	var err error
	if m.server != nil {
		err = m.server.Close()
	}
	if closeErr := m.listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
		err = errors.Join(err, closeErr)
	}
	m.mu.Lock()
	for _, c := range m.open {
		c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
	return err
}

// PortText is the port as the configuration has it.
func (m *MailServer) PortText() string { return strconv.Itoa(m.Port) }

// Mails are those that were taken so far.
func (m *MailServer) Mails() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

type session struct {
	server *MailServer
	conn   *smtp.Conn
	user   string
	from   string
	to     []string
}

func (s *session) AuthMechanisms() []string {
	switch {
	case s.server.o.User == "":
		return nil
	case s.server.o.Login:
		return []string{"LOGIN"}
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	check := func(user, password string) error {
		if user != s.server.o.User || password != s.server.o.Password {
			// As some servers do, it repeats what it was given.
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "no: " + user + " with " + password}
		}
		s.user = user
		return nil
	}
	if s.server.o.Login {
		return &login{check: check}, nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
}

// login is the server's side of LOGIN, which package sasl does not have.
type login struct {
	check func(user, password string) error
	step  int
	user  string
}

func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	switch l.step {
	case 1:
		return []byte("Username:"), false, nil
	case 2:
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

func (s *session) Reset()        { s.from, s.to = "", nil }
func (s *session) Logout() error { return nil }

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.o.User != "" && s.user == "" {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if code := s.server.o.Refuse[to]; code != 0 {
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "not here"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := s.server
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.refuse) > 0 {
		code := m.refuse[0]
		m.refuse = m.refuse[1:]
		return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: "not now"}
	}
	_, encrypted := s.conn.TLSConnectionState()
	m.mails = append(m.mails, Mail{From: s.from, To: slices.Clone(s.to), Encrypted: encrypted, User: s.user, Data: bytes.Clone(data)})
	return nil
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

// Header finds a header of a mail as it is on the wire, unfolded.
func (m Mail) Header(name string) string {
	head, _, _ := strings.Cut(string(m.Data), "\r\n\r\n")
	head = strings.ReplaceAll(strings.ReplaceAll(head, "\r\n ", " "), "\r\n\t", " ")
	for _, line := range strings.Split(head, "\r\n") {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
