package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

func TestAllPagesAreRead(t *testing.T) {
	for _, kind := range []string{"github", "gitlab"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t, kind)
			for i := range 250 {
				r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: fmt.Sprintf("v1.%d.0", i), PublishedAt: day.AddDate(0, 0, -i)})
			}
			list, err := r.client().Releases(t.Context(), r.component("tool"))
			if err != nil {
				t.Fatal(err)
			}
			if len(list) != 250 || list[0].Version.String() != "1.249.0" {
				t.Errorf("%d releases, first %v", len(list), list[0].Version)
			}
			if n := len(r.srv.Requests()); n != 3 {
				t.Errorf("%d requests, want 3", n)
			}
		})
	}
}

func TestTheListIsCapped(t *testing.T) {
	r := newRig(t, "github")
	for i := range maxReleases + 50 {
		r.publish(t, "owner/tool", releaseserver.Release{Tag: fmt.Sprintf("v1.%d.0", i), PublishedAt: day.AddDate(0, 0, i)})
	}
	list, err := r.client().Releases(t.Context(), r.component("tool"))
	if err != nil || len(list) != maxReleases || list[0].Version.Minor() != maxReleases+49 {
		t.Errorf("%d releases, %v", len(list), err)
	}
}

func TestPrereleaseSwitchAndTagTemplate(t *testing.T) {
	r := newRig(t, "github")
	for _, rel := range []releaseserver.Release{
		{Tag: "v0.8.7", Prerelease: true},
		{Tag: "v0.8.8-rc.1", Prerelease: true},
		{Tag: "mimir-3.2.2"},
		{Tag: "v0.8.7+rebuild", Prerelease: true, PublishedAt: day.AddDate(30, 0, 0)},
	} {
		r.publish(t, "owner/tool", rel)
	}
	comp := r.component("tool")
	res := r.client().All(t.Context(), []*component.Component{comp})["tool"]
	if res.Err != nil || len(res.Releases) != 0 || !slices.Equal(versions(res.Prereleases), []string{"0.8.8-rc.1", "0.8.7+rebuild"}) {
		t.Errorf("stable %v, others %v, %v", versions(res.Releases), versions(res.Prereleases), res.Err)
	}
	comp.Source.AcceptPrereleaseFlag = true
	list, err := r.client().Releases(t.Context(), comp)
	if err != nil || !slices.Equal(versions(list), []string{"0.8.7+rebuild"}) || !list[0].Prerelease {
		t.Errorf("with the switch: %v %v", versions(list), err)
	}
	comp.Source.Tag = "mimir-{version}"
	list, err = r.client().Releases(t.Context(), comp)
	if err != nil || !slices.Equal(versions(list), []string{"3.2.2"}) {
		t.Errorf("other tag: %v %v", versions(list), err)
	}
}

func TestComponentsOfOneRepositoryShareOneListing(t *testing.T) {
	r := newRig(t, "github")
	r.publish(t, "owner/loki", releaseserver.Release{Tag: "v3.6.0"})
	r.publish(t, "owner/other", releaseserver.Release{Tag: "v1.0.0"})
	loki, promtail, other, gone := r.component("loki"), r.component("loki"), r.component("other"), r.component("gone")
	loki.Name, promtail.Name, other.Name, gone.Name = "loki", "promtail", "other", "gone"
	gone2 := *gone
	gone2.Name = "gone2"
	pkg := &component.Component{Name: "nginx", Source: component.Source{Type: component.SourcePackage, Repo: "nginx-core"}}
	bad := &component.Component{Name: "bad", Source: component.Source{Type: "ftp"}}
	res := r.client().All(t.Context(), []*component.Component{loki, promtail, other, gone, &gone2, pkg, bad})
	for name, want := range map[string]string{"loki": "3.6.0", "promtail": "3.6.0", "other": "1.0.0"} {
		if got := res[name]; got.Err != nil || !slices.Equal(versions(got.Releases), []string{want}) {
			t.Errorf("%s: %v %v, want %s", name, versions(got.Releases), got.Err, want)
		}
	}
	for _, name := range []string{"gone", "gone2"} {
		if err := res[name].Err; !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "owner/gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := res["nginx"].Err; !errors.Is(err, ErrNoReleases) || !strings.Contains(err.Error(), `"nginx-core"`) {
		t.Errorf("package: %v", err)
	}
	if err := res["bad"].Err; err == nil || !strings.Contains(err.Error(), `"ftp"`) {
		t.Errorf("unknown type: %v", err)
	}
	if n := len(r.srv.Requests()); n != 3 {
		t.Errorf("%d requests, want 3: one per repository", n)
	}
}

