package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

// rig is a release server and one kind of source on it.
type rig struct {
	srv  *releaseserver.Server
	base string
	dir  string // of a directory source; "" for those asked over HTTP
	opts Options
	// source addresses a repository.
	source func(repo string) component.Source
	forge  releaseserver.Forge
	flags  bool // the source can flag drafts and pre-releases
	digest bool // the source states digests
	dates  bool // the source states dates
}

func (r *rig) client() *Client {
	c := New(r.opts)
	c.retry = time.Millisecond
	return c
}

func (r *rig) component(repo string) *component.Component {
	return &component.Component{Name: "tool", Source: r.source(repo)}
}

// publish adds a release, in the directory too.
func (r *rig) publish(t *testing.T, repo string, rel releaseserver.Release) {
	t.Helper()
	if r.dir == "" {
		r.srv.AddRelease(r.forge, repo, rel)
		return
	}
	dir := filepath.Join(r.dir, repo, rel.Tag)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range rel.Assets {
		f, _, err := a.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, a.Name)
		if err := os.WriteFile(file, body, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, rel.PublishedAt, rel.PublishedAt); err != nil {
			t.Fatal(err)
		}
	}
}

func newRig(t *testing.T, kind string) *rig {
	t.Helper()
	srv := releaseserver.New(releaseserver.Options{})
	ts := httptest.NewServer(srv)
	t.Cleanup(ts.Close)
	r := &rig{srv: srv, base: ts.URL, flags: true, digest: true, dates: true}
	r.opts = Options{
		GitHubURL: ts.URL, GitLabURL: ts.URL + "/api/v4", GrafanaURL: ts.URL + "/api/",
		HTTP: ts.Client(), Timeout: 20 * time.Second,
	}
	switch kind {
	case "github":
		r.forge = releaseserver.GitHub
		r.source = func(repo string) component.Source {
			return component.Source{Type: component.SourceGitHub, Repo: "owner/" + repo}
		}
	case "gitlab":
		r.forge, r.digest = releaseserver.GitLab, false
		r.source = func(repo string) component.Source {
			return component.Source{Type: component.SourceGitLab, Repo: "group/sub/" + repo}
		}
	case "grafana":
		r.forge = releaseserver.Grafana
		r.source = func(repo string) component.Source {
			return component.Source{Type: component.SourceGrafana, Repo: repo}
		}
	case "index.json":
		r.forge = releaseserver.Plain
		r.source = func(repo string) component.Source {
			return component.Source{Type: component.SourceHTTP, URL: ts.URL + "/index/" + repo}
		}
	case "listing":
		r.forge, r.flags, r.digest, r.dates = releaseserver.Plain, false, false, false
		r.source = func(repo string) component.Source {
			return component.Source{Type: component.SourceHTTP, URL: ts.URL + "/plain/" + repo + "/"}
		}
	case "directory":
		r.flags, r.digest = false, false
		r.dir = t.TempDir()
		r.opts.Root = r.dir
		r.source = func(repo string) component.Source {
			return component.Source{Type: component.SourceDirectory, Path: "{root}/" + repo}
		}
	default:
		t.Fatalf("no rig %q", kind)
	}
	return r
}

// repoName is the server's name for a repository of the rig.
func (r *rig) repoName(repo string) string {
	switch r.forge {
	case releaseserver.GitHub:
		return "owner/" + repo
	case releaseserver.GitLab:
		return "group/sub/" + repo
	default:
		return repo
	}
}

func eachSource(t *testing.T, run func(t *testing.T, r *rig)) {
	t.Helper()
	for _, kind := range []string{"github", "gitlab", "grafana", "index.json", "listing", "directory"} {
		t.Run(kind, func(t *testing.T) { run(t, newRig(t, kind)) })
	}
}

