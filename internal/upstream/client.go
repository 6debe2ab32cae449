// Package upstream asks where components are published which releases exist:
// the release APIs of GitHub and GitLab, Grafana's versions API, a directory,
// and a plain HTTP mirror.
//
// What cannot be asked is an error (UnknownError), never an empty list: "no
// update" is only said by an upstream that answered. Answers are kept on disk
// with their ETag, so that asking again is cheap; a stale answer is never
// returned in place of an error.
package upstream

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Defaults of Options.
const (
	DefaultGitHubURL   = "https://api.github.com"
	DefaultGitLabURL   = "https://gitlab.com/api/v4"
	DefaultGrafanaURL  = "https://grafana.com/api"
	DefaultConcurrency = 50 // GitHub asks for at most 100 at a time (docs.github.com, "Rate limits for the REST API")
	DefaultTimeout     = 30 * time.Second
	DefaultUserAgent   = "observability-upgrade"
)

// Options configure a Client; the zero value asks the public APIs without
// token and without cache.
type Options struct {
	GitHubURL   string // API base; DefaultGitHubURL when empty
	GitHubToken string
	GitLabURL   string // API base; DefaultGitLabURL when empty
	GitLabToken string
	GrafanaURL  string // API base; DefaultGrafanaURL when empty
	// CacheDir is where answers are kept, in a subdirectory "upstream"; "" keeps
	// none.
	CacheDir string
	// TTL is the age below which a kept answer is used without asking.
	TTL time.Duration
	// Refresh asks whatever the age; ETags are still sent.
	Refresh     bool
	Concurrency int           // sources asked at the same time; DefaultConcurrency when 0
	Timeout     time.Duration // per request; DefaultTimeout when 0
	HTTP        *http.Client  // transport and proxy to use; a client of its own when nil
	Logger      *slog.Logger  // nil discards
	Now         func() time.Time
	UserAgent   string // GitHub demands one; DefaultUserAgent when empty
	Root        string // value of {root} in the path of directory and the url of http sources
}

// Client lists releases. It is safe for concurrent use.
type Client struct {
	opts  Options
	log   *slog.Logger
	http  *http.Client
	cache cache
	retry time.Duration // first pause between tries
	turns chan struct{} // has room for as many sources as are asked at a time

	patience time.Duration // what the first connection to a host may take before others are made

	reading sync.Mutex // held while a kept answer is read

	mu      sync.Mutex
	blocked map[string]*refusal      // by origin
	met     map[string]chan struct{} // by origin: closed when a connection was made, or could not be
	early   map[string]*asked        // by sourceKey: what Begin asked for
	users   map[string]*url.Userinfo // by origin: credentials that a configured address carried
}

