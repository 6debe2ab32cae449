// Package releaseserver is a release server for tests, demonstrations and
// air-gapped trials: it speaks the release APIs of GitHub and GitLab, Grafana's
// versions API, and serves plain directory listings and an index.json, over
// real files, and can be told to misbehave in the ways real servers do.
//
// Addresses, for a server at http://ADDR:
//
//	http://ADDR/repos/OWNER/REPO/releases          GitHub API (also below /api/v3)
//	http://ADDR/OWNER/REPO/releases/download/T/A   GitHub download (302 to /_objects/…)
//	http://ADDR/api/v4/projects/ID/releases        GitLab API
//	http://ADDR/GROUP/PROJECT/-/releases/T/downloads/A
//	http://ADDR/api/PRODUCT/versions[/V]           Grafana API (API base http://ADDR/api)
//	http://ADDR/plain/NAME/                        HTML listing of versions, then of files
//	http://ADDR/index/NAME/index.json              the same releases as one JSON file
//
// It imports nothing else of this module.
package releaseserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Forge is the kind of place a release is published at.
type Forge string

// The forges. Plain releases are served both as an HTML listing (/plain/NAME/)
// and as an index.json (/index/NAME/).
const (
	GitHub  Forge = "github"
	GitLab  Forge = "gitlab"
	Grafana Forge = "grafana"
	Plain   Forge = "plain"
)

// Forges lists all forges; their names are also those of the directories below
// Options.Dir.
func Forges() []Forge { return []Forge{GitHub, GitLab, Grafana, Plain} }

// Options configure a Server. The zero value serves only what AddRelease adds.
type Options struct {
	// Dir holds releases as DIR/github/OWNER/REPO/TAG/ASSET,
	// DIR/gitlab/GROUP/PROJECT/TAG/ASSET, DIR/grafana/PRODUCT/VERSION/ASSET and
	// DIR/plain/NAME/VERSION/ASSET. It is read anew on each request. A "/" in a
	// tag is written %2F.
	Dir string
	// Token is demanded on API requests ("Bearer TOKEN", "token TOKEN" or
	// PRIVATE-TOKEN) when it is not empty; without it they answer 401.
	Token string
	// RateLimit is how many API requests are answered before they are refused
	// with 403 as GitHub does; 0 never refuses. A 304 does not count.
	RateLimit int
	// BaseURL replaces http://HOST in the addresses that answers carry.
	BaseURL string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Logger receives one line per request at debug level; nil discards.
	Logger *slog.Logger
}

// Server is the handler. All methods are safe for concurrent use.
type Server struct {
	opts Options
	log  *slog.Logger

	mu       sync.Mutex
	releases map[Forge]map[string][]Release // newest addition last
	renamed  map[string]string
	faults   []*armedFault
	requests []*Request
	served   int // API requests that counted against RateLimit
	digests  map[string]string
	nextKey  int
}

