package yamlfile

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// converter turns the library's syntax tree into nodes. It goes on after an
// error, so that all are found.
type converter struct {
	file    string
	anchors map[string]*Node
	errs    Errors
	total   int
}

func (c *converter) fail(tk *token.Token, key, format string, args ...any) {
	e := errorAt(c.file, tk, fmt.Sprintf(format, args...))
	e.Key = key
	c.errs = append(c.errs, e)
}

// node converts one value. The result is never nil.
func (c *converter) node(in ast.Node, path string, depth int) *Node {
	out := &Node{File: c.file, size: 1}
	if in == nil {
		return out
	}
	if tk := in.GetToken(); tk != nil && tk.Position != nil {
		out.Line, out.Column = tk.Position.Line, tk.Position.Column
	}
	if depth > maxDepth {
		c.fail(in.GetToken(), "", "nested deeper than %d levels", maxDepth)
		return out
	}
	if c.total++; c.total > maxNodes {
		if c.total == maxNodes+1 {
			c.fail(in.GetToken(), "", "more than %d values", maxNodes)
		}
		return out
	}
	switch in := in.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		out.Kind, out.Text = Bool, in.Token.Value
	case *ast.IntegerNode:
		out.Kind, out.Text = Int, in.Token.Value
	case *ast.FloatNode:
		out.Kind, out.Text = Float, in.Token.Value
	case *ast.InfinityNode:
		out.Kind, out.Text = Float, in.Token.Value
	case *ast.NanNode:
		out.Kind, out.Text = Float, in.Token.Value
	case *ast.StringNode:
		out.Kind, out.Text = String, in.Value
	case *ast.LiteralNode:
		out.Kind = String
		if in.Value != nil {
			out.Text = in.Value.Value
			out.Block = blockColumn(in)
		}
	case *ast.MappingNode:
		c.mapping(out, in.Values, path, depth)
	case *ast.MappingValueNode:
		c.mapping(out, []*ast.MappingValueNode{in}, path, depth)
	case *ast.SequenceNode:
		out.Kind = List
		for i, v := range in.Values {
			it := c.node(v, join(path, i), depth+1)
			out.Items = append(out.Items, it)
			out.size += it.size
		}
	case *ast.AnchorNode:
		n := c.node(in.Value, path, depth+1)
		if in.Name != nil && in.Name.GetToken() != nil {
			c.anchors[in.Name.GetToken().Value] = n
		}
		return n
	case *ast.AliasNode:
		return c.alias(in, path, out)
	case *ast.TagNode:
		c.fail(in.GetToken(), path, "tags such as %s are not supported; leave it out, and put text in quotes", clip(in.Start.Value))
	default:
		c.fail(in.GetToken(), path, "%s is not supported here", in.Type())
	}
	return out
}

// blockColumn is where the lines of a literal block begin: how far its first line
// is indented in the file, less what of that is part of the text.
func blockColumn(in *ast.LiteralNode) int {
	tk := in.Value.GetToken()
	if tk == nil || !strings.HasPrefix(in.Start.Value, "|") {
		return 0
	}
	indent := func(text string) int {
		for line := range strings.Lines(text) {
			if rest := strings.TrimLeft(line, " "); strings.TrimSpace(rest) != "" {
				return len(line) - len(rest)
			}
		}
		return 0
	}
	return max(indent(tk.Origin)-indent(in.Value.Value), 0) + 1
}

func (c *converter) alias(in *ast.AliasNode, path string, out *Node) *Node {
	name := ""
	if in.Value != nil && in.Value.GetToken() != nil {
		name = in.Value.GetToken().Value
	}
	n, ok := c.anchors[name]
	if !ok {
		c.fail(in.GetToken(), path, "*%s refers to an anchor (&%s) that is not defined above", clip(name), clip(name))
		return out
	}
	if c.total += n.size; c.total > maxNodes {
		c.fail(in.GetToken(), path, "more than %d values once aliases are followed", maxNodes)
		return out
	}
	return n
}

func (c *converter) mapping(out *Node, values []*ast.MappingValueNode, path string, depth int) {
	out.Kind = Map
	var merged []*Node
	lines := map[string]int{}
	for i, mv := range values {
		tk := mv.Key.GetToken()
		if i == 0 && tk != nil && tk.Position != nil {
			out.Line, out.Column = tk.Position.Line, tk.Position.Column
		}
		if mv.Key.IsMergeKey() {
			merged = append(merged, c.mergeValues(mv, path, depth)...)
			continue
		}
		key, ok := c.key(mv.Key, path)
		value := c.node(mv.Value, join(path, key), depth+1)
		out.size += value.size
		if !ok {
			continue
		}
		p := Pair{Key: key, Value: value}
		if tk != nil && tk.Position != nil {
			p.Line, p.Column = tk.Position.Line, tk.Position.Column
		}
		if first, twice := lines[key]; twice {
			c.fail(tk, join(path, key), "given twice; it is on line %d already", first)
			continue
		}
		lines[key] = p.Line
		out.Pairs = append(out.Pairs, p)
	}
	for _, m := range merged {
		for _, p := range m.Pairs {
			if out.Get(p.Key) == nil {
				out.Pairs = append(out.Pairs, p)
				out.size += p.Value.size
			}
		}
	}
}

// mergeValues are the maps that "<<:" names.
func (c *converter) mergeValues(mv *ast.MappingValueNode, path string, depth int) []*Node {
	n := c.node(mv.Value, join(path, "<<"), depth+1)
	list := []*Node{n}
	if n.Kind == List {
		list = n.Items
	}
	for _, m := range list {
		if m.Kind != Map {
			c.fail(mv.Key.GetToken(), join(path, "<<"), "want a map to merge, found %s", m.describe())
			return nil
		}
	}
	return list
}

// key is the text of a map's key; ok is false where it is not plain text.
func (c *converter) key(in ast.MapKeyNode, path string) (text string, ok bool) {
	var n ast.Node = in
	if k, isComplex := in.(*ast.MappingKeyNode); isComplex {
		n = k.Value
	}
	switch k := n.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.LiteralNode:
		if k.Value != nil {
			return k.Value.Value, true
		}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	c.fail(in.GetToken(), path, "a key must be plain text")
	return "", false
}
