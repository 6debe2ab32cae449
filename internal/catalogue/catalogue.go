// Package catalogue holds the definitions of all components: those built into
// the program, one YAML file each, and those that an administrator adds or
// overrides below etc/observability/components.d (docs/reference.md).
package catalogue

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

//go:embed components/*.yaml families/*.yaml
var embedded embed.FS

// BuiltIn is the origin of a component that no file overrides.
const BuiltIn = "built-in"

// Catalogue is a checked set of definitions. It does not change once loaded and
// may be used concurrently; callers must not change the components it returns.
type Catalogue struct {
	components map[string]*component.Component
	origins    map[string]string
	nodes      map[string]*yamlfile.Node // what each is made from
	skipped    yamlfile.Errors
}

// Load returns the built-in definitions with those of dir (components.d) laid
// over them. A directory that does not exist is empty. All errors of all files
// come at once, as yamlfile.Errors with file and line, joined with those of
// files that cannot be read; files that others can write are refused with a
// yamlfile.InsecureError. Beside an error the catalogue is what could be read, for
// those who look for further mistakes.
func Load(dir string) (*Catalogue, error) {
	l := newLoader()
	l.overrides(dir)
	return l.finish()
}

// Salvage is Load for those who must go on with what holds: definitions with a
// mistake are left out, and so are built-in ones that such a file overrides. The
// error is Load's; nil when every definition holds.
func Salvage(dir string) (*Catalogue, error) {
	l := newLoader()
	l.overrides(dir)
	c, err := l.finish()
	if err != nil {
		c = l.catalogue
		maps.DeleteFunc(c.components, func(name string, _ *component.Component) bool { return l.broken[name] || l.unsound[name] })
	}
	return c, err
}

// Get returns a component by its name.
func (c *Catalogue) Get(name string) (*component.Component, bool) {
	d, ok := c.components[name]
	return d, ok
}

// All returns every component in the order of phases, then of names.
func (c *Catalogue) All() []*component.Component {
	return slices.SortedFunc(maps.Values(c.components), func(a, b *component.Component) int {
		return cmp.Or(a.Role.Order()-b.Role.Order(), strings.Compare(a.Name, b.Name))
	})
}

// Names lists the names of all components, sorted.
func (c *Catalogue) Names() []string {
	var out []string
	for _, d := range c.All() {
		out = append(out, d.Name)
	}
	return out
}

// Suggest returns the name that was most likely meant; "" when none is near.
func (c *Catalogue) Suggest(name string) string {
	names := slices.Sorted(maps.Keys(c.components))
	if near := yamlfile.Nearest(name, names); near != "" {
		return near
	}
	// People leave out "_exporter", or write the name of the unit or the asset.
	for _, n := range names {
		d := c.components[n]
		if strings.TrimSuffix(n, "_exporter") == strings.ReplaceAll(name, "-", "_") || d.Unit() == name || d.Unit() == name+".service" {
			return n
		}
		for _, b := range d.Binaries {
			if b.Name == name {
				return n
			}
		}
	}
	return ""
}

// Origin tells where a component is defined: BuiltIn, or the path of the file
// that adds or overrides it; "" for a name that is not there.
func (c *Catalogue) Origin(name string) string { return c.origins[name] }

// Skipped lists the files of components.d that are no definitions and are not
// read, with the reason: what package managers and people leave there.
func (c *Catalogue) Skipped() yamlfile.Errors { return c.skipped }

// Errorf makes an error at the place where a component's definition has the value
// at a path, such as "signature", "keyring".
func (c *Catalogue) Errorf(name string, path []any, format string, args ...any) yamlfile.Error {
	return c.nodes[name].Errorf(path, format, args...)
}

// loader gathers nodes and errors.
type loader struct {
	base    map[string]*yamlfile.Node // built-in, families not yet under them
	family  map[string]*yamlfile.Node
	merged  map[string]*yamlfile.Node
	origins map[string]string
	broken  map[string]bool // definitions that are not worth checking further
	unsound map[string]bool // definitions with any mistake, theirs or their file's
	skipped yamlfile.Errors
	errs    yamlfile.Errors
	other   []error

	catalogue *Catalogue // what finish made, mistakes included
}

// newLoader holds the built-in definitions.
func newLoader() *loader {
	l := &loader{merged: map[string]*yamlfile.Node{}, origins: map[string]string{}, broken: map[string]bool{}, unsound: map[string]bool{}}
	l.base, l.family = l.embedded("components"), l.embedded("families")
	for name, n := range l.base {
		l.merged[name], l.origins[name] = l.underFamily(name, n), BuiltIn
	}
	return l
}

