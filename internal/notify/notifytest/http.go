package notifytest

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
)

// Request is one as a server got it.
type Request struct {
	Method, Path, Host string
	Header             http.Header
	Body               []byte
}

// Answer is what a server says.
type Answer struct {
	Status int
	Header map[string]string
	Body   string
	Echo   bool // the body is the request: line, headers, body
	Hang   bool // nothing, until the client or the server ends it
}

// HTTPServer keeps the requests that it gets. Its answers are given one after the
// other, the last one again and again; without any it says "ok".
type HTTPServer struct {
	URL string

	server *httptest.Server
	stop   chan struct{}
	once   sync.Once

	mu       sync.Mutex
	requests []Request
	answers  []Answer
}

// StartHTTP starts a server; with a certificate it speaks HTTPS.
func StartHTTP(cert *Certificate, answers ...Answer) *HTTPServer {
	return ServeHTTP(nil, cert, answers...)
}

// ServeHTTP is StartHTTP with a listener of the caller's; nil for one of its own.
func ServeHTTP(l net.Listener, cert *Certificate, answers ...Answer) *HTTPServer {
	s := &HTTPServer{answers: answers, stop: make(chan struct{})}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if l != nil {
		s.server.Listener.Close()
		s.server.Listener = l
	}
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that turn away a certificate
	if cert == nil {
		s.server.Start()
	} else {
		s.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert.TLS}, MinVersion: tls.VersionTLS12}
		s.server.StartTLS()
	}
	s.URL = s.server.URL
	return s
}

func (s *HTTPServer) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.requests = append(s.requests, Request{Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Header: r.Header.Clone(), Body: body})
	a := Answer{Status: http.StatusOK, Body: "ok"}
	if len(s.answers) > 0 {
		a = s.answers[0]
	}
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	s.mu.Unlock()
	if a.Hang {
		select {
		case <-r.Context().Done():
		case <-s.stop:
		}
		return
	}
	for k, v := range a.Header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(a.Status)
	if a.Echo {
		_, _ = io.WriteString(w, r.Method+" "+r.URL.String()+"\n")
		_ = r.Header.Write(w)
		_, _ = w.Write(body)
	}
	_, _ = io.WriteString(w, a.Body)
}

// Answer sets the answers anew.
func (s *HTTPServer) Answer(answers ...Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = answers
}

// Requests are those that came so far.
func (s *HTTPServer) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Forget forgets the requests that came so far.
func (s *HTTPServer) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// Close ends the server and what hangs on it; again, it does nothing.
func (s *HTTPServer) Close() {
	s.once.Do(func() { close(s.stop) })
	s.server.Close()
}
