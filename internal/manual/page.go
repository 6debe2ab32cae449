package manual

import (
	"bytes"
	"fmt"
	"strings"
)

// page is a manual page while it is written.
type page struct{ buf bytes.Buffer }

func newPage(name, section, kind string, o Options) *page {
	p := &page{}
	fmt.Fprintf(&p.buf, ".TH %s %s %s \"observability\\-upgrade %s\" %q\n", text(strings.ToUpper(name)), section,
		o.Date.UTC().Format("2006-01-02"), text(o.Version), kind)
	// No hyphenation, left-justified: names of files and options stay whole.
	p.line(".nh\n.ad l")
	return p
}

func (p *page) bytes() []byte { return p.buf.Bytes() }

// line writes a line as it is.
func (p *page) line(s string) { p.buf.WriteString(s + "\n") }

func (p *page) section(title string) { p.line(".SH " + title) }

// tagged writes an item of a list; tag is in roff already.
func (p *page) tagged(tag, body string) {
	p.line(".TP\n" + tag)
	p.line(guard(text(body)))
}

func (p *page) entries(title string, list []Entry) {
	p.section(title)
	for _, e := range list {
		p.tagged(`\fI`+text(e.Name)+`\fR`, e.Text)
	}
}

// prose writes paragraphs, parted by empty lines. Indented lines are shown as they
// are.
func (p *page) prose(s string) {
	var kept []string
	flush := func() {
		if len(kept) > 0 {
			p.line(".PP")
			p.literal(kept)
			kept = nil
		}
	}
	begin := false
	for i, l := range strings.Split(strings.TrimSpace(s), "\n") {
		switch {
		case strings.TrimSpace(l) == "":
			flush()
			begin = true
		case strings.HasPrefix(l, " "), strings.HasPrefix(l, "\t"):
			kept, begin = append(kept, strings.ReplaceAll(l, "\t", "  ")), false
		default:
			after := len(kept) > 0
			flush()
			if i > 0 && (begin || after) {
				p.line(".PP")
			}
			begin = false
			p.line(guard(text(l)))
		}
	}
	flush()
}

// literal writes lines that are not filled, indented.
func (p *page) literal(lines []string) {
	p.line(".RS 4\n.nf")
	for _, l := range lines {
		p.line(guard(text(strings.TrimRight(strings.TrimPrefix(l, "  "), " "))))
	}
	p.line(".fi\n.RE")
}

// escapes make text of characters that roff takes for its own: the backslash, the
// hyphen, which would else not be one that can be copied into a shell, and quotes,
// which would be typographic.
var escapes = strings.NewReplacer(`\`, `\e`, `-`, `\-`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`, `"`, `\(dq`)

// text escapes what is not roff.
func text(s string) string { return escapes.Replace(s) }

// guard keeps a line of text from being taken for a request.
func guard(line string) string {
	var out []string
	for l := range strings.SplitSeq(line, "\n") {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			l = `\&` + l
		}
		out = append(out, l)
	}
	return strings.Join(out, "\n")
}
