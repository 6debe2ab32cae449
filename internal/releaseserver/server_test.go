package releaseserver

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, opts Options) (*Server, string) {
	t.Helper()
	s := New(opts)
	ts := httptest.NewServer(s)
	t.Cleanup(ts.Close)
	return s, ts.URL
}

func get(t *testing.T, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func TestGitHubShape(t *testing.T) {
	s, base := start(t, Options{})
	body := []byte("archive bytes of the release")
	for _, tag := range []string{"v1.0.0", "v1.1.0", "cmd/builder/v1.2.0"} {
		s.AddRelease(GitHub, "o/r", Release{Tag: tag, Assets: []Asset{Bytes("a b.tar.gz", body)}})
	}
	resp, raw, err := get(t, base+"/repos/o/r/releases?per_page=2")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("list: %v %v", resp, err)
	}
	if want := `<` + base + `/repos/o/r/releases?page=2&per_page=2>; rel="next"`; !strings.Contains(resp.Header.Get("Link"), want) {
		t.Errorf("Link = %q, want it to contain %q", resp.Header.Get("Link"), want)
	}
	var list []gitHubRelease
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].TagName != "cmd/builder/v1.2.0" {
		t.Fatalf("list = %+v", list)
	}
	a := list[0].Assets[0]
	if a.Digest == nil || *a.Digest != "sha256:"+sha256Hex(body) || a.Size != int64(len(body)) || a.State != "uploaded" {
		t.Errorf("asset = %+v", a)
	}
	if want := base + "/o/r/releases/download/cmd%2Fbuilder%2Fv1.2.0/a%20b.tar.gz"; a.BrowserDownloadURL != want {
		t.Errorf("download URL = %q, want %q", a.BrowserDownloadURL, want)
	}
	resp, _, err = get(t, base+"/repos/o/r/releases?per_page=2", "If-None-Match", resp.Header.Get("ETag"))
	if err != nil || resp.StatusCode != http.StatusNotModified {
		t.Errorf("conditional: %v %v, want 304", resp.StatusCode, err)
	}
	if resp.Header.Get("X-RateLimit-Remaining") == "" {
		t.Error("no x-ratelimit-remaining")
	}
	resp, _, err = get(t, a.BrowserDownloadURL)
	if err != nil || resp.StatusCode != http.StatusFound {
		t.Fatalf("download: %v %v, want 302", resp, err)
	}
	loc := resp.Header.Get("Location")
	resp, raw, err = get(t, loc, "Range", "bytes=8-")
	if err != nil || resp.StatusCode != http.StatusPartialContent || string(raw) != string(body[8:]) {
		t.Errorf("range: %v %q %v", resp.StatusCode, raw, err)
	}
	resp, _, err = get(t, base+"/api/v3/repos/o/r/releases/latest")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("latest below /api/v3: %v %v", resp.StatusCode, err)
	}
	resp, raw, err = get(t, base+"/repos/o/none/releases")
	if err != nil || resp.StatusCode != 404 || !strings.Contains(string(raw), `"message":"Not Found"`) {
		t.Errorf("unknown repo: %v %s %v", resp.StatusCode, raw, err)
	}
	s.RenameRepo("old/r", "o/r")
	resp, _, err = get(t, base+"/repos/old/r/releases?per_page=5")
	if err != nil || resp.StatusCode != 301 || resp.Header.Get("Location") != base+"/repos/o/r/releases?per_page=5" {
		t.Errorf("renamed: %v %q %v", resp.StatusCode, resp.Header.Get("Location"), err)
	}
	reqs := s.Requests()
	if last := reqs[len(reqs)-1]; last.Status != 301 || last.Path != "/repos/old/r/releases" || last.Query != "per_page=5" {
		t.Errorf("last request = %+v", last)
	}
}

