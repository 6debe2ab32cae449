package yamlfile

import (
	"fmt"
	"strconv"
)

// Kind is the kind of a node.
type Kind int

// The kinds of node.
const (
	Null Kind = iota
	Bool
	Int
	Float
	String
	Map
	List
)

// Node is a value of a file that remembers where it was written, so that values
// of several files can be merged and errors still name the right line. Nodes
// are not changed once parsed; functions that change something return copies.
type Node struct {
	File         string
	Line, Column int
	Kind         Kind
	Text         string  // of a scalar, as written in the file, quotes removed
	Pairs        []Pair  // of a map, in the file's order
	Items        []*Node // of a list
	// Hidden marks text that came from a secret or from the environment: it is
	// not shown in errors, and may stand for a number.
	Hidden bool
	// Block is, of a literal block ("|"), the column where its lines begin, so that
	// a place in the text can be told as a place in the file; 0 for other values.
	Block int

	size int // number of nodes, this one included
}

// Pair is one entry of a map.
type Pair struct {
	Key          string
	Line, Column int // of the key
	Value        *Node
}

// Get returns the value of a key of a map; nil when there is none.
func (n *Node) Get(key string) *Node {
	if n == nil {
		return nil
	}
	for _, p := range n.Pairs {
		if p.Key == key {
			return p.Value
		}
	}
	return nil
}

// At follows keys (string) and list positions (int) as far as they exist and
// returns the last node reached: the place to name in an error.
func (n *Node) At(path ...any) *Node {
	for _, p := range path {
		var next *Node
		switch p := p.(type) {
		case string:
			next = n.Get(p)
		case int:
			if n != nil && p >= 0 && p < len(n.Items) {
				next = n.Items[p]
			}
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

// Errorf makes an error at the place a path leads to; see At.
func (n *Node) Errorf(path []any, format string, args ...any) Error {
	e := Error{Message: fmt.Sprintf(format, args...)}
	if at := n.At(path...); at != nil {
		e.File, e.Line, e.Column = at.File, at.Line, at.Column
	}
	for _, p := range path {
		e.Key = join(e.Key, p)
	}
	return e
}

// KeyErrorf is Errorf for the last key of a path itself, not for its value.
func (n *Node) KeyErrorf(path []any, format string, args ...any) Error {
	e := n.Errorf(path, format, args...)
	last := len(path) - 1
	for _, p := range n.At(path[:last]...).pairs() {
		if p.Key == path[last] {
			e.Line, e.Column = p.Line, p.Column
		}
	}
	return e
}

// TextErrorf is Errorf for a place inside a text: its line, and the byte in that
// line, both counted from 1. Only in a literal block is that a place of the file;
// in other texts the error is where the text begins.
func (n *Node) TextErrorf(path []any, line, column int, format string, args ...any) Error {
	e := n.Errorf(path, format, args...)
	if at := n.At(path...); at != nil && at.Block > 0 && line > 0 {
		e.Line, e.Column = at.Line+line, at.Block+max(column, 1)-1
	}
	return e
}

func (n *Node) pairs() []Pair {
	if n == nil {
		return nil
	}
	return n.Pairs
}

// Without returns a map node without one key.
func (n *Node) Without(key string) *Node {
	if n.Get(key) == nil {
		return n
	}
	c := *n
	c.Pairs = nil
	for _, p := range n.Pairs {
		if p.Key != key {
			c.Pairs = append(c.Pairs, p)
		}
	}
	return &c
}

// With returns a map node in which a key has a value, replaced or added.
func (n *Node) With(key string, value *Node) *Node {
	c := *n
	c.Pairs = nil
	done := false
	for _, p := range n.Pairs {
		if p.Key == key {
			p.Value, done = value, true
		}
		c.Pairs = append(c.Pairs, p)
	}
	if !done {
		c.Pairs = append(c.Pairs, Pair{Key: key, Line: value.Line, Column: value.Column, Value: value})
	}
	return &c
}

// MapStrings returns a copy in which each text value (not key) is what f makes
// of it. f may return an error for its place; all of them are returned.
func (n *Node) MapStrings(f func(text string) (result string, hidden bool, err error)) (*Node, Errors) {
	var errs Errors
	return n.mapStrings("", f, &errs), errs
}

func (n *Node) mapStrings(path string, f func(string) (string, bool, error), errs *Errors) *Node {
	if n == nil {
		return nil
	}
	c := *n
	switch n.Kind {
	case String:
		text, hidden, err := f(n.Text)
		if err != nil {
			*errs = append(*errs, Error{File: n.File, Line: n.Line, Column: n.Column, Key: path, Message: err.Error()})
			return n
		}
		c.Text, c.Hidden = text, n.Hidden || hidden
	case Map:
		c.Pairs = make([]Pair, len(n.Pairs))
		for i, p := range n.Pairs {
			p.Value = p.Value.mapStrings(join(path, p.Key), f, errs)
			c.Pairs[i] = p
		}
	case List:
		c.Items = make([]*Node, len(n.Items))
		for i, it := range n.Items {
			c.Items[i] = it.mapStrings(join(path, i), f, errs)
		}
	}
	return &c
}

// Merge lays one node over another: maps are merged key by key, everything else
// is replaced. A key given as null in over is removed. Either may be nil.
func Merge(base, over *Node) *Node {
	switch {
	case over == nil:
		return base
	case base == nil, base.Kind != Map, over.Kind != Map:
		return dropNulls(over)
	}
	c := *over
	c.Pairs = nil
	for _, p := range base.Pairs {
		o := over.Get(p.Key)
		switch {
		case o == nil:
			c.Pairs = append(c.Pairs, p)
		case o.Kind != Null:
			for _, op := range over.Pairs {
				if op.Key == p.Key {
					op.Value = Merge(p.Value, o)
					c.Pairs = append(c.Pairs, op)
				}
			}
		}
	}
	for _, p := range over.Pairs {
		if base.Get(p.Key) == nil && p.Value.Kind != Null {
			p.Value = dropNulls(p.Value)
			c.Pairs = append(c.Pairs, p)
		}
	}
	return &c
}

// dropNulls removes null entries of maps, so that null means "not given" on
// every level.
func dropNulls(n *Node) *Node {
	if n.Kind != Map {
		return n
	}
	c := *n
	c.Pairs = nil
	for _, p := range n.Pairs {
		if p.Value.Kind != Null {
			p.Value = dropNulls(p.Value)
			c.Pairs = append(c.Pairs, p)
		}
	}
	return &c
}

// describe says what a node is, for "want …, found …".
func (n *Node) describe() string {
	if n.Hidden {
		return "a value that is not shown (it came from ${…})"
	}
	switch n.Kind {
	case Null:
		return "nothing"
	case Bool:
		return "the truth value " + n.Text + " (write it in quotes if it is meant as text)"
	case Int, Float:
		return "the number " + n.Text
	case String:
		return fmt.Sprintf("the text %q", clip(n.Text))
	case Map:
		return "a map (key: value)"
	}
	return "a list"
}

func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

func join(path string, element any) string {
	switch e := element.(type) {
	case int:
		return path + "[" + strconv.Itoa(e) + "]"
	case string:
		if path == "" {
			return e
		}
		return path + "." + e
	}
	return path
}
