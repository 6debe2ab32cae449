// Command report reads what `go test -bench` printed and writes the table and the
// plot of docs/benchmarks.md:
//
//	go run ./bench/report docs/benchmarks.md docs/pictures/benchmarks.svg <bench.txt
//
// What was not measured in that run is said to be so. It ends with 1 where a ratio
// misses its goal.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// row is a line of the table: one figure of one benchmark.
type row struct {
	bench, unit string
	what        string
	goal        float64 // at most; 0: none
	ratio       bool    // drawn
	form        string  // of the figure
}

const ratioForm, tripForm, msForm, mibForm = "%.2f", "%.1f", "%.1f ms", "%.1f MiB"

// rows are all figures, in the order they are shown.
func rows() []row {
	r := func(bench, unit, what string, goal float64) row { return row{bench, unit, what, goal, true, ratioForm} }
	return []row{
		r("Downtime/small", "upgrade/restart", "Down time of an upgrade of Prometheus, by `systemctl restart`", 1.05),
		r("Downtime/large", "upgrade/restart", "the same with a million samples in its head", 1.05),
		r("Fetch/100MB", "ours/slower-of-hash-and-unpack", "Download, verify, unpack 100 MB, by the slower of hashing and unpacking alone", 1.10),
		r("Fetch/1GB", "ours/slower-of-hash-and-unpack", "the same for 1 GB", 1.10),
		r("Fetch/100MB", "ours/curl-sha256sum-tar", "100 MB, by `curl`, `sha256sum -c`, `tar xzf`", 1),
		r("Fetch/1GB", "ours/curl-sha256sum-tar", "1 GB, by the same", 1),
		r("Fetch/100MB", "ours/eget", "100 MB, by eget", 1),
		r("Fetch/1GB", "ours/eget", "1 GB, by eget", 1),
		r("Fetch/100MB", "ours/ansible", "100 MB, by Ansible's `get_url` and `unarchive`", 1),
		r("Fetch/1GB", "ours/ansible", "1 GB, by the same", 1),
		{"Fetch/1GB", "ours-MiB", "Peak memory for 1 GB", 48, false, mibForm},
		{"Fetch/1GB", "curl-sha256sum-tar-MiB", "of `curl`, `sha256sum`, `tar`, the largest", 0, false, mibForm},
		{"Fetch/1GB", "ansible-MiB", "of Ansible", 0, false, mibForm},
		{"Check", "check/trips", "Round trips that `check` of 40 components waits for (TCP and TLS take two)", 3, true, tripForm},
		{"Check", "check-cached/trips", "the same with all answers cached and still true", 3, true, tripForm},
		{"Check", "check/round-trip", "its time 50 ms away, in round trips: with the work of both ends", 3, true, ratioForm},
		{"Check", "check-first/round-trip", "the very first, which also runs 40 programs for their versions", 0, false, ratioForm},
		{"Check", "check-cached/round-trip", "the same with all answers cached", 3, true, ratioForm},
		r("Check", "check/curl", "`check`, by `curl` one after the other", 0.1),
		{"NothingToDo", "apply-not-asking-ms", "`apply` that finds nothing to do, without asking upstream", 100, false, msForm},
		{"NothingToDo", "asking/trips", "round trips that asking waits for", 3, true, tripForm},
		{"NothingToDo", "asking/round-trip", "what asking adds in time, in round trips", 3, true, ratioForm},
		r("Backup/ext4", "ours/cp", "Copy of 5 GiB of data with digests on ext4, by `cp -a`", 0),
		r("Backup/ext4", "ours/cp-and-sha256sum", "by `cp -a` and `sha256sum`", 1),
		r("Backup/xfs", "ours/cp", "on xfs, by `cp -a`", 0),
		r("Backup/xfs", "ours/cp-and-sha256sum", "by `cp -a --reflink=auto` and `sha256sum`", 1),
		r("Backup/btrfs", "ours/cp", "on btrfs, by `cp -a`", 0),
		r("Backup/btrfs", "ours/cp-and-sha256sum", "by `cp -a --reflink=auto` and `sha256sum`", 1),
		{"Backup/xfs", "cp-reflink-ms", "`cp -a --reflink=always` on xfs, which reads and proves nothing", 0, false, msForm},
		{"Backup/xfs", "ours-ms", "ours on xfs", 0, false, msForm},
		{"Plan/60x100", "cpu-ms/op", "Planning 60 components with 100 releases each, processor time", 50, false, msForm},
		{"Plan/250x150", "cpu-ms/op", "250 with 150", 0, false, msForm},
		{"PlanDense/60x100", "cpu-ms/op", "60 with 100, and a rule for every line and pair", 50, false, msForm},
		{"Million/list", "sec/op", "The last 50 of a history of a million rows", 0, false, "%.4f s"},
		{"Million/stats", "sec/op", "Sums over all of it", 0, false, "%.2f s"},
		{"Serve", "waiting-MiB", "Resident memory of `serve`, waiting", 25, false, mibForm},
		{"Serve", "after-50-looks-MiB", "and 12 s after 50 looks at each page", 25, false, mibForm},
	}
}

// figures are the values by benchmark and unit.
type figures map[[2]string]float64

// of is the figure of a row. Round trips come whole: what is beyond a tenth is noise.
func (f figures) of(r row) (float64, bool) {
	v, ok := f[[2]string{r.bench, r.unit}]
	if r.form == tripForm {
		v = math.Round(v*10) / 10
	}
	return v, ok
}

