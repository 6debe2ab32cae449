package upstream

import (
	"net/http"
	"testing"
	"time"
)

// Whatever headers say of a wait, it is a moment or nothing.
func FuzzRetryAt(f *testing.F) {
	f.Add("120", "", "")
	f.Add("Mon, 01 Jan 2001 00:00:00 GMT", "0", "1")
	f.Add("", "0", "9223372036854775807")
	f.Add("-1", "0", "-1")
	f.Add("1e9", " 0 ", "x")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, after, remaining, reset string) {
		h := http.Header{"Retry-After": {after}, "X-Ratelimit-Remaining": {remaining}, "X-Ratelimit-Reset": {reset}}
		at, ok := retryAt(h, now)
		if ok == at.IsZero() && at.Year() != 1 {
			t.Fatalf("%v %v", at, ok)
		}
	})
}
