package balancer

import "testing"

func TestReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		before, now map[int]int
		want        bool
	}{
		"nothing yet":              {map[int]int{10: 1, 11: 1}, map[int]int{10: 1, 11: 1}, false},
		"new beside old":           {map[int]int{10: 1}, map[int]int{10: 1, 20: 1}, false},
		"old gone or on their way": {map[int]int{10: 1}, map[int]int{20: 1}, true},
		"another nginx stays":      {map[int]int{10: 1, 30: 2}, map[int]int{20: 1, 30: 2}, true},
		"only old gone":            {map[int]int{10: 1, 11: 1}, map[int]int{10: 1}, false},
		"all gone":                 {map[int]int{10: 1}, map[int]int{}, false},
	} {
		if got := replaced(c.before, c.now); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
