package health

import "fmt"

// Sample is one look at a component that settles.
type Sample struct {
	Ready  bool
	Detail string // why not
}

// Steady judges the samples taken while a component settled. One that was ready
// less than half of the time is not up; a lapse is worth a warning, and so is the
// only sample, when one slow answer took all the time. The last word has the full
// look that follows.
func Steady(samples []Sample) (status Status, detail string) {
	lapses, last := 0, ""
	for _, s := range samples {
		if !s.Ready {
			lapses++
			last = s.Detail
		}
	}
	switch {
	case lapses == 0 && len(samples) > 0:
		return OK, fmt.Sprintf(", ready in all of %d samples", len(samples))
	case lapses == 0:
		return OK, ""
	case 2*lapses > len(samples) && len(samples) > 1:
		return Fail, fmt.Sprintf(", but not ready in %d of %d samples; the last: %s", lapses, len(samples), last)
	}
	return Warn, fmt.Sprintf(", but not ready in %d of %d samples; the last: %s", lapses, len(samples), last)
}
