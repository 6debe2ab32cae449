package releaseserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is a way to misbehave.
type Kind string

// The kinds of fault. Those that touch the body leave redirects alone, so that
// a match on an asset's name strikes the file and not GitHub's 302 before it.
const (
	WrongSum    Kind = "wrong-sum"    // one byte in the middle of the file is changed
	Truncate    Kind = "truncate"     // the connection is cut after N bytes
	Slow        Kind = "slow"         // the body comes at N bytes per second
	Status      Kind = "status"       // answer N; 403 carries x-ratelimit-*, 429 and 503 Retry-After
	Redirect    Kind = "redirect"     // 302 to the same path at To (HOST:PORT or URL)
	Missing     Kind = "missing"      // 404
	HTML        Kind = "html"         // 200 with an HTML page, as a captive portal gives
	NoRange     Kind = "no-range"     // ranges are ignored: always the whole file
	WrongLength Kind = "wrong-length" // Content-Length is off by N (default -1: the body is cut short)
	EndlessBody Kind = "endless"      // the body is followed by zeros until the client goes away
	Hang        Kind = "hang"         // no answer until the client goes away
)

// Kinds lists all kinds of fault.
func Kinds() []Kind {
	return []Kind{WrongSum, Truncate, Slow, Status, Redirect, Missing, HTML, NoRange, WrongLength, EndlessBody, Hang}
}

func (k Kind) onBody() bool {
	return slices.Contains([]Kind{WrongSum, Truncate, Slow, NoRange, WrongLength, EndlessBody}, k)
}

// Fault is one misbehaviour.
type Fault struct {
	Kind  Kind
	N     int64         // see Kind
	To    string        // target of Redirect
	After time.Duration // Status 403: until the limit resets (1 h when 0); 429, 503: Retry-After (60 s when 0)
	Times int           // how many requests it strikes; 0 is every one
	Skip  int           // how many matching requests pass unharmed first
}

type armedFault struct {
	Fault
	match string
	re    *regexp.Regexp
	seen  int
}

// Fault arms a fault for every request whose path (with its query) contains
// match or matches it as a regular expression. Several may strike one request.
func (s *Server) Fault(match string, f Fault) {
	a := &armedFault{Fault: f, match: match}
	if re, err := regexp.Compile(match); err == nil {
		a.re = re // text that is no expression is only looked for as it is
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, a)
}

// ClearFaults disarms all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// ParseFault reads MATCH=KIND[:ARG][xN] as the command line gives it, such as
// "prometheus-3=truncate:1000x2", "/repos/=status:403" or
// "linux-amd64=redirect:127.0.0.1:9000".
func ParseFault(text string) (match string, f Fault, err error) {
	i := strings.LastIndex(text, "=")
	if i <= 0 || i == len(text)-1 {
		return "", Fault{}, fmt.Errorf("fault %q: want MATCH=KIND[:ARG][xN]", text)
	}
	match, spec := text[:i], text[i+1:]
	if j := strings.LastIndex(spec, "x"); j > 0 {
		if n, aerr := strconv.Atoi(spec[j+1:]); aerr == nil && n > 0 {
			f.Times, spec = n, spec[:j]
		}
	}
	kind, arg, hasArg := strings.Cut(spec, ":")
	f.Kind = Kind(kind)
	if !slices.Contains(Kinds(), f.Kind) {
		return "", Fault{}, fmt.Errorf("fault %q: unknown kind %q; known are %v", text, kind, Kinds())
	}
	needs := f.Kind == Truncate || f.Kind == Slow || f.Kind == Status || f.Kind == Redirect
	switch {
	case needs && arg == "":
		return "", Fault{}, fmt.Errorf("fault %q: %s needs an argument, %s:ARG", text, kind, kind)
	case f.Kind == Redirect:
		f.To = arg
	case needs || f.Kind == WrongLength && hasArg:
		f.N, err = strconv.ParseInt(arg, 10, 64)
		switch {
		case err != nil:
			return "", Fault{}, fmt.Errorf("fault %q: %q is no number", text, arg)
		case f.Kind == Status && (f.N < 200 || f.N > 599):
			return "", Fault{}, fmt.Errorf("fault %q: %d is no status of an answer, want 200 to 599", text, f.N)
		case f.Kind == Slow && f.N < 1, f.Kind == Truncate && f.N < 0:
			return "", Fault{}, fmt.Errorf("fault %q: %d is too small", text, f.N)
		}
	case hasArg:
		return "", Fault{}, fmt.Errorf("fault %q: %s takes no argument", text, kind)
	}
	return match, f, nil
}

// take returns the faults that strike this request, counting each as used.
func (s *Server) take(r *http.Request, body bool) []Fault {
	target := r.URL.Path
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Fault
	for _, f := range s.faults {
		if f.Kind.onBody() != body || !strings.Contains(target, f.match) && (f.re == nil || !f.re.MatchString(target)) {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times) {
			out = append(out, f.Fault)
		}
	}
	return out
}

// withFaults runs next, or what a fault puts in its place.
func (s *Server) withFaults(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
	for _, f := range s.take(r, false) {
		s.strike(w, r, f)
		return
	}
	if redirects(r.URL.Path) {
		next(w, r)
		return
	}
	faults := s.take(r, true)
	if len(faults) == 0 {
		next(w, r)
		return
	}
	fw := &faultWriter{ResponseWriter: w, ctx: r.Context(), cut: -1, most: -1, flip: -1}
	for _, f := range faults {
		switch f.Kind {
		case WrongSum:
			fw.wrongSum = true
		case Truncate:
			fw.cut = f.N
		case Slow:
			fw.rate = max(f.N, 1)
		case NoRange:
			r = r.Clone(r.Context())
			r.Header.Del("Range")
			fw.noRange = true
		case WrongLength:
			fw.off = f.N
			if f.N == 0 {
				fw.off = -1
			}
		case EndlessBody:
			fw.endless = true
		case Status, Redirect, Missing, HTML, Hang: // struck above
		}
	}
	next(fw, r)
	fw.finish()
}