// read takes the figures out of the output of one or more runs of go test; of what
// was measured twice the last counts.
func read(in io.Reader) (figures, error) {
	out := figures{}
	r := benchfmt.NewReader(in, "standard input")
	for r.Scan() {
		switch rec := r.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, rec
		case *benchfmt.Result:
			name, _, _ := strings.Cut(rec.Name.String(), fmt.Sprintf("-%d", runtime.NumCPU()))
			for _, v := range rec.Values {
				unit, value := v.Unit, v.Value
				if v.OrigUnit != "" && v.OrigUnit != "ns/op" {
					unit, value = v.OrigUnit, v.OrigValue
				}
				out[[2]string{name, unit}] = value
			}
		}
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("standard input holds no result of a benchmark; want what `go test -bench` prints")
	}
	return out, nil
}

// table is the table in Markdown, and whether each goal that was measured is met.
func table(f figures) (text string, met bool) {
	var b strings.Builder
	met = true
	b.WriteString("| what | measured | goal | |\n|---|---|---|---|\n")
	for _, r := range rows() {
		v, ok := f.of(r)
		shown, goal, verdict := "not measured", "", ""
		if ok {
			shown = fmt.Sprintf(r.form, v)
		}
		if r.goal > 0 {
			goal = "≤ " + strings.Replace(fmt.Sprintf(r.form, r.goal), ".0 ", " ", 1)
			switch {
			case ok && v <= r.goal:
				verdict = "met"
			case ok:
				verdict, met = "**missed**", false
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.what, shown, goal, verdict)
	}
	return b.String(), met
}

// The plot, in pixels.
const (
	rowHeight = 26
	labels    = 560 // their width
	plotWidth = 380
	least     = 0.01 // the scale is logarithmic, from here
	most      = 10   // to here
)

// plot draws the ratios, with a line at 1 and a mark at each goal.
func plot(f figures) string {
	at := func(v float64) float64 {
		v = min(max(v, least), most)
		return labels + plotWidth*math.Log(v/least)/math.Log(most/least)
	}
	var bars strings.Builder
	y := 30
	for _, r := range rows() {
		v, ok := f.of(r)
		if !ok || !r.ratio {
			continue
		}
		fill := "#4a7fb5"
		if r.goal > 0 && v > r.goal {
			fill = "#c0504d"
		}
		fmt.Fprintf(&bars, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", labels-8, y+16, escape(r.what))
		fmt.Fprintf(&bars, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", labels, y+4, max(at(v)-labels, 1), rowHeight-10, fill)
		end := at(v)
		if stroke := at(r.goal); r.goal > 0 && stroke > end && stroke < end+40 {
			end = stroke // the figure stands behind it, not below
		}
		fmt.Fprintf(&bars, "<text x=\"%.1f\" y=\"%d\">"+r.form+"</text>\n", end+5, y+16, v)
		if r.goal > 0 {
			fmt.Fprintf(&bars, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" stroke=\"#222\" stroke-width=\"2\"/>\n", at(r.goal), at(r.goal), y+1, y+rowHeight-3)
		}
		y += rowHeight
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", labels+plotWidth+60, y+10)
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n")
	for _, v := range []float64{0.01, 0.1, 1, 10} {
		width := 1
		if v == 1 {
			width = 2
		}
		fmt.Fprintf(&b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"24\" y2=\"%d\" stroke=\"#bbb\" stroke-width=\"%d\"/>\n<text x=\"%.1f\" y=\"18\" text-anchor=\"middle\">%g</text>\n", at(v), at(v), y, width, at(v), v)
	}
	return b.String() + bars.String() + "</svg>\n"
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "`", "").Replace(s)
}

// The table's place in the document.
const begin, end = "<!-- figures: make bench -->\n", "<!-- end of figures -->\n"

// put replaces the table of a document.
func put(doc []byte, table, where string) ([]byte, error) {
	before, rest, ok := bytes.Cut(doc, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("the document has no place for the table: want the lines %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return fmt.Appendf(nil, "%s%s%s\n\n%s%s%s", before, begin, where, table, end, after), nil
}

// machine is where the figures come from.
func machine() string {
	kernel, _ := exec.Command("uname", "-r").Output()
	return fmt.Sprintf("Measured on %d processors (%s/%s, Linux %s, %s).", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, strings.TrimSpace(string(kernel)), runtime.Version())
}

func run(in io.Reader, document, picture string) (met bool, err error) {
	f, err := read(in)
	if err != nil {
		return false, err
	}
	doc, err := os.ReadFile(document)
	if err != nil {
		return false, err
	}
	text, met := table(f)
	if doc, err = put(doc, text, machine()); err != nil {
		return false, fmt.Errorf("%s: %w", document, err)
	}
	if err := os.WriteFile(document, doc, 0o644); err != nil {
		return false, err
	}
	return met, os.WriteFile(picture, []byte(plot(f)), 0o644)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: report DOCUMENT PICTURE <OUTPUT-OF-GO-TEST")
		os.Exit(2)
	}
	switch met, err := run(os.Stdin, os.Args[1], os.Args[2]); {
	case err != nil:
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	case !met:
		fmt.Fprintln(os.Stderr, "report: a goal is missed; see", os.Args[1])
		os.Exit(1)
	}
}
