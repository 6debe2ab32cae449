// Command schemagen writes the JSON Schemas of the configuration files from the Go
// types that they are decoded into: keys from the yaml tags, descriptions and
// fixed values ("auto | systemd | process") from the comments. So schema and
// decoder cannot come to differ; a test runs it and compares.
//
//	schemagen MODULE-ROOT
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/observability-upgrade/observability-upgrade/internal/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: schemagen MODULE-ROOT")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func write(root string) error {
	all, err := generate(root)
	if err != nil {
		return err
	}
	for name, data := range all {
		if err := os.WriteFile(filepath.Join(root, "schemas", "config", name+".schema.json"), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate makes the schemas, by name.
func generate(root string) (map[string][]byte, error) {
	g := &generator{structs: map[string]*ast.TypeSpec{}, docs: map[string]string{}, values: map[string][]string{}}
	for _, pkg := range []string{"config", "component"} {
		if err := g.parse(filepath.Join(root, "internal", pkg), pkg); err != nil {
			return nil, err
		}
	}
	out := map[string][]byte{}
	for name, typ := range map[string]string{"policy": "config.Policy", "matrix": "config.Matrix", "notifications": "config.Notifications", "component": "component.Component"} {
		g.defs = object{}
		s, err := g.structure(typ)
		if err != nil {
			return nil, err
		}
		doc := object{
			"$schema": "https://json-schema.org/draft/2020-12/schema",
			"$id":     "https://github.com/observability-upgrade/observability-upgrade/schemas/config/" + name + ".schema.json",
			"title":   "observability-upgrade: " + name,
		}
		for k, v := range s {
			doc[k] = v
		}
		if len(g.defs) > 0 {
			doc["$defs"] = g.defs
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(doc); err != nil {
			return nil, err
		}
		out[name] = b.Bytes()
	}
	return out, nil
}

type object = map[string]any

type generator struct {
	structs map[string]*ast.TypeSpec // by package and name
	docs    map[string]string
	values  map[string][]string // constants of named string types
	defs    object
}

// parse reads the types of a package from its source.
func (g *generator) parse(dir, pkg string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	fset := token.NewFileSet()
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range decl.Specs {
				switch spec := s.(type) {
				case *ast.TypeSpec:
					g.structs[pkg+"."+spec.Name.Name] = spec
					g.docs[pkg+"."+spec.Name.Name] = decl.Doc.Text()
				case *ast.ValueSpec:
					if typ, ok := spec.Type.(*ast.Ident); ok && decl.Tok == token.CONST && len(spec.Values) == 1 {
						if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
							text, _ := strconv.Unquote(lit.Value) // the compiler took it
							g.values[pkg+"."+typ.Name] = append(g.values[pkg+"."+typ.Name], text)
						}
					}
				}
			}
		}
	}
	return nil
}

// fixed finds the fixed values that a comment begins with.
var fixed = regexp.MustCompile(`^([a-z_-]+(?: \| [a-z_-]+)+)`)

// structure is the schema of a struct: an object that allows nothing else.
func (g *generator) structure(name string) (object, error) {
	spec, ok := g.structs[name]
	if !ok {
		return nil, fmt.Errorf("there is no type %s", name)
	}
	st, ok := spec.Type.(*ast.StructType)
	if !ok {
		return nil, fmt.Errorf("%s is no struct", name)
	}
	pkg, _, _ := strings.Cut(name, ".")
	props := object{}
	for _, f := range st.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			continue
		}
		raw, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			return nil, err
		}
		key, _, _ := strings.Cut(reflect.StructTag(raw).Get("yaml"), ",")
		if key == "" || key == "-" {
			continue
		}
		typ := f.Type
		if star, ok := typ.(*ast.StarExpr); ok {
			typ = star.X
		}
		s, err := g.expr(typ, pkg)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", name, f.Names[0].Name, err)
		}
		text := strings.TrimSpace(f.Comment.Text())
		if text == "" {
			text = strings.Join(strings.Fields(f.Doc.Text()), " ")
		}
		if text != "" {
			s["description"] = text
		}
		if m := fixed.FindString(text); m != "" && s["type"] == "string" {
			s["enum"] = strings.Split(m, " | ")
		}
		props[key] = nullable(s)
	}
	return object{"type": "object", "additionalProperties": false, "properties": props}, nil
}

