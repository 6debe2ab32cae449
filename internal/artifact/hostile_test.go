package artifact

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

var (
	oneProgram = component.Binary{Name: "tool", Path: "tool-1.2.0/tool"}
	wholeTree  = component.Binary{Name: "home", Path: "*", Tree: true}
)

// hostileCase is an archive that everything vouches for and that is not what it
// should be.
type hostileCase struct {
	asset  string
	body   []byte
	wanted component.Binary
	unsafe bool   // refused for an entry, which the error names
	want   string // in the error; "" for what is taken as it is
}

// try stages the archive and asserts that a refusal leaves nothing behind and
// that nothing is written anywhere else, whatever comes of it.
func (c hostileCase) try(t *testing.T) {
	t.Helper()
	f := newFixture(t, c.asset, c.body)
	base := t.TempDir()
	f.staging, f.cache = filepath.Join(base, "tmp/staging"), filepath.Join(base, "cache")
	for _, dir := range []string{"tmp", "etc", "cache"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.store = New(Options{CacheDir: f.cache, MaxUnpacked: 512 << 20})
	f.comp.Binaries = []component.Binary{c.wanted}
	st, err := f.stage()
	switch {
	case c.want == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case c.want == "":
		c.harmless(t, st)
	default:
		c.refused(t, f, err)
	}
	outside, err := filepath.Glob(filepath.Join(base, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range outside {
		if path != f.staging && filepath.Dir(path) != f.cache {
			t.Errorf("written outside staging and cache: %s", path)
		}
	}
}

func (c hostileCase) refused(t *testing.T, f *fixture, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.asset) {
		t.Fatalf("err = %v, want %q and the archive's name", err, c.want)
	}
	if len(err.Error()) > 2000 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	for _, r := range err.Error() {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u202e' {
			t.Errorf("the error has the character %U, which a terminal obeys: %q", r, err)
			break
		}
	}
	var unsafe *UnsafeArchiveError
	if errors.As(err, &unsafe) != c.unsafe {
		t.Fatalf("err = %#v, for an entry: want %t", err, c.unsafe)
	}
	f.nothingStaged()
	// What is proved to be the release and only does not unpack may be kept, under
	// its digest, so that a mended definition needs no second download.
	left, _ := filepath.Glob(filepath.Join(f.cache, "*", "*"))
	for _, path := range left {
		if want := filepath.Join(f.cache, "partial", f.release.Assets[0].Digest.Hex()); c.unsafe || path != want {
			t.Errorf("left: %s", path)
		}
	}
}

// harmless asserts that what was staged has no bits, owners or links to fear.
func (c hostileCase) harmless(t *testing.T, st *Staged) {
	t.Helper()
	err := filepath.WalkDir(st.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.Type()&^(fs.ModeDir|fs.ModeSymlink) != 0 || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 || d.Type() == 0 && info.Mode().Perm()&0o022 != 0 {
			t.Errorf("%s: %s", path, info.Mode())
		}
		if to, err := filepath.EvalSymlinks(path); err == nil && to != st.Dir && !strings.HasPrefix(to, st.Dir+"/") {
			t.Errorf("%s leads to %s", path, to)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sparse(kv ...string) entry {
	return entry{name: "tool-1.2.0/GNUSparseFile.0/tool", body: script, pax: kv}
}

// The entries of each come beside a good program, in each form of a tar.
func TestHostileTars(t *testing.T) {
	tool := file("tool-1.2.0/tool")
	for name, tc := range map[string]struct {
		entries []entry
		alone   bool // without the good program
		wanted  component.Binary
		want    string // an UnsafeArchiveError, but for those that begin with "plain: "
	}{
		// Paths.
		"long name that climbs":           {entries: []entry{file("tool-1.2.0/" + strings.Repeat("x/", 60) + "../../../../../../etc/evil")}, want: "by .."},
		"path in a PAX record":            {entries: []entry{{name: "tool-1.2.0/ok", body: "x", pax: []string{"path=../../etc/evil"}}}, want: `"../../etc/evil" would leave`},
		"absolute path in a PAX record":   {entries: []entry{{name: "tool-1.2.0/ok", body: "x", pax: []string{"path=/etc/evil"}}}, want: "absolute"},
		"a sparse file's name":            {entries: []entry{{name: "tool-1.2.0/ok", body: "x", pax: []string{"GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1", "GNU.sparse.size=1", "GNU.sparse.name=../../etc/evil"}}}, want: `"../../etc/evil" would leave`},
		"path in a global header":         {entries: []entry{{name: "tool-1.2.0/ok", body: "x", global: true, pax: []string{"path=../../etc/evil"}}}},
		"only dots":                       {entries: []entry{{name: "..", flag: tar.TypeDir}}, want: "by .."},
		"the archive itself as a file":    {entries: []entry{file(".")}, want: "invalid name"},
		"no name":                         {entries: []entry{{name: "", body: "x"}}, want: "invalid name"},
		"drive letter":                    {entries: []entry{file(`C:\evil`)}, want: "foreign path"},
		"Windows device":                  {entries: []entry{file("tool-1.2.0/CON"), file("tool-1.2.0/x. . .")}},
		"not UTF-8":                       {entries: []entry{file("tool-1.2.0/\xff\xfe")}, want: "invalid name"},
		"newline":                         {entries: []entry{file("tool-1.2.0/a\nb")}, want: "invalid name"},
		"escape sequence":                 {entries: []entry{file("tool-1.2.0/\x1b]0;evil\x07")}, want: "invalid name"},
		"escape of eight bits":            {entries: []entry{file("tool-1.2.0/\u009b31m")}, want: "invalid name"},
		"escape sequence, a device":       {entries: []entry{{name: "tool-1.2.0/\x1b[2J", flag: tar.TypeBlock}}, want: "invalid name"},
		"text from the right, a link":     {entries: []entry{linkTo("tool-1.2.0/\u202efdp.sh", "/etc")}, want: "outside the archive"},
		"NUL in a PAX record":             {entries: []entry{{name: "x", body: "x", pax: []string{"path=a\x00b"}}}, want: "plain: "},
		"NUL ends the name":               {entries: []entry{file("tool-1.2.0/evil\x00/../../x")}},
		"a name of a megabyte":            {entries: []entry{{name: strings.Repeat("x", 1<<20-2), flag: tar.TypeDir}}, want: "name of 1048574 bytes"},
		"a name of two megabytes":         {entries: []entry{{name: strings.Repeat("x", 2<<20), flag: tar.TypeDir}}, want: "plain: "},
		"a device's name of a megabyte":   {entries: []entry{{name: strings.Repeat("x", 1<<20-2), flag: tar.TypeFifo}}, want: "name of 1048574 bytes"},
		"an element of 300 bytes, a tree": {entries: []entry{file("tool-1.2.0/" + strings.Repeat("x", 300))}, wanted: wholeTree, want: "plain: file name too long"},

		// Links.
		"chain of links, then a file":       {entries: []entry{linkTo("tool-1.2.0/a", "b"), linkTo("tool-1.2.0/b", "c"), {name: "tool-1.2.0/c", flag: tar.TypeDir}, file("tool-1.2.0/a/evil")}, want: `through the link "tool-1.2.0/a"`},
		"chain that ends outside":           {entries: []entry{linkTo("tool-1.2.0/a", "b"), linkTo("tool-1.2.0/b", "../../etc")}, want: "outside the archive"},
		"link below a link":                 {entries: []entry{linkTo("tool-1.2.0/a", "."), linkTo("tool-1.2.0/a/b", "..")}, want: "through the link"},
		"directory, then a link of its own": {entries: []entry{{name: "tool-1.2.0/d/", flag: tar.TypeDir}, linkTo("tool-1.2.0/d", ".."), file("tool-1.2.0/d/evil")}, want: "there twice"},
		"link, then a directory of it":      {entries: []entry{linkTo("tool-1.2.0/d", "x"), {name: "tool-1.2.0/d/", flag: tar.TypeDir}}, want: "there twice"},
		"long link out":                     {entries: []entry{linkTo("tool-1.2.0/l", strings.Repeat("../", 50)+"etc")}, want: "outside the archive"},
		"link in a PAX record":              {entries: []entry{{name: "tool-1.2.0/l", link: "tool", flag: tar.TypeSymlink, pax: []string{"linkpath=../../etc"}}}, want: `links to "../../etc"`},
		"hard link to a link, written":      {entries: []entry{linkTo("tool-1.2.0/s", "tool"), hardTo("tool-1.2.0/h", "tool-1.2.0/s"), file("tool-1.2.0/h")}, want: "there twice"},
		"hard link through a link":          {entries: []entry{linkTo("tool-1.2.0/s", "."), hardTo("tool-1.2.0/s/h", "tool-1.2.0/tool")}, want: "through the link"},
		"hard link to the host":             {entries: []entry{hardTo("tool-1.2.0/h", "/etc/shadow")}, want: "outside the archive"},
		"hard link, a tree":                 {entries: []entry{hardTo("tool-1.2.0/h", "tool-1.2.0/tool")}, wanted: wholeTree, want: "is a link"},
		"the program is a hard link":        {alone: true, entries: []entry{file("tool-1.2.0/x"), hardTo("tool-1.2.0/tool", "tool-1.2.0/x")}, want: "is a link where a program"},
		"the program is a link":             {alone: true, entries: []entry{file("tool-1.2.0/x"), linkTo("tool-1.2.0/tool", "x")}, want: "is a link where a program"},
		"a link to itself, a tree":          {entries: []entry{linkTo("tool-1.2.0/l", "l")}, wanted: wholeTree},

		// Types and modes.
		"socket":                  {entries: []entry{{name: "tool-1.2.0/s", flag: 's'}}, want: "special type"},
		"contiguous file":         {entries: []entry{{name: "tool-1.2.0/c", flag: tar.TypeCont, body: "x"}}, want: "special type"},
		"volume label":            {entries: []entry{{name: "label", flag: 'V'}}, want: "special type"},
		"part of another volume":  {entries: []entry{{name: "tool-1.2.0/m", flag: 'M', body: "x"}}, want: "special type"},
		"directory of GNU's dump": {entries: []entry{{name: "tool-1.2.0/d", flag: 'D', body: "Yx\x00\x00"}}, want: "special type"},
		"old sparse file":         {entries: []entry{{name: "tool-1.2.0/s", flag: tar.TypeGNUSparse}}, want: "plain: "},
		"set-id and sticky bits":  {entries: []entry{{name: "tool-1.2.0/x", body: "x", mode: 0o7777}, {name: "tool-1.2.0/d/", flag: tar.TypeDir, mode: 0o7777}}, wanted: wholeTree},

		// Twice.
		"the program with a slash":   {entries: []entry{{name: "tool-1.2.0/tool/", flag: tar.TypeDir}}, want: "there twice"},
		"the program below itself":   {entries: []entry{file("tool-1.2.0/tool/tool")}, want: "which is a file"},
		"the program as a directory": {alone: true, entries: []entry{{name: "tool-1.2.0/tool/", flag: tar.TypeDir}, file("tool-1.2.0/tool/x")}, want: "plain: holds no tool-1.2.0/tool"},
		"dots before it":             {entries: []entry{file("././tool-1.2.0/./tool")}, want: "there twice"},
		"another case":               {entries: []entry{file("Tool-1.2.0/TOOL"), file("tool-1.2.0/Tool")}},
		"other forms of a letter":    {entries: []entry{file("tool-1.2.0/caf\u00e9"), file("tool-1.2.0/cafe\u0301")}},

		// Sizes and headers.
		"size in a PAX record, too big":   {entries: []entry{{name: "tool-1.2.0/x", body: "x", pax: []string{"size=9223372036854775807"}}}, want: "plain: "},
		"size in a PAX record, negative":  {entries: []entry{{name: "tool-1.2.0/x", body: "x", pax: []string{"size=-1"}}}, want: "plain: "},
		"size in a PAX record, too small": {entries: []entry{{name: "tool-1.2.0/x", body: script + strings.Repeat("x", 2000), pax: []string{"size=1"}}}, want: "plain: "},
		"size of 8 EiB":                   {entries: []entry{{name: "tool-1.2.0/x", size: 1 << 62}}, want: "plain: "},
		"negative size":                   {entries: []entry{{name: "tool-1.2.0/x", size: -1 << 40}}, want: "plain: "},
		"PAX header without end":          {entries: []entry{{name: "x", rawPax: "30 path=x\n"}}, want: "plain: "},
		"PAX record of length 0":          {entries: []entry{{name: "x", rawPax: "0 path=x\n"}}, want: "plain: "},
		"PAX header of two megabytes":     {entries: []entry{{name: "x", pax: []string{"comment=" + strings.Repeat("x", 2<<20)}}}, want: "plain: "},
		"a thousand PAX headers":          {entries: []entry{{name: "x", body: "x", pax: strings.Split(strings.Repeat("comment=x|", 999)+"comment=x", "|")}}},
		"sparse, longer than its map":     {entries: []entry{sparse("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=10", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,51")}, want: "plain: "},
		"sparse, parts overlap":           {entries: []entry{sparse("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=100", "GNU.sparse.numblocks=2", "GNU.sparse.map=0,20,10,31")}, want: "plain: "},
		"sparse, negative":                {entries: []entry{sparse("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=-100", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,51")}, want: "plain: "},
		"sparse 0.0, a bomb":              {entries: []entry{sparse("GNU.sparse.size=1099511627776", "GNU.sparse.numblocks=1", "GNU.sparse.offset=0", fmt.Sprintf("GNU.sparse.numbytes=%d", len(script)))}, want: "times its size"},
		"sparse 0.1, a bomb":              {entries: []entry{sparse("GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.size=1099511627776", "GNU.sparse.numblocks=1", fmt.Sprintf("GNU.sparse.map=0,%d", len(script)))}, want: "times its size"},
		"sparse 1.0, a map without end":   {entries: []entry{{name: "x", body: "9999999999\n0\n", pax: []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=10"}}}, want: "plain: "},

		// Not what it should be.
		"empty":                    {alone: true, want: "plain: holds no tool-1.2.0/tool"},
		"without the program":      {alone: true, entries: []entry{file("tool-1.2.0/tool.exe"), file("other/tool")}, want: `plain: holds no tool-1.2.0/tool, which the definition names for tool; it holds ["other/tool"`},
		"an archive inside":        {alone: true, entries: []entry{{name: "tool-1.2.0/tool", body: string(pack(t, "gz", rawTar(tool)))}}, want: `plain: neither a program nor a script (it begins with "\x1f\x8b`},
		"of another architecture":  {alone: true, entries: []entry{{name: "tool-1.2.0/tool", body: elfFor(0xb7)}}, want: "plain: it is a program for EM_AARCH64, this host is amd64"},
		"an empty program":         {alone: true, entries: []entry{{name: "tool-1.2.0/tool"}}, want: "plain: it is empty"},
		"a page inside":            {alone: true, entries: []entry{{name: "tool-1.2.0/tool", body: "<!DOCTYPE html>"}}, want: "plain: neither a program"},
		"one release beside other": {entries: []entry{file("tool-1.1.0/tool")}, wanted: component.Binary{Name: "tool", Path: "*/tool"}, want: "second candidate"},
	} {
		if tc.wanted.Name == "" {
			tc.wanted = oneProgram
		}
		entries := tc.entries
		if !tc.alone {
			entries = append([]entry{tool}, entries...)
		}
		want, plain := strings.CutPrefix(tc.want, "plain: ")
		if plain && want == "" {
			want = ": "
		}
		data := rawTar(entries...)
		for _, form := range packings {
			t.Run(name+"/"+form, func(t *testing.T) {
				t.Parallel()
				hostileCase{asset: "tool." + form, body: pack(t, form, data), wanted: tc.wanted, unsafe: !plain && tc.want != "", want: want}.try(t)
			})
		}
	}
}
