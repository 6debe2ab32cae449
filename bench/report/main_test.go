package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const output = `goos: linux
goarch: amd64
pkg: example
BenchmarkFetch/1GB 	       1	45451286911 ns/op	        26.75 ours-MiB	      1.3 ours/slower-of-hash-and-unpack
BenchmarkCheck 	       1	45451286911 ns/op	         3.049 check/trips	         3.051 check-cached/trips
BenchmarkMillion/list         	     100	   1500000 ns/op
PASS
`

func TestReport(t *testing.T) {
	dir := t.TempDir()
	doc, picture := filepath.Join(dir, "b.md"), filepath.Join(dir, "b.svg")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(doc, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n" + begin + "old\n" + end + "after\n")
	for range 2 { // a second time changes nothing
		met, err := run(strings.NewReader(output), doc, picture)
		if err != nil || met {
			t.Fatalf("met %v, %v; a goal is missed", met, err)
		}
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before\n", "after\n", "| Peak memory for 1 GB | 26.8 MiB | ≤ 48 MiB | met |", "| 1.30 | ≤ 1.10 | **missed** |",
		"| 0.0015 s |", "| 3.0 | ≤ 3.0 | met |", "| 3.1 | ≤ 3.0 | **missed** |",
		"| 100 MB, by eget | not measured | ≤ 1.00 |  |",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "old") {
		t.Errorf("the old table is there:\n%s", got)
	}
	svg, err := os.ReadFile(picture)
	if err != nil || strings.Count(string(svg), `height="16"`) != 3 || strings.Count(string(svg), "#c0504d") != 2 || !strings.Contains(string(svg), ">3.0<") {
		t.Errorf("%s (%v)", svg, err)
	}
	if _, err := run(strings.NewReader("PASS\n"), doc, picture); err == nil {
		t.Error("a run without results was taken")
	}
	write("no place\n")
	if _, err := run(strings.NewReader(output), doc, picture); err == nil || !strings.Contains(err.Error(), "no place for the table") {
		t.Errorf("got %v", err)
	}
}
