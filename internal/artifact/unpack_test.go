package artifact

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
	"github.com/observability-upgrade/observability-upgrade/internal/releaseserver"
)

// hostile builds a tar.gz entry by entry.
func hostile(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range entries {
		body := []byte(script)
		if h.Typeflag != tar.TypeReg {
			body = nil
		}
		h.Size, h.Mode = int64(len(body)), 0o4755
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(body)
	}
	_ = w.Close()
	_ = z.Close()
	return b.Bytes()
}

func tarFile(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }

func symlink(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

// Each is refused beside a good program, whether only that program is wanted or
// the whole tree.
func TestHostileArchivesAreRefusedWhole(t *testing.T) {
	tool := tarFile("tool-1.2.0/tool")
	for name, bad := range map[string][]tar.Header{
		"absolute path":               {tarFile("/tmp/evil")},
		"dot dot":                     {tarFile("tool-1.2.0/../../evil")},
		"dot dot that stays inside":   {tarFile("tool-1.2.0/x/../evil")},
		"backslash":                   {tarFile(`tool-1.2.0\\evil`)},
		"control character":           {tarFile("tool-1.2.0/e\nvil")},
		"too long a name":             {tarFile(strings.Repeat("x/", 3000) + "x")},
		"link out":                    {symlink("tool-1.2.0/l", "../../etc")},
		"absolute link":               {symlink("tool-1.2.0/l", "/etc")},
		"link without target":         {symlink("tool-1.2.0/l", "")},
		"link that climbs by another": {symlink("tool-1.2.0/s/x", ".."), symlink("tool-1.2.0/s/y", "x/../..")},
		"hard link out":               {{Name: "tool-1.2.0/l", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}},
		"hard link up":                {{Name: "tool-1.2.0/l", Typeflag: tar.TypeLink, Linkname: "../shadow"}},
		"write through a link":        {symlink("tool-1.2.0/d", "."), tarFile("tool-1.2.0/d/evil")},
		"link in a directory's place": {tarFile("tool-1.2.0/d/x"), symlink("tool-1.2.0/d", ".")},
		"file in a directory's place": {tarFile("tool-1.2.0/d/x"), tarFile("tool-1.2.0/d")},
		"file below a file":           {tarFile("tool-1.2.0/tool/x")},
		"device":                      {{Name: "tool-1.2.0/dev", Typeflag: tar.TypeBlock}},
		"character device":            {{Name: "tool-1.2.0/null", Typeflag: tar.TypeChar}},
		"pipe":                        {{Name: "tool-1.2.0/pipe", Typeflag: tar.TypeFifo}},
		"the binary twice":            {tool},
		"the binary twice, spelled":   {tarFile("./tool-1.2.0//tool")},
		"a link, then a file":         {symlink("tool-1.2.0/x", "tool"), tarFile("tool-1.2.0/x")},
	} {
		for _, want := range []component.Binary{{Name: "tool", Path: "tool-1.2.0/tool"}, {Name: "home", Path: "*", Tree: true}} {
			t.Run(fmt.Sprintf("%s, tree %t", name, want.Tree), func(t *testing.T) {
				f := newFixture(t, "tool.tar.gz", hostile(t, append([]tar.Header{tool}, bad...)...))
				f.comp.Binaries = []component.Binary{want}
				_, err := f.stage()
				var unsafe *UnsafeArchiveError
				if !errors.As(err, &unsafe) || unsafe.Entry == "" || unsafe.Archive != "tool.tar.gz" {
					t.Fatalf("err = %v, want UnsafeArchiveError", err)
				}
				f.nothingStaged()
			})
		}
	}
}

func TestUnpackRefuses(t *testing.T) {
	tool := tarFile("tool-1.2.0/tool")
	for name, tc := range map[string]struct {
		binary  component.Binary
		entries []tar.Header
		want    string
	}{
		"a second candidate":             {component.Binary{Name: "tool", Path: "*/tool"}, []tar.Header{tool, tarFile("other/tool")}, `second candidate for tool beside "tool-1.2.0/tool"`},
		"a second tree":                  {component.Binary{Name: "home", Path: "*", Tree: true}, []tar.Header{tool, tarFile("other/tool")}, "second candidate for home"},
		"link out of the tree":           {component.Binary{Name: "home", Path: "a/b", Tree: true}, []tar.Header{tarFile("a/b/x"), tarFile("a/y"), symlink("a/b/l", "../y")}, "outside the archive"},
		"a link where the program is":    {component.Binary{Name: "tool", Path: "*/tool"}, []tar.Header{symlink("d/tool", "other"), tarFile("d/other")}, "is a link where a program is expected"},
		"a file where the tree is":       {component.Binary{Name: "home", Path: "home", Tree: true}, []tar.Header{tarFile("home")}, "holds no home"},
		"the program is elsewhere":       {component.Binary{Name: "tool", Path: "bin/tool"}, []tar.Header{tarFile("x/y"), tool}, `it holds ["tool-1.2.0/tool"`},
		"a definition without the place": {component.Binary{Name: "tool"}, []tar.Header{tool}, "set its path"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "tool.tar.gz", hostile(t, tc.entries...))
			f.comp.Binaries = []component.Binary{tc.binary}
			if _, err := f.stage(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("err = %v, want %q", err, tc.want)
			}
			f.nothingStaged()
		})
	}
}