// New returns a server without releases beyond those in opts.Dir.
func New(opts Options) *Server {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	s := &Server{
		opts:     opts,
		log:      opts.Logger,
		releases: map[Forge]map[string][]Release{},
		renamed:  map[string]string{},
		digests:  map[string]string{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// AddRelease publishes a release. repo is OWNER/REPO on GitHub, a project's path
// or numeric id on GitLab, a product on Grafana and a single name on Plain. A
// release with the same tag is replaced. A zero PublishedAt becomes now.
func (s *Server) AddRelease(forge Forge, repo string, rel Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rel.PublishedAt.IsZero() {
		rel.PublishedAt = s.opts.Now().UTC().Truncate(time.Second)
	}
	rel.Assets = slices.Clone(rel.Assets)
	for i := range rel.Assets {
		s.nextKey++
		rel.Assets[i].key = "memory|" + strconv.Itoa(s.nextKey)
		if rel.Assets[i].ModTime.IsZero() {
			rel.Assets[i].ModTime = rel.PublishedAt
		}
	}
	if s.releases[forge] == nil {
		s.releases[forge] = map[string][]Release{}
	}
	list := slices.DeleteFunc(slices.Clone(s.releases[forge][repo]), func(r Release) bool { return r.Tag == rel.Tag })
	s.releases[forge][repo] = append(list, rel)
}

// AddRepo makes a repository known that has no release yet: it lists as empty
// where an unknown one answers 404.
func (s *Server) AddRepo(forge Forge, repo string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.releases[forge] == nil {
		s.releases[forge] = map[string][]Release{}
	}
	if _, ok := s.releases[forge][repo]; !ok {
		s.releases[forge][repo] = nil
	}
}

// RenameRepo makes the GitHub API answer 301 for oldRepo, as after a transfer.
func (s *Server) RenameRepo(oldRepo, newRepo string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renamed[oldRepo] = newRepo
}

// Request is one request as the server saw it.
type Request struct {
	Method string
	Path   string // decoded, without the query
	Query  string
	Host   string
	Range  string // the Range header; "" when absent
	Header http.Header
	Status int   // 0 while nothing has been answered
	Bytes  int64 // bytes of the body written so far
}

// Requests returns a copy of the log of requests, in order of arrival.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Request, len(s.requests))
	for i, r := range s.requests {
		out[i] = *r
	}
	return out
}

// ResetRequests empties the log of requests.
func (s *Server) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	entry := &Request{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Host: r.Host,
		Range: r.Header.Get("Range"), Header: r.Header.Clone(),
	}
	s.mu.Lock()
	s.requests = append(s.requests, entry)
	s.mu.Unlock()
	rec := &recorder{ResponseWriter: w, server: s, entry: entry}
	defer func() { // also when a fault aborts the connection
		s.mu.Lock()
		status, n := entry.Status, entry.Bytes
		s.mu.Unlock()
		s.log.Debug("request", "method", r.Method, "path", r.URL.Path, "range", entry.Range, "status", status, "bytes", n)
	}()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		rec.Header().Set("Allow", "GET, HEAD")
		writeMessage(rec, http.StatusMethodNotAllowed, "Only GET and HEAD are served here.")
		return
	}
	s.withFaults(rec, r, s.route)
}

// route sends a request to the API or to the files it addresses.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	segs, err := splitPath(r.URL.EscapedPath())
	if err != nil {
		writeMessage(w, http.StatusBadRequest, err.Error())
		return
	}
	n := len(segs)
	switch {
	case n == 0:
		writeMessage(w, http.StatusOK, "observability-upgrade release server")
	case segs[0] == "_objects":
		s.object(w, r, segs[1:])
	case segs[0] == "plain":
		s.plainListing(w, r, segs[1:])
	case segs[0] == "index":
		s.plainIndex(w, r, segs[1:])
	case segs[0] == "repos":
		s.api(w, r, segs[1:], s.gitHub)
	case n > 2 && segs[0] == "api" && segs[1] == "v3" && segs[2] == "repos":
		s.api(w, r, segs[3:], s.gitHub)
	case n > 2 && segs[0] == "api" && segs[1] == "v4" && segs[2] == "projects":
		s.api(w, r, segs[3:], s.gitLab)
	case segs[0] == "api":
		s.api(w, r, segs[1:], s.grafana)
	case n >= 6 && segs[2] == "releases" && segs[3] == "download":
		s.gitHubDownload(w, r, segs)
	case slices.Contains(segs, "-"):
		s.gitLabDownload(w, r, segs)
	default:
		s.notFound(w)
	}
}

