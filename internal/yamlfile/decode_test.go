package yamlfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type every time.Duration

func (e *every) UnmarshalText(b []byte) error {
	d, err := time.ParseDuration(string(b))
	*e = every(d)
	if err != nil {
		return fmt.Errorf("duration %q: want a form such as 30s", b)
	}
	return nil
}

// either is written as text or as a map.
type either struct{ A, B string }

func (e *either) UnmarshalYAML(decode func(any) error) error {
	var probe any
	if err := decode(&probe); err != nil {
		return err
	}
	if s, ok := probe.(string); ok {
		e.A = s
		return nil
	}
	var m struct {
		B string `yaml:"b"`
	}
	err := decode(&m)
	e.B = m.B
	return err
}

type limits struct {
	Stop  every   `yaml:"stop"`
	Count int     `yaml:"count"`
	Ratio float64 `yaml:"ratio"`
	Small uint8   `yaml:"small"`
}

type sample struct {
	Name    string            `yaml:"name"`
	Enabled bool              `yaml:"enabled"`
	Limits  limits            `yaml:"limits"`
	Max     *int              `yaml:"max"`
	Tags    []string          `yaml:"tags"`
	Labels  map[string]string `yaml:"labels"`
	Parts   []limits          `yaml:"parts"`
	Eithers []either          `yaml:"eithers"`
}

