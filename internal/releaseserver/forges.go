package releaseserver

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// page is the slice of a list that ?page and ?per_page ask for.
type page struct {
	number, perPage, total int
}

func pageOf(r *http.Request, def, total int) page {
	p := page{number: 1, perPage: def, total: total}
	if n, err := strconv.Atoi(r.URL.Query().Get("page")); err == nil && n > 0 {
		p.number = n
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("per_page")); err == nil && n > 0 {
		p.perPage = min(n, 100)
	}
	return p
}

func (p page) bounds() (from, to int) {
	from = min((p.number-1)*p.perPage, p.total)
	return from, min(from+p.perPage, p.total)
}

func (p page) last() int { return max((p.total+p.perPage-1)/p.perPage, 1) }

// link sets the Link header of RFC 8288 as GitHub and GitLab do.
func (p page) link(h http.Header, base string, u *url.URL) {
	var parts []string
	add := func(rel string, n int) {
		q := u.Query()
		q.Set("page", strconv.Itoa(n))
		q.Set("per_page", strconv.Itoa(p.perPage))
		parts = append(parts, fmt.Sprintf("<%s%s?%s>; rel=%q", base, u.EscapedPath(), q.Encode(), rel))
	}
	if p.number > 1 {
		add("prev", p.number-1)
	}
	if p.number < p.last() {
		add("next", p.number+1)
		add("last", p.last())
	}
	if p.number > 1 {
		add("first", 1)
	}
	if len(parts) > 0 {
		h.Set("Link", strings.Join(parts, ", "))
	}
}

func id(parts ...string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(strings.Join(parts, "\x00"))) // a hash never fails
	return h.Sum32() &^ (1 << 31)
}

func objectURL(base string, forge Forge, repo, tag, name string) string {
	return base + "/_objects/" + string(forge) + "/" + url.PathEscape(repo) + "/" + url.PathEscape(tag) + "/" + url.PathEscape(name)
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	s.log.Error("release server", "err", err)
	writeMessage(w, http.StatusInternalServerError, err.Error())
}

type gitHubAsset struct {
	ID                 uint32    `json:"id"`
	Name               string    `json:"name"`
	ContentType        string    `json:"content_type"`
	State              string    `json:"state"`
	Size               int64     `json:"size"`
	Digest             *string   `json:"digest"`
	CreatedAt          time.Time `json:"created_at"`
	URL                string    `json:"url"`
	BrowserDownloadURL string    `json:"browser_download_url"`
}

type gitHubRelease struct {
	ID          uint32        `json:"id"`
	URL         string        `json:"url"`
	HTMLURL     string        `json:"html_url"`
	TagName     string        `json:"tag_name"`
	Name        string        `json:"name"`
	Draft       bool          `json:"draft"`
	Prerelease  bool          `json:"prerelease"`
	CreatedAt   time.Time     `json:"created_at"`
	PublishedAt *time.Time    `json:"published_at"`
	Assets      []gitHubAsset `json:"assets"`
	Body        string        `json:"body"`
}