func (l *loader) embedded(dir string) map[string]*yamlfile.Node {
	out := map[string]*yamlfile.Node{}
	files, err := fs.Glob(embedded, dir+"/*.yaml")
	if err != nil {
		l.fail(err)
	}
	nodes, errs := parallel(files, func(f string) (*yamlfile.Node, error) {
		data, err := embedded.ReadFile(f)
		if err != nil {
			return nil, err
		}
		return yamlfile.Parse(BuiltIn+" "+f, data)
	})
	for i, f := range files {
		out[strings.TrimSuffix(path.Base(f), ".yaml")] = nodes[i]
		l.fail(errs[i])
	}
	return out
}

// parallel does something with each of a list, as many at a time as there are
// processors: reading all definitions is much of what a short command takes.
func parallel[From, To any](list []From, do func(From) (To, error)) ([]To, []error) {
	out, errs := make([]To, len(list)), make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, from := range list {
		g.Go(func() error {
			out[i], errs[i] = do(from)
			return nil // each has its own error
		})
	}
	_ = g.Wait() // no function returns an error
	return out, errs
}

// underFamily lays a definition over the family that it names. In a family's
// strings {name} is the component's name.
func (l *loader) underFamily(name string, n *yamlfile.Node) *yamlfile.Node {
	family := n.Get("family")
	if family == nil || family.Kind != yamlfile.String {
		return n // a wrong kind is reported when the definition is decoded
	}
	f, ok := l.family[family.Text]
	if !ok {
		known := slices.Sorted(maps.Keys(l.family))
		l.errs = append(l.errs, n.Errorf([]any{"family"}, "unknown family %q; known are %s", family.Text, strings.Join(known, ", ")))
		l.broken[name] = true
		return n
	}
	f, errs := f.MapStrings(func(s string) (string, bool, error) { return strings.ReplaceAll(s, "{name}", name), false, nil })
	l.errs = append(l.errs, errs...)
	return lay(f, n)
}

func (l *loader) overrides(dir string) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		l.fail(fmt.Errorf("component definitions: %w", err))
		return
	}
	from := map[string]string{}
	var names, files []string
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		name, err := definitionName(e.Name())
		if err != nil {
			l.errs = append(l.errs, yamlfile.Error{File: file, Message: err.Error()})
			continue
		}
		if name == "" {
			if !hidden(e.Name()) {
				l.skipped = append(l.skipped, yamlfile.Error{File: file, Message: "is not read: a component definition ends in .yaml"})
			}
			continue
		}
		if first, twice := from[name]; twice {
			l.errs = append(l.errs, yamlfile.Error{File: file, Message: fmt.Sprintf("%s defines %s too; keep one of them", first, name)})
			l.unsound[name] = true
			continue
		}
		from[name] = file
		names, files = append(names, name), append(files, file)
	}
	nodes, errs := parallel(files, yamlfile.Load)
	for i, file := range files {
		name, n := names[i], nodes[i]
		if err := errs[i]; err != nil {
			l.fail(err)
			l.unsound[name] = true
			if n == nil {
				l.merged[name], l.origins[name], l.broken[name] = nil, file, true // its name is known all the same
				continue
			}
		}
		before := len(l.errs)
		l.override(name, file, n)
		l.unsound[name] = l.unsound[name] || len(l.errs) > before
	}
}

// definitionName is the component that a file of components.d defines; "" for a
// file that defines none, such as package managers and people leave behind. A name
// that may be a misspelt one of a definition is an error, so that none is missed
// for a typing error.
func definitionName(file string) (name string, err error) {
	if hidden(file) {
		return "", nil
	}
	ext := strings.TrimPrefix(filepath.Ext(file), ".")
	if ext == "yaml" || ext == "yml" {
		if name = strings.TrimSuffix(file, "."+ext); !namePattern.MatchString(name) {
			return "", fmt.Errorf("the file name gives the component's name; %q does not match %s", name, namePattern)
		}
		return name, nil
	}
	switch yamlfile.Nearest(ext, []string{"yaml", "yml", "xml", "toml", "json"}) {
	case "yaml", "yml":
		return "", errors.New("a component definition ends in .yaml; rename it NAME.yaml, or move it out of this directory")
	}
	return "", nil
}

// hidden reports whether a file is one that editors make and remove.
func hidden(file string) bool {
	return strings.HasPrefix(file, ".") || strings.HasSuffix(file, "~") || strings.HasSuffix(file, ".swp")
}

