package artifact

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// node is what stands at a name of an archive.
type node byte

const (
	nodeDir node = iota + 1
	nodeFile
	nodeLink
)

// Bounds of names: PATH_MAX for one, and what 200,000 entries of a release can
// be thought to need for all.
const (
	maxName     = 4096
	maxAllNames = 32 << 20
)

// ledger judges the entries of one archive, wanted or not, against each other:
// nothing may leave the directory, go through a link or stand in another's
// place.
type ledger struct {
	archive string
	max     int // entries
	entries int
	bytes   int // of all names
	entry   string
	nodes   map[string]node
}

func newLedger(archive string, maxEntries int) *ledger {
	return &ledger{archive: archive, max: maxEntries, nodes: map[string]node{}}
}

// refuse is the error for the entry at hand.
func (l *ledger) refuse(format string, args ...any) error {
	return &UnsafeArchiveError{Archive: l.archive, Entry: l.entry, Reason: fmt.Sprintf(format, args...)}
}

// admit judges an entry's name and returns it cleaned.
func (l *ledger) admit(name string, kind node) (string, error) {
	l.entry = name
	l.entries++
	l.bytes += len(name)
	switch {
	case l.entries > l.max:
		return "", l.refuse("is one too many: more than %d entries", l.max)
	case len(name) > maxName:
		l.entry = name[:64] + "…"
		return "", l.refuse("has a name of %d bytes", len(name))
	case l.bytes > maxAllNames:
		return "", l.refuse("brings all names to more than %d bytes", maxAllNames)
	case name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "", l.refuse("has an invalid name")
	case strings.HasPrefix(name, "/") || strings.Contains(name, `\`):
		return "", l.refuse("has an absolute or foreign path")
	}
	for _, el := range strings.Split(name, "/") {
		if el == ".." {
			return "", l.refuse("would leave the directory by ..")
		}
	}
	clean := path.Clean(name)
	if !filepath.IsLocal(clean) {
		return "", l.refuse("would leave the directory")
	}
	if clean == "." {
		if kind != nodeDir {
			return "", l.refuse("has an invalid name")
		}
		return clean, nil
	}
	if err := l.parents(clean); err != nil {
		return "", err
	}
	// A directory may be there again: that changes nothing.
	if have := l.nodes[clean]; have != 0 && (have != nodeDir || kind != nodeDir) {
		return "", l.refuse("is there twice")
	}
	l.nodes[clean] = kind
	return clean, nil
}

// parents makes sure that everything above a name is a directory, and marks it
// as one: a later entry may not put a link there.
func (l *ledger) parents(clean string) error {
	for parent := path.Dir(clean); parent != "."; parent = path.Dir(parent) {
		switch l.nodes[parent] {
		case nodeLink:
			return l.refuse("goes through the link %q", parent)
		case nodeFile:
			return l.refuse("lies below %q, which is a file", parent)
		case nodeDir:
			return nil // and so is everything above it
		}
		l.nodes[parent] = nodeDir
		if l.bytes += len(parent); l.bytes > maxAllNames {
			return l.refuse("brings all names to more than %d bytes", maxAllNames)
		}
	}
	return nil
}

// link judges where a link at a clean name points: inside the directory "" the
// name is relative to. A symbolic link's target may go up only at its
// beginning: a ".." after a name could climb from wherever another link leads.
func (l *ledger) link(clean, target string, symbolic bool) error {
	if target == "" || len(target) > maxName || path.IsAbs(target) || strings.Contains(target, `\`) || strings.ContainsFunc(target, unicode.IsControl) {
		return l.refuse("links to %.80q, outside the archive", target)
	}
	to := path.Clean(target)
	if symbolic {
		down := false
		for _, el := range strings.Split(target, "/") {
			if el == ".." && down {
				return l.refuse("links to %.80q, which goes up after going down", target)
			}
			down = down || el != ".." && el != "." && el != ""
		}
		to = path.Join(path.Dir(clean), target)
	}
	if !filepath.IsLocal(to) {
		return l.refuse("links to %.80q, outside the archive", target)
	}
	return nil
}
