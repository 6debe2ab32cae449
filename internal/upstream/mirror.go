package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// mirrorIndex is the index.json of a plain HTTP mirror.
type mirrorIndex struct {
	Releases []struct {
		Version     string     `json:"version"`
		Tag         string     `json:"tag"`
		PublishedAt *time.Time `json:"published_at"`
		Prerelease  bool       `json:"prerelease"`
		Assets      []struct {
			Name   string `json:"name"`
			URL    string `json:"url"`
			Size   int64  `json:"size"`
			Digest string `json:"digest"`
		} `json:"assets"`
	} `json:"releases"`
}

func decodeIndex(base *url.URL, body []byte) ([]rawRelease, error) {
	var v mirrorIndex
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, fmt.Errorf("want a JSON object with releases: %w", err)
	}
	if v.Releases == nil {
		return nil, errors.New(`want a JSON object with "releases"`)
	}
	out := make([]rawRelease, 0, len(v.Releases))
	for i, e := range v.Releases {
		r := rawRelease{tag: e.Tag, prerelease: e.Prerelease}
		switch {
		case e.Version == "" && e.Tag == "":
			return nil, fmt.Errorf("release %d has neither version nor tag", i+1)
		case e.Version != "":
			ver, err := component.ParseVersion(e.Version)
			if err != nil {
				return nil, fmt.Errorf("release %d: %w", i+1, err)
			}
			r.version = ver
			if r.tag == "" {
				r.tag = e.Version
			}
		}
		if r.tag == "." || r.tag == ".." {
			return nil, fmt.Errorf("release %d: tag %q cannot name a release", i+1, r.tag)
		}
		if e.PublishedAt != nil {
			r.publishedAt = *e.PublishedAt
		}
		for _, a := range e.Assets {
			u, err := base.Parse(a.URL)
			if err != nil || a.URL == "" {
				return nil, fmt.Errorf("release %s: asset %s: address %q cannot be used", r.tag, a.Name, a.URL)
			}
			if !sameOrigin(base, u) {
				return nil, fmt.Errorf("release %s: asset %s is at another host, %s; a mirror serves its files itself", r.tag, a.Name, origin(u))
			}
			r.assets = append(r.assets, rawAsset{name: a.Name, url: u.String(), size: a.Size, digest: a.Digest})
		}
		out = append(out, r)
	}
	return out, nil
}

var (
	anchor  = regexp.MustCompile(`(?is)<a\s(?:[^>]*?\s)?href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))`)
	indexOf = regexp.MustCompile(`(?i)(index of|directory listing)`)
)

// decodeListing reads the links of a server's directory listing (nginx, Apache,
// Caddy, python's http.server): those to names directly below base. Links with
// a query (Apache's sorting), to parents and to other hosts are not entries. A
// page without directories (or files, when those are wanted) must call itself a
// listing: one that does not, such as a sign-in form, is an error.
func decodeListing(base *url.URL, body []byte, wantDirs bool) ([]string, error) {
	var out []string
	seen := map[string]bool{}
	for _, m := range anchor.FindAllSubmatch(body, -1) {
		href := html.UnescapeString(strings.TrimSpace(string(m[1]) + string(m[2]) + string(m[3])))
		u, err := base.Parse(href)
		if err != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !sameOrigin(base, u) {
			continue
		}
		name, ok := strings.CutPrefix(u.Path, base.Path)
		name, dir := strings.CutSuffix(name, "/")
		if !ok || dir != wantDirs || !validName(name) || strings.HasPrefix(name, ".") {
			continue
		}
		if !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	if len(out) == 0 && !indexOf.Match(body) {
		return nil, errors.New("neither index.json nor a directory listing is there")
	}
	return out, nil
}

func (c *Client) mirrorBase(comp *component.Component) (*url.URL, error) {
	text := c.expand(comp, comp.Source.URL)
	u, err := url.Parse(text)
	if err != nil { // its text is not shown: it may hold a password
		return nil, errors.New("source.url is not a URL")
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("source.url %q is not an http or https URL", safeURL(u))
	}
	c.remember(u)
	u.RawQuery, u.Fragment = "", ""
	return u.JoinPath("/"), nil
}

// listHTTP reads URL/index.json or, where there is none, the directory listing
// of URL; the files of a listed version are read by Resolve.
func (c *Client) listHTTP(ctx context.Context, comp *component.Component) (listing, error) {
	base, err := c.mirrorBase(comp)
	if err != nil {
		return listing{}, err
	}
	l := listing{where: safeURL(base), fromCache: true}
	var got []rawRelease
	a, err := c.get(ctx, request{
		component: comp.Name, url: base.JoinPath("index.json").String(), accept: "application/json", pinned: true,
		decode: func(body []byte) (err error) {
			got, err = decodeIndex(base, body)
			return err
		},
	})
	if errors.Is(err, errMissing) {
		var names []string
		if names, a, err = c.readListing(ctx, comp, base, true); err == nil {
			got = nil
			for _, name := range names {
				got = append(got, rawRelease{tag: name})
			}
		}
	}
	if errors.Is(err, errMissing) {
		return listing{}, notFound("mirror "+l.where, "neither it nor its index.json exists; check source.url")
	}
	if err != nil {
		return listing{}, err
	}
	l.add(got, a)
	return l, nil
}

// readListing lists the directories, or the files, below an address.
func (c *Client) readListing(ctx context.Context, comp *component.Component, dir *url.URL, wantDirs bool) ([]string, answer, error) {
	var out []string
	a, err := c.get(ctx, request{
		component: comp.Name, url: dir.String(), accept: "text/html", pinned: true,
		decode: func(body []byte) (err error) {
			out, err = decodeListing(dir, body, wantDirs)
			return err
		},
	})
	return out, a, err
}

func (c *Client) listingAssets(ctx context.Context, comp *component.Component, rel component.Release) ([]rawAsset, error) {
	base, err := c.mirrorBase(comp)
	if err != nil {
		return nil, err
	}
	dir := base.JoinPath(url.PathEscape(rel.Tag), "/")
	names, _, err := c.readListing(ctx, comp, dir, false)
	if errors.Is(err, errMissing) {
		return nil, notFound("release "+rel.Tag+" at "+safeURL(dir), "the mirror no longer has it")
	}
	if err != nil {
		return nil, err
	}
	var out []rawAsset
	for _, name := range names {
		out = append(out, rawAsset{name: name, url: dir.JoinPath(url.PathEscape(name)).String()})
	}
	return out, nil
}