// gitHub answers OWNER/REPO/releases[/latest|/tags/TAG|/assets/ID].
func (s *Server) gitHub(w http.ResponseWriter, r *http.Request, segs []string) {
	if len(segs) < 3 || segs[2] != "releases" {
		s.notFound(w)
		return
	}
	repo, base := segs[0]+"/"+segs[1], s.base(r)
	s.mu.Lock()
	target, moved := s.renamed[repo]
	s.mu.Unlock()
	if moved {
		w.Header().Set("Location", base+strings.Replace(r.URL.RequestURI(), repo, target, 1))
		writeMessage(w, http.StatusMovedPermanently, "Moved Permanently")
		return
	}
	all, ok, err := s.list(GitHub, repo)
	switch {
	case err != nil:
		s.fail(w, err)
		return
	case !ok:
		s.notFound(w)
		return
	}
	rest := segs[3:]
	switch {
	case len(rest) == 0:
		p := pageOf(r, 30, len(all))
		from, to := p.bounds()
		out := []gitHubRelease{}
		for _, rel := range all[from:to] {
			g, err := s.gitHubRelease(base, repo, rel)
			if err != nil {
				s.fail(w, err)
				return
			}
			out = append(out, g)
		}
		p.link(w.Header(), base, r.URL)
		s.writeJSON(w, r, out)
	case len(rest) == 2 && rest[0] == "assets":
		for _, rel := range all {
			for _, a := range rel.Assets {
				if strconv.FormatUint(uint64(id(repo, rel.Tag, a.Name)), 10) != rest[1] {
					continue
				}
				if strings.Contains(r.Header.Get("Accept"), "application/octet-stream") {
					http.Redirect(w, r, objectURL(base, GitHub, repo, rel.Tag, a.Name), http.StatusFound)
					return
				}
			}
		}
		s.notFound(w)
	default:
		i := slices.IndexFunc(all, func(rel Release) bool {
			if rest[0] == "latest" && len(rest) == 1 {
				return !rel.Draft && !rel.Prerelease
			}
			return rest[0] == "tags" && rel.Tag == strings.Join(rest[1:], "/")
		})
		if i < 0 {
			s.notFound(w)
			return
		}
		g, err := s.gitHubRelease(base, repo, all[i])
		if err != nil {
			s.fail(w, err)
			return
		}
		s.writeJSON(w, r, g)
	}
}

func (s *Server) gitHubRelease(base, repo string, rel Release) (gitHubRelease, error) {
	g := gitHubRelease{
		ID:      id(repo, rel.Tag),
		URL:     fmt.Sprintf("%s/repos/%s/releases/%d", base, repo, id(repo, rel.Tag)),
		HTMLURL: base + "/" + repo + "/releases/tag/" + url.PathEscape(rel.Tag),
		TagName: rel.Tag, Name: rel.Name, Draft: rel.Draft, Prerelease: rel.Prerelease,
		CreatedAt: rel.PublishedAt.UTC(), Assets: []gitHubAsset{},
	}
	if g.Name == "" {
		g.Name = rel.Tag
	}
	if !rel.Draft {
		at := rel.PublishedAt.UTC()
		g.PublishedAt = &at
	}
	for _, a := range rel.Assets {
		size, err := a.size()
		if err != nil {
			return gitHubRelease{}, err
		}
		out := gitHubAsset{
			ID: id(repo, rel.Tag, a.Name), Name: a.Name, ContentType: "application/octet-stream", State: a.State,
			Size: size, CreatedAt: a.ModTime.UTC(),
			URL:                fmt.Sprintf("%s/repos/%s/releases/assets/%d", base, repo, id(repo, rel.Tag, a.Name)),
			BrowserDownloadURL: base + "/" + repo + "/releases/download/" + url.PathEscape(rel.Tag) + "/" + url.PathEscape(a.Name),
		}
		if out.State == "" {
			out.State = "uploaded"
		}
		if !rel.NoDigest {
			text := a.Digest
			if text == "" {
				sum, err := s.digest(a)
				if err != nil {
					return gitHubRelease{}, err
				}
				text = "sha256:" + sum
			}
			out.Digest = &text
		}
		g.Assets = append(g.Assets, out)
	}
	return g, nil
}

// gitHubDownload answers OWNER/REPO/releases/download/TAG/ASSET with a redirect
// to a signed-looking address, as GitHub does.
func (s *Server) gitHubDownload(w http.ResponseWriter, r *http.Request, segs []string) {
	repo, tag, name := segs[0]+"/"+segs[1], strings.Join(segs[4:len(segs)-1], "/"), segs[len(segs)-1]
	s.redirectToObject(w, r, GitHub, repo, tag, name)
}

func (s *Server) redirectToObject(w http.ResponseWriter, r *http.Request, forge Forge, repo, tag, name string) {
	rel, ok, err := s.find(forge, repo, tag)
	if err != nil {
		s.fail(w, err)
		return
	}
	if _, has := rel.asset(name); !ok || !has || rel.Draft {
		s.notFound(w)
		return
	}
	to := objectURL(s.base(r), forge, repo, tag, name)
	q := url.Values{"X-Amz-Expires": {"300"}, "X-Amz-Signature": {sha256Hex([]byte(to))}, "response-content-disposition": {"attachment; filename=" + name}}
	w.Header().Set("Cache-Control", "no-cache")
	http.Redirect(w, r, to+"?"+q.Encode(), http.StatusFound)
}