// New returns a client. A base URL that cannot be used is reported by the calls
// that need it.
func New(opts Options) *Client {
	opts.UserAgent = cmp.Or(opts.UserAgent, DefaultUserAgent)
	opts.Timeout = cmp.Or(opts.Timeout, DefaultTimeout)
	if opts.Concurrency <= 0 {
		opts.Concurrency = DefaultConcurrency
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{
		log:   opts.Logger,
		cache: newCache(opts.CacheDir, opts.Logger),
		retry: 500 * time.Millisecond, patience: 3 * time.Second,
		turns:   make(chan struct{}, opts.Concurrency),
		blocked: map[string]*refusal{},
		met:     map[string]chan struct{}{},
		early:   map[string]*asked{},
		users:   map[string]*url.Userinfo{},
	}
	opts.GitHubURL = c.apiBase(opts.GitHubURL, DefaultGitHubURL)
	opts.GitLabURL = c.apiBase(opts.GitLabURL, DefaultGitLabURL)
	opts.GrafanaURL = c.apiBase(opts.GrafanaURL, DefaultGrafanaURL)
	c.opts = opts
	var hc http.Client
	if opts.HTTP != nil {
		hc = *opts.HTTP
	}
	hc.CheckRedirect = checkRedirect
	c.http = &hc
	return c
}

// apiBase is an API's address without trailing slash and credentials.
func (c *Client) apiBase(text, def string) string {
	text = strings.TrimSuffix(cmp.Or(text, def), "/")
	if u, err := url.Parse(text); err == nil && u.User != nil {
		c.remember(u)
		return u.String()
	}
	return text
}

// remember takes the credentials out of a configured address. Authorize gives
// them back to requests, so that no address that is shown or kept holds them.
func (c *Client) remember(u *url.URL) {
	if u.User == nil {
		return
	}
	c.mu.Lock()
	c.users[origin(u)] = u.User
	c.mu.Unlock()
	u.User = nil
}

// Result is what one component's upstream answered.
type Result struct {
	Releases []component.Release // newest version first
	// Prereleases are those that upstream flags so, or whose version says so, newest
	// first: for a person who names one, never to be chosen otherwise.
	Prereleases []component.Release
	Err         error
	FromCache   bool      // answered from disk without asking
	CheckedAt   time.Time // when upstream last confirmed the answer; zero on error
}

// Releases lists the stable releases of a component, newest version first, each
// version once. Assets are filled in as far as listing them costs no request per
// release; Resolve completes one release.
//
// Errors: UnknownError when upstream could not be asked, ErrNotFound when it
// does not know the repository, ErrNoReleases for what the distribution's
// package manager owns.
func (c *Client) Releases(ctx context.Context, comp *component.Component) ([]component.Release, error) {
	r := c.All(ctx, []*component.Component{comp})[comp.Name]
	return r.Releases, r.Err
}

// All asks for several components at once, by name; components published in the
// same place share one listing, and what Begin has asked for is not asked again. It
// returns when all are answered.
func (c *Client) All(ctx context.Context, comps []*component.Component) map[string]Result {
	var (
		mu  sync.Mutex
		out = make(map[string]Result, len(comps))
		all sync.WaitGroup
	)
	for _, group := range c.groups(comps) {
		all.Go(func() {
			l, err := c.take(ctx, group[0])
			for _, comp := range group {
				r := Result{FromCache: l.fromCache, CheckedAt: l.checkedAt}
				if err != nil {
					r = Result{Err: err}
				} else if r.Releases, r.Prereleases, err = c.choose(comp, l); err != nil {
					r = Result{Err: &UnknownError{URL: l.where, Err: err}}
				}
				mu.Lock()
				out[comp.Name] = r
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return out
}

// Resolve returns the release with its assets. Only Grafana's API and HTML
// listings need a request for that; elsewhere the release is returned as it is.
func (c *Client) Resolve(ctx context.Context, comp *component.Component, rel component.Release) (component.Release, error) {
	if len(rel.Assets) > 0 {
		return rel, nil
	}
	var assets []rawAsset
	var err error
	switch comp.Source.Type {
	case component.SourceGrafana:
		assets, err = c.grafanaAssets(ctx, comp, rel)
	case component.SourceHTTP:
		assets, err = c.listingAssets(ctx, comp, rel)
	case component.SourceGitHub, component.SourceGitLab, component.SourceDirectory:
		return rel, nil
	default:
		return rel, noReleases(comp)
	}
	if err != nil {
		return rel, err
	}
	if rel.Assets, err = c.assets(comp, rel.Tag, assets); err != nil {
		return rel, &UnknownError{URL: "release " + rel.Tag, Err: err}
	}
	return rel, nil
}

// Authorize adds the API token to a request that goes to the API's own host
// (scheme and port included), such as the download of an asset served there,
// and to no other. A mirror whose configured address carries credentials gets
// those, once its releases have been listed.
func (c *Client) Authorize(req *http.Request) {
	c.mu.Lock()
	user := c.users[origin(req.URL)]
	c.mu.Unlock()
	if user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	if c.opts.GitHubToken != "" && sameHost(req.URL, c.opts.GitHubURL) {
		req.Header.Set("Authorization", "Bearer "+c.opts.GitHubToken)
	}
	if c.opts.GitLabToken != "" && sameHost(req.URL, c.opts.GitLabURL) {
		req.Header.Set(gitLabTokenHeader, c.opts.GitLabToken)
	}
}

const gitLabTokenHeader = "PRIVATE-TOKEN"

func sameHost(u *url.URL, base string) bool {
	b, err := url.Parse(base)
	return err == nil && sameOrigin(u, b)
}

func sameOrigin(a, b *url.URL) bool {
	return a.Host != "" && strings.EqualFold(a.Scheme, b.Scheme) &&
		strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
}

// sourceKey is equal for components whose releases one listing covers.
func (c *Client) sourceKey(comp *component.Component) string {
	s := comp.Source
	switch s.Type {
	case component.SourceGitHub, component.SourceGitLab, component.SourceGrafana:
		return string(s.Type) + "\x00" + s.Repo
	case component.SourceDirectory:
		return string(s.Type) + "\x00" + s.Tag + "\x00" + c.expand(comp, s.Path)
	case component.SourceHTTP:
		return string(s.Type) + "\x00" + c.expand(comp, s.URL)
	default:
		return string(s.Type) + "\x00" + comp.Name
	}
}

func (c *Client) expand(comp *component.Component, s string) string {
	return component.Vars{Name: comp.Name, Root: c.opts.Root}.Expand(s)
}

// listing is all that one place publishes, before a component chooses from it.
type listing struct {
	where     string
	releases  []rawRelease
	fromCache bool
	checkedAt time.Time
}

// rawRelease is a release as upstream lists it.
type rawRelease struct {
	tag         string
	version     component.Version // where upstream states it apart from the tag
	publishedAt time.Time
	prerelease  bool // flagged so by upstream
	notesURL    string
	assets      []rawAsset
}

type rawAsset struct {
	name, url, digest string
	size              int64
}

// list asks the place that a component is published at. Its answers may be many;
// together they have maxListing.
func (c *Client) list(ctx context.Context, comp *component.Component) (listing, error) {
	limit := max(maxListing*c.opts.Timeout, time.Minute)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the list is not complete after %s", limit))
	defer cancel()
	switch comp.Source.Type {
	case component.SourceGitHub:
		return c.listGitHub(ctx, comp)
	case component.SourceGitLab:
		return c.listGitLab(ctx, comp)
	case component.SourceGrafana:
		return c.listGrafana(ctx, comp)
	case component.SourceDirectory:
		return c.listDirectory(ctx, comp)
	case component.SourceHTTP:
		return c.listHTTP(ctx, comp)
	case component.SourcePackage:
		return listing{}, noReleases(comp)
	}
	return listing{}, fmt.Errorf("source type %q is not known; want github, gitlab, grafana, directory, http or package", comp.Source.Type)
}

// choose parts the releases whose tags are this component's into stable ones and
// others.
func (c *Client) choose(comp *component.Component, l listing) (stable, pre []component.Release, err error) {
	stable = []component.Release{}
	for _, raw := range l.releases {
		v, ok := versionOf(comp, raw)
		early := v.Prerelease() || raw.prerelease && !comp.Source.AcceptPrereleaseFlag
		if !ok || early {
			c.log.Debug("release skipped", "component", comp.Name, "tag", raw.tag, "ours", ok, "flagged", raw.prerelease)
		}
		if !ok {
			continue
		}
		assets, err := c.assets(comp, raw.tag, raw.assets)
		if err != nil && early {
			continue // nobody asked for it
		}
		if err != nil {
			return nil, nil, err
		}
		r := component.Release{
			Version: v, Tag: raw.tag, PublishedAt: raw.publishedAt, Prerelease: raw.prerelease,
			NotesURL: raw.notesURL, Assets: assets,
		}
		if early {
			pre = append(pre, r)
		} else {
			stable = append(stable, r)
		}
	}
	return c.sorted(comp, stable), c.sorted(comp, pre), nil
}

// sorted puts the newest version first and leaves each version there once.
func (c *Client) sorted(comp *component.Component, list []component.Release) []component.Release {
	slices.SortStableFunc(list, func(a, b component.Release) int {
		return cmp.Or(b.Version.Compare(a.Version), b.PublishedAt.Compare(a.PublishedAt), cmp.Compare(b.Tag, a.Tag))
	})
	return slices.CompactFunc(list, func(a, b component.Release) bool {
		same := a.Version.Equal(b.Version)
		if same && a.Tag != b.Tag {
			c.log.Warn("two releases of one version: the older is left out", "component", comp.Name, "kept", a.Tag, "left_out", b.Tag)
		}
		return same
	})
}

func versionOf(comp *component.Component, raw rawRelease) (component.Version, bool) {
	if !raw.version.IsZero() {
		return raw.version, true
	}
	if v, ok := component.VersionFromTag(comp.Source.Tag, raw.tag); ok {
		return v, true
	}
	switch comp.Source.Type { // these name a release by its tag or by its bare version
	case component.SourceGrafana, component.SourceDirectory, component.SourceHTTP:
		return component.VersionFromTag("{version}", raw.tag)
	default:
		return component.Version{}, false
	}
}

// assets checks what upstream says of a release's files.
func (c *Client) assets(comp *component.Component, tag string, raws []rawAsset) ([]component.Asset, error) {
	var out []component.Asset
	local := comp.Source.Type == component.SourceDirectory // no server may point at files of this host
	for _, raw := range raws {
		a := component.Asset{Name: raw.name, URL: raw.url, Size: raw.size}
		if !validName(raw.name) {
			return nil, fmt.Errorf("release %s: asset name %q is not a file name", tag, raw.name)
		}
		u, err := url.Parse(raw.url)
		if err != nil || local != (u.Scheme == "file") || !local && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("release %s: asset %s: address %q is not an http or https URL", tag, raw.name, raw.url)
		}
		if u.Scheme == "http" && c.encrypted(comp) {
			// What is read over an open line could be changed together with its checksum.
			if comp.Source.Type != component.SourceGitLab {
				return nil, fmt.Errorf("release %s: asset %s: address %q is not encrypted, the list of releases is", tag, raw.name, raw.url)
			}
			c.log.Warn("a link without encryption is left out: the list of releases came with it", "component", comp.Name, "tag", tag, "link", raw.name)
			continue // links are the project's own: one may not spoil all releases
		}
		if raw.size < 0 {
			return nil, fmt.Errorf("release %s: asset %s: size %d is negative", tag, raw.name, raw.size)
		}
		if raw.digest != "" {
			if a.Digest, err = component.ParseDigest(raw.digest); err != nil {
				return nil, fmt.Errorf("release %s: asset %s: %w", tag, raw.name, err)
			}
		}
		if slices.ContainsFunc(out, func(o component.Asset) bool { return o.Name == a.Name }) {
			c.log.Warn("asset listed twice: the first is used", "component", comp.Name, "tag", tag, "asset", a.Name)
			continue
		}
		out = append(out, a)
	}
	return out, nil
}

// encrypted reports whether a component's releases are listed over https.
func (c *Client) encrypted(comp *component.Component) bool {
	base := map[component.SourceType]string{
		component.SourceGitHub: c.opts.GitHubURL, component.SourceGitLab: c.opts.GitLabURL, component.SourceGrafana: c.opts.GrafanaURL,
	}[comp.Source.Type]
	return strings.HasPrefix(strings.ToLower(base), "https://")
}

// validName reports whether s can name a file in a directory.
func validName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 &&
		!strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == '\\' || !unicode.IsPrint(r) })
}
