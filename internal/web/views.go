package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed templates/*.html assets/*
var files embed.FS

// view is what a template shows.
type view struct {
	Title    string
	Template string // of the page's content
	Page     string // which entry of the menu it is; may be empty
	Host     string
	Build    string
	Live     bool // the script listens for what happens
	Refresh  bool // without the script, the page is asked for again by itself
	Body     any

	Made   stamp             // filled in by render
	Assets map[string]string // paths by plain name, filled in by render
}

// views holds the templates and the files beside them.
type views struct {
	pages  map[string]*template.Template
	paths  map[string]string // of the assets, by plain name
	assets map[string]asset  // by the last part of their path
}

type asset struct {
	kind string
	body []byte
}

func newViews() *views {
	v := &views{pages: map[string]*template.Template{}, paths: map[string]string{}, assets: map[string]asset{}}
	entries, err := files.ReadDir("assets")
	if err != nil {
		panic(err) // they are embedded
	}
	for _, e := range entries {
		body, err := files.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		// The name changes with the content, so a browser may keep it for good.
		sum := sha256.Sum256(body)
		ext := path.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext) + "." + hex.EncodeToString(sum[:6]) + ext
		v.assets[name] = asset{kind: mediaType(ext), body: body}
		v.paths[e.Name()] = "/assets/" + name
	}
	shared := template.Must(template.New("").ParseFS(files, "templates/layout.html", "templates/parts.html"))
	for _, name := range []string{"home.html", "run.html", "history.html", "backups.html", "trouble.html"} {
		v.pages[name] = template.Must(template.Must(shared.Clone()).ParseFS(files, "templates/"+name))
	}
	return v
}

// mediaType does not ask the host, whose tables differ.
func mediaType(ext string) string {
	switch ext {
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return mime.TypeByExtension(ext)
}

// render makes the whole page before it sends any of it, so that one that cannot
// be made is not sent in part.
func (v *views) render(w http.ResponseWriter, code int, page view, now time.Time) error {
	page.Made, page.Assets = stampOf(now, now), v.paths
	var buf bytes.Buffer
	if err := v.pages[page.Template].ExecuteTemplate(&buf, "layout.html", page); err != nil {
		http.Error(w, "This page cannot be made; the log of this service says why.", http.StatusInternalServerError)
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, err := w.Write(buf.Bytes())
	return err
}

func (h *Handler) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := h.views.assets[r.PathValue("file")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
}
