package plan

import (
	"io"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// Parts of a plan as WritePlan lays them out, for those who show a plan beside
// other things, and the means to lay out text in the same way.

// WriteChecks writes pre-flight checks; nothing where there are none.
func WriteChecks(w io.Writer, list []component.Check, st Style) error {
	p := &page{Style: st}
	p.checks(list)
	return p.part(w)
}

// WriteHeld writes what is held back and why; nothing where nothing is.
func WriteHeld(w io.Writer, held []Held, st Style) error {
	p := &page{Style: st}
	p.heldList(held)
	return p.part(w)
}

// part is flush without the empty line at the end.
func (p *page) part(w io.Writer) error {
	text := strings.TrimRight(p.String(), "\n")
	if text == "" {
		return nil
	}
	_, err := io.WriteString(w, text+"\n")
	return err
}

// Plain drops control characters, so that text from elsewhere cannot steer a
// terminal; line feeds become spaces.
func Plain(s string) string { return plain(s) }

// Heading is a title with its underline.
func (st Style) Heading(s string) string {
	p := &page{Style: st}
	p.title(s)
	return p.String()
}
