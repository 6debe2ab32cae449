package yamlfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing wrong in a file. Line and Column count from 1; both are 0
// where the error concerns the file as a whole.
type Error struct {
	File    string
	Line    int
	Column  int
	Key     string // dotted path of the key, such as "upstream.github.token"; "" for the whole document
	Message string
}

// Error writes FILE:LINE:COLUMN: KEY: MESSAGE.
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors is everything wrong in one or more files, in the order of files and
// lines. An empty list is no error; use Err to turn it into one.
type Errors []Error

// Error writes one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single errors to errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

// Err is nil for an empty list; otherwise the list, sorted and without
// repetitions.
func (e Errors) Err() error {
	if len(e) == 0 {
		return nil
	}
	s := slices.Clone(e)
	slices.SortStableFunc(s, func(a, b Error) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Error(), b.Error()))
	})
	return slices.Compact(s)
}

// Beside appends errors found later, except those that follow from an earlier
// one about the same key, or a key around or below it.
func (e Errors) Beside(later Errors) Errors {
	out := slices.Clip(e)
	for _, l := range later {
		if !slices.ContainsFunc(e, func(x Error) bool { return x.File == l.File && (leadsTo(x.Key, l.Key) || leadsTo(l.Key, x.Key)) }) {
			out = append(out, l)
		}
	}
	return out
}

// leadsTo reports whether the key outer is inner, or is around it.
func leadsTo(outer, inner string) bool {
	rest, ok := strings.CutPrefix(inner, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Nearest returns the candidate that word was most likely meant to be, by edit
// distance; "" when none is near.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", max(1, min(3, len(word)/3))+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, replace or swap with
// their neighbour (optimal string alignment) to get from a to b.
func distance(a, b string) int {
	const tooLong = 200
	if len(a) > tooLong || len(b) > tooLong {
		return tooLong
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
