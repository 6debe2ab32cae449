// Package manual writes manual pages: section 1 from the tree of commands, section
// 5 from the JSON Schemas of the configuration files. Pages are in the man macros,
// see man(7) and man-pages(7), which groff and mandoc read. The same input gives
// the same bytes.
package manual

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Options are what the pages tell besides the commands.
type Options struct {
	Version string    // of the program
	Date    time.Time // of the release
	Exit    []Entry   // exit codes
}

// Entry is a name and what it is, as in the lists of files and exit codes.
type Entry struct{ Name, Text string }

// Commands writes a page for a command and for each below it, by file name
// (observability-upgrade-config-show.1). Commands that are hidden or only help are
// left out.
func Commands(root *cobra.Command, o Options) map[string][]byte {
	pages := map[string][]byte{}
	var add func(c *cobra.Command)
	add = func(c *cobra.Command) {
		pages[pageName(c)+".1"] = command(c, o)
		for _, sub := range documented(c) {
			add(sub)
		}
	}
	add(root)
	return pages
}

// documented are the commands below one that have a page.
func documented(c *cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(sub *cobra.Command) bool {
		return sub.Hidden || sub.Name() == "help" || sub.IsAdditionalHelpTopicCommand()
	})
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

func command(c *cobra.Command, o Options) []byte {
	p := newPage(pageName(c), "1", "User Commands", o)
	p.section("NAME")
	p.line(text(pageName(c)) + ` \- ` + text(lowerFirst(c.Short)))

	p.section("SYNOPSIS")
	p.synopsis(c)

	p.section("DESCRIPTION")
	long := c.Long
	if long == "" {
		long = c.Short + "."
	}
	p.prose(long)
	if aliases := c.Aliases; len(aliases) > 0 {
		p.line(".PP")
		p.prose("Also: " + strings.Join(aliases, ", ") + ".")
	}
	if subs := documented(c); len(subs) > 0 {
		p.section("COMMANDS")
		for _, sub := range subs {
			p.tagged(`\fB`+text(pageName(sub))+`\fR(1)`, sub.Short+".")
		}
	}

	c.InitDefaultHelpFlag()
	p.flags("OPTIONS", c.NonInheritedFlags())
	p.flags("GLOBAL OPTIONS", c.InheritedFlags())

	p.section("EXIT STATUS")
	for _, e := range o.Exit {
		p.tagged(`\fB`+text(e.Name)+`\fR`, e.Text)
	}
	if !c.HasParent() {
		p.entries("ENVIRONMENT", environment())
	}
	p.entries("FILES", files())
	if c.Example != "" {
		p.section("EXAMPLES")
		p.literal(strings.Split(strings.TrimRight(c.Example, "\n"), "\n"))
	}
	p.seeAlso(c)
	return p.bytes()
}

// synopsis shows how a command is called: flags that stand for choices are in its
// own line of use.
func (p *page) synopsis(c *cobra.Command) {
	use := c.UseLine()
	if !c.HasParent() {
		use = c.Name() + " COMMAND [flags]"
	}
	name := c.CommandPath()
	p.line(`\fB` + text(name) + `\fR` + text(strings.TrimPrefix(use, name)))
}

func (p *page) flags(title string, set *pflag.FlagSet) {
	begun := false
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if !begun {
			p.section(title)
			begun = true
		}
		value, usage := pflag.UnquoteUsage(f)
		tag := `\fB` + text("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			tag = `\fB` + text("-"+f.Shorthand) + `\fR, ` + tag
		}
		if value != "" {
			tag += `=\fI` + text(placeholder(f, value)) + `\fR`
		}
		switch f.DefValue {
		case "", "false", "[]", "0", "0s":
		default:
			usage += " (default " + f.DefValue + ")"
		}
		p.tagged(tag, upperFirst(usage)+".")
	})
}

// placeholder is what stands for a flag's value: the word that its usage quotes,
// else one for its type.
func placeholder(f *pflag.Flag, quoted string) string {
	switch kind := f.Value.Type(); {
	case quoted != kind && !strings.HasPrefix(kind, quoted):
		return strings.ToUpper(quoted)
	case kind == "duration":
		return "DURATION"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "N"
	}
	return "VALUE"
}

func (p *page) seeAlso(c *cobra.Command) {
	var pages []string
	if c.HasParent() {
		pages = append(pages, ref(pageName(c.Parent()), "1"))
		for _, s := range documented(c.Parent()) {
			if s != c && len(pages) < 30 {
				pages = append(pages, ref(pageName(s), "1"))
			}
		}
	}
	if !c.HasParent() || !c.Parent().HasParent() {
		for _, f := range configFiles() {
			pages = append(pages, ref(f.page, "5"))
		}
		pages = append(pages, ref("systemd", "1"))
	}
	p.section("SEE ALSO")
	p.line(strings.Join(pages, ",\n"))
}

func ref(name, section string) string { return `.BR ` + text(name) + ` (` + section + `)` }

func lowerFirst(s string) string {
	if len(s) > 1 && strings.ToUpper(s[1:2]) == s[1:2] {
		return s // an abbreviation
	}
	return strings.ToLower(s[:1]) + s[1:]
}

func upperFirst(s string) string {
	first, _, _ := strings.Cut(s, " ")
	if s == "" || strings.ContainsAny(first, "_.=-|,:") {
		return s // a value, not the beginning of a sentence
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