func TestTokenAndRateLimit(t *testing.T) {
	s, base := start(t, Options{Token: "s3cret", RateLimit: 1})
	s.AddRepo(GitHub, "o/r")
	resp, _, err := get(t, base+"/repos/o/r/releases")
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without token: %v %v", resp.StatusCode, err)
	}
	resp, body, err := get(t, base+"/repos/o/r/releases", "Authorization", "Bearer s3cret")
	if err != nil || resp.StatusCode != 200 || string(body) != "[]" {
		t.Errorf("with token: %v %s %v", resp.StatusCode, body, err)
	}
	resp, _, err = get(t, base+"/repos/o/r/releases", "Authorization", "Bearer s3cret")
	if err != nil || resp.StatusCode != 403 || resp.Header.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("over the limit: %v %v", resp, err)
	}
}

func TestOtherForges(t *testing.T) {
	s, base := start(t, Options{})
	for _, f := range []struct {
		forge Forge
		repo  string
	}{{GitLab, "g/sub/p"}, {Grafana, "grafana"}, {Plain, "tool"}} {
		s.AddRelease(f.forge, f.repo, Release{Tag: "v1.0.0", Assets: []Asset{Bytes("x.tar.gz", []byte("xyz"))}})
	}
	for _, tt := range []struct{ path, want string }{
		{"/api/v4/projects/g%2Fsub%2Fp/releases", `"direct_asset_url": "` + base + `/g/sub/p/-/releases/v1.0.0/downloads/x.tar.gz"`},
		{"/api/grafana/versions", `"stable": true`},
		{"/api/grafana/versions/v1.0.0", `"sha256": "` + sha256Hex([]byte("xyz")) + `"`},
		{"/_objects/grafana/grafana/v1.0.0/x.tar.gz.sha256", sha256Hex([]byte("xyz"))},
		{"/plain/tool/", `<a href="v1.0.0/">`},
		{"/plain/tool/v1.0.0/", `<a href="x.tar.gz">`},
		{"/plain/tool/v1.0.0/x.tar.gz", "xyz"},
		{"/index/tool/index.json", `"url": "v1.0.0/x.tar.gz"`},
		{"/index/tool/v1.0.0/x.tar.gz", "xyz"},
	} {
		resp, body, err := get(t, base+tt.path)
		if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s: %v %v, body %s; want it to contain %s", tt.path, resp.StatusCode, err, body, tt.want)
		}
	}
	resp, _, err := get(t, base+"/g/sub/p/-/releases/v1.0.0/downloads/x.tar.gz")
	if err != nil || resp.StatusCode != http.StatusFound {
		t.Fatalf("GitLab download: %v %v", resp.StatusCode, err)
	}
	if _, body, err := get(t, resp.Header.Get("Location")); err != nil || string(body) != "xyz" {
		t.Errorf("GitLab object: %q %v", body, err)
	}
}

func TestDirectoryIsReadAnew(t *testing.T) {
	dir := t.TempDir()
	_, base := start(t, Options{Dir: dir})
	put := func(rel, body string) {
		t.Helper()
		p := filepath.Join(dir, filepath.FromSlash(rel))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if resp, _, err := get(t, base+"/repos/o/r/releases"); err != nil || resp.StatusCode != 404 {
		t.Fatalf("empty directory: %v %v", resp.StatusCode, err)
	}
	put("github/o/r/v1.0.0/x.tar.gz", "one")
	put("github/o/r/v2.0.0-rc.1/x.tar.gz", "two")
	put("github/o/r/v2.0.0-rc.1/.release.json", `{"prerelease":true,"published_at":"2030-01-02T03:04:05Z"}`)
	_, body, err := get(t, base+"/repos/o/r/releases")
	if err != nil {
		t.Fatal(err)
	}
	var list []gitHubRelease
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].TagName != "v2.0.0-rc.1" || !list[0].Prerelease || len(list[1].Assets) != 2 {
		t.Fatalf("list = %s", body)
	}
	_, body, err = get(t, base+"/_objects/github/o%2Fr/v1.0.0/sha256sums.txt")
	if want := sha256Hex([]byte("one")) + "  x.tar.gz\n"; err != nil || string(body) != want {
		t.Errorf("generated checksums %q %v, want %q", body, err, want)
	}
	put("github/o/r/v1.0.0/.release.json", "{")
	if resp, _, err := get(t, base+"/repos/o/r/releases"); err != nil || resp.StatusCode != 500 {
		t.Errorf("broken .release.json: %v %v, want 500", resp.StatusCode, err)
	}
	for _, p := range []string{"/_objects/github/..%2F../etc/passwd", "/repos/../x/releases", "/_objects/github/o%2Fr%2F..%2F../r/x"} {
		if resp, _, err := get(t, base+p); err != nil || resp.StatusCode != 404 {
			t.Errorf("%s: %v %v, want 404", p, resp.StatusCode, err)
		}
	}
}

