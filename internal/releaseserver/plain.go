package releaseserver

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// grafana answers PRODUCT/versions and PRODUCT/versions/V[/packages].
func (s *Server) grafana(w http.ResponseWriter, r *http.Request, segs []string) {
	if len(segs) < 2 || segs[1] != "versions" || len(segs) > 4 || len(segs) == 4 && segs[3] != "packages" {
		s.notFound(w)
		return
	}
	product, base := segs[0], s.base(r)
	all, ok, err := s.list(Grafana, product)
	if err != nil {
		s.fail(w, err)
		return
	}
	all = slices.DeleteFunc(all, func(rel Release) bool { return rel.Draft })
	if !ok {
		s.notFound(w)
		return
	}
	item := func(rel Release) map[string]any {
		return map[string]any{
			"product": product, "version": rel.Tag, "createdAt": rel.PublishedAt.UTC(), "releaseDate": rel.PublishedAt.UTC(),
			"channels": map[string]bool{"stable": !rel.Prerelease, "beta": rel.Prerelease, "nightly": false},
		}
	}
	if len(segs) == 2 {
		items := []map[string]any{}
		for _, rel := range all {
			items = append(items, item(rel))
		}
		s.writeJSON(w, r, map[string]any{"items": items, "total": len(items)})
		return
	}
	i := slices.IndexFunc(all, func(rel Release) bool { return rel.Tag == segs[2] })
	if i < 0 {
		s.notFound(w)
		return
	}
	packages := []map[string]string{}
	for _, a := range all[i].Assets {
		if a.Name == checksumsName {
			continue
		}
		p := map[string]string{
			"product": product, "version": all[i].Tag, "os": "linux", "arch": "amd64", "license": "agpl",
			"url": objectURL(base, Grafana, product, all[i].Tag, a.Name),
		}
		if strings.Contains(a.Name, "arm64") {
			p["arch"] = "arm64"
		}
		sum := a.Digest
		if sum == "" && !all[i].NoDigest {
			if sum, err = s.digest(a); err != nil {
				s.fail(w, err)
				return
			}
		}
		p["sha256"] = strings.TrimPrefix(sum, "sha256:")
		packages = append(packages, p)
	}
	out := item(all[i])
	out["packages"] = packages
	s.writeJSON(w, r, out)
}

// plainListing answers NAME/ and NAME/VERSION/ as nginx's autoindex does, and
// NAME/VERSION/ASSET with the file.
func (s *Server) plainListing(w http.ResponseWriter, r *http.Request, segs []string) {
	if len(segs) == 0 {
		s.notFound(w)
		return
	}
	if len(segs) == 3 {
		s.object(w, r, append([]string{string(Plain)}, segs...))
		return
	}
	all, ok, err := s.list(Plain, segs[0])
	if err != nil {
		s.fail(w, err)
		return
	}
	all = slices.DeleteFunc(all, func(rel Release) bool { return rel.Draft })
	var names []string
	switch {
	case !ok || len(segs) > 2:
		s.notFound(w)
		return
	case len(segs) == 1:
		for _, rel := range all {
			names = append(names, rel.Tag+"/")
		}
	default:
		i := slices.IndexFunc(all, func(rel Release) bool { return rel.Tag == segs[1] })
		if i < 0 {
			s.notFound(w)
			return
		}
		for _, a := range all[i].Assets {
			names = append(names, a.Name)
		}
	}
	if !strings.HasSuffix(r.URL.Path, "/") {
		http.Redirect(w, r, r.URL.EscapedPath()+"/", http.StatusMovedPermanently)
		return
	}
	slices.Sort(names)
	var b strings.Builder
	title := html.EscapeString(r.URL.Path)
	fmt.Fprintf(&b, "<html>\r\n<head><title>Index of %s</title></head>\r\n<body>\r\n<h1>Index of %s</h1><hr><pre><a href=\"../\">../</a>\r\n", title, title)
	for _, n := range names {
		href := (&url.URL{Path: "./" + n}).EscapedPath()
		fmt.Fprintf(&b, "<a href=\"%s\">%s</a>    01-Jan-2026 00:00    -\r\n", html.EscapeString(strings.TrimPrefix(href, "./")), html.EscapeString(n))
	}
	b.WriteString("</pre><hr></body>\r\n</html>\r\n")
	w.Header().Set("Content-Type", "text/html")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	_, _ = w.Write([]byte(b.String())) // a client that went away needs no answer
}

// plainIndex answers NAME/index.json, and NAME/VERSION/ASSET with the file.
func (s *Server) plainIndex(w http.ResponseWriter, r *http.Request, segs []string) {
	if len(segs) == 3 {
		s.object(w, r, append([]string{string(Plain)}, segs...))
		return
	}
	if len(segs) != 2 || segs[1] != "index.json" {
		s.notFound(w)
		return
	}
	all, ok, err := s.list(Plain, segs[0])
	if err != nil {
		s.fail(w, err)
		return
	}
	if !ok {
		s.notFound(w)
		return
	}
	releases := []map[string]any{}
	for _, rel := range all {
		if rel.Draft {
			continue
		}
		assets := []map[string]any{}
		for _, a := range rel.Assets {
			size, err := a.size()
			if err != nil {
				s.fail(w, err)
				return
			}
			out := map[string]any{"name": a.Name, "url": url.PathEscape(rel.Tag) + "/" + url.PathEscape(a.Name), "size": size}
			if !rel.NoDigest {
				sum := a.Digest
				if sum == "" {
					if sum, err = s.digest(a); err != nil {
						s.fail(w, err)
						return
					}
				}
				out["digest"] = "sha256:" + strings.TrimPrefix(sum, "sha256:")
			}
			assets = append(assets, out)
		}
		out := map[string]any{"tag": rel.Tag, "published_at": rel.PublishedAt.UTC(), "prerelease": rel.Prerelease, "assets": assets}
		if v := strings.TrimPrefix(rel.Tag, "v"); v != "" && v[0] >= '0' && v[0] <= '9' {
			out["version"] = v // other tags are left for the reader's own template
		}
		releases = append(releases, out)
	}
	s.writeJSON(w, r, map[string]any{"releases": releases})
}

// object serves FORGE/REPO/TAG/ASSET with ranges, ETag and conditional requests.
// Beside each file, ASSET.sha256 is its bare hexadecimal SHA-256, as Grafana's
// download host has it, unless the release holds such a file itself.
func (s *Server) object(w http.ResponseWriter, r *http.Request, segs []string) {
	if len(segs) != 4 {
		s.notFound(w)
		return
	}
	rel, ok, err := s.find(Forge(segs[0]), segs[1], segs[2])
	if err != nil {
		s.fail(w, err)
		return
	}
	a, has := rel.asset(segs[3])
	if ok && !has && segs[0] == string(Grafana) {
		if of, isSum := rel.asset(strings.TrimSuffix(segs[3], ".sha256")); isSum && strings.HasSuffix(segs[3], ".sha256") {
			sum, err := s.digest(of)
			if err != nil {
				s.fail(w, err)
				return
			}
			a, has = Bytes(segs[3], []byte(sum)), true
			a.ModTime, a.key = of.ModTime, "bare|"+of.key
		}
	}
	if !ok || !has {
		s.notFound(w)
		return
	}
	f, _, err := a.Open()
	if err != nil {
		s.fail(w, err)
		return
	}
	defer func() { _ = f.Close() }() // opened for reading only
	sum, err := s.digest(a)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("ETag", `"`+sum+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, a.Name, a.ModTime, f)
}
