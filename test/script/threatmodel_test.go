package script

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	promise  = regexp.MustCompile(`(?m)^\*\*P(\d+)\. `)
	shownBy  = regexp.MustCompile("`((?:internal|test)/[a-z0-9/]+):((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	scripted = regexp.MustCompile("`test/script/testdata/([a-z]+\\.txtar)`")
	named    = regexp.MustCompile(`P(\d+)`)
)

// Every promise of the threat model names tests that there are.
func TestThreatModel(t *testing.T) {
	text, err := os.ReadFile("../../THREAT_MODEL.md")
	if err != nil {
		t.Fatal(err)
	}
	model := string(text)
	at := promise.FindAllStringSubmatchIndex(model, -1)
	if len(at) < 10 {
		t.Fatalf("%d promises were found", len(at))
	}
	known := map[string]bool{}
	for i, m := range at {
		number := model[m[2]:m[3]]
		if number != strconv.Itoa(i+1) {
			t.Errorf("promise %d is numbered %s", i+1, number)
		}
		known[number] = true
		body := model[m[0]:]
		body = body[:strings.IndexByte(body, '\n')]
		tests, scripts := shownBy.FindAllStringSubmatch(body, -1), scripted.FindAllStringSubmatch(body, -1)
		if len(tests)+len(scripts) == 0 {
			t.Errorf("P%s names no test", number)
		}
		if quoted := strings.Count(body, ":Test") + strings.Count(body, ":Fuzz") + strings.Count(body, ".txtar"); quoted != len(tests)+len(scripts) {
			t.Errorf("P%s names %d tests, %d of them in the form that is looked for", number, quoted, len(tests)+len(scripts))
		}
		for _, one := range tests {
			if !testsOf(t, filepath.Join("../..", one[1]))[one[2]] {
				t.Errorf("P%s: %s has no %s", number, one[1], one[2])
			}
		}
		for _, one := range scripts {
			if _, err := os.Stat(filepath.Join("testdata", one[1])); err != nil {
				t.Errorf("P%s: %v", number, err)
			}
		}
	}
	for _, m := range named.FindAllStringSubmatch(model, -1) {
		if !known[m[1]] {
			t.Errorf("there is no promise P%s", m[1])
		}
	}
}

// testsOf are the functions of a package's tests.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("%s has no tests: %v", dir, err)
	}
	out := map[string]bool{}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				out[fn.Name.Name] = true
			}
		}
	}
	return out
}