// zipOf builds a zip of entries with their modes.
func zipOf(t testing.TB, entries ...zip.FileHeader) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, h := range entries {
		body := h.Comment
		h.Comment, h.Method = "", zip.Deflate
		w, err := z.CreateHeader(&h)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(body))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zipEntry has its content as the comment, which zipOf takes out.
func zipEntry(name string, mode fs.FileMode, body string) zip.FileHeader {
	h := zip.FileHeader{Name: name, Comment: body}
	h.SetMode(mode)
	return h
}

func TestHostileZipsAreRefusedWhole(t *testing.T) {
	tool := zipEntry("tool-1.2.0/tool", 0o755, script)
	for name, bad := range map[string][]zip.FileHeader{
		"absolute path":        {zipEntry("/tmp/evil", 0o644, "x")},
		"dot dot":              {zipEntry("../evil", 0o644, "x")},
		"backslash":            {zipEntry(`..\\evil`, 0o644, "x")},
		"NUL":                  {zipEntry("a\x00b", 0o644, "x")},
		"not UTF-8":            {zipEntry("a\xff", 0o644, "x")},
		"link out":             {zipEntry("tool-1.2.0/l", fs.ModeSymlink|0o777, "../../etc")},
		"device":               {zipEntry("dev", fs.ModeDevice|0o600, "")},
		"pipe":                 {zipEntry("pipe", fs.ModeNamedPipe|0o600, "")},
		"twice":                {tool},
		"write through a link": {zipEntry("l", fs.ModeSymlink|0o777, "tool-1.2.0"), zipEntry("l/x", 0o644, "x")},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "tool.zip", zipOf(t, append([]zip.FileHeader{tool}, bad...)...))
			_, err := f.stage()
			if !errors.As(err, new(*UnsafeArchiveError)) {
				t.Fatalf("err = %v, want UnsafeArchiveError", err)
			}
			f.nothingStaged()
		})
	}
	f := newFixture(t, "tool.zip", zipOf(t, zipEntry("tool-linux-amd64", 0o644, script)))
	f.comp.Binaries[0].Path = "tool-{os}-{arch}"
	if _, err := f.stage(); err != nil {
		t.Fatalf("one bare program, as Grafana's zips hold: %v", err)
	}
}

func TestBombs(t *testing.T) {
	zeros := map[string]releaseserver.File{"tool": {Body: []byte(script), Mode: 0o755}, "zeros": {Body: make([]byte, 34<<20), Mode: 0o644}}
	many := make([]tar.Header, 50)
	for i := range many {
		many[i] = tarFile(fmt.Sprintf("tool-1.2.0/%d", i))
	}
	for name, tc := range map[string]struct {
		asset string
		body  []byte
		limit Options
		want  string
	}{
		"too big, tar.gz":  {"tool.tar.gz", archive(t, "tar.gz", zeros), Options{MaxUnpacked: 20 << 20}, "unpack to more than 20971520 bytes"},
		"too big, zip":     {"tool.zip", archive(t, "zip", zeros), Options{MaxUnpacked: 20 << 20}, "unpack to more than 20971520 bytes"},
		"ratio, tar.gz":    {"tool.tar.gz", archive(t, "tar.gz", zeros), Options{}, "more than 250 times its size"},
		"ratio, tar.xz":    {"tool.tar.xz", archive(t, "tar.xz", zeros), Options{}, "more than 250 times its size"},
		"ratio, tar.zst":   {"tool.tar.zst", archive(t, "tar.zst", zeros), Options{}, "more than 250 times its size"},
		"ratio, zip":       {"tool.zip", archive(t, "zip", zeros), Options{}, "more than 250 times its size"},
		"too many entries": {"tool.tar.gz", hostile(t, many...), Options{MaxEntries: 49}, "more than 49 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.asset, tc.body)
			tc.limit.CacheDir = f.cache
			f.store = New(tc.limit)
			_, err := f.stage()
			if !errors.As(err, new(*UnsafeArchiveError)) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("err = %v, want %q", err, tc.want)
			}
			f.nothingStaged()
			if left, _ := os.ReadDir(filepath.Join(f.cache, "partial")); len(left) > 0 {
				t.Fatalf("left: %v", left)
			}
		})
	}
}

func TestProgramsOfAnotherKindAreRefused(t *testing.T) {
	elf := func(machine byte) string {
		return "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00" + string([]byte{machine, 0})
	}
	for body, want := range map[string]string{
		elf(0x3e): "", elf(0xb7): "it is a program for EM_AARCH64, this host is amd64", "hello": "neither a program nor a script", "": "empty", "\x7fELF": "cut off",
	} {
		f := newFixture(t, "tool", []byte(body))
		_, err := f.stage()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: err = %v, want %q", body, err, want)
		}
	}
}

