package artifact

import (
	"bytes"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// changed is data with one byte flipped, counted from the end when negative.
func flipped(data []byte, at int) []byte {
	out := bytes.Clone(data)
	if at < 0 {
		at += len(out)
	}
	out[at] ^= 0x55
	return out
}

// What packs a tar is wrong, or asks for more than it should.
func TestHostilePackings(t *testing.T) {
	whole := rawTar(file("tool-1.2.0/tool"))
	gz, xzed, zst := pack(t, "tar.gz", whole), pack(t, "tar.xz", whole), pack(t, "tar.zst", whole)
	single, noise := pack(t, "gz", []byte(script)), random(300)
	page := []byte("\n<!DOCTYPE HTML><html><body>Please sign in</body></html>")
	zstHead := func(descriptor byte, rest ...byte) []byte {
		return append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, rest...)
	}
	for name, tc := range map[string]struct {
		asset string
		body  []byte
		want  string
	}{
		"gzip, two members":           {"t.tar.gz", join(pack(t, "gz", whole[:700]), pack(t, "gz", whole[700:])), ""},
		"gzip, another tar behind":    {"t.tar.gz", join(gz, pack(t, "tar.gz", rawTar(file("../../evil")))), ""},
		"gzip, an empty member":       {"t.tar.gz", join(pack(t, "gz", nil), gz), ""},
		"gzip, rubbish behind":        {"t.tar.gz", join(gz, noise), "after the archive's end: gzip: invalid header"},
		"gzip, a page behind":         {"t.tar.gz", join(gz, page), "after the archive's end"},
		"gzip, cut in the middle":     {"t.tar.gz", gz[:len(gz)/2], "unexpected EOF"},
		"gzip, cut before its sum":    {"t.tar.gz", gz[:len(gz)-8], "unexpected EOF"},
		"gzip, cut in its header":     {"t.tar.gz", gz[:5], "is not gzip"},
		"gzip, wrong sum":             {"t.tar.gz", flipped(gz, -8), "after the archive's end: gzip: invalid checksum"},
		"gzip, wrong length":          {"t.tar.gz", flipped(gz, -1), "after the archive's end: gzip: invalid checksum"},
		"gzip, a changed byte":        {"t.tar.gz", flipped(gz, len(gz)/2), "t.tar.gz"},
		"gzip, another method":        {"t.tar.gz", flipped(gz, 2), "is not gzip"},
		"gzip, nothing":               {"t.tar.gz", nil, "is not gzip"},
		"gzip, a name without end":    {"t.tar.gz", join([]byte("\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03"), bytes.Repeat([]byte("x"), 1<<20)), "is not gzip"},
		"gzip called xz":              {"t.tar.xz", gz, "is not xz"},
		"zip called gzip":             {"t.tar.gz", rawZip(0, zipPart{name: "tool-1.2.0/tool", body: script}), "is not gzip"},
		"a page called gzip":          {"t.tar.gz", page, "is an HTML page"},
		"a page called xz":            {"t.tar.xz", page, "is an HTML page"},
		"a page called zstd":          {"t.tar.zst", page, "is an HTML page"},
		"a page called tar":           {"t.tar", page, "is an HTML page"},
		"a page called zip":           {"t.zip", page, "t.zip is an HTML page"},
		"a page called program":       {"t", page, "is an HTML page"},
		"one file, rubbish behind":    {"t.gz", join(single, noise), "invalid header"},
		"one file, wrong sum":         {"t.gz", flipped(single, -8), "invalid checksum"},
		"one file, a page in it":      {"t.gz", pack(t, "gz", page), "neither a program"},
		"one file, an archive":        {"t.gz", gz, "neither a program nor a script"},
		"one file, empty":             {"t.gz", pack(t, "gz", nil), "it is empty"},
		"tar cut in an entry":         {"t.tar", whole[:530], "unexpected EOF"},
		"tar cut in a header":         {"t.tar", whole[:100], "unexpected EOF"},
		"tar without its end":         {"t.tar", whole[:1024], ""},
		"tar, rubbish behind":         {"t.tar", join(whole, noise), ""},
		"tar, a changed header":       {"t.tar", flipped(whole, 120), "invalid tar header"},
		"xz, two streams, padding":    {"t.tar.xz", join(pack(t, "tar.xz", whole[:700]), make([]byte, 8), pack(t, "tar.xz", whole[700:])), ""},
		"xz, rubbish behind":          {"t.tar.xz", join(xzed, noise), "after the archive's end"},
		"xz, cut":                     {"t.tar.xz", xzed[:len(xzed)/2], "t.tar.xz"},
		"xz, cut before its footer":   {"t.tar.xz", xzed[:len(xzed)-12], "after the archive's end"},
		"xz, a changed byte":          {"t.tar.xz", flipped(xzed, len(xzed)/2), "t.tar.xz"},
		"xz, 4 GiB of dictionary":     {"t.tar.xz", xzBlock(40, string(whole)), "dictionary of 4294967295 bytes"},
		"xz, 96 MiB of dictionary":    {"t.tar.xz", xzBlock(29, string(whole)), "dictionary of 100663296 bytes"},
		"xz, 64 MiB of dictionary":    {"t.tar.xz", xzBlock(28, string(whole)), ""},
		"xz, 4 GiB in a later stream": {"t.tar.xz", join(xzBlock(0, string(whole[:700])), xzBlock(40, string(whole[700:]))), "dictionary of 4294967295 bytes"},
		"xz, 4 GiB behind the end":    {"t.tar.xz", join(xzBlock(0, string(whole)), xzBlock(40, "x")), "dictionary of 4294967295 bytes"},
		"xz, unknown dictionary":      {"t.tar.xz", xzBlock(41, string(whole)), "t.tar.xz"},
		"zstd, two frames":            {"t.tar.zst", join(pack(t, "tar.zst", whole[:700]), pack(t, "tar.zst", whole[700:])), ""},
		"zstd, a frame to skip":       {"t.tar.zst", join([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), zst), ""},
		"zstd, 4 GiB to skip":         {"t.tar.zst", join([]byte("\x50\x2a\x4d\x18\xff\xff\xff\xff"), zst), "t.tar.zst"},
		"zstd, rubbish behind":        {"t.tar.zst", join(zst, noise), "after the archive's end"},
		"zstd, cut":                   {"t.tar.zst", zst[:len(zst)/2], "t.tar.zst"},
		"zstd, wrong sum":             {"t.tar.zst", flipped(zst, -1), "t.tar.zst"},
		"zstd, a window of 2 GiB":     {"t.tar.zst", join(zstHead(0, 0xa8), zst[6:]), "window size exceeded"},
		"zstd, a window of 3.75 TiB":  {"t.tar.zst", join(zstHead(0, 0xff), zst[6:]), "t.tar.zst"},
		"zstd, 8 EiB in one segment":  {"t.tar.zst", join(zstHead(0xe0, bytes.Repeat([]byte{0x7f}, 8)...), zst[6:]), "t.tar.zst"},
		"zstd, another's dictionary":  {"t.tar.zst", join(zstHead(0x23, 1, 2, 3, 4, 9), zst[6:]), "t.tar.zst"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wanted := oneProgram
			if tc.asset == "t" || tc.asset == "t.gz" {
				wanted = component.Binary{Name: "tool"}
			}
			hostileCase{asset: tc.asset, body: tc.body, wanted: wanted, want: tc.want}.try(t)
		})
	}
	// The encoder's own way to ask for a big window.
	var big bytes.Buffer
	w, err := zstd.NewWriter(&big, zstd.WithWindowSize(128<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(whole)
	_, _ = w.Write(make([]byte, 1<<20)) // so that it is no single segment
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	hostileCase{asset: "t.tar.zst", body: big.Bytes(), wanted: oneProgram, want: "window size exceeded"}.try(t)
}

func TestHostileZips(t *testing.T) {
	tool := zipPart{name: "tool-1.2.0/tool", body: script}
	other := zipPart{name: "x", body: "some bytes"}
	good := rawZip(0, tool, other)
	many := bytes.Repeat([]byte(" "), 100)
	for name, tc := range map[string]struct {
		body   []byte
		wanted component.Binary
		unsafe bool
		want   string
	}{
		"as it should be":               {body: good},
		"a program before it":           {body: join([]byte("#!/bin/sh\nexit\n"), good)},
		"rubbish behind":                {body: join(good, random(300))},
		"two behind each other":         {body: join(good, rawZip(0, zipPart{name: "../../evil", body: "x"})), unsafe: true, want: "would leave"},
		"rubbish of 100 KiB behind":     {body: join(good, random(100<<10)), want: "not a valid zip"},
		"cut":                           {body: good[:len(good)-30], want: "not a valid zip"},
		"nothing":                       {body: nil, want: "not a valid zip"},
		"only an end":                   {body: rawZip(0), want: "holds no tool-1.2.0/tool"},
		"wrong sum":                     {body: rawZip(0, zipPart{name: tool.name, body: script, crc: 1}), want: "checksum error"},
		"wrong sum of another entry":    {body: rawZip(0, tool, zipPart{name: "x", body: "x", crc: 1}), want: "checksum error"},
		"shorter than it says":          {body: rawZip(0, tool, zipPart{name: "x", body: "x", unpacked: 1 << 30}), want: "unexpected EOF"},
		"longer than it says":           {body: rawZip(0, zipPart{name: tool.name, body: script, unpacked: 3}), want: "t.zip"},
		"packed longer than the file":   {body: rawZip(0, tool, zipPart{name: "x", body: "x", packed: 1 << 30}), unsafe: true, want: "says that it is 1073741824 bytes long"},
		"packed into the next entry":    {body: rawZip(0, zipPart{name: "x", body: "x", packed: 60}, tool), unsafe: true, want: "shares bytes with"},
		"two entries of one body":       {body: rawZip(0, other, tool, zipPart{name: "y", body: script, at: int64(30 + 1 + 10)}), unsafe: true, want: "shares bytes with"},
		"a body inside another":         {body: rawZip(0, zipPart{name: "x", body: strings.Repeat("#", 200)}, zipPart{name: "y", local: "y", body: "z"}, zipPart{name: "a", body: "a", packed: 90, unpacked: 90}, tool), unsafe: true, want: "shares bytes with"},
		"a place outside the file":      {body: rawZip(0, tool, zipPart{name: "x", body: "x", at: 1 << 30}), want: "t.zip"},
		"another name of its own":       {body: rawZip(0, zipPart{name: tool.name, local: "../../../etc/evil", body: script})},
		"another name in the directory": {body: rawZip(0, tool, zipPart{name: "../../../etc/evil", local: "ok", body: "x"}), unsafe: true, want: "by .."},
		"no such method":                {body: rawZip(0, zipPart{name: tool.name, body: script, method: 99}), want: "unsupported compression"},
		"no such method, unwanted":      {body: rawZip(0, tool, zipPart{name: "x", body: "x", method: 99}), want: "unsupported compression"},
		"not packed as it says":         {body: rawZip(0, zipPart{name: tool.name, body: script, method: 8}), want: "flate"},
		"locked":                        {body: rawZip(0, zipPart{name: tool.name, body: strings.Repeat("\x9a", 80), flags: 1, crc: 7}), want: "t.zip"},
		"a wrong data descriptor":       {body: rawZip(0, zipPart{name: tool.name, body: script, flags: 8, afterwards: "PK\x07\x08\x01\x00\x00\x00\x33\x00\x00\x00\x33\x00\x00\x00"}), want: "checksum error"},
		"no data descriptor":            {body: rawZip(0, zipPart{name: "x", body: "x"}, zipPart{name: tool.name, body: script, flags: 8}), want: "t.zip"},
		"zip64, 16 EiB":                 {body: rawZip(0, tool, zipPart{name: "x", body: "x", packed: 0xffffffff, unpacked: 0xffffffff, extra: zip64(1<<64-1, 1<<64-1)}), unsafe: true, want: "more than there are"},
		"zip64, 8 EiB":                  {body: rawZip(0, tool, zipPart{name: "x", body: "x", packed: 0xffffffff, unpacked: 0xffffffff, extra: zip64(1<<62, 1<<62)}), unsafe: true, want: "more than there are"},
		"zip64, cut":                    {body: rawZip(0, tool, zipPart{name: "x", body: "x", packed: 0xffffffff, extra: "\x01\x00\x04\x00zzzz"}), want: "t.zip"},
		"zip64 that is none":            {body: rawZip(0, tool, zipPart{name: "x", body: "x", extra: "\x01\x00\xff\xff"}), want: ""},
		"more entries than there are":   {body: rawZip(500, tool), want: "unexpected EOF"},
		"fewer entries than there are":  {body: rawZip(1, tool, other), want: "unexpected EOF"},
		"a directory with contents":     {body: rawZip(0, tool, zipPart{name: "d/", body: "x", mode: 0o040755})},
		"a link of a megabyte":          {body: rawZip(0, tool, zipPart{name: "l", body: strings.Repeat("a/", 1<<19), mode: 0o120777}), unsafe: true, want: "outside the archive"},
		"a link written through":        {body: rawZip(0, tool, zipPart{name: "tool-1.2.0/l", body: "..", mode: 0o120777}, zipPart{name: "tool-1.2.0/l/x", body: "x"}), wanted: wholeTree, unsafe: true, want: "t.zip"},
		"socket":                        {body: rawZip(0, tool, zipPart{name: "s", body: "", mode: 0o140755}), unsafe: true, want: "special type"},
		"device with an escape":         {body: rawZip(0, tool, zipPart{name: "\x1b[2J", body: "", mode: 0o060755}), unsafe: true, want: "invalid name"},
		"unreadable with an escape":     {body: rawZip(0, tool, zipPart{name: "\x1b[2J", body: "x", method: 99}), want: `"\x1b[2J"`},
		"set-id bits":                   {body: rawZip(0, zipPart{name: tool.name, body: script, mode: 0o107777}), wanted: wholeTree},
		"an archive inside":             {body: rawZip(0, zipPart{name: tool.name, body: string(good)}), want: "neither a program nor a script"},
		"the program is a directory":    {body: rawZip(0, zipPart{name: tool.name + "/", mode: 0o040755}), want: "holds no tool-1.2.0/tool"},
		"the program is a link":         {body: rawZip(0, zipPart{name: tool.name, body: "x", mode: 0o120777}), unsafe: true, want: "is a link where a program"},
		"of another architecture":       {body: rawZip(0, zipPart{name: tool.name, body: elfFor(0xb7)}), want: "EM_AARCH64"},
		"tar called zip":                {body: join(rawTar(file("tool-1.2.0/tool")), many), want: "not a valid zip"},
		"names of 64 KiB":               {body: rawZip(0, tool, zipPart{name: strings.Repeat("x", 1<<16-1), body: "x"}), unsafe: true, want: "name of 65535 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.wanted.Name == "" {
				tc.wanted = oneProgram
			}
			hostileCase{asset: "t.zip", body: tc.body, wanted: tc.wanted, unsafe: tc.unsafe, want: tc.want}.try(t)
		})
	}
}

