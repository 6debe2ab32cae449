package component

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
	"pgregory.net/rapid"
)

// The plain forms mean what the library takes them for.
func TestIntervalAgreesWithLibrary(t *testing.T) {
	number := rapid.IntRange(0, 4)
	rapid.Check(t, func(t *rapid.T) {
		var words []string
		for range rapid.IntRange(1, 3).Draw(t, "words") {
			a, b, c := number.Draw(t, "a"), number.Draw(t, "b"), number.Draw(t, "c")
			words = append(words, rapid.SampledFrom([]string{
				fmt.Sprintf(">=%d.%d.%d", a, b, c), fmt.Sprintf(">%d.%d.%d", a, b, c), fmt.Sprintf("<%d.%d.%d", a, b, c),
				fmt.Sprintf("<=v%d.%d.%d", a, b, c), fmt.Sprintf("=%d.%d.%d", a, b, c), fmt.Sprintf("%d.%d.%d", a, b, c),
				fmt.Sprintf("%d.%d.x", a, b), fmt.Sprintf("%d.x", a), fmt.Sprintf("%d.x.x", a),
			}).Draw(t, "word"))
		}
		text := strings.Join(words, " ")
		i, ok := parseInterval(text)
		if !ok {
			t.Fatalf("%q is not taken for a plain form", text)
		}
		lib, err := semver.NewConstraint(text)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			v := MustParseVersion(fmt.Sprintf("%d.%d.%d", number.Draw(t, "x"), number.Draw(t, "y"), number.Draw(t, "z")))
			if got, want := i.contains(v), lib.Check(v.Semver()); got != want {
				t.Errorf("%q contains %s: %v, the library says %v", text, v, got, want)
			}
		}
	})
}

// Span says of a sorted list what Contains says of each of it.
func TestSpan(t *testing.T) {
	number := rapid.IntRange(0, 3)
	rapid.Check(t, func(t *rapid.T) {
		a, b := number.Draw(t, "a"), number.Draw(t, "b")
		text := rapid.SampledFrom([]string{
			fmt.Sprintf(">=%d.%d.0", a, b), fmt.Sprintf("<%d.%d.1", a, b), fmt.Sprintf("%d.%d.x", a, b), fmt.Sprintf("%d.x", a),
			fmt.Sprintf("%d.%d.1", a, b), fmt.Sprintf(">=%d.0.0 <%d.0.0", a, b), fmt.Sprintf("^%d.%d.0", a, b), fmt.Sprintf("%d.x || %d.x", a, b),
		}).Draw(t, "text")
		r, err := ParseRange(text)
		if err != nil {
			t.Fatal(err)
		}
		var sorted []Version
		for range rapid.IntRange(0, 12).Draw(t, "versions") {
			pre := rapid.SampledFrom([]string{"", "", "-rc.1", "+ds1"}).Draw(t, "suffix")
			sorted = append(sorted, MustParseVersion(fmt.Sprintf("%d.%d.%d", number.Draw(t, "x"), number.Draw(t, "y"), number.Draw(t, "z"))+pre))
		}
		slices.SortFunc(sorted, Version.Compare)
		from, to, ok := r.Span(sorted)
		if plain := r.plain != nil; ok != plain {
			t.Fatalf("%q: %v", text, ok)
		}
		for i, v := range sorted {
			if got, want := from <= i && i < to, r.Contains(v); ok && got != want {
				t.Errorf("%q contains %s: %v, Span says %v (%d to %d of %v)", text, v, want, got, from, to, sorted)
			}
		}
	})
}

func TestIntervalLeavesOtherForms(t *testing.T) {
	for _, text := range []string{"", "^1.2.3", "~1.2.3", "1.2", ">=1.2", "1.x || 2.x", "1.2.3-rc.1", "!=1.2.3", "1.0.0 - 2.0.0", "*", "1.2.x.x", ">= 1.2.3", "99999999999.0.0"} {
		if i, ok := parseInterval(text); ok {
			t.Errorf("%q is taken for %v", text, i)
		}
	}
}
