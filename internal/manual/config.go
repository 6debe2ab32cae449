package manual

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// schema is what is read of a JSON Schema: those of schemas/config use no more.
type schema struct {
	Ref         string            `json:"$ref"`
	Defs        map[string]schema `json:"$defs"`
	Description string            `json:"description"`
	Type        any               `json:"type"` // a name, or a list of them
	Enum        []any             `json:"enum"`
	Properties  map[string]schema `json:"properties"`
	Additional  json.RawMessage   `json:"additionalProperties"` // a schema, or false
	Items       *schema           `json:"items"`
	AnyOf       []schema          `json:"anyOf"`
	OneOf       []schema          `json:"oneOf"`
}

// Configuration writes a page for each configuration file, by file name
// (observability-upgrade-policy.5). schemaOf gives the JSON Schema by name; nil for
// one it does not have, which is an error.
func Configuration(schemaOf func(name string) []byte, o Options) (map[string][]byte, error) {
	pages := map[string][]byte{}
	for _, f := range configFiles() {
		var s schema
		if err := json.Unmarshal(schemaOf(f.schema), &s); err != nil {
			return nil, fmt.Errorf("schema %s: %w", f.schema, err)
		}
		p := newPage(f.page, "5", "File Formats", o)
		p.section("NAME")
		p.line(text(f.page) + ` \- ` + text(f.short))
		p.section("SYNOPSIS")
		p.line(`.I ` + text(f.path))
		p.section("DESCRIPTION")
		p.prose(f.long)
		p.line(".PP")
		p.prose("The file is YAML and read strictly: an unknown key, a wrong type or a value that means nothing is an error with file, line, column and the nearest known key. One that others can write is refused. \"observability-upgrade config validate\" reads it and changes nothing; \"observability-upgrade config show --origin\" tells what is in force and where each value comes from.")
		p.section("KEYS")
		p.prose("A key is written with those above it: a.b is b within a. NAME stands for a key of your choice, [] for each item of a list.")
		w := walker{page: p, defs: s.Defs}
		w.properties("", s, nil)
		if w.err != nil {
			return nil, fmt.Errorf("schema %s: %w", f.schema, w.err)
		}
		p.entries("FILES", []Entry{{f.path, "This file, below --root."}})
		p.section("SEE ALSO")
		list := []string{ref("observability-upgrade", "1"), ref("observability-upgrade-config-validate", "1"), ref("observability-upgrade-config-show", "1"), ref("observability-upgrade-config-schema", "1")}
		for _, other := range configFiles() {
			if other.page != f.page {
				list = append(list, ref(other.page, "5"))
			}
		}
		p.line(strings.Join(list, ",\n"))
		pages[f.page+".5"] = p.bytes()
	}
	return pages, nil
}

// walker writes the keys of a schema.
type walker struct {
	page *page
	defs map[string]schema
	err  error
}

// resolve follows a reference; name is the definition's, "" without one.
func (w *walker) resolve(s schema) (_ schema, name string) {
	if s.Ref == "" {
		return s, ""
	}
	name = strings.TrimPrefix(s.Ref, "#/$defs/")
	def, ok := w.defs[name]
	if !ok {
		w.err = fmt.Errorf("no definition of %s", s.Ref)
	}
	if s.Description != "" {
		def.Description = s.Description
	}
	return def, name
}

// properties writes each key of an object; above are the definitions it lies in,
// for one may hold itself.
func (w *walker) properties(prefix string, s schema, above []string) {
	for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
		w.key(prefix+key, s.Properties[key], above)
	}
	if extra := w.additional(s); extra != nil {
		w.key(prefix+"NAME", *extra, above)
	}
}

func (w *walker) additional(s schema) *schema {
	var extra schema
	if len(s.Additional) == 0 || s.Additional[0] != '{' {
		return nil
	}
	if err := json.Unmarshal(s.Additional, &extra); err != nil {
		w.err = err
	}
	return &extra
}

func (w *walker) key(path string, s schema, above []string) {
	s, name := w.resolve(s)
	kind := w.kind(s)
	about := strings.Replace(s.Description, "nil: ", "left out: ", 1) // a word of the types they come from
	if values := choices(s); values != "" && !strings.Contains(about, values) {
		if about != "" {
			about = values + "; " + about
		} else {
			about = values
		}
	}
	if about == "" {
		about = kind
	} else {
		about += " (" + kind + ")"
	}
	w.page.tagged(`\fB`+text(path)+`\fR`, about)
	if name != "" && slices.Contains(above, name) {
		return // its keys were written above
	}
	if name != "" {
		above = append(slices.Clone(above), name)
	}
	for _, one := range w.forms(s) {
		one, name := w.resolve(one)
		if name == "" || !slices.Contains(above, name) {
			w.properties(path+".", one, above)
		}
	}
	if s.Items == nil {
		return
	}
	item, name := w.resolve(*s.Items)
	if name != "" && slices.Contains(above, name) {
		return
	}
	if name != "" {
		above = append(slices.Clone(above), name)
	}
	for _, one := range w.forms(item) {
		one, _ := w.resolve(one)
		w.properties(path+"[].", one, above)
	}
}

// forms are the schema itself, and what else may stand in its place.
func (w *walker) forms(s schema) []schema {
	return append(append([]schema{s}, s.AnyOf...), s.OneOf...)
}

// kind names what a value is.
func (w *walker) kind(s schema) string {
	var names []string
	for _, one := range w.forms(s) {
		one, _ := w.resolve(one)
		switch t := one.Type.(type) {
		case string:
			names = append(names, t)
		case []any:
			for _, x := range t {
				names = append(names, fmt.Sprint(x))
			}
		}
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == "null" })
	slices.Sort(names)
	for i, n := range names {
		switch n {
		case "array":
			names[i] = "list"
		case "object":
			names[i] = "map"
		case "boolean":
			names[i] = "true or false"
		}
	}
	names = slices.Compact(names)
	if len(names) == 0 {
		return "any value"
	}
	return strings.Join(names, " or ")
}

func choices(s schema) string {
	var out []string
	for _, v := range s.Enum {
		if v != nil {
			out = append(out, fmt.Sprint(v))
		}
	}
	return strings.Join(out, " | ")
}