func (l *loader) override(name, file string, n *yamlfile.Node) {
	if n == nil {
		if l.base[name] == nil {
			l.errs = append(l.errs, yamlfile.Error{File: file, Message: "is empty, and " + name + " is not a built-in component that it could leave unchanged"})
			return
		}
		l.origins[name] = file
		return
	}
	if n.Kind != yamlfile.Map {
		var c component.Component
		l.fail(n.Decode(&c))
		return
	}
	if given := n.Get("name"); given != nil && given.Kind == yamlfile.String && given.Text != name {
		l.errs = append(l.errs, n.Errorf([]any{"name"}, "%q is not the file's name; rename the file %s.yaml, or write name: %s", given.Text, given.Text, name))
	}
	merged := l.underFamily(name, lay(l.base[name], n))
	if otherProject(l.merged[name], n) {
		// What the built-in program does says nothing of this one.
		own := l.underFamily(name, n)
		for _, key := range []string{"functional", "integration", "config", "reload", "data"} {
			if merged = merged.Without(key); own.Get(key) != nil {
				merged = merged.With(key, own.Get(key))
			}
		}
	}
	l.merged[name], l.origins[name] = merged, file
}

// lay merges a definition over another. Where fields are alternatives to each
// other, those of the lower definition do not shine through.
func lay(base, over *yamlfile.Node) *yamlfile.Node {
	if over == nil || base == nil {
		return yamlfile.Merge(base, over)
	}
	for _, key := range []string{"asset", "arches", "checksums", "binaries"} {
		if over.Get(key) != nil {
			base = base.Without("variants") // they differ from what is replaced
		}
	}
	if over.Get("binaries") != nil {
		if v := base.Get("version"); v != nil { // which of the replaced binaries is asked
			base = base.With("version", v.Without("path").Without("binary"))
		}
	}
	for _, key := range []string{"reload", "instances"} {
		if over.Get(key) != nil {
			base = base.Without(key)
		}
	}
	if s := base.Get("signature"); s != nil {
		base = base.With("signature", layUnderSignature(s, over.Get("signature")))
	}
	if s := base.Get("source"); s != nil && changesType(s, over.Get("source")) {
		base = base.With("source", s.Without("repo").Without("path").Without("url"))
	}
	return yamlfile.Merge(base, over)
}

// otherProject reports whether a definition takes its releases from another
// project than the one it is laid over. One of the same name under another owner
// is a mirror or a fork: it behaves as what it is made from.
func otherProject(base, over *yamlfile.Node) bool {
	b, o := base.Get("source").Get("repo"), over.Get("source").Get("repo")
	return b != nil && o != nil && !strings.EqualFold(path.Base(b.Text), path.Base(o.Text))
}

func changesType(base, over *yamlfile.Node) bool {
	b, o := base.Get("type"), over.Get("type")
	return b != nil && o != nil && b.Text != o.Text
}

func (l *loader) fail(err error) {
	var errs yamlfile.Errors
	switch {
	case errors.As(err, &errs):
		l.errs = append(l.errs, errs...)
	case err != nil:
		l.other = append(l.other, err)
	}
}

// finish decodes and checks what was gathered.
func (l *loader) finish() (*Catalogue, error) {
	c := &Catalogue{components: map[string]*component.Component{}, origins: l.origins, nodes: l.merged, skipped: l.skipped}
	l.catalogue = c
	names := slices.Sorted(maps.Keys(l.merged))
	decoded, errs := parallel(names, func(name string) (*component.Component, error) {
		d := &component.Component{}
		err := l.merged[name].Decode(d)
		d.Name = name
		return d, err
	})
	for i, name := range names {
		c.components[name] = decoded[i]
		if errs[i] != nil {
			l.fail(errs[i])
			l.broken[name] = true
		}
	}
	for _, name := range names {
		if !l.broken[name] {
			v := validator{node: l.merged[name], c: c.components[name]}
			v.all(c.components)
			l.errs = append(l.errs, v.errs...)
			l.unsound[name] = l.unsound[name] || len(v.errs) > 0
		}
		if l.merged[name].Get("health").Get("settle") == nil { // one that is given may be 0s
			c.components[name].Health.Settle = component.DefaultSettle
		}
	}
	l.errs = append(l.errs, cycles(c.components, l.merged)...)
	if err := l.errs.Err(); err != nil {
		l.other = append([]error{err}, l.other...)
	}
	return c, errors.Join(l.other...)
}