func versions(list []component.Release) []string {
	out := []string{}
	for _, r := range list {
		out = append(out, r.Version.String())
	}
	return out
}

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestContractListsStableReleasesByVersion(t *testing.T) {
	eachSource(t, func(t *testing.T, r *rig) {
		body := []byte("archive of v1.10.0")
		for i, tag := range []string{"v1.10.0", "v1.9.0", "v1.2.0", "v1.10.1-rc.1", "nightly", "other-9.0.0"} {
			asset := "tool-linux amd64+x.tar.gz"
			b := body
			if tag != "v1.10.0" {
				b = []byte("archive of " + tag)
			}
			// The older the version the newer the date.
			r.publish(t, r.repoName("tool"), releaseserver.Release{
				Tag: tag, PublishedAt: day.AddDate(0, 0, i), Assets: []releaseserver.Asset{releaseserver.Bytes(asset, b)},
			})
		}
		if r.flags {
			r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v3.0.0", Draft: true, PublishedAt: day})
			r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v2.0.0", Prerelease: true, PublishedAt: day})
		}
		c, comp := r.client(), r.component("tool")
		res := c.All(t.Context(), []*component.Component{comp})["tool"]
		if res.Err != nil {
			t.Fatal(res.Err)
		}
		if got, want := versions(res.Releases), []string{"1.10.0", "1.9.0", "1.2.0"}; !slices.Equal(got, want) {
			t.Fatalf("versions %q, want %q", got, want)
		}
		if res.FromCache || res.CheckedAt.IsZero() {
			t.Errorf("FromCache %v, CheckedAt %v", res.FromCache, res.CheckedAt)
		}
		rel, err := c.Resolve(t.Context(), comp, res.Releases[0])
		if err != nil {
			t.Fatal(err)
		}
		if r.dates && !rel.PublishedAt.Equal(day) {
			t.Errorf("published at %v, want %v", rel.PublishedAt, day)
		}
		a, ok := rel.FindAsset("tool-linux amd64+x.tar.gz")
		if !ok {
			t.Fatalf("assets %q", rel.AssetNames())
		}
		if r.digest != (a.Digest != "") {
			t.Errorf("digest %q, stated: %v", a.Digest, r.digest)
		}
		if got := fetchAsset(t, a.URL); got != string(body) {
			t.Errorf("%s holds %q, want %q", a.URL, got, body)
		}
	})
}

func fetchAsset(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme == "file" {
		b, err := os.ReadFile(u.Path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", address, resp.Status, err)
	}
	return string(b)
}

func TestContractUnknownRepositoryAndEmptyOne(t *testing.T) {
	eachSource(t, func(t *testing.T, r *rig) {
		_, err := r.client().Releases(t.Context(), r.component("nowhere"))
		if !errors.Is(err, ErrNotFound) || strings.Contains(err.Error(), "tool") {
			t.Errorf("unknown repository: %v, want ErrNotFound; the caller names the component", err)
		}
		if r.dir != "" {
			if err := os.Mkdir(filepath.Join(r.dir, "empty"), 0o755); err != nil {
				t.Fatal(err)
			}
		} else {
			r.srv.AddRepo(r.forge, r.repoName("empty"))
		}
		list, err := r.client().Releases(t.Context(), r.component("empty"))
		if err != nil || len(list) != 0 {
			t.Errorf("empty repository: %v %v, want none and no error", list, err)
		}
	})
}

func TestContractWhatCannotBeAskedIsUnknown(t *testing.T) {
	for _, tt := range []struct {
		name     string
		fault    releaseserver.Fault
		status   int
		requests int // to the first address
		retryAt  bool
		text     string
	}{
		{"500", releaseserver.Fault{Kind: releaseserver.Status, N: 500}, 500, 3, false, "use a mirror"},
		{"503 with a long Retry-After", releaseserver.Fault{Kind: releaseserver.Status, N: 503, After: time.Minute}, 503, 1, true, "answers again at"},
		{"403 rate limit", releaseserver.Fault{Kind: releaseserver.Status, N: 403}, 403, 1, true, "set a token"},
		{"429", releaseserver.Fault{Kind: releaseserver.Status, N: 429, After: 2 * time.Minute}, 429, 1, true, "rate limit reached"},
		{"401", releaseserver.Fault{Kind: releaseserver.Status, N: 401}, 401, 1, false, "check the token"},
		{"sign-in page", releaseserver.Fault{Kind: releaseserver.HTML}, 200, 1, false, "makes no sense"},
		{"cut answer", releaseserver.Fault{Kind: releaseserver.Truncate, N: 20}, 0, 3, false, "unexpected EOF"},
		{"no end", releaseserver.Fault{Kind: releaseserver.EndlessBody}, 200, 1, false, "longer than 32 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachSource(t, func(t *testing.T, r *rig) {
				if r.dir != "" {
					t.Skip("a directory is not asked over HTTP")
				}
				r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v1.0.0"})
				if r.source("x").Type == component.SourceHTTP && strings.Contains(r.source("x").URL, "/plain/") {
					r.srv.Fault("index.json", releaseserver.Fault{Kind: releaseserver.Missing})
				}
				r.srv.Fault(".", tt.fault)
				_, err := r.client().Releases(t.Context(), r.component("tool"))
				var u *UnknownError
				if !errors.As(err, &u) {
					t.Fatalf("error %v, want an UnknownError", err)
				}
				if u.Status != tt.status || u.RetryAt.IsZero() == tt.retryAt || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%+v\n%v\nwant status %d, RetryAt %v, text %q", u, err, tt.status, tt.retryAt, tt.text)
				}
				n := 0
				for _, q := range r.srv.Requests() {
					if !strings.HasSuffix(q.Path, "index.json") || !strings.Contains(r.source("x").URL, "/plain/") {
						n++
					}
				}
				if n != tt.requests {
					t.Errorf("%d requests, want %d", n, tt.requests)
				}
			})
		})
	}
}

