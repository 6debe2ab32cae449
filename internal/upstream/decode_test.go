package upstream

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestNextLink(t *testing.T) {
	for header, want := range map[string]string{
		"": "",
		`<https://h/a?page=2>; rel="next", <https://h/a?page=9>; rel="last"`: "https://h/a?page=2",
		`<https://h/a?page=1>; rel="prev", <https://h/a?x=1,2>; rel="next"`:  "https://h/a?x=1,2",
		`<https://h/a>; title="a, b; rel=next"; rel=last, <u>; REL="x Next"`: "u",
		`<https://h/a>; rel=next`:  "https://h/a",
		`<https://h/a; rel="next"`: "",
		`https://h/a; rel="next"`:  "",
	} {
		if got := nextLink(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
}

func TestNextURL(t *testing.T) {
	for link, want := range map[string]string{
		"https://h/a?page=2":     "https://h/a?page=2",
		"https://h:443/a?page=2": "https://h:443/a?page=2",
		"/a?page=2":              "https://h/a?page=2",
		"http://h/a?page=2":      "",
		"https://evil/a":         "",
		"file:///etc/passwd":     "",
	} {
		got, err := nextURL("https://h/a", link)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q %v, want %q", link, got, err, want)
		}
	}
}

func TestDecodeListing(t *testing.T) {
	base := mustURL(t, "http://m/tools/x/")
	for _, tt := range []struct {
		name, body  string
		dirs, files []string
	}{
		{"nginx", "<html><head><title>Index of /tools/x/</title></head><body><pre><a href=\"../\">../</a>\n<a href=\"v1.0.0/\">v1.0.0/</a> 01-Jan\n<a href=\"a%2Bb%20c.txt\">a</a></pre>", []string{"v1.0.0"}, []string{"a+b c.txt"}},
		{"apache", `<title>Index of /tools/x</title><th><a href="?C=N;O=D">Name</a></th><td><a href="/tools/">Parent Directory</a></td><td><a href="1.2.3/">1.2.3/</a></td><td><a class="f" href='notes&amp;co.txt'>n</a>`, []string{"1.2.3"}, []string{"notes&co.txt"}},
		{"absolute and unquoted", `Index of <A HREF=/tools/x/v2.0.0/>v2</A> <a href="http://m/tools/x/v3.0.0/">v3</a> <a href="http://m/tools/x/v3.0.0/">again</a>`, []string{"v2.0.0", "v3.0.0"}, nil},
		{"foreign and deep", `Index of <a href="http://evil/tools/x/v1/">e</a><a href="v1/deep/">d</a><a href="..%2F..%2Fetc/">p</a><a href="#top">t</a><a href=".hidden/">h</a><a href="javascript:alert(1)">j</a><a data-href="v9/">n</a>`, nil, nil},
		{"empty", "<title>Index of /tools/x/</title><a href=\"../\">../</a>", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, want := range []struct {
				dirs bool
				list []string
			}{{true, tt.dirs}, {false, tt.files}} {
				got, err := decodeListing(base, []byte(tt.body), want.dirs)
				if err != nil || !slices.Equal(got, want.list) {
					t.Errorf("directories %v: %q %v, want %q", want.dirs, got, err, want.list)
				}
			}
		})
	}
	if got, err := decodeListing(base, []byte(`<html>Please <a href="/">sign in</a>, <a href="help">help</a></html>`), true); err == nil {
		t.Errorf("sign-in page accepted as %q", got)
	}
}

func TestDecodersRefuseNonsense(t *testing.T) {
	base := mustURL(t, "http://m/x/")
	index := func(b []byte) ([]rawRelease, error) { return decodeIndex(base, b) }
	for name, decode := range map[string]func([]byte) ([]rawRelease, error){
		"github": decodeGitHub, "gitlab": decodeGitLab, "grafana": decodeGrafana, "index": index,
	} {
		for _, body := range []string{"", "null", "{", `"x"`, `{"message":"Not Found"}`, "<html>", "[] x", `[{"tag_name":1}]`, `{"items":3,"releases":3}`} {
			if got, err := decode([]byte(body)); err == nil {
				t.Errorf("%s: %q accepted as %+v", name, body, got)
			}
		}
	}
	for _, body := range []string{
		`{"releases":[{}]}`,
		`{"releases":[{"version":"latest"}]}`,
		`{"releases":[{"version":"1.0","tag":".."}]}`,
		`{"releases":[{"tag":"v1","assets":[{"name":"x"}]}]}`,
		`{"releases":[{"tag":"v1","assets":[{"name":"x","url":"http://evil/x"}]}]}`,
		`{"releases":[{"tag":"v1","published_at":"yesterday"}]}`,
	} {
		if got, err := index([]byte(body)); err == nil {
			t.Errorf("index %s accepted as %+v", body, got)
		}
	}
	if got, err := decodeGrafanaPackages([]byte(`{"version":"1.0"}`)); err == nil {
		t.Errorf("no packages: %+v", got)
	}
}

