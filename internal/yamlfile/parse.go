package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// MaxSize is the size of the largest file read, in bytes.
	MaxSize = 1 << 20
	// maxDepth bounds nesting, since the parser works recursively.
	maxDepth = 64
	// maxNodes bounds a document after its aliases are followed.
	maxNodes = 200_000
)

// Parse reads one YAML document. The name is used in errors only. A file that
// holds nothing but blanks and comments gives a nil node. With an error the node
// is not nil where the rest could be read all the same, such as beside a key that
// is given twice: it is for those who look for further mistakes.
func Parse(name string, data []byte) (*Node, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	switch {
	case len(data) > MaxSize:
		return nil, Errors{{File: name, Message: fmt.Sprintf("larger than %d KiB, the most that is read of a configuration file", MaxSize>>10)}}
	case !utf8.Valid(data):
		return nil, Errors{{File: name, Message: "not UTF-8 text; save it with that encoding"}}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, Errors{{File: name, Line: 1 + bytes.Count(data[:i], []byte("\n")), Column: 1, Message: "holds a zero byte; this is not a text file"}}
	}
	file, err := parseAST(name, data)
	if err != nil {
		return nil, err
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch doc.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.CommentNode, *ast.DirectiveNode:
			continue
		}
		if body != nil {
			return nil, Errors{errorAt(name, doc.Body.GetToken(), "a second document begins here (after ---); a configuration file holds one")}
		}
		body = doc.Body
	}
	if body == nil {
		return nil, nil
	}
	c := &converter{file: name, anchors: map[string]*Node{}}
	n := c.node(body, "", 0)
	return n, c.errs.Err()
}

// parseAST calls the YAML library. It is guarded twice: nesting is measured on
// the tokens first, because its parser is recursive, and a panic inside it is
// turned into an error, because the file is a person's input.
func parseAST(name string, data []byte) (file *ast.File, err error) {
	defer func() {
		if r := recover(); r != nil {
			file, err = nil, Errors{{File: name, Message: fmt.Sprintf("cannot be read as YAML (the parser gave up: %v)", r)}}
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if tk := tooDeep(tokens); tk != nil {
		return nil, Errors{errorAt(name, tk, fmt.Sprintf("nested deeper than %d levels", maxDepth))}
	}
	file, err = parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return file, nil
	}
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		return nil, Errors{errorAt(name, y.GetToken(), "syntax: "+y.GetMessage())}
	}
	return nil, Errors{{File: name, Message: "syntax: " + firstLine(err.Error())}}
}

// tooDeep returns the first token nested beyond maxDepth by brackets or by
// indicators that nest within a line. Nesting by indentation needs no guard
// here: within MaxSize it stays far below what the stack holds, and the
// converter bounds it.
func tooDeep(tokens token.Tokens) *token.Token {
	depth, inRow, line := 0, 0, 0
	for _, tk := range tokens {
		if tk.Position == nil {
			continue
		}
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			if tk.Position.Line != line {
				inRow = 0
			}
			inRow++
		default:
			inRow = 0
		}
		line = tk.Position.Line
		if depth > maxDepth || inRow > maxDepth {
			return tk
		}
	}
	return nil
}

func errorAt(file string, tk *token.Token, message string) Error {
	e := Error{File: file, Message: message}
	if tk != nil && tk.Position != nil {
		e.Line, e.Column = tk.Position.Line, tk.Position.Column
	}
	return e
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
