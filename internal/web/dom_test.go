package web

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// document is a page that was asked for.
type document struct {
	t    testing.TB
	code int
	head http.Header
	body string
	root *html.Node
}

// get asks for a page and reads it as a browser does.
func get(t testing.TB, address string) *document {
	t.Helper()
	return ask(t, http.MethodGet, address)
}

func ask(t testing.TB, method, address string) *document {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	return &document{t: t, code: res.StatusCode, head: res.Header, body: string(body), root: root}
}

// all are the elements of a name, in the document's order; "" for all names.
func (d *document) all(name string) []*html.Node { return all(d.root, name) }

func all(in *html.Node, name string) []*html.Node {
	var out []*html.Node
	for n := range in.Descendants() {
		if n.Type == html.ElementNode && (name == "" || n.Data == name) {
			out = append(out, n)
		}
	}
	return out
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, key string) bool {
	for _, a := range n.Attr {
		if a.Key == key {
			return true
		}
	}
	return false
}

// id is the element of an id.
func (d *document) id(id string) *html.Node {
	d.t.Helper()
	for _, n := range d.all("") {
		if attr(n, "id") == id {
			return n
		}
	}
	d.t.Fatalf("there is no element %q in\n%s", id, text(d.root))
	return nil
}

// text is what one reads in a node, in single spaces.
func text(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data + " ")
		}
		if n.Data == "template" {
			return
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(n)
	return strings.Join(strings.Fields(b.String()), " ")
}

// section is the one with a heading, as one reads it.
func (d *document) section(heading string) string {
	d.t.Helper()
	for _, s := range d.all("section") {
		for _, h := range all(s, "h2") {
			if strings.Contains(text(h), heading) {
				return text(s)
			}
		}
	}
	d.t.Fatalf("there is no section %q in\n%s", heading, text(d.root))
	return ""
}

// row is the row of a table that begins with a cell of this text, by the headings
// of its columns.
func (d *document) row(first string) map[string]string {
	d.t.Helper()
	for _, table := range d.all("table") {
		var heads []string
		for _, th := range all(all(table, "thead")[0], "th") {
			heads = append(heads, text(th))
		}
		for _, tr := range all(all(table, "tbody")[0], "tr") {
			var cells []string
			for c := tr.FirstChild; c != nil; c = c.NextSibling {
				if c.Type == html.ElementNode {
					cells = append(cells, text(c))
				}
			}
			if len(cells) == len(heads) && strings.HasPrefix(cells[0]+" ", first+" ") {
				out := map[string]string{}
				for i, h := range heads {
					out[h] = cells[i]
				}
				return out
			}
		}
	}
	d.t.Fatalf("there is no row %q in\n%s", first, text(d.root))
	return nil
}

func (d *document) says(want ...string) {
	d.t.Helper()
	page := text(d.root)
	for _, w := range want {
		if !strings.Contains(page, w) {
			d.t.Errorf("the page does not say %q:\n%s", w, page)
		}
	}
}

func (d *document) never(words ...string) {
	d.t.Helper()
	for _, w := range words {
		if strings.Contains(d.body, w) {
			d.t.Errorf("the page says %q:\n%s", w, text(d.root))
		}
	}
}