func TestFaults(t *testing.T) {
	body := []byte(strings.Repeat("0123456789", 100))
	path := "/_objects/github/o%2Fr/v1/f"
	for _, tt := range []struct {
		name  string
		fault Fault
		check func(t *testing.T, resp *http.Response, got []byte, err error)
	}{
		{"wrong sum", Fault{Kind: WrongSum}, func(t *testing.T, _ *http.Response, got []byte, err error) {
			if err != nil || len(got) != len(body) || string(got) == string(body) {
				t.Errorf("len %d, err %v", len(got), err)
			}
		}},
		{"truncate", Fault{Kind: Truncate, N: 10}, func(t *testing.T, _ *http.Response, got []byte, err error) {
			if err == nil || len(got) != 10 {
				t.Errorf("len %d, err %v; want 10 bytes and an error", len(got), err)
			}
		}},
		{"slow", Fault{Kind: Slow, N: 20000}, func(t *testing.T, _ *http.Response, got []byte, err error) {
			if err != nil || string(got) != string(body) {
				t.Errorf("len %d, err %v", len(got), err)
			}
		}},
		{"403", Fault{Kind: Status, N: 403}, func(t *testing.T, resp *http.Response, _ []byte, _ error) {
			if resp.StatusCode != 403 || resp.Header.Get("X-RateLimit-Remaining") != "0" || resp.Header.Get("X-RateLimit-Reset") == "" {
				t.Errorf("%v %v", resp.Status, resp.Header)
			}
		}},
		{"429", Fault{Kind: Status, N: 429, After: 90 * time.Second}, func(t *testing.T, resp *http.Response, _ []byte, _ error) {
			if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "90" {
				t.Errorf("%v %v", resp.Status, resp.Header)
			}
		}},
		{"redirect", Fault{Kind: Redirect, To: "127.0.0.1:1"}, func(t *testing.T, resp *http.Response, _ []byte, _ error) {
			if resp.StatusCode != 302 || resp.Header.Get("Location") != "http://127.0.0.1:1"+path {
				t.Errorf("%v %v", resp.Status, resp.Header)
			}
		}},
		{"missing", Fault{Kind: Missing}, func(t *testing.T, resp *http.Response, _ []byte, _ error) {
			if resp.StatusCode != 404 {
				t.Errorf("%v", resp.Status)
			}
		}},
		{"html", Fault{Kind: HTML}, func(t *testing.T, resp *http.Response, got []byte, _ error) {
			if resp.StatusCode != 200 || !strings.HasPrefix(string(got), "<!DOCTYPE html>") {
				t.Errorf("%v %s", resp.Status, got)
			}
		}},
		{"no range", Fault{Kind: NoRange}, func(t *testing.T, resp *http.Response, got []byte, _ error) {
			if resp.StatusCode != 200 || len(got) != len(body) || resp.Header.Get("Accept-Ranges") != "" {
				t.Errorf("%v %d", resp.Status, len(got))
			}
		}},
		{"short length", Fault{Kind: WrongLength}, func(t *testing.T, _ *http.Response, got []byte, err error) {
			if err != nil || len(got) != 989 {
				t.Errorf("len %d, err %v", len(got), err)
			}
		}},
		{"long length", Fault{Kind: WrongLength, N: 5}, func(t *testing.T, _ *http.Response, got []byte, err error) {
			if err == nil || len(got) != 990 {
				t.Errorf("len %d, err %v", len(got), err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, base := start(t, Options{})
			s.AddRelease(GitHub, "o/r", Release{Tag: "v1", Assets: []Asset{Bytes("f", body)}})
			tt.fault.Times = 1
			tt.fault.Skip = 1
			s.Fault("/v1/f", tt.fault)
			if _, got, err := get(t, base+path); err != nil || string(got) != string(body) {
				t.Fatalf("first request must pass: %v", err)
			}
			var header []string
			switch tt.fault.Kind {
			case NoRange, WrongLength, WrongSum, Truncate:
				header = []string{"Range", "bytes=10-"}
			}
			if tt.fault.Kind == WrongSum || tt.fault.Kind == Truncate {
				header = nil
			}
			resp, got, err := get(t, base+path, header...)
			tt.check(t, resp, got, err)
			if _, got, err := get(t, base+path); err != nil || string(got) != string(body) {
				t.Errorf("third request must pass: %v", err)
			}
		})
	}
}

func TestWrongSumIsTheSameByteInEveryRange(t *testing.T) {
	s, base := start(t, Options{})
	s.AddRelease(GitHub, "o/r", Release{Tag: "v1", Assets: []Asset{Bytes("f", []byte("abcdef"))}})
	s.Fault(`f$`, Fault{Kind: WrongSum})
	var joined string
	for _, r := range []string{"bytes=0-1", "bytes=2-4", "bytes=5-"} {
		_, got, err := get(t, base+"/_objects/github/o%2Fr/v1/f", "Range", r)
		if err != nil {
			t.Fatal(err)
		}
		joined += string(got)
	}
	if want := "abc\x9bef"; joined != want { // 'd' is 0x64
		t.Errorf("joined %q, want %q", joined, want)
	}
}

func TestEndlessBodyEndsWithTheClient(t *testing.T) {
	s, base := start(t, Options{})
	s.AddRelease(GitHub, "o/r", Release{Tag: "v1", Assets: []Asset{Bytes("f", []byte("abc"))}})
	s.Fault("/v1/f", Fault{Kind: EndlessBody})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/_objects/github/o%2Fr/v1/f", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.CopyN(io.Discard, resp.Body, 1<<20)
	if err != nil || n != 1<<20 {
		t.Errorf("read %d bytes: %v", n, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestParseFault(t *testing.T) {
	for text, want := range map[string]Fault{
		"a=truncate:10x2":          {Kind: Truncate, N: 10, Times: 2},
		"a=missing":                {Kind: Missing},
		"a=missingx3":              {Kind: Missing, Times: 3},
		"a=status:403":             {Kind: Status, N: 403},
		"a=redirect:127.0.0.1:99":  {Kind: Redirect, To: "127.0.0.1:99"},
		"a=wrong-length:-5":        {Kind: WrongLength, N: -5},
		"x?per_page=100=no-rangex": {},
		"a=":                       {},
		"=missing":                 {},
		"a=bogus":                  {},
		"a=truncate":               {},
		"a=slow:0":                 {},
		"a=status:99":              {},
		"a=missing:1":              {},
	} {
		_, got, err := ParseFault(text)
		if want.Kind == "" {
			if err == nil {
				t.Errorf("%q: no error, got %+v", text, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	for _, s := range []string{"a=truncate:10x2", "a=b", "==x1", "a=status:403"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		match, fault, err := ParseFault(text)
		if err == nil && (match == "" || fault.Kind == "" || fault.Times < 0) {
			t.Errorf("%q accepted as %q %+v", text, match, fault)
		}
	})
}