type gitLabLink struct {
	ID             uint32 `json:"id"`
	Name           string `json:"name"`
	URL            string `json:"url"`
	DirectAssetURL string `json:"direct_asset_url"`
	LinkType       string `json:"link_type"`
}

type gitLabRelease struct {
	TagName         string    `json:"tag_name"`
	Name            string    `json:"name"`
	Description     string    `json:"description"`
	CreatedAt       time.Time `json:"created_at"`
	ReleasedAt      time.Time `json:"released_at"`
	UpcomingRelease bool      `json:"upcoming_release"`
	Assets          struct {
		Count   int                 `json:"count"`
		Sources []map[string]string `json:"sources"`
		Links   []gitLabLink        `json:"links"`
	} `json:"assets"`
	Links map[string]string `json:"_links"`
}

// gitLab answers ID/releases, ID being a numeric id or an escaped path.
func (s *Server) gitLab(w http.ResponseWriter, r *http.Request, segs []string) {
	if len(segs) != 2 || segs[1] != "releases" {
		s.notFound(w)
		return
	}
	repo, base := segs[0], s.base(r)
	all, ok, err := s.list(GitLab, repo)
	if err != nil {
		s.fail(w, err)
		return
	}
	if !ok {
		writeMessage(w, http.StatusNotFound, "404 Project Not Found")
		return
	}
	all = slices.DeleteFunc(all, func(rel Release) bool { return rel.Draft })
	p := pageOf(r, 20, len(all))
	from, to := p.bounds()
	out := []gitLabRelease{}
	for _, rel := range all[from:to] {
		g := gitLabRelease{
			TagName: rel.Tag, Name: rel.Name, CreatedAt: rel.PublishedAt.UTC(), ReleasedAt: rel.PublishedAt.UTC(),
			UpcomingRelease: rel.Prerelease,
			Links:           map[string]string{"self": base + "/" + repo + "/-/releases/" + url.PathEscape(rel.Tag)},
		}
		g.Assets.Sources = []map[string]string{{"format": "tar.gz", "url": base + "/" + repo + "/-/archive/" + url.PathEscape(rel.Tag) + ".tar.gz"}}
		g.Assets.Links = []gitLabLink{}
		for _, a := range rel.Assets {
			g.Assets.Links = append(g.Assets.Links, gitLabLink{
				ID: id(repo, rel.Tag, a.Name), Name: a.Name, LinkType: "other",
				URL:            objectURL(base, GitLab, repo, rel.Tag, a.Name),
				DirectAssetURL: base + "/" + repo + "/-/releases/" + url.PathEscape(rel.Tag) + "/downloads/" + url.PathEscape(a.Name),
			})
		}
		g.Assets.Count = len(g.Assets.Links) + len(g.Assets.Sources)
		out = append(out, g)
	}
	h := w.Header()
	p.link(h, base, r.URL)
	h.Set("X-Page", strconv.Itoa(p.number))
	h.Set("X-Per-Page", strconv.Itoa(p.perPage))
	h.Set("X-Total", strconv.Itoa(p.total))
	h.Set("X-Total-Pages", strconv.Itoa(p.last()))
	h.Set("X-Next-Page", "")
	if p.number < p.last() {
		h.Set("X-Next-Page", strconv.Itoa(p.number+1))
	}
	s.writeJSON(w, r, out)
}

// gitLabDownload answers GROUP/PROJECT/-/releases/TAG/downloads/ASSET.
func (s *Server) gitLabDownload(w http.ResponseWriter, r *http.Request, segs []string) {
	dash, down := slices.Index(segs, "-"), slices.Index(segs, "downloads")
	if dash < 1 || dash+1 >= len(segs) || segs[dash+1] != "releases" || down < dash+3 || down != len(segs)-2 {
		s.notFound(w)
		return
	}
	s.redirectToObject(w, r, GitLab, strings.Join(segs[:dash], "/"), strings.Join(segs[dash+2:down], "/"), segs[down+1])
}