func redirects(path string) bool {
	return strings.Contains(path, "/releases/download/") || strings.Contains(path, "/-/releases/")
}

func (s *Server) strike(w http.ResponseWriter, r *http.Request, f Fault) {
	switch f.Kind {
	case Status:
		s.strikeStatus(w, f)
	case Redirect:
		to := f.To
		if !strings.Contains(to, "://") {
			to = "http://" + to
		}
		w.Header().Set("Location", strings.TrimSuffix(to, "/")+r.URL.RequestURI())
		w.WriteHeader(http.StatusFound)
	case HTML:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in to use this network.</body></html>\n")
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	default: // Missing
		s.notFound(w)
	}
}

func (s *Server) strikeStatus(w http.ResponseWriter, f Fault) {
	after := f.After
	switch f.N {
	case http.StatusForbidden:
		if after == 0 {
			after = time.Hour
		}
		s.rateHeaders(w.Header(), 60, 0, after)
		writeMessage(w, int(f.N), "API rate limit exceeded for this address.")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if after == 0 {
			after = time.Minute
		}
		w.Header().Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
		writeMessage(w, int(f.N), http.StatusText(int(f.N)))
	default:
		writeMessage(w, int(f.N), http.StatusText(int(f.N)))
	}
}

// recorder notes status and bytes in the log of requests as they are sent.
type recorder struct {
	http.ResponseWriter
	server *Server
	entry  *Request
}

func (w *recorder) WriteHeader(status int) {
	w.server.mu.Lock()
	if w.entry.Status == 0 {
		w.entry.Status = status
	}
	w.server.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	w.server.mu.Lock()
	if w.entry.Status == 0 {
		w.entry.Status = http.StatusOK
	}
	w.entry.Bytes += int64(len(b))
	w.server.mu.Unlock()
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// faultWriter spoils a body on its way out.
type faultWriter struct {
	http.ResponseWriter
	ctx      context.Context
	wrongSum bool
	noRange  bool
	endless  bool
	off      int64
	cut      int64 // bytes to let through; -1 is all
	rate     int64 // bytes per second; 0 is no limit
	most     int64 // announced length; -1 is the true one

	wrote bool
	spoil bool  // the answer is a 200 or 206, which is what body faults strike
	flip  int64 // offset in this body of the byte to change; -1 is none
	sent  int64
}

func (w *faultWriter) WriteHeader(status int) {
	w.wrote = true
	w.spoil = status == http.StatusOK || status == http.StatusPartialContent
	if w.spoil {
		w.spoilHeader()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *faultWriter) spoilHeader() {
	h := w.Header()
	length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	known := err == nil
	if w.wrongSum && known {
		start, total := int64(0), length
		// RFC 9110, 14.4: "bytes START-END/TOTAL".
		if _, scanErr := fmt.Sscanf(h.Get("Content-Range"), "bytes %d-", &start); scanErr == nil {
			_, after, _ := strings.Cut(h.Get("Content-Range"), "/")
			if n, convErr := strconv.ParseInt(after, 10, 64); convErr == nil {
				total = n
			}
		}
		w.flip = total/2 - start // negative when this part lies behind it
	}
	if w.noRange {
		h.Del("Accept-Ranges")
	}
	if w.off != 0 && known {
		w.most = max(length+w.off, 0)
		h.Set("Content-Length", strconv.FormatInt(w.most, 10))
	}
	if w.endless {
		h.Del("Content-Length")
	}
}

func (w *faultWriter) Write(b []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	if !w.spoil {
		return w.ResponseWriter.Write(b)
	}
	if i := w.flip - w.sent; w.flip >= 0 && i >= 0 && i < int64(len(b)) {
		b = slices.Clone(b)
		b[i] ^= 0xff
	}
	done := 0
	for done < len(b) {
		chunk := b[done:]
		if w.cut >= 0 && int64(len(chunk)) > w.cut-w.sent {
			chunk = chunk[:w.cut-w.sent]
		}
		if w.most >= 0 {
			if w.sent >= w.most { // net/http refuses what exceeds the length it announced
				return len(b), nil
			}
			chunk = chunk[:min(int64(len(chunk)), w.most-w.sent)]
		}
		if w.rate > 0 {
			chunk = chunk[:min(int64(len(chunk)), max(w.rate/20, 1))]
		}
		n, err := w.ResponseWriter.Write(chunk)
		done += n
		w.sent += int64(n)
		if err != nil {
			return done, err
		}
		if w.cut >= 0 && w.sent >= w.cut {
			w.flush()
			panic(http.ErrAbortHandler)
		}
		if w.rate > 0 {
			w.flush()
			if err := w.pace(int64(n)); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// pace waits as long as n bytes take at the rate.
func (w *faultWriter) pace(n int64) error {
	t := time.NewTimer(time.Duration(n) * time.Second / time.Duration(w.rate))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

func (w *faultWriter) flush() {
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the next write reports a lost client
}

// finish sends what follows the handler's own body.
func (w *faultWriter) finish() {
	if !w.endless || !w.spoil {
		return
	}
	zeros := make([]byte, 32<<10)
	for w.ctx.Err() == nil {
		if _, err := w.Write(zeros); err != nil {
			return
		}
	}
}
