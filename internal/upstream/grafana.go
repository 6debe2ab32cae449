package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// grafanaVersions is the part used of GET /PRODUCT/versions, which lists nightly
// and beta builds too.
type grafanaVersions struct {
	Items []struct {
		Version     string          `json:"version"`
		Channels    map[string]bool `json:"channels"`
		ReleaseDate *time.Time      `json:"releaseDate"`
		CreatedAt   *time.Time      `json:"createdAt"`
		NotesURL    string          `json:"releaseNotesUrl"`
	} `json:"items"`
}

func decodeGrafana(body []byte) ([]rawRelease, error) {
	var v grafanaVersions
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, fmt.Errorf("want a JSON list of versions: %w", err)
	}
	if v.Items == nil {
		return nil, errors.New(`want a JSON object with "items"`)
	}
	out := make([]rawRelease, 0, len(v.Items))
	for _, i := range v.Items {
		if !i.Channels["stable"] {
			continue
		}
		r := rawRelease{tag: i.Version, notesURL: i.NotesURL}
		switch {
		case i.ReleaseDate != nil:
			r.publishedAt = *i.ReleaseDate
		case i.CreatedAt != nil:
			r.publishedAt = *i.CreatedAt
		}
		out = append(out, r)
	}
	return out, nil
}

// grafanaPackages is the part used of GET /PRODUCT/versions/V. The address
// carries a build id, so it cannot be made from the version.
type grafanaPackages struct {
	Packages []struct {
		URL    string `json:"url"`
		SHA256 string `json:"sha256"`
	} `json:"packages"`
}

func decodeGrafanaPackages(body []byte) ([]rawAsset, error) {
	var v grafanaPackages
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, fmt.Errorf("want a JSON object with packages: %w", err)
	}
	if v.Packages == nil {
		return nil, errors.New(`want a JSON object with "packages"`)
	}
	var out []rawAsset
	for _, p := range v.Packages {
		u, err := url.Parse(p.URL)
		if err != nil {
			return nil, fmt.Errorf("package address: %w", err)
		}
		a := rawAsset{name: path.Base(u.Path), url: p.URL}
		if p.SHA256 != "" {
			a.digest = "sha256:" + p.SHA256
		}
		out = append(out, a)
	}
	return out, nil
}

func (c *Client) grafanaURL(comp *component.Component) string {
	return c.opts.GrafanaURL + "/" + url.PathEscape(comp.Source.Repo) + "/versions"
}

func (c *Client) listGrafana(ctx context.Context, comp *component.Component) (listing, error) {
	if comp.Source.Repo == "" {
		return listing{}, errors.New("source.repo is empty: want a product of Grafana's versions API, such as grafana")
	}
	l, err := c.pages(ctx, request{component: comp.Name, url: c.grafanaURL(comp), accept: "application/json"}, decodeGrafana)
	if errors.Is(err, errMissing) {
		return listing{}, notFound("Grafana product "+comp.Source.Repo, "check source.repo ("+c.opts.GrafanaURL+")")
	}
	return l, err
}

func (c *Client) grafanaAssets(ctx context.Context, comp *component.Component, rel component.Release) ([]rawAsset, error) {
	var out []rawAsset
	_, err := c.get(ctx, request{
		component: comp.Name, url: c.grafanaURL(comp) + "/" + url.PathEscape(rel.Tag), accept: "application/json",
		decode: func(body []byte) (err error) {
			out, err = decodeGrafanaPackages(body)
			return err
		},
	})
	if errors.Is(err, errMissing) {
		return nil, notFound("version "+rel.Tag+" of Grafana product "+comp.Source.Repo, "it has been withdrawn; choose another version")
	}
	return out, err
}
