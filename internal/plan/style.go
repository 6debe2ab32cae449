package plan

// Tone is a colour of the program's text output, for those who write it elsewhere.
type Tone = colour

// The tones. Default is the terminal's own.
const (
	Default Tone = ""
	Bold         = bold
	Red          = red
	Green        = green
	Yellow       = yellow
	Faint        = faint
)

// Paint gives a text a tone, where there are colours.
func (st Style) Paint(t Tone, s string) string { return st.paint(t, s) }

// Paragraph lays out text between margins, the first line after first and the
// others after rest, and ends it with a line end. Text from elsewhere cannot steer
// the terminal.
func (st Style) Paragraph(first, rest string, t Tone, text string) string {
	p := &page{Style: st}
	p.wrapped(first, rest, t, text)
	return p.String()
}
