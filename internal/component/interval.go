package component

import (
	"regexp"
	"strconv"
	"strings"
)

// interval is what most ranges are: the versions from low up to, and without,
// high, as numbers. It answers without the library, which writes out a reason for
// every version that is not in a range; the planner asks thousands of times.
type interval struct{ low, high [3]uint64 }

var (
	plainBound = regexp.MustCompile(`^(>=|<=|>|<|=)?v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})$`)
	plainWild  = regexp.MustCompile(`^v?(\d{1,9})(?:\.(\d{1,9}))?\.x(?:\.x)?$`)
)

// parseInterval reads the plain forms: ">=1.2.3", "1.2.x", "3.x.x", "2.48.0", and
// several of them after each other, all of which must hold. It reports false for
// every other form.
func parseInterval(text string) (interval, bool) {
	const none = ^uint64(0)
	all := interval{high: [3]uint64{none, none, none}}
	words := strings.Fields(text)
	if len(words) == 0 {
		return all, false
	}
	for _, w := range words {
		one := interval{high: all.high}
		if m := plainBound.FindStringSubmatch(w); m != nil {
			v := numbers(m[2:])
			after := [3]uint64{v[0], v[1], v[2] + 1}
			switch m[1] {
			case ">=":
				one.low = v
			case ">":
				one.low = after
			case "<":
				one.high = v
			case "<=":
				one.high = after
			default:
				one = interval{v, after}
			}
		} else if m := plainWild.FindStringSubmatch(w); m != nil && (m[2] == "" || !strings.HasSuffix(w, ".x.x")) {
			v := numbers(m[1:])
			one = interval{v, [3]uint64{v[0] + 1, 0, 0}}
			if m[2] != "" {
				one.high = [3]uint64{v[0], v[1] + 1, 0}
			}
		} else {
			return all, false
		}
		if less(all.low, one.low) {
			all.low = one.low
		}
		if less(one.high, all.high) {
			all.high = one.high
		}
	}
	return all, true
}

func numbers(parts []string) (v [3]uint64) {
	for i, p := range parts {
		v[i], _ = strconv.ParseUint(p, 10, 64) // digits only, at most nine; "" is 0
	}
	return v
}

func less(a, b [3]uint64) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

func (i interval) contains(v Version) bool {
	n := [3]uint64{v.Major(), v.Minor(), v.Patch()}
	return !less(n, i.low) && less(n, i.high)
}