func TestRateLimitIsKeptTo(t *testing.T) {
	r := newRig(t, "github")
	now := time.Now()
	r.opts.Now = func() time.Time { return now }
	r.publish(t, "owner/a", releaseserver.Release{Tag: "v1.0.0"})
	r.publish(t, "owner/b", releaseserver.Release{Tag: "v1.0.0"})
	r.srv.Fault("/repos/", releaseserver.Fault{Kind: releaseserver.Status, N: 403, After: 40 * time.Minute, Times: 1})
	c := r.client()
	for _, repo := range []string{"a", "b", "a"} {
		_, err := c.Releases(t.Context(), r.component(repo))
		var u *UnknownError
		if !errors.As(err, &u) || u.Status != 403 || u.RetryAt.Sub(now).Round(time.Minute) != 40*time.Minute {
			t.Fatalf("%s: %v, want RetryAt in 40 minutes", repo, err)
		}
	}
	if n := len(r.srv.Requests()); n != 1 {
		t.Errorf("%d requests before the reset, want 1", n)
	}
	now = now.Add(41 * time.Minute)
	if _, err := c.Releases(t.Context(), r.component("b")); err != nil {
		t.Errorf("after the reset: %v", err)
	}
}

func TestRetryAt(t *testing.T) {
	now := time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		header map[string]string
		want   time.Time
		ok     bool
	}{
		{"nothing", nil, time.Time{}, false},
		{"seconds", map[string]string{"Retry-After": "90"}, now.Add(90 * time.Second), true},
		{"date", map[string]string{"Retry-After": "Tue, 24 Nov 2026 03:00:00 GMT"}, now.Add(time.Hour), true},
		{"reset", map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795489200"}, time.Unix(1795489200, 0), true},
		{"GitLab's reset", map[string]string{"RateLimit-Remaining": "0", "RateLimit-Reset": "1795489200"}, time.Unix(1795489200, 0), true},
		{"remaining", map[string]string{"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "1795489200"}, time.Time{}, false},
		{"exhausted, bad reset", map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"}, now.Add(time.Minute), true},
		{"nonsense", map[string]string{"Retry-After": "-1"}, time.Time{}, false},
	} {
		h := http.Header{}
		for k, v := range tt.header {
			h.Set(k, v)
		}
		if got, ok := retryAt(h, now); ok != tt.ok || !got.Equal(tt.want) {
			t.Errorf("%s: %v %v, want %v %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestCache(t *testing.T) {
	eachSource(t, func(t *testing.T, r *rig) {
		if r.dir != "" {
			t.Skip("a directory is read each time")
		}
		now := time.Now()
		dir := t.TempDir()
		r.opts.CacheDir, r.opts.TTL, r.opts.Now = dir, time.Hour, func() time.Time { return now }
		r.opts.GitHubToken, r.opts.GitLabToken = "very-secret", "very-secret"
		r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v1.0.0"})
		ask := func(refresh bool) Result {
			t.Helper()
			r.opts.Refresh = refresh
			r.srv.ResetRequests()
			res := r.client().All(t.Context(), []*component.Component{r.component("tool")})["tool"]
			if res.Err != nil || len(res.Releases) != 1 {
				t.Fatalf("%v %v", res.Releases, res.Err)
			}
			return res
		}
		listing := strings.Contains(r.source("x").URL, "/plain/")
		statuses := func() (out []int) {
			for _, q := range r.srv.Requests() {
				if !listing || !strings.HasSuffix(q.Path, "index.json") {
					out = append(out, q.Status)
				}
			}
			return out
		}
		first := ask(false)
		now = now.Add(time.Minute)
		if res := ask(false); !listing && (!res.FromCache || !res.CheckedAt.Equal(first.CheckedAt) || len(r.srv.Requests()) != 0) {
			t.Errorf("young answer: FromCache %v, checked %v, %d requests", res.FromCache, res.CheckedAt, len(r.srv.Requests()))
		}
		want := []int{http.StatusNotModified}
		if listing { // no ETag
			want = []int{http.StatusOK}
		}
		if res := ask(true); res.FromCache || !res.CheckedAt.Equal(now) || !slices.Equal(statuses(), want) {
			t.Errorf("refresh: FromCache %v, checked %v, statuses %v, want %v", res.FromCache, res.CheckedAt, statuses(), want)
		}
		now = now.Add(2 * time.Hour)
		if ask(false); !slices.Equal(statuses(), want) {
			t.Errorf("old answer: statuses %v, want %v", statuses(), want)
		}
		checkFiles(t, dir)
		damage(t, dir)
		var log bytes.Buffer
		r.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		now = now.Add(time.Second)
		if res := ask(false); res.FromCache || !strings.Contains(log.String(), "level=WARN") {
			t.Errorf("damaged file: FromCache %v, log %q", res.FromCache, log.String())
		}
		if res := ask(false); !listing && !res.FromCache {
			t.Error("damaged file was not replaced")
		}
		now = now.Add(2 * time.Hour)
		r.srv.Fault(".", releaseserver.Fault{Kind: releaseserver.Status, N: 403})
		if res := r.client().All(t.Context(), []*component.Component{r.component("tool")})["tool"]; res.Err == nil || res.Releases != nil {
			t.Errorf("outage: a stale answer was given: %+v", res)
		}
	})
}

// An answer that is as it was changes no file: its time tells when it was last
// confirmed, where anybody asks for that.
func TestSameAnswerIsNotWrittenAgain(t *testing.T) {
	eachSource(t, func(t *testing.T, r *rig) {
		if r.dir != "" {
			t.Skip("a directory is read each time")
		}
		now := time.Now()
		r.opts.CacheDir, r.opts.Refresh, r.opts.Now = t.TempDir(), true, func() time.Time { return now }
		r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v1.0.0"})
		ask := func() map[string]fs.FileInfo {
			t.Helper()
			if res := r.client().All(t.Context(), []*component.Component{r.component("tool")})["tool"]; res.Err != nil || !res.CheckedAt.Equal(now) {
				t.Fatalf("%+v", res)
			}
			files := map[string]fs.FileInfo{}
			found, _ := filepath.Glob(filepath.Join(r.opts.CacheDir, "upstream", "*"))
			for _, path := range found {
				st, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				files[path] = st
			}
			if len(files) == 0 {
				t.Fatal("nothing is kept")
			}
			return files
		}
		first := ask()
		began := now
		now = now.Add(time.Minute)
		for path, st := range ask() {
			if !os.SameFile(st, first[path]) || !st.ModTime().Equal(first[path].ModTime()) {
				t.Errorf("%s was written again", path)
			}
		}
		r.opts.TTL = time.Hour
		now = now.Add(time.Minute)
		for path, st := range ask() {
			if age := now.Sub(st.ModTime()); !os.SameFile(st, first[path]) || age < 0 || age > time.Second {
				t.Errorf("%s: confirmed at %v, its time is %v, at first %v", path, now, st.ModTime(), began)
			}
		}
		r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v1.1.0"})
		now = now.Add(time.Minute)
		changed := false
		for path, st := range ask() {
			changed = changed || first[path] == nil || !os.SameFile(st, first[path])
		}
		if !changed {
			t.Error("a new answer was not kept")
		}
	})
}

// checkFiles asserts modes, and that nothing secret is kept.
func checkFiles(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		if e.IsDir() {
			return nil
		}
		files++
		if strings.HasPrefix(e.Name(), ".tmp-") {
			t.Errorf("temporary file %s is left", path)
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), "very-secret") {
			t.Errorf("%s holds the token", path)
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%d cache files, %v", files, err)
	}
}

func damage(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "upstream", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cache files: %v", err)
	}
	for i, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			raw = raw[:len(raw)/2]
		} else {
			raw = bytes.Replace(raw, []byte(`"sha256":"`), []byte(`"sha256":"0`), 1)
		}
		if err := os.WriteFile(f, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnwritableCacheCostsOnlyAWarning(t *testing.T) {
	r := newRig(t, "github")
	r.publish(t, "owner/tool", releaseserver.Release{Tag: "v1.0.0"})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	r.opts.CacheDir, r.opts.Logger = file, slog.New(slog.NewTextHandler(&log, nil))
	if list, err := r.client().Releases(t.Context(), r.component("tool")); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	if !strings.Contains(log.String(), "upstream answer not kept") {
		t.Errorf("log: %s", log.String())
	}
}

func TestTokensGoToTheirHostOnly(t *testing.T) {
	other := releaseserver.New(releaseserver.Options{})
	ts := httptest.NewServer(other)
	t.Cleanup(ts.Close)
	for _, kind := range []string{"github", "gitlab", "grafana", "index.json"} {
		t.Run(kind, func(t *testing.T) {
			other.ResetRequests()
			r := newRig(t, kind)
			r.opts.GitHubToken, r.opts.GitLabToken = "gh-secret", "gl-secret"
			if kind == "grafana" || kind == "index.json" {
				r.opts.GitHubURL, r.opts.GitLabURL = "http://127.0.0.1:1", "http://127.0.0.1:1"
			}
			r.publish(t, r.repoName("tool"), releaseserver.Release{Tag: "v1.0.0"})
			other.AddRelease(r.forge, r.repoName("tool"), releaseserver.Release{Tag: "v1.0.0"})
			r.srv.Fault(".", releaseserver.Fault{Kind: releaseserver.Redirect, To: ts.URL})
			if _, err := r.client().Releases(t.Context(), r.component("tool")); err != nil {
				t.Fatal(err)
			}
			for _, q := range other.Requests() {
				if q.Header.Get("Authorization") != "" || q.Header.Get("PRIVATE-TOKEN") != "" {
					t.Errorf("a token went to another host: %v", q.Header)
				}
			}
			for _, q := range r.srv.Requests() {
				want := kind == "github" || kind == "gitlab"
				if got := q.Header.Get("Authorization") == "Bearer gh-secret" || q.Header.Get("PRIVATE-TOKEN") == "gl-secret"; got != want {
					t.Errorf("token on the first host: %v, want %v", got, want)
				}
				if q.Header.Get("User-Agent") != DefaultUserAgent {
					t.Errorf("User-Agent %q", q.Header.Get("User-Agent"))
				}
			}
		})
	}
}

func TestAuthorize(t *testing.T) {
	c := New(Options{GitHubToken: "gh", GitLabToken: "gl", GrafanaURL: "https://user:pw@mirror.example/api"})
	for address, want := range map[string]string{
		"https://api.github.com/repos/o/r/releases/assets/1": "Bearer gh",
		"https://api.github.com:443/x":                       "Bearer gh",
		"http://api.github.com/x":                            "",
		"https://github.com/o/r/releases/download/v1/x":      "",
		"https://api.github.com.evil.example/x":              "",
		"https://gitlab.com/api/v4/x":                        "gl",
		"https://mirror.example/api/grafana/versions":        "Basic dXNlcjpwdw==",
		"https://mirror.example:8443/":                       "",
	} {
		req := httptest.NewRequest(http.MethodGet, address, nil)
		c.Authorize(req)
		if got := req.Header.Get("Authorization") + req.Header.Get("PRIVATE-TOKEN"); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

func TestMirrorCredentialsAreNotShown(t *testing.T) {
	for _, kind := range []string{"index.json", "listing"} {
		t.Run(kind, func(t *testing.T) {
			r := newRig(t, kind)
			r.publish(t, "tool", releaseserver.Release{Tag: "v1.0.0", Assets: []releaseserver.Asset{releaseserver.Bytes("x", []byte("x"))}})
			comp := r.component("tool")
			comp.Source.URL = strings.Replace(comp.Source.URL, "http://", "http://user:very-secret@", 1)
			r.opts.CacheDir = t.TempDir()
			c := r.client()
			list, err := c.Releases(t.Context(), comp)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := c.Resolve(t.Context(), comp, list[0])
			if err != nil || len(rel.Assets) != 1 || strings.Contains(rel.Assets[0].URL, "very-secret") {
				t.Errorf("%+v %v", rel, err)
			}
			for _, q := range r.srv.Requests() {
				if q.Header.Get("Authorization") == "" {
					t.Errorf("%s was asked without the mirror's credentials", q.Path)
				}
			}
			checkFiles(t, r.opts.CacheDir)
			r.srv.Fault(".", releaseserver.Fault{Kind: releaseserver.Status, N: 500})
			if _, err := c.Releases(t.Context(), comp); err == nil || strings.Contains(err.Error(), "very-secret") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestMovedRepository(t *testing.T) {
	r := newRig(t, "github")
	r.publish(t, "owner/new", releaseserver.Release{Tag: "v1.0.0"})
	r.srv.RenameRepo("owner/old", "owner/new")
	var log bytes.Buffer
	r.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	r.opts.GitHubURL = r.base + "/api/v3/" // the form of GitHub Enterprise Server
	list, err := r.client().Releases(t.Context(), r.component("old"))
	if err != nil || len(list) != 1 || !strings.Contains(log.String(), "repository may have moved") {
		t.Errorf("%v %v; log %s", list, err, log.String())
	}
}

func TestMirrorRedirectStaysOnItsHost(t *testing.T) {
	r := newRig(t, "index.json")
	r.srv.Fault(".", releaseserver.Fault{Kind: releaseserver.Redirect, To: "mirror.invalid"})
	_, err := r.client().Releases(t.Context(), r.component("tool"))
	if err == nil || !strings.Contains(err.Error(), "redirect to another host, http://mirror.invalid:80, refused") {
		t.Errorf("error %v", err)
	}
	if n := len(r.srv.Requests()); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestBadAssetsAreNamed(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 63)
	r := newRig(t, "github")
	a := releaseserver.Bytes("x.tar.gz", nil)
	a.Digest = digest
	r.publish(t, "owner/tool", releaseserver.Release{Tag: "v1.0.0", Assets: []releaseserver.Asset{a}})
	_, err := r.client().Releases(t.Context(), r.component("tool"))
	var u *UnknownError
	if !errors.As(err, &u) || !strings.Contains(err.Error(), "release v1.0.0: asset x.tar.gz: digest") {
		t.Errorf("bad digest: %v", err)
	}
	r = newRig(t, "github")
	b := releaseserver.Bytes("y.tar.gz", nil)
	b.State = "starter"
	r.publish(t, "owner/tool", releaseserver.Release{Tag: "v1.0.0", Assets: []releaseserver.Asset{b}})
	if list, err := r.client().Releases(t.Context(), r.component("tool")); err != nil || len(list) != 1 || len(list[0].Assets) != 0 {
		t.Errorf("asset that is not uploaded: %+v %v", list, err)
	}
	c := New(Options{})
	comp := &component.Component{Name: "tool", Source: component.Source{Type: component.SourceGitHub}}
	for _, raw := range []rawAsset{
		{name: "../x", url: "https://h/x"},
		{name: "", url: "https://h/x"},
		{name: "x", url: "file:///etc/shadow"},
		{name: "x", url: "x"},
		{name: "x", url: "https://h/x", size: -1},
	} {
		if got, err := c.assets(comp, "v1", []rawAsset{raw}); err == nil {
			t.Errorf("%+v accepted as %+v", raw, got)
		}
	}
}

func TestBadDefinitions(t *testing.T) {
	for _, s := range []component.Source{
		{Type: component.SourceGitHub, Repo: "no-slash"},
		{Type: component.SourceGitHub, Repo: "a/b/../c"},
		{Type: component.SourceGitLab},
		{Type: component.SourceGrafana},
		{Type: component.SourceDirectory, Path: "relative"},
		{Type: component.SourceHTTP, URL: "ftp://h/"},
		{Type: component.SourceHTTP, URL: "://"},
	} {
		_, err := New(Options{}).Releases(t.Context(), &component.Component{Name: "tool", Source: s})
		if err == nil || !strings.HasPrefix(err.Error(), "source.") {
			t.Errorf("%+v: %v", s, err)
		}
	}
	comp := &component.Component{Name: "tool", Source: component.Source{Type: component.SourceGitHub, Repo: "o/r"}}
	if _, err := New(Options{GitHubURL: "nonsense"}).Releases(t.Context(), comp); err == nil || !strings.Contains(err.Error(), "api_url") {
		t.Errorf("bad API base: %v", err)
	}
}
