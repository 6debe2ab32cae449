package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// gitLabRelease is the part used of GitLab's "List Releases" answer. It has no
// sizes and no digests; assets.sources are archives of the repository.
type gitLabRelease struct {
	TagName    string     `json:"tag_name"`
	Upcoming   bool       `json:"upcoming_release"`
	ReleasedAt *time.Time `json:"released_at"`
	Assets     struct {
		Links []struct {
			Name      string `json:"name"`
			URL       string `json:"url"`
			DirectURL string `json:"direct_asset_url"`
		} `json:"links"`
	} `json:"assets"`
	Links struct {
		Self string `json:"self"`
	} `json:"_links"`
}

func decodeGitLab(body []byte) ([]rawRelease, error) {
	var list []gitLabRelease
	if err := decodeList(body, &list); err != nil {
		return nil, err
	}
	out := make([]rawRelease, 0, len(list))
	for _, g := range list {
		if g.Upcoming {
			continue
		}
		r := rawRelease{tag: g.TagName, notesURL: g.Links.Self}
		if g.ReleasedAt != nil {
			r.publishedAt = *g.ReleasedAt
		}
		for _, a := range g.Assets.Links {
			raw := rawAsset{name: a.Name, url: a.DirectURL}
			if raw.url == "" {
				raw.url = a.URL
			}
			u, err := url.Parse(raw.url)
			if err != nil {
				return nil, fmt.Errorf("release %s: link %q: %w", g.TagName, a.Name, err)
			}
			if !validName(raw.name) { // a link's name is free text: a path or a label
				raw.name = path.Base(u.Path)
			}
			if !validName(raw.name) || u.Scheme != "http" && u.Scheme != "https" {
				continue // links may lead anywhere; this one is to no file
			}
			r.assets = append(r.assets, raw)
		}
		out = append(out, r)
	}
	return out, nil
}

func (c *Client) listGitLab(ctx context.Context, comp *component.Component) (listing, error) {
	if comp.Source.Repo == "" {
		return listing{}, errors.New("source.repo is empty: want a GitLab project's path or numeric id")
	}
	first := fmt.Sprintf("%s/projects/%s/releases?per_page=%d&page=1", c.opts.GitLabURL, url.PathEscape(comp.Source.Repo), perPage)
	l, err := c.pages(ctx, request{component: comp.Name, url: first, accept: "application/json"}, decodeGitLab)
	if errors.Is(err, errMissing) {
		return listing{}, notFound("GitLab project "+comp.Source.Repo,
			"check source.repo, or set upstream.gitlab.token if it is private ("+c.opts.GitLabURL+")")
	}
	return l, err
}
