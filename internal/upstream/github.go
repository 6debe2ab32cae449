package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

const (
	perPage     = 100
	maxReleases = 1000 // newest by date that are listed; no component has as many live lines
	maxPages    = 50   // for a server that gives shorter pages than asked for
)

var gitHubRepo = regexp.MustCompile(`^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$`)

// gitHubRelease is the part used of GitHub's "List releases" answer.
type gitHubRelease struct {
	TagName     string     `json:"tag_name"`
	HTMLURL     string     `json:"html_url"`
	Draft       bool       `json:"draft"`
	Prerelease  bool       `json:"prerelease"`
	PublishedAt *time.Time `json:"published_at"`
	Assets      []struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Size   int64  `json:"size"`
		URL    string `json:"browser_download_url"`
		Digest string `json:"digest"`
	} `json:"assets"`
}

func decodeGitHub(body []byte) ([]rawRelease, error) {
	var list []gitHubRelease
	if err := decodeList(body, &list); err != nil {
		return nil, err
	}
	out := make([]rawRelease, 0, len(list))
	for _, g := range list {
		if g.Draft {
			continue
		}
		r := rawRelease{tag: g.TagName, prerelease: g.Prerelease, notesURL: g.HTMLURL}
		if g.PublishedAt != nil {
			r.publishedAt = *g.PublishedAt
		}
		for _, a := range g.Assets {
			if a.State == "" || a.State == "uploaded" { // others are not complete
				r.assets = append(r.assets, rawAsset{name: a.Name, url: a.URL, digest: a.Digest, size: a.Size})
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// decodeList reads a JSON array; null is none.
func decodeList[T any](body []byte, out *[]T) error {
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("want a JSON list of releases: %w", err)
	}
	if *out == nil {
		return errors.New("want a JSON list of releases, got null")
	}
	return nil
}

func (c *Client) listGitHub(ctx context.Context, comp *component.Component) (listing, error) {
	if !gitHubRepo.MatchString(comp.Source.Repo) {
		return listing{}, fmt.Errorf("source.repo %q: want OWNER/NAME", comp.Source.Repo)
	}
	first := fmt.Sprintf("%s/repos/%s/releases?per_page=%d&page=1", c.opts.GitHubURL, comp.Source.Repo, perPage)
	l, err := c.pages(ctx, request{
		component: comp.Name, url: first, accept: "application/vnd.github+json",
		headers: map[string]string{"X-GitHub-Api-Version": "2022-11-28"},
	}, decodeGitHub)
	if errors.Is(err, errMissing) {
		return listing{}, notFound("GitHub repository "+comp.Source.Repo,
			"check source.repo, or set upstream.github.token if it is private ("+c.opts.GitHubURL+")")
	}
	return l, err
}

// pages collects a list that is cut into pages by Link headers (or GitLab's
// X-Next-Page).
func (c *Client) pages(ctx context.Context, r request, decode func([]byte) ([]rawRelease, error)) (listing, error) {
	l := listing{where: r.url, fromCache: true}
	seen := map[string]bool{}
	for n := 0; r.url != ""; n++ {
		if n == maxPages || len(l.releases) >= maxReleases {
			c.log.Warn("upstream lists more releases than are read", "component", r.component, "read", len(l.releases))
			break
		}
		if seen[r.url] {
			return listing{}, &UnknownError{URL: r.url, Err: errors.New("the pages of the list lead back to one already read")}
		}
		seen[r.url] = true
		var got []rawRelease
		r.decode = func(body []byte) (err error) {
			got, err = decode(body)
			return err
		}
		a, err := c.get(ctx, r)
		if err != nil {
			return listing{}, err
		}
		l.add(got, a)
		if r.url, err = following(r.url, a); err != nil {
			return listing{}, &UnknownError{URL: l.where, Err: err}
		}
	}
	return l, nil
}

func (l *listing) add(rel []rawRelease, a answer) {
	l.releases = append(l.releases, rel...)
	l.fromCache = l.fromCache && a.fromCache
	if l.checkedAt.IsZero() || a.checkedAt.Before(l.checkedAt) {
		l.checkedAt = a.checkedAt
	}
}

// following is the address of the next page, "" after the last.
func following(current string, a answer) (string, error) {
	if link := nextLink(a.link); link != "" {
		return nextURL(current, link)
	}
	if a.nextPage == "" {
		return "", nil
	}
	u, err := url.Parse(current)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", current, err)
	}
	q := u.Query()
	q.Set("page", a.nextPage)
	u.RawQuery = q.Encode()
	return u.String(), nil
}