// Bounds of numbers and names hold in every form, and what is below them is
// unpacked.
func TestManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks 100,000 entries a few times; not with -short")
	}
	long := strings.Repeat("y", 200)
	for name, tc := range map[string]struct {
		entries []entry
		want    string
	}{
		"100,000":              {entries: numbered(100_000, func(i int) string { return "tool-1.2.0/" + itoa(i) })},
		"200,001":              {entries: numbered(200_001, itoa), want: "is one too many: more than 200000 entries"},
		"the same 100,000":     {entries: numbered(100_000, func(int) string { return "x" }), want: "there twice"},
		"names of 32 MiB":      {entries: numbered(180_000, func(i int) string { return itoa(i) + long }), want: "brings all names to more than"},
		"directories of 4 KiB": {entries: numbered(20_000, deep), want: "brings all names to more than"},
	} {
		data := pack(t, "tar.gz", rawTar(tc.entries...))
		t.Run(name, func(t *testing.T) {
			hostileCase{asset: "tool.tar.gz", body: data, wanted: oneProgram, unsafe: tc.want != "", want: tc.want}.try(t)
		})
	}
	parts := func(n int, name func(int) string) []byte {
		list := make([]zipPart, 0, n+1)
		for i := range n {
			list = append(list, zipPart{name: name(i)})
		}
		return rawZip(0, append(list, zipPart{name: "tool-1.2.0/tool", body: script})...)
	}
	for name, tc := range map[string]struct {
		body []byte
		want string
	}{
		"100,000, zip":    {body: parts(100_000, itoa)},
		"300,000, zip":    {body: parts(300_000, itoa), want: "lists more than 200000 entries"},
		"50 MiB of names": {body: parts(800, func(i int) string { return itoa(i) + strings.Repeat("x", 65_000) }), want: "is longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			hostileCase{asset: "t.zip", body: tc.body, wanted: oneProgram, unsafe: tc.want != "", want: tc.want}.try(t)
		})
	}
}