func TestDecodeGood(t *testing.T) {
	five := 5
	for _, tc := range []struct {
		name, in string
		start    sample
		want     sample
	}{
		{name: "empty"},
		{name: "blank and comments", in: "\n# nothing\n---\n# here\n"},
		{
			name: "all", in: "\ufeffname: x\nenabled: true\nlimits: {stop: 5s, count: 0x10, ratio: 2, small: 255}\nmax: 5\ntags: [a, 2.10]\nlabels: {1: one}\n" +
				"parts:\n  - count: 1\n  - count: 2\neithers: [text, {b: bee}]\n",
			want: sample{
				Name: "x", Enabled: true, Limits: limits{every(5 * time.Second), 16, 2, 255}, Max: &five, Tags: []string{"a", "2.10"},
				Labels: map[string]string{"1": "one"}, Parts: []limits{{Count: 1}, {Count: 2}}, Eithers: []either{{A: "text"}, {B: "bee"}},
			},
		},
		{
			name: "defaults stay", in: "limits:\n  # count: 3\nname:\nmax: null\n", start: sample{Name: "d", Limits: limits{Count: 7}, Max: &five},
			want: sample{Name: "d", Limits: limits{Count: 7}},
		},
		{
			name: "anchors and merge", in: "limits: &l {count: 1, small: 2}\nparts:\n  - <<: *l\n    small: 3\n  - *l\n",
			want: sample{Limits: limits{Count: 1, Small: 2}, Parts: []limits{{Count: 1, Small: 3}, {Count: 1, Small: 2}}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.start
			if err := Decode("f.yaml", []byte(tc.in), &got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

func TestDecodeBad(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{
			"all unknown keys at once", "nam: x\nlimits:\n  cuont: 1\n  other: 2\nparts:\n  - {zzz: 1}\n",
			"f.yaml:1:1: nam: unknown key \"nam\"; did you mean \"name\"?\n" +
				"f.yaml:3:3: limits.cuont: unknown key \"cuont\"; did you mean \"count\"?\n" +
				"f.yaml:4:3: limits.other: unknown key \"other\"; known here: stop, count, ratio, small\n" +
				"f.yaml:6:6: parts[0].zzz: unknown key \"zzz\"; known here: stop, count, ratio, small",
		},
		{
			"types", "name: [a]\nenabled: maybe\nlimits: {count: 1.5, small: 256, stop: 5 apples, ratio: big}\ntags: a\nlabels: [x]\nmax: five\n",
			"f.yaml:1:7: name: want text, found a list\n" +
				"f.yaml:2:10: enabled: want true or false, found the text \"maybe\"\n" +
				"f.yaml:3:17: limits.count: want a whole number, found the number 1.5\n" +
				"f.yaml:3:29: limits.small: want a whole number that is not negative, found the number 256\n" +
				"f.yaml:3:40: limits.stop: duration \"5 apples\": want a form such as 30s\n" +
				"f.yaml:3:57: limits.ratio: want a number, found the text \"big\"\n" +
				"f.yaml:4:7: tags: want a list, found the text \"a\"\n" +
				"f.yaml:5:9: labels: want a map (key: value), found a list\n" +
				"f.yaml:6:6: max: want a whole number, found the text \"five\"",
		},
		{"truth value as text", "name: true\n", `f.yaml:1:7: name: want text, found the truth value true (write it in quotes if it is meant as text)`},
		{"not a map", "- a\n", "f.yaml:1:1: want a map (key: value), found a list"},
		{"duplicates", "name: a\nname: b\nlimits: {count: 1, count: 2}\n", "f.yaml:2:1: name: given twice; it is on line 1 already\nf.yaml:3:20: limits.count: given twice; it is on line 3 already"},
		{"inside a custom type", "eithers:\n  - {c: 1}\n", "f.yaml:2:6: eithers[0].c: unknown key \"c\"; did you mean \"b\"?"},
		{"empty entry", "tags:\n  - a\n  -\n", "f.yaml:3:5: tags[1]: an empty entry in a list"},
		{"two documents", "name: a\n---\nname: b\n", "f.yaml:3:5: a second document begins here (after ---); a configuration file holds one"},
		{"tag", "name: !!str a\n", "f.yaml:1:7: name: tags such as !!str are not supported; leave it out, and put text in quotes"},
		{"alias", "name: *a\n", "f.yaml:1:7: name: *a refers to an anchor (&a) that is not defined above"},
		{"alias in itself", "parts: &p [*p]\n", "f.yaml:1:12: parts[0]: *p refers to an anchor (&p) that is not defined above"},
		{"merge of text", "limits: {<<: a}\n", `f.yaml:1:10: limits.<<: want a map to merge, found the text "a"`},
		{"zero byte", "name: a\n\x00", "f.yaml:2:1: holds a zero byte; this is not a text file"},
		{"latin-1", "name: \xe9\n", "f.yaml: not UTF-8 text; save it with that encoding"},
		{"too large", strings.Repeat("#", MaxSize+1), "f.yaml: larger than 1024 KiB, the most that is read of a configuration file"},
		{"deep brackets", strings.Repeat("[", 5000), "f.yaml:1:65: nested deeper than 64 levels"},
		{"deep dashes", strings.Repeat("- ", 5000), "f.yaml:1:129: nested deeper than 64 levels"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s sample
			err := Decode("f.yaml", []byte(tc.in), &s)
			if err == nil {
				t.Fatal("no error")
			}
			if d := cmp.Diff(tc.want, err.Error()); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
			var errs Errors
			var one Error
			if !errors.As(err, &errs) || !errors.As(err, &one) || one.File != "f.yaml" {
				t.Errorf("%T does not hold Errors", err)
			}
		})
	}
}

func TestSyntaxErrorsNameThePlace(t *testing.T) {
	for in, want := range map[string]string{
		"name: \"a\n":             "f.yaml:1:7: syntax: ",
		"a: b: c\n":               "f.yaml:1:",
		"name: a\n\tlimits: {}\n": "f.yaml:",
		"tags: [a\n":              "f.yaml:1:7: syntax: ",
	} {
		var s sample
		if err := Decode("f.yaml", []byte(in), &s); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line that begins %q", in, err, want)
		}
	}
}

func TestAliasesDoNotExplode(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	if _, err := Parse("f", []byte(b.String())); err == nil || !strings.Contains(err.Error(), "once aliases are followed") {
		t.Fatalf("got %v", err)
	}
}

func TestMerge(t *testing.T) {
	parse := func(name, s string) *Node {
		n, err := Parse(name, []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	base := parse("base", "name: a\nlimits: {count: 1, small: 2}\ntags: [x, y]\nmax: 3\n")
	over := parse("over", "limits: {count: 9, stop: wrong, ratio: null}\ntags: [z]\nmax: null\n")
	m := Merge(base, over)
	var s sample
	err := m.Decode(&s)
	if want := `over:1:26: limits.stop: duration "wrong": want a form such as 30s`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if s.Limits.Count != 9 || s.Limits.Small != 2 || s.Max != nil || s.Name != "a" || cmp.Diff([]string{"z"}, s.Tags) != "" {
		t.Errorf("got %+v", s)
	}
	if e := m.Errorf([]any{"limits", "small"}, "bad"); e.Error() != "base:2:27: limits.small: bad" {
		t.Errorf("got %v", e)
	}
	if base.Get("tags").Items[0].Text != "x" {
		t.Error("the base was changed")
	}
	if Merge(nil, over).Get("max") != nil || Merge(base, nil) != base {
		t.Error("merge with nothing")
	}
}

func TestHiddenTextIsNotShown(t *testing.T) {
	n, err := Parse("f", []byte("limits: {count: \"${N}\", small: \"${N}\", stop: \"${N}\"}\nenabled: \"${N}\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	n, errs := n.MapStrings(func(string) (string, bool, error) { return "hunter2", true, nil })
	if errs != nil {
		t.Fatal(errs)
	}
	var s sample
	if err := n.Decode(&s); err == nil || strings.Contains(err.Error(), "hunter2") || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v", err)
	}
	n, _ = n.MapStrings(func(string) (string, bool, error) { return "7", true, nil })
	if err := n.Without("enabled").With("limits", n.Get("limits").Without("stop")).Decode(&s); err != nil || s.Limits.Count != 7 {
		t.Errorf("got %v, %+v", err, s)
	}
}

// A place in the text of a literal block is told as a place in the file.
func TestPlacesInTexts(t *testing.T) {
	n, err := Parse("f", []byte("a:\n  b: |\n\n    one\n      two\n  c: >\n    folded\n  d: \"x\\ny\"\n  e: |2\n      three\n    four\n  g: |-\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key          string
		line, column int
		want         string
	}{
		{"b", 2, 1, "f:4:5"},
		{"b", 3, 3, "f:5:7"},
		{"b", 2, 0, "f:4:5"},
		{"b", 0, 0, "f:2:6"},
		{"c", 1, 3, "f:6:6"},
		{"d", 2, 1, "f:8:6"},
		{"e", 1, 3, "f:10:7"},
		{"e", 2, 1, "f:11:5"},
		{"g", 1, 1, "f:13:1"},
		{"missing", 1, 1, "f:2:3"},
	} {
		if got := n.TextErrorf([]any{"a", c.key}, c.line, c.column, "m").Error(); !strings.HasPrefix(got, c.want+": a."+c.key+": m") {
			t.Errorf("%s, line %d, column %d: %s, want %s", c.key, c.line, c.column, got, c.want)
		}
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{"promethuse": "prometheus", "Loki": "loki", "lok": "loki", "mysql": "", "x": "", "granfana": "grafana"} {
		if got := Nearest(word, []string{"prometheus", "loki", "grafana", "mysqld_exporter"}); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	write := func(mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, []byte("name: a\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod := func(p string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	check := func(path, wantPath, wantFix string) {
		t.Helper()
		var s sample
		err := Read(path, &s)
		var insecure *InsecureError
		if wantPath == "" {
			if err != nil || s.Name != "a" {
				t.Errorf("%v, %+v", err, s)
			}
			return
		}
		if !errors.As(err, &insecure) || insecure.Path != wantPath || insecure.Fix != wantFix || !strings.Contains(err.Error(), wantFix) || s.Name != "" {
			t.Errorf("got %v (%+v), want %s", err, insecure, wantFix)
		}
	}
	write(0o644)
	check(file, "", "")
	write(0o666)
	check(file, file, "chmod go-w "+file)
	write(0o600)
	chmod(dir, 0o777)
	check(file, dir, "chmod go-w "+dir)
	chmod(dir, 0o755)

	links := t.TempDir()
	link := filepath.Join(links, "l.yaml")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	check(link, "", "")
	write(0o602)
	check(link, file, "chmod go-w "+file)
	write(0o600)
	chmod(links, 0o777)
	check(link, links, "chmod go-w "+links)
	chmod(links, 0o755)
	chmod(dir, 0o777)
	check(link, dir, "chmod go-w "+dir)
	chmod(dir, 0o755)

	if err := Read(filepath.Join(dir, "none"), &sample{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	dangling := filepath.Join(dir, "dangling.yaml")
	if err := os.Symlink(filepath.Join(dir, "none"), dangling); err != nil {
		t.Fatal(err)
	}
	if err := Read(dangling, &sample{}); err == nil || errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "is a link to "+filepath.Join(dir, "none")) {
		t.Errorf("a link to nothing: %v", err)
	}
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, pipe} { // nobody writes to the pipe, now or ever
		if err := Read(path, &sample{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestReadOtherOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte("name: a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var insecure *InsecureError
	if err := os.Chown(file, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if err := Read(file, &sample{}); !errors.As(err, &insecure) || insecure.Fix != "chown root: "+file {
		t.Errorf("got %v", err)
	}
	if err := errors.Join(os.Chown(file, 0, 12345), os.Chmod(file, 0o664)); err != nil {
		t.Fatal(err)
	}
	if err := Read(file, &sample{}); !errors.As(err, &insecure) || insecure.Fix != "chmod g-w "+file {
		t.Errorf("got %v", err)
	}
	if err := os.Chown(file, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := Read(file, &sample{}); err != nil {
		t.Errorf("group root of root's file: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "name: x\nlimits: {stop: 5s, count: 0x10}\n", "parts:\n  - <<: *l\n", "a: &a [*a]\n", "tags:\n- |\n  x\n- >-\n  y\n", "? [a]\n: b\n", "%YAML 1.2\n---\na: b\n...\n",
		"eithers: [x, {b: y}]", "{a: b, a: c}", "name: !!binary x", "- - - - -", "max: 99999999999999999999", ".inf", "a: .nan", "'", "\"\\x\"", "- ? - ? -",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var s sample
		err := Decode("f", data, &s)
		var errs Errors
		if err != nil && (!errors.As(err, &errs) || len(errs) == 0 || err.Error() == "") {
			t.Fatalf("%T %v", err, err)
		}
		var again sample
		if err2 := Decode("f", data, &again); (err == nil) != (err2 == nil) || cmp.Diff(s, again) != "" {
			t.Fatal("two readings differ")
		}
	})
}
