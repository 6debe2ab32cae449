package component

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Vars are the values of the placeholders in a definition's strings.
type Vars struct {
	Name     string // {name}
	Version  string // {version}
	Tag      string // {tag}
	OS       string // {os}
	Arch     string // {arch}, already mapped by ArchName
	Root     string // {root}: the --root directory without a trailing slash; "" for /
	Asset    string // {asset}
	Instance string // {instance}
	URL      string // {url}: scheme, host and port at which the component is probed
}

var placeholder = regexp.MustCompile(`\{([a-z_]+)\}`)

// Placeholders lists the names that Expand knows.
func Placeholders() []string {
	return []string{"name", "version", "tag", "os", "arch", "root", "asset", "instance", "url"}
}

// Expand replaces the placeholders in s. Text in braces that is not a known
// placeholder (a PromQL selector, say) is left as it is.
func (v Vars) Expand(s string) string {
	return placeholder.ReplaceAllStringFunc(s, func(m string) string {
		switch m {
		case "{name}":
			return v.Name
		case "{version}":
			return v.Version
		case "{tag}":
			return v.Tag
		case "{os}":
			return v.OS
		case "{arch}":
			return v.Arch
		case "{root}":
			return strings.TrimSuffix(v.Root, "/")
		case "{asset}":
			return v.Asset
		case "{instance}":
			return v.Instance
		case "{url}":
			return v.URL
		}
		return m
	})
}

// Path expands a path of a definition, which --root relocates: one that {root}
// begins is there already, as is one whose begin a ${VARIABLE} says.
func (v Vars) Path(given string) string {
	p := v.Expand(given)
	if v.Root != "" && filepath.IsAbs(given) {
		p = filepath.Join(v.Root, p)
	}
	return p
}

// ExpandAll expands each string of a list into a new list.
func (v Vars) ExpandAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = v.Expand(s)
	}
	return out
}

// WithURL returns v with the address at which a component of this health check
// is probed.
func (v Vars) WithURL(h Health) Vars {
	v.URL = ""
	for _, address := range []string{h.URL, h.MetricsURL} {
		if u, err := url.Parse(v.Expand(address)); v.URL == "" && address != "" && err == nil && u.Host != "" {
			v.URL = u.Scheme + "://" + u.Host
		}
	}
	return v
}

// CheckPlaceholders returns an error for the first "{word}" in s that Expand
// does not know, for fields in which braces have no other meaning.
func CheckPlaceholders(s string) error {
	for _, word := range UnknownPlaceholders(s) {
		return fmt.Errorf("%q: unknown placeholder {%s}; known are {%s}", s, word, strings.Join(Placeholders(), "} {"))
	}
	return nil
}

// UnknownPlaceholders lists the words of all "{word}" in s that Expand does not know.
func UnknownPlaceholders(s string) (words []string) {
	for _, m := range placeholder.FindAllStringSubmatch(s, -1) {
		if !slices.Contains(Placeholders(), m[1]) {
			words = append(words, m[1])
		}
	}
	return words
}

// VersionFromTag inverts a tag template: "mimir-{version}" and "mimir-3.2.2"
// give 3.2.2. ok is false for a tag of another form.
func VersionFromTag(template, tag string) (v Version, ok bool) {
	if template == "" {
		template = "v{version}"
	}
	before, after, found := strings.Cut(template, "{version}")
	if !found || !strings.HasPrefix(tag, before) || !strings.HasSuffix(tag, after) || len(tag) < len(before)+len(after) {
		return Version{}, false
	}
	text := tag[len(before) : len(tag)-len(after)]
	if text == "" || text[0] < '0' || text[0] > '9' {
		return Version{}, false
	}
	v, err := ParseVersion(text)
	return v, err == nil
}

// Vars returns the placeholder values for a release of the component on this
// operating system and Go architecture.
func (c *Component) Vars(root, goos, goarch string, r Release) Vars {
	c = c.For(r.Version)
	arch, _ := c.ArchName(goarch)
	v := Vars{Name: c.Name, Version: r.Version.String(), Tag: r.Tag, OS: goos, Arch: arch, Root: root}
	v.Asset = v.Expand(c.Asset)
	return v
}
