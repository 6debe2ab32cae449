// Package doctest reads what the documentation shows, for tests that run it, load
// it and follow its links.
package doctest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Block is a fenced block of a document.
type Block struct {
	Document string // as Documents has it
	Line     int    // of its first line, from 1
	Language string // "" where none is given
	Text     string // ends with a line break
	// File is what the block is the content of, by the path in the comment that is
	// its first line, or the first after "#!"; "" where there is none. Of "# systemctl
	// edit UNIT" it is the drop-in that this makes.
	File string
}

// Where says which block it is, for messages.
func (b Block) Where() string { return fmt.Sprintf("%s:%d", b.Document, b.Line) }

// Documents are README.md and the pages of docs/ below the root of the repository,
// in order, with slashes.
func Documents(root string) ([]string, error) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	out := []string{"README.md"}
	for _, p := range pages {
		out = append(out, "docs/"+filepath.Base(p))
	}
	slices.Sort(out)
	return out, nil
}

// Read returns the text of a document.
func Read(root, document string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(document)))
	return string(data), err
}

// Blocks are the fenced blocks of a document in their order. It is an error when
// the last one has no end.
func Blocks(root, document string) ([]Block, error) {
	text, err := Read(root, document)
	if err != nil {
		return nil, err
	}
	var (
		out  []Block
		open *Block
		line int
	)
	for l := range strings.Lines(text) {
		line++
		fence, isFence := strings.CutPrefix(strings.TrimRight(l, "\r\n"), "```")
		switch {
		case open == nil && isFence:
			open = &Block{Document: document, Line: line + 1, Language: fence}
		case isFence:
			open.File = fileOf(open.Text)
			out = append(out, *open)
			open = nil
		case open != nil:
			open.Text += l
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block has no end", open.Where())
	}
	return out, nil
}

var fileComment = regexp.MustCompile(`^(?:#!.*\n)?# (?:(/\S+)|systemctl edit (\S+))\s*\n`)

func fileOf(text string) string {
	m := fileComment.FindStringSubmatch(text)
	switch {
	case m == nil:
		return ""
	case m[1] != "":
		return m[1]
	}
	return "/etc/systemd/system/" + m[2] + ".d/override.conf"
}

var (
	comment      = regexp.MustCompile(`(^|\s+)#(\s.*)?$`)
	continuation = regexp.MustCompile(`\\\n`)
)

// Commands are the command lines of a block of shell, without comments; lines that
// end with a backslash go on in the next. A block that is a file has none.
func (b Block) Commands() []string {
	var out []string
	if b.Language != "sh" || b.File != "" {
		return nil
	}
	for l := range strings.Lines(continuation.ReplaceAllString(b.Text, "")) {
		if l = strings.TrimSpace(comment.ReplaceAllString(strings.TrimSpace(l), "")); l != "" {
			out = append(out, l)
		}
	}
	return out
}
