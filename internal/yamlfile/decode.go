package yamlfile

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// unmarshaler is for types that have several YAML forms. The function given
// decodes the same value into whatever it is handed, an *any included.
type unmarshaler interface {
	UnmarshalYAML(decode func(any) error) error
}

// Decode parses data strictly into out, a pointer. What the file does not give
// keeps the value it has in out, so out may hold defaults; a null does the same
// for structs and scalars and empties pointers, maps and lists. An empty file
// changes nothing. Errors are Errors: everything wrong at once, with path as
// the file's name.
func Decode(path string, data []byte, out any) error {
	n, err := Parse(path, data)
	return n.decodeBeside(err, out)
}

// decodeBeside is Decode where reading the file gave an error already: it is
// reported with what else is wrong.
func (n *Node) decodeBeside(err error, out any) error {
	var errs, more Errors
	if err == nil || n == nil || !errors.As(err, &errs) {
		return errors.Join(err, n.Decode(out))
	}
	if errors.As(n.Decode(out), &more) {
		errs = errs.Beside(more)
	}
	return errs.Err()
}

// Decode is Decode for a value that has been parsed; a nil node changes nothing.
// Struct fields go by their `yaml` tags, types that read text by
// encoding.TextUnmarshaler.
func (n *Node) Decode(out any) error {
	v := reflect.ValueOf(out)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("decode into %T: want a pointer", out)
	}
	if n == nil {
		return nil
	}
	d := decoder{}
	d.value(n, "", v.Elem())
	return d.errs.Err()
}

type decoder struct{ errs Errors }

func (d *decoder) fail(n *Node, path, format string, args ...any) {
	d.errs = append(d.errs, Error{File: n.File, Line: n.Line, Column: n.Column, Key: path, Message: fmt.Sprintf(format, args...)})
}

func (d *decoder) want(n *Node, path, what string) {
	d.fail(n, path, "want %s, found %s", what, n.describe())
}

func (d *decoder) value(n *Node, path string, v reflect.Value) {
	if n.Kind == Null {
		switch v.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Interface:
			v.SetZero()
		}
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, path, v.Elem())
		return
	}
	if v.CanAddr() && d.custom(n, path, v.Addr().Interface()) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, path, v)
	case reflect.Map:
		d.mapping(n, path, v)
	case reflect.Slice:
		d.list(n, path, v)
	case reflect.Interface:
		v.Set(reflect.ValueOf(n.plain()))
	case reflect.String:
		switch n.Kind {
		case String, Int, Float:
			v.SetString(n.Text)
		default:
			d.want(n, path, "text")
		}
	case reflect.Bool:
		if n.Kind != Bool && !n.Hidden {
			d.want(n, path, "true or false")
			return
		}
		b, err := strconv.ParseBool(strings.ToLower(n.Text))
		if err != nil {
			d.want(n, path, "true or false")
			return
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		i, err := strconv.ParseInt(n.Text, 0, 64)
		if n.Kind != Int && !n.Hidden || err != nil || v.OverflowInt(i) {
			d.want(n, path, "a whole number")
			return
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		i, err := strconv.ParseUint(n.Text, 0, 64)
		if n.Kind != Int && !n.Hidden || err != nil || v.OverflowUint(i) {
			d.want(n, path, "a whole number that is not negative")
			return
		}
		v.SetUint(i)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(n.Text, 64)
		if n.Kind != Int && n.Kind != Float && !n.Hidden || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.want(n, path, "a number")
			return
		}
		v.SetFloat(f)
	default:
		d.fail(n, path, "cannot be set from a file (%s)", v.Type())
	}
}

// custom uses a type's own way of reading itself, if it has one.
func (d *decoder) custom(n *Node, path string, target any) bool {
	switch t := target.(type) {
	case unmarshaler:
		err := t.UnmarshalYAML(func(out any) error {
			sub := decoder{}
			sub.value(n, path, reflect.ValueOf(out).Elem())
			return sub.errs.Err()
		})
		var several Errors
		switch {
		case errors.As(err, &several):
			d.errs = append(d.errs, several...)
		case err != nil:
			d.fail(n, path, "%v", err)
		}
		return true
	case encoding.TextUnmarshaler:
		if n.Kind == Map || n.Kind == List {
			d.want(n, path, "text")
		} else if err := t.UnmarshalText([]byte(n.Text)); err != nil {
			if n.Hidden {
				d.fail(n, path, "the value that ${…} stands for is not valid here")
			} else {
				d.fail(n, path, "%v", err)
			}
		}
		return true
	}
	return false
}

func (d *decoder) structure(n *Node, path string, v reflect.Value) {
	if n.Kind != Map {
		d.want(n, path, "a map (key: value)")
		return
	}
	fields := map[string]reflect.Value{}
	var names []string
	collect(v, fields, &names)
	for _, p := range n.Pairs {
		key := join(path, p.Key)
		f, ok := fields[p.Key]
		if !ok {
			d.errs = append(d.errs, Error{File: p.Value.File, Line: p.Line, Column: p.Column, Key: key, Message: unknown(p.Key, names)})
			continue
		}
		d.value(p.Value, key, f)
	}
}

// collect gathers the fields of a struct by their YAML names.
func collect(v reflect.Value, fields map[string]reflect.Value, names *[]string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if slices.Contains(strings.Split(options, ","), "inline") {
			collect(v.Field(i), fields, names)
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		fields[name] = v.Field(i)
		*names = append(*names, name)
	}
}

func unknown(key string, known []string) string {
	if near := Nearest(key, known); near != "" {
		return fmt.Sprintf("unknown key %q; did you mean %q?", clip(key), near)
	}
	if len(known) == 0 {
		return fmt.Sprintf("unknown key %q; nothing may be given here", clip(key))
	}
	return fmt.Sprintf("unknown key %q; known here: %s", clip(key), strings.Join(known, ", "))
}

func (d *decoder) mapping(n *Node, path string, v reflect.Value) {
	if n.Kind != Map {
		d.want(n, path, "a map (key: value)")
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, p := range n.Pairs {
		key := reflect.New(v.Type().Key()).Elem()
		if key.Kind() != reflect.String {
			d.fail(n, path, "cannot be set from a file (%s)", v.Type())
			return
		}
		key.SetString(p.Key)
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(p.Value, join(path, p.Key), elem)
		v.SetMapIndex(key, elem)
	}
}

func (d *decoder) list(n *Node, path string, v reflect.Value) {
	if n.Kind != List {
		d.want(n, path, "a list")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(n.Items), len(n.Items))
	for i, it := range n.Items {
		if it.Kind == Null {
			d.fail(it, join(path, i), "an empty entry in a list")
			continue
		}
		d.value(it, join(path, i), out.Index(i))
	}
	v.Set(out)
}

// plain is the value as Go's basic types.
func (n *Node) plain() any {
	switch n.Kind {
	case Null:
		return nil
	case Bool:
		return strings.EqualFold(n.Text, "true")
	case Int:
		if i, err := strconv.ParseInt(n.Text, 0, 64); err == nil {
			return i
		}
	case Float:
		if f, err := strconv.ParseFloat(n.Text, 64); err == nil {
			return f
		}
	case Map:
		m := make(map[string]any, len(n.Pairs))
		for _, p := range n.Pairs {
			m[p.Key] = p.Value.plain()
		}
		return m
	case List:
		l := make([]any, len(n.Items))
		for i, it := range n.Items {
			l[i] = it.plain()
		}
		return l
	}
	return n.Text
}
