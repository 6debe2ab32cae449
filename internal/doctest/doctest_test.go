package doctest

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

func TestBlocks(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "a.md"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# A\n\n```sh\nls  # what is here\n\n# nothing\nprintf '#' \\\n  x\n```\n```yaml\n# /etc/a.yaml\na: 1\n```\n" +
		"```ini\n# systemctl edit a.service\n[Service]\n```\n```sh\n#!/bin/sh\n# /usr/bin/a\nls\n```\n```yaml\n# of a thing\na: 1\n```\n")
	blocks, err := Blocks(dir, "a.md")
	if err != nil {
		t.Fatal(err)
	}
	type shown struct {
		Where, File string
		Commands    []string
	}
	var got []shown
	for _, b := range blocks {
		got = append(got, shown{b.Where(), b.File, b.Commands()})
	}
	if d := cmp.Diff([]shown{
		{"a.md:4", "", []string{"ls", "printf '#'   x"}},
		{"a.md:11", "/etc/a.yaml", nil},
		{"a.md:15", "/etc/systemd/system/a.service.d/override.conf", nil},
		{"a.md:19", "/usr/bin/a", nil},
		{"a.md:24", "", nil},
	}, got); d != "" {
		t.Error(d)
	}
	write("```sh\nls\n")
	if _, err := Blocks(dir, "a.md"); err == nil || err.Error() != "a.md:2: the block has no end" {
		t.Errorf("%v", err)
	}
	if _, err := Blocks(dir, "b.md"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

var (
	fenced  = regexp.MustCompile("(?ms)^```.*?^```")
	code    = regexp.MustCompile("`[^`]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
	source  = regexp.MustCompile("`((?:bench|internal|packaging|schemas|scripts|test)/[A-Za-z0-9_./-]+)`")
)

// unmeasured is in the page of benchmarks before `make bench` was run.
const unmeasured = "<!-- figures: make bench -->\n<!-- end of figures -->"

// pages are all documents of the repository, those beside README.md too.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			name := path.Join(path.Dir(pattern), filepath.Base(n))
			text, err := Read(root, name)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = text
		}
	}
	return out
}

// anchors are the names of a page's headings, as forges make them.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, link.ReplaceAllString(m[1], ""))
		out[slug] = true
	}
	return out
}

// Every link between documents, to a heading, a picture or a file of the repository
// leads somewhere, and every source that a document names is there.
func TestLinks(t *testing.T) {
	all := pages(t)
	n := 0
	for name, text := range all {
		for _, m := range source.FindAllStringSubmatch(text, -1) {
			if name == "docs/specification.md" {
				continue // it has its own idea of where things are
			}
			if matches, err := filepath.Glob(filepath.Join(root, strings.ReplaceAll(m[1], "NAME", "*"))); err != nil || len(matches) == 0 {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
		text = code.ReplaceAllString(fenced.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if strings.Contains(text, unmeasured) && strings.HasSuffix(m[1], "/benchmarks.svg") {
				continue // drawn with the figures
			}
			n++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
				continue
			}
			if anchor != "" && !anchors(all[target])[anchor] {
				t.Errorf("%s links to %s: %s has no such heading", name, m[1], target)
			}
		}
	}
	if n < 80 {
		t.Errorf("only %d links were found", n)
	}
}