// nullable allows null, which means in every place "not given".
func nullable(s object) object {
	if t, ok := s["type"].(string); ok {
		s["type"] = []string{t, "null"}
		if values, ok := s["enum"].([]string); ok {
			all := make([]any, len(values), len(values)+1)
			for i, v := range values {
				all[i] = v
			}
			s["enum"] = append(all, nil)
		}
		return s
	}
	out := object{"anyOf": []any{s, object{"type": "null"}}}
	if text, ok := s["description"]; ok {
		out["description"] = text
		delete(s, "description")
	}
	return out
}

// expr is the schema of a field's type.
func (g *generator) expr(e ast.Expr, pkg string) (object, error) {
	switch x := e.(type) {
	case *ast.ArrayType:
		item, err := g.expr(x.Elt, pkg)
		return object{"type": "array", "items": item}, err
	case *ast.MapType:
		value, err := g.expr(x.Value, pkg)
		return object{"type": "object", "additionalProperties": value}, err
	case *ast.SelectorExpr:
		return g.expr(x.Sel, x.X.(*ast.Ident).Name)
	case *ast.Ident:
		switch x.Name {
		case "string":
			return object{"type": "string"}, nil
		case "bool":
			return object{"type": "boolean"}, nil
		case "int":
			return object{"type": "integer"}, nil
		case "float64":
			return object{"type": "number"}, nil
		}
		return g.named(pkg + "." + x.Name)
	}
	return nil, fmt.Errorf("type %T is not foreseen", e)
}

// named is the schema of a type of ours: a reference to a struct's definition, or
// the form that its own unmarshaler takes.
func (g *generator) named(name string) (object, error) {
	switch name {
	case "config.Secret":
		return object{"type": "string"}, nil
	case "component.Duration":
		return object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$|^\$\{`}, nil
	case "component.Range", "component.Version":
		return object{"type": "string"}, nil
	case "config.Window":
		return g.either(name, object{"type": "string", "pattern": `^\s*[0-9]{2}:[0-9]{2}\s*-\s*[0-9]{2}:[0-9]{2}\s*$`})
	case "config.Need":
		return g.either(name, object{"type": "string"})
	case "config.Channel":
		return g.channel()
	case "component.Instances":
		item, err := g.named("component.Instance")
		text, texts := object{"type": "string"}, object{"type": "array", "items": object{"type": "string"}}
		lookup := object{"type": "object", "additionalProperties": false, "required": []string{"type"}, "properties": object{
			"type": object{"enum": []string{"consul", "etcd"}}, "address": text, "service": text, "token": text,
			"endpoints": texts, "prefix": text, "username": text, "password": text, "ca": text, "exec": texts,
		}}
		return object{"anyOf": []any{object{"type": "array", "items": item}, lookup}}, err
	}
	if spec, ok := g.structs[name]; ok {
		if _, isStruct := spec.Type.(*ast.StructType); !isStruct {
			s := object{"type": "string"}
			if values := g.values[name]; len(values) > 0 {
				s["enum"] = values
			}
			return s, nil
		}
	}
	_, short, _ := strings.Cut(name, ".")
	if _, done := g.defs[short]; !done {
		g.defs[short] = object{} // for types that hold themselves
		s, err := g.structure(name)
		if err != nil {
			return nil, err
		}
		g.defs[short] = s
	}
	return object{"$ref": "#/$defs/" + short}, nil
}

// either is a struct that has a short form too.
func (g *generator) either(name string, form object) (object, error) {
	s, err := g.structure(name)
	return object{"anyOf": []any{form, s}}, err
}

// channel is a channel of the notifications: what its config holds goes by its
// type, and by its name where no type is given.
func (g *generator) channel() (object, error) {
	var forms []any
	for _, kind := range [][2]string{{"email", "config.Email"}, {"slack", "config.Slack"}, {"webhook", "config.Webhook"}, {"shoutrrr", "config.Shoutrrr"}} {
		s, err := g.structure(kind[1])
		if err != nil {
			return nil, err
		}
		if port, ok := s["properties"].(object)["smtp_port"].(object); ok {
			port["type"] = []string{"string", "integer", "null"}
		}
		forms = append(forms, object{
			"type": "object", "additionalProperties": false, "required": []string{"name", "enabled"}, "properties": object{
				"name": object{"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$"}, "type": object{"const": kind[0]}, "enabled": object{"type": "boolean"}, "config": s,
				"events": object{"type": "array", "items": object{"enum": config.Events()}},
			},
			"anyOf": []any{object{"required": []string{"type"}}, object{"properties": object{"name": object{"const": kind[0]}}}},
		})
	}
	return object{"anyOf": forms}, nil
}
