package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/observability-upgrade/observability-upgrade/internal/yamlfile"
)

// maxDepth bounds nesting; an instance has four levels.
const maxDepth = 32

// parseJSON reads one JSON object into the form that yamlfile decodes strictly.
// JSON is nearly YAML; what is not (tabs, some escapes) does occur in values
// that people write. Name stands for the file in errors.
func parseJSON(name string, data []byte) (*yamlfile.Node, error) {
	fail := func(format string, args ...any) error {
		return yamlfile.Errors{{File: name, Message: fmt.Sprintf(format, args...) + `; want one JSON object such as {"service": "prometheus-a"}`}}
	}
	switch {
	case len(data) > yamlfile.MaxSize:
		return nil, fail("is larger than %d KiB", yamlfile.MaxSize>>10)
	case !utf8.Valid(data):
		return nil, fail("is not UTF-8 text")
	case len(bytes.TrimSpace(data)) == 0:
		return nil, fail("is empty")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	p := jsonParser{name: name, d: d}
	n, err := p.value("", 0)
	var strict yamlfile.Errors
	switch {
	case errors.As(err, &strict):
		return nil, strict
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fail("ends in the middle of a value")
	case err != nil:
		return nil, fail("is not JSON: %v", err)
	case n.Kind != yamlfile.Map:
		return nil, fail("is not an object: %s", excerpt(data))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fail("goes on after the object's end")
	}
	return n, nil
}

type jsonParser struct {
	name string
	d    *json.Decoder
}

func (p *jsonParser) value(key string, depth int) (*yamlfile.Node, error) {
	t, err := p.d.Token()
	if err != nil {
		return nil, err
	}
	n := &yamlfile.Node{File: p.name}
	switch t := t.(type) {
	case nil:
	case bool:
		n.Kind, n.Text = yamlfile.Bool, fmt.Sprint(t)
	case string:
		n.Kind, n.Text = yamlfile.String, t
	case json.Number:
		n.Kind, n.Text = yamlfile.Int, t.String()
		if strings.ContainsAny(n.Text, ".eE") {
			n.Kind = yamlfile.Float
		}
	case json.Delim:
		if depth >= maxDepth {
			return nil, yamlfile.Errors{{File: p.name, Key: key, Message: fmt.Sprintf("nested deeper than %d levels", maxDepth)}}
		}
		if t == '[' {
			err = p.list(n, key, depth)
		} else {
			err = p.object(n, key, depth)
		}
	}
	return n, err
}

func (p *jsonParser) list(n *yamlfile.Node, key string, depth int) error {
	n.Kind = yamlfile.List
	for p.d.More() {
		item, err := p.value(fmt.Sprintf("%s[%d]", key, len(n.Items)), depth+1)
		if err != nil {
			return err
		}
		n.Items = append(n.Items, item)
	}
	_, err := p.d.Token() // the closing bracket
	return err
}

func (p *jsonParser) object(n *yamlfile.Node, key string, depth int) error {
	n.Kind = yamlfile.Map
	for p.d.More() {
		t, err := p.d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string) // the decoder accepts nothing else here
		path := strings.TrimPrefix(key+"."+name, ".")
		v, err := p.value(path, depth+1)
		if err != nil {
			return err
		}
		if n.Get(name) != nil {
			return yamlfile.Errors{{File: p.name, Key: path, Message: "given twice"}}
		}
		n.Pairs = append(n.Pairs, yamlfile.Pair{Key: name, Value: v})
	}
	_, err := p.d.Token() // the closing brace
	return err
}