// api checks the token and the rate limit before an API handler runs.
func (s *Server) api(w http.ResponseWriter, r *http.Request, segs []string, next func(http.ResponseWriter, *http.Request, []string)) {
	if s.opts.Token != "" {
		auth := r.Header.Get("Authorization")
		if auth != "Bearer "+s.opts.Token && auth != "token "+s.opts.Token && r.Header.Get("PRIVATE-TOKEN") != s.opts.Token {
			writeMessage(w, http.StatusUnauthorized, "Bad credentials")
			return
		}
	}
	s.mu.Lock()
	limit, used := 5000, s.served
	if s.opts.RateLimit > 0 {
		limit = s.opts.RateLimit
	}
	exhausted := s.opts.RateLimit > 0 && used >= limit
	if !exhausted {
		s.served++
		used++
	}
	s.mu.Unlock()
	s.rateHeaders(w.Header(), limit, max(limit-used, 0), time.Hour)
	if exhausted {
		writeMessage(w, http.StatusForbidden, "API rate limit exceeded for this address.")
		return
	}
	next(w, r, segs)
}

// rateHeaders sets the headers of both GitHub and GitLab.
func (s *Server) rateHeaders(h http.Header, limit, remaining int, resetIn time.Duration) {
	reset := strconv.FormatInt(s.opts.Now().Add(resetIn).Unix(), 10)
	for _, prefix := range []string{"X-Ratelimit-", "Ratelimit-"} {
		h.Set(prefix+"Limit", strconv.Itoa(limit))
		h.Set(prefix+"Remaining", strconv.Itoa(remaining))
		h.Set(prefix+"Reset", reset)
	}
	h.Set("X-Ratelimit-Used", strconv.Itoa(limit-remaining))
	h.Set("X-Ratelimit-Resource", "core")
}

func (s *Server) uncount() {
	s.mu.Lock()
	s.served = max(s.served-1, 0)
	s.mu.Unlock()
}

// writeJSON answers with an ETag, and with 304 when the client has that body.
func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		writeMessage(w, http.StatusInternalServerError, err.Error())
		return
	}
	etag := `W/"` + sha256Hex(body) + `"`
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "public, max-age=60, s-maxage=60")
	if r.Header.Get("If-None-Match") == etag {
		s.uncount()
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that went away needs no answer
	}
}

func (s *Server) notFound(w http.ResponseWriter) {
	writeMessage(w, http.StatusNotFound, "Not Found")
}

func writeMessage(w http.ResponseWriter, status int, message string) {
	body, err := json.Marshal(map[string]string{"message": message, "status": strconv.Itoa(status)})
	if err != nil {
		http.Error(w, message, status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away needs no answer
}

// base is the scheme and host that answers use in their addresses.
func (s *Server) base(r *http.Request) string {
	if s.opts.BaseURL != "" {
		return strings.TrimSuffix(s.opts.BaseURL, "/")
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// newestFirst orders releases as the forges list them: by date, and for equal
// dates the later addition first.
func newestFirst(list []Release) []Release {
	out := slices.Clone(list)
	slices.Reverse(out)
	slices.SortStableFunc(out, func(a, b Release) int { return cmp.Compare(b.PublishedAt.UnixNano(), a.PublishedAt.UnixNano()) })
	return out
}

// Listener is a running server.
type Listener struct {
	URL  string // http://HOST:PORT
	srv  *http.Server
	done chan error
}

// Listen serves on addr ("127.0.0.1:0" picks a port) until Close is called.
func (s *Server) Listen(ctx context.Context, addr string) (*Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("release server: listen on %s: %w", addr, err)
	}
	l := &Listener{
		URL:  "http://" + ln.Addr().String(),
		srv:  &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second},
		done: make(chan error, 1),
	}
	go func() { l.done <- l.srv.Serve(ln) }()
	return l, nil
}

// Close stops the server: requests in progress may finish until ctx ends, then
// they are cut.
func (l *Listener) Close(ctx context.Context) error {
	if err := l.srv.Shutdown(ctx); err != nil {
		if cerr := l.srv.Close(); cerr != nil {
			return fmt.Errorf("release server: close: %w", cerr)
		}
	}
	if err := <-l.done; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("release server: %w", err)
	}
	return nil
}
