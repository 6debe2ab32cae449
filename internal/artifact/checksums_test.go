package artifact

import (
	"path"
	"strings"
	"testing"
)

func TestParseSums(t *testing.T) {
	a, b, c := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 128)
	for name, tc := range map[string]struct {
		text, asset, file string
		want              string // digest; "" for no line
	}{
		"GNU, two spaces":             {a + "  x.tar.gz\n", "x.tar.gz", "sha256sums.txt", "sha256:" + a},
		"binary mark":                 {a + " *x.tar.gz\n", "x.tar.gz", "sha256sums.txt", "sha256:" + a},
		"./ before the name":          {a + "  ./x.tar.gz\n", "x.tar.gz", "sha256sums.txt", "sha256:" + a},
		"directory before the name":   {a + "  dist/x.tar.gz\n", "x.tar.gz", "sha256sums.txt", "sha256:" + a},
		"SHA-512":                     {c + "  x.tar.gz\n", "x.tar.gz", "sha512sum.txt", "sha512:" + c},
		"both algorithms":             {c + "  x.tar.gz\n" + a + "  x.tar.gz\n", "x.tar.gz", "sums", "sha256:" + a},
		"BSD":                         {"SHA256 (x.tar.gz) = " + a + "\nSHA512 (y) = " + c + "\n", "x.tar.gz", "sums", "sha256:" + a},
		"upper case, CRLF, comment":   {"# made by hand\r\n" + strings.ToUpper(a) + "  x.tar.gz\r\n\r\n", "x.tar.gz", "sums", "sha256:" + a},
		"byte order mark":             {"\ufeff" + a + "  x.tar.gz\n", "x.tar.gz", "sums", "sha256:" + a},
		"no line end":                 {a + "  x.tar.gz", "x.tar.gz", "sums", "sha256:" + a},
		"bare sum of the asset":       {a + "\n", "x.tar.gz", "x.tar.gz.sha256", "sha256:" + a},
		"bare, mimir's suffix":        {a, "mimir-linux-amd64", "mimir-linux-amd64-sha-256", "sha256:" + a},
		"bare sum of something else":  {a + "\n", "x.tar.gz", "sums.txt", ""},
		"line missing":                {a + "  windows.zip\n", "x.tar.gz", "sums.txt", ""},
		"archive and what is inside":  {a + "  vm.tar.gz\n" + b + "  victoria-metrics-prod\n", "vm.tar.gz", "sums.txt", "sha256:" + a},
		"only what is inside":         {b + " *jaeger-2.0.0-linux-amd64/jaeger\n", "jaeger.tar.gz", "sums.txt", ""},
		"same base name, other paths": {a + "  a/x\n" + b + "  x\n", "x", "sums", "sha256:" + b},
		"tab-separated name is kept":  {a + "  my file\n", "my file", "sums", "sha256:" + a},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := parseSums([]byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			d, ok, err := l.asset(tc.asset, tc.file)
			if err != nil || ok != (tc.want != "") || string(d) != tc.want {
				t.Fatalf("got %q %v %v, want %q", d, ok, err, tc.want)
			}
		})
	}
	for name, bad := range map[string]string{
		"empty": "", "comment only": "# nothing\n", "no sum": "not a sum\n", "HTML": "<html>", "short": a[:63] + "  x\n",
		"no hex": strings.Repeat("g", 64) + "  x\n", "two sums for one file": a + "  x\n" + b + "  x\n", "two bare sums": a + "\n" + b + "\n",
		"MD5": strings.Repeat("a", 32) + "  x\n", "BSD, cut off": "SHA256 (x\n", "one good line, one bad": a + "  x\nrubbish\n",
	} {
		if l, err := parseSums([]byte(bad)); err == nil {
			t.Errorf("%s: %q was accepted: %+v", name, bad, l)
		}
	}
	l, err := parseSums([]byte(a + "  a/LICENSE\n" + b + "  b/LICENSE\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d, ok, err := l.lookup("c/LICENSE"); err == nil {
		t.Fatalf("an ambiguous base name gave %q %v", d, ok)
	}
}

func FuzzParseSums(f *testing.F) {
	f.Add([]byte(strings.Repeat("a", 64) + "  x\n"))
	f.Add([]byte("SHA256 (x) = " + strings.Repeat("a", 64)))
	f.Add([]byte(strings.Repeat("b", 128) + " *./d/x\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseSums(data)
		if err != nil {
			return
		}
		if l.bare == "" && len(l.byPath) == 0 {
			t.Fatal("nothing found, no error")
		}
		for name, d := range l.byPath {
			if len(d.Hex()) != 64 && len(d.Hex()) != 128 {
				t.Fatalf("digest %q", d)
			}
			if len(l.byBase[path.Base(name)]) == 0 {
				t.Fatalf("%q has no base name", name)
			}
		}
	})
}