func TestDecodeGitLabLinks(t *testing.T) {
	got, err := decodeGitLab([]byte(`[{"tag_name":"v1","assets":{"sources":[{"format":"zip","url":"https://h/s.zip"}],"links":[
		{"name":"bin/linux","url":"https://h/dl/x.tar.gz"},
		{"name":"x.zip","url":"https://h/a","direct_asset_url":"https://h/-/x.zip"},
		{"name":"see the/docs","url":"https://docs.example/"},
		{"name":"f","url":"ftp://h/f"}]}}, {"tag_name":"v2","upcoming_release":true}]`))
	if err != nil || len(got) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	want := []rawAsset{{name: "x.tar.gz", url: "https://h/dl/x.tar.gz"}, {name: "x.zip", url: "https://h/-/x.zip"}}
	if !slices.Equal(got[0].assets, want) {
		t.Errorf("assets %+v, want %+v", got[0].assets, want)
	}
}

func FuzzDecodeGitHub(f *testing.F) {
	f.Add([]byte(`[{"tag_name":"v1","assets":[{"name":"x","state":"uploaded","size":1,"browser_download_url":"https://h/x","digest":"sha256:00"}]}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, err := decodeGitHub(body); err != nil && got != nil {
			t.Error("releases beside an error")
		}
	})
}

func FuzzDecodeGitLab(f *testing.F) {
	f.Add([]byte(`[{"tag_name":"v1","assets":{"links":[{"name":"a/b","url":"https://h/x"}]}}]`))
	f.Add([]byte(`[{"assets":{"links":[{}]}}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, _ := decodeGitLab(body)
		for _, r := range got {
			for _, a := range r.assets {
				if !validName(a.name) {
					t.Errorf("name %q", a.name)
				}
			}
		}
	})
}

func FuzzDecodeGrafana(f *testing.F) {
	f.Add([]byte(`{"items":[{"version":"1","channels":{"stable":true}}]}`))
	f.Add([]byte(`{"items":[{"version":"12.0.0","channels":{"stable":false},"releaseDate":"2026-01-02T03:04:05Z"},{"version":"11.6.0","channels":{"stable":true},"createdAt":"2026-01-02T03:04:05Z","releaseNotesUrl":"https://h/n"}]}`))
	f.Add([]byte(`{"items":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if got, err := decodeGrafana(body); err != nil && got != nil {
			t.Error("versions beside an error")
		}
	})
}

// What one version of a Grafana product consists of, docs of GET /PRODUCT/versions/V.
func FuzzDecodeGrafanaPackages(f *testing.F) {
	f.Add([]byte(`{"packages":[{"url":"https://h/x","sha256":"0"}]}`))
	f.Add([]byte(`{"packages":[{"url":"https://dl.grafana.com/grafana/release/12.1.0/grafana_12.1.0_17007_linux_amd64.tar.gz","sha256":"cb1f2fc5c4b4ca96c4f9bb9da6d4bfa0d58ae6d0bfdb1f3a3f8bd0ad2f0a6d0c"},{"url":"https://dl.grafana.com/x?y=1#z"}]}`))
	f.Add([]byte(`{"packages":[{"url":":"}]}`))
	f.Add([]byte(`{"packages":[{}]}`))
	f.Add([]byte(`{"packages":{}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decodeGrafanaPackages(body)
		if err != nil && got != nil {
			t.Error("packages beside an error")
		}
		for _, a := range got {
			if _, err := url.Parse(a.url); err != nil || a.name == "" || strings.Contains(a.name, "/") && a.name != "/" {
				t.Errorf("%+v: %v", a, err)
			}
		}
	})
}

func FuzzDecodeIndex(f *testing.F) {
	base := mustURL(f, "http://m/x/")
	f.Add([]byte(`{"releases":[{"version":"1.0.0","assets":[{"name":"a","url":"1.0.0/a","digest":"00"}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, _ := decodeIndex(base, body)
		for _, r := range got {
			for _, a := range r.assets {
				if u, err := url.Parse(a.url); err != nil || !sameOrigin(u, base) {
					t.Errorf("address %q is not at the mirror", a.url)
				}
			}
		}
	})
}

func FuzzDecodeListing(f *testing.F) {
	base := mustURL(f, "http://m/x/")
	f.Add([]byte(`Index of <a href="v1/">v1</a><a href='../'>up</a><a href=x%2f..%2fy>`), true)
	f.Fuzz(func(t *testing.T, body []byte, dirs bool) {
		got, _ := decodeListing(base, body, dirs)
		for _, name := range got {
			if !validName(name) || strings.HasPrefix(name, ".") {
				t.Errorf("name %q", name)
			}
		}
	})
}

func FuzzNextLink(f *testing.F) {
	f.Add(`<https://h/a?page=2>; rel="next", <x>; rel="last"`)
	f.Add(`<<>>;;rel=next,"`)
	f.Fuzz(func(t *testing.T, header string) {
		if link := nextLink(header); link != "" {
			if next, err := nextURL("https://h/a", link); err == nil && !strings.HasPrefix(strings.ToLower(next), "https://h") {
				t.Errorf("%q leads to %q", header, next)
			}
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add([]byte(`{"key":{"url":"u","accept":"a"},"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k := cacheKey{URL: "u", Accept: "a"}
		if e, err := decodeEntry(raw, k); err == nil && e.Key != k {
			t.Errorf("entry of %v accepted", e.Key)
		}
	})
}