func TestContractOutageThatPasses(t *testing.T) {
	for name, f := range map[string]releaseserver.Fault{
		"500 twice":         {Kind: releaseserver.Status, N: 500, Times: 2},
		"short Retry-After": {Kind: releaseserver.Status, N: 429, After: time.Second, Times: 1},
		"cut once":          {Kind: releaseserver.Truncate, N: 5, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "github")
			r.publish(t, "owner/tool", releaseserver.Release{Tag: "v1.0.0"})
			r.srv.Fault("/repos/", f)
			list, err := r.client().Releases(t.Context(), r.component("tool"))
			if err != nil || len(list) != 1 {
				t.Errorf("%v %v, want one release", list, err)
			}
		})
	}
}

func TestContractCancel(t *testing.T) {
	eachSource(t, func(t *testing.T, r *rig) {
		r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v1.0.0"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.client().Releases(ctx, r.component("tool"))
		var u *UnknownError
		if !errors.Is(err, context.Canceled) || !errors.As(err, &u) {
			t.Errorf("error %v, want an UnknownError of context.Canceled", err)
		}
	})
}

func TestContractTimeoutAndRefusedConnection(t *testing.T) {
	eachSource(t, func(t *testing.T, r *rig) {
		if r.dir != "" {
			t.Skip("a directory is not asked over HTTP")
		}
		r.srv.Fault(".", releaseserver.Fault{Kind: releaseserver.Hang})
		r.opts.Timeout = 300 * time.Millisecond
		tries := &counting{}
		r.opts.HTTP = &http.Client{Transport: tries}
		_, err := r.client().Releases(t.Context(), r.component("tool"))
		var u *UnknownError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), "no complete answer within 300ms") {
			t.Errorf("hanging server: %v", err)
		}
		if n := tries.n.Load(); n != maxTries { // here: the server may see one too late
			t.Errorf("%d tries, want %d", n, maxTries)
		}
		r.opts.HTTP = &http.Client{Transport: refusing{}}
		if _, err = r.client().Releases(t.Context(), r.component("tool")); !errors.As(err, &u) || u.Status != 0 {
			t.Errorf("no connection: %v", err)
		}
	})
}

// counting counts what is asked.
type counting struct{ n atomic.Int32 }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return http.DefaultTransport.RoundTrip(r)
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}