func TestNoSetID(t *testing.T) {
	f := newFixture(t, "tool.tar.gz", hostile(t, tar.Header{Name: "tool-1.2.0/tool", Typeflag: tar.TypeReg}))
	st, err := f.stage()
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(st.Files[0].Path); info.Mode() != 0o755 {
		t.Fatalf("mode %s", info.Mode())
	}
}

// quarantined is an unpacker of its own below base/q, and what asserts that
// nothing came to lie, or points, anywhere else.
func quarantined(t *testing.T) (u *unpacker, check func()) {
	t.Helper()
	base := t.TempDir()
	j := &job{
		store: New(Options{MaxUnpacked: 1 << 20, MaxEntries: 100}), proof: &proof{}, asset: component.Asset{Name: "x"},
		quarantine: filepath.Join(base, "q"), dir: base,
		req: Request{Arch: "amd64", Component: &component.Component{Name: "tool", Binaries: []component.Binary{{Name: "home", Path: "*", Tree: true}}}},
	}
	if err := os.Mkdir(j.quarantine, 0o700); err != nil {
		t.Fatal(err)
	}
	u, err := newUnpacker(j)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.close)
	return u, func() {
		if entries, err := os.ReadDir(base); err != nil || len(entries) != 1 {
			t.Fatalf("written outside: %v %v", entries, err)
		}
		home := filepath.Join(j.quarantine, "home")
		err := filepath.WalkDir(j.quarantine, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0 {
				t.Fatalf("%s: %s %v", p, info.Mode(), err)
			}
			if to, err := filepath.EvalSymlinks(p); err == nil && p != j.quarantine && to != home && !strings.HasPrefix(to, home+"/") {
				t.Fatalf("%s leads to %s", p, to)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever an archive holds, nothing is written outside quarantine.
func FuzzTar(f *testing.F) {
	for _, entries := range [][]tar.Header{
		{tarFile("d/x"), symlink("d/l", "x"), symlink("d/s/up", "../x")},
		{symlink("d/s/x", ".."), symlink("d/s/y", "x/../..")},
		{symlink("d", "../.."), tarFile("d/x")},
		{tarFile("../x")},
		{tarFile("/x")},
		{{Name: "d/l", Typeflag: tar.TypeLink, Linkname: "../../x"}, tarFile("d/l")},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			h.Mode = 0o6777
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
		}
		_ = w.Close()
		f.Add(b.Bytes())
	}
	f.Add([]byte("garbage"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, check := quarantined(t)
		_ = u.unpackStream(bytes.NewReader(data), kindTar)
		check()
	})
}

// The same for zip archives.
func FuzzZip(f *testing.F) {
	f.Add(zipOf(f, zipEntry("d/x", 0o755, "x"), zipEntry("d/l", fs.ModeSymlink|0o777, "x")))
	f.Add(zipOf(f, zipEntry("d", fs.ModeSymlink|0o777, "../.."), zipEntry("d/x", 0o755, "x")))
	f.Add(zipOf(f, zipEntry("../x", 0o755, "x"), zipEntry("/x", 0o755|fs.ModeSetuid, "x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, check := quarantined(t)
		file := filepath.Join(t.TempDir(), "x.zip")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = u.unpackZip(file)
		check()
	})
}

// A sparse file is long without being packed anywhere: 1 TiB of it in 10 KiB.
func TestSparseBomb(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := tarFile("tool-1.2.0/tool")
	h.Mode, h.Size, h.Format = 0o755, 1024, tar.FormatPAX
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(make([]byte, 1024))
	_ = w.Close()
	plain := b.Bytes()
	// A PAX header before it (GNU's sparse format 1.0), as archive/tar only reads them.
	var records string
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1099511627776", "GNU.sparse.name=tool-1.2.0/tool"} {
		records += fmt.Sprintf("%d %s\n", len("NN  ")+len(kv), kv)
	}
	pax := bytes.Clone(plain[:512])
	copy(pax[124:136], fmt.Sprintf("%011o\x00", len(records)))
	pax[156] = 'x'
	copy(pax[148:156], "        ")
	sum := 0
	for _, c := range pax {
		sum += int(c)
	}
	copy(pax[148:156], fmt.Sprintf("%06o\x00 ", sum))
	block := make([]byte, 512)
	copy(block, records)
	sparseMap := make([]byte, 512)
	copy(sparseMap, "1\n0\n512\n")
	data := append(append(append([]byte{}, pax...), block...), plain[:512]...)
	data = append(append(data, sparseMap...), plain[1024:]...)

	f := newFixture(t, "tool.tar", data)
	if _, err := f.stage(); !errors.As(err, new(*UnsafeArchiveError)) {
		t.Fatalf("err = %v", err)
	}
	f.nothingStaged()
}
