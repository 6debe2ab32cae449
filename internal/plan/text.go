package plan

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Style is how text is laid out.
type Style struct {
	Color bool // ANSI colours
	Width int  // columns; below 40 stands for 80
}

func (st Style) width() int {
	if st.Width < 40 {
		return 80
	}
	return st.Width
}

type colour string

const (
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	faint  colour = "2"
)

func (st Style) paint(c colour, s string) string {
	if !st.Color || c == Default || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// page collects text and hands it to a writer once.
type page struct {
	strings.Builder
	Style
}

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) title(s string) {
	p.line("%s", p.paint(bold, s))
	p.line("%s", strings.Repeat("=", utf8.RuneCountInString(s)))
}

// wrapped writes text between the margins, broken at spaces; words longer than a
// line, such as addresses, are left whole.
func (p *page) wrapped(first, rest string, c colour, text string) {
	lead, room := first, p.width()
	var line []string
	used := visible(lead)
	flush := func() {
		p.line("%s%s", lead, p.paint(c, strings.Join(line, " ")))
		lead, line, used = rest, nil, visible(rest)
	}
	for _, w := range strings.Fields(plain(text)) {
		n := utf8.RuneCountInString(w)
		if len(line) > 0 && used+n > room {
			flush()
		}
		line = append(line, w)
		used += n + 1
	}
	if len(line) > 0 {
		flush()
	}
}

// visible is the number of columns that s takes, colours not counted.
func visible(s string) int {
	n := 0
	inside := false
	for _, r := range s {
		switch {
		case r == '\x1b':
			inside = true
		case inside:
			inside = r != 'm'
		default:
			n++
		}
	}
	return n
}

// table writes rows below a header, columns aligned, two spaces between them.
// paintCell colours a column of a row; it may be nil.
func (p *page) table(header []string, rows [][]string, paintCell func(row, col int) colour) {
	widths := make([]int, len(header))
	for _, r := range append([][]string{header}, rows...) {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	write := func(r []string, paint func(col int) colour) int {
		var b strings.Builder
		used := 0
		for i, cell := range r {
			pad := widths[i] - utf8.RuneCountInString(cell)
			used += widths[i] + 2
			if c := paint(i); c != "" {
				cell = p.paint(c, cell)
			}
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", pad+2))
			}
		}
		p.line("%s", strings.TrimRight(b.String(), " "))
		return used - 2
	}
	n := write(header, func(int) colour { return bold })
	p.line("%s", strings.Repeat("-", min(n, p.width())))
	for i, r := range rows {
		write(r, func(col int) colour {
			if paintCell == nil {
				return ""
			}
			return paintCell(i, col)
		})
	}
}

func (p *page) flush(w io.Writer) error {
	_, err := io.WriteString(w, p.String())
	return err
}

var escape = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]`)

// plain drops escape sequences and control characters, so that text from
// elsewhere cannot steer a terminal.
func plain(s string) string {
	s = escape.ReplaceAllString(s, "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, s)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}

// WriteCheck writes a report as text, in the form of docs/specification.md,
// section 10, with a reason for everything that is not upgraded.
func WriteCheck(w io.Writer, r CheckReport, st Style) error {
	p := &page{Style: st}
	var updates, kept, elsewhere, current []Candidate
	for _, c := range r.Components {
		switch {
		case c.Action == ActionUpgrade:
			updates = append(updates, c)
		case c.Action != ActionSkip:
			kept = append(kept, c)
		case c.VersionsBehind == 0 && c.Type == component.BumpNone:
			current = append(current, c)
		case c.Latest.IsZero() && slices.ContainsFunc(r.Errors, func(e ComponentError) bool { return e.Component == c.Name }):
			// told with the errors
		default:
			elsewhere = append(elsewhere, c)
		}
	}
	slices.SortStableFunc(updates, func(a, b Candidate) int { return min(1, len(b.Fixes)) - min(1, len(a.Fixes)) })
	p.checkUpdates(updates, r)
	p.vulnerable(r.Components)
	p.checkList("Held back:", yellow, kept)
	p.checkList("Left alone:", "", elsewhere)
	p.checkCurrent(current, len(r.Components))
	if len(r.Errors) > 0 {
		p.line("")
		p.line("Upstream could not be asked:")
		for _, e := range r.Errors {
			p.wrapped("  - ", "    ", red, e.Component+": "+e.Error)
		}
	}
	if len(updates) > 0 {
		p.line("")
		p.line("Run 'observability-upgrade plan' to see upgrade plan")
		p.line("Run 'observability-upgrade apply' to upgrade")
	}
	return p.flush(w)
}

func (p *page) checkUpdates(list []Candidate, r CheckReport) {
	known := slices.ContainsFunc(r.Components, func(c Candidate) bool { return !c.Latest.IsZero() })
	switch {
	case len(list) > 0:
	case len(r.Errors) > 0 && !known:
		p.line("Not known whether there are updates: no upstream could be asked.")
		return
	case len(r.Errors) > 0:
		p.line("No updates to install of what could be asked.")
		return
	default:
		p.line("No updates to install.")
		return
	}
	p.title("Updates Available:")
	var rows [][]string
	for _, c := range list {
		rows = append(rows, []string{c.Name, orDash(c.Current.String()), orDash(c.Latest.String()), string(c.Type), orDash(c.ReleaseDate)})
	}
	p.table([]string{"Component", "Current", "Latest", "Type", "Release Date"}, rows, func(row, col int) colour {
		switch {
		case col != 3:
			return ""
		case list[row].Type == component.BumpMajor:
			return yellow
		}
		return green
	})
	var notes, less []Candidate
	for _, c := range list {
		if c.NotesURL != "" {
			notes = append(notes, c)
		}
		if c.Reason != "" || !c.Target.Equal(c.Latest) {
			less = append(less, c)
		}
	}
	if len(less) > 0 {
		p.line("")
		p.line("Not to the latest version:")
		for _, c := range less {
			p.wrapped("  - ", "    ", "", fmt.Sprintf("%s goes to %s: %s", c.Name, c.Target, c.Reason))
		}
	}
	if len(notes) > 0 {
		p.line("")
		p.line("Release notes:")
		for _, c := range notes {
			p.wrapped("  - ", "      ", "", fmt.Sprintf("%s %s: %s", c.Name, c.Target, c.NotesURL))
		}
	}
}

func (p *page) checkList(title string, tone colour, list []Candidate) {
	if len(list) == 0 {
		return
	}
	p.line("")
	p.line("%s", title)
	for _, c := range list {
		versions := orDash(c.Current.String())
		if c.VersionsBehind > 0 {
			versions += fmt.Sprintf(" (latest %s, %s behind)", c.Latest, count(c.VersionsBehind, "version"))
		}
		p.line("  - %s %s", c.Name, p.paint(tone, versions))
		p.wrapped("    ", "    ", "", c.Reason)
	}
}

func (p *page) checkCurrent(list []Candidate, total int) {
	if len(list) == 0 {
		if total == 0 {
			p.line("No components are installed; `observability-upgrade adopt` looks for them.")
		}
		return
	}
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.Name + " " + c.Current.String()
	}
	p.line("")
	p.wrapped("Up to date: ", "  ", "", strings.Join(names, ", "))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
