package health

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// TestSilenceIsNoLoss proves that a store that does not answer, for whatever reason,
// is not taken for one that answers differently, and is waited for.
func TestSilenceIsNoLoss(t *testing.T) {
	t.Parallel()
	const patience = 400 * time.Millisecond
	for name, tt := range map[string]struct {
		answer func(rw http.ResponseWriter, age time.Duration)
		silent string // in the SilentError; "" for none
		lost   string // in the difference; "" for none
	}{
		"times out":   {silent: "no answer within", answer: func(http.ResponseWriter, time.Duration) { time.Sleep(100 * time.Millisecond) }},
		"cut off":     {silent: "EOF", answer: func(http.ResponseWriter, time.Duration) { panic(http.ErrAbortHandler) }},
		"too busy":    {silent: "answered 429", answer: status(http.StatusTooManyRequests)},
		"unavailable": {silent: "answered 503", answer: status(http.StatusServiceUnavailable)},
		"fails":       {lost: "answered 500", answer: status(http.StatusInternalServerError)},
		"not found":   {lost: "answered 404", answer: status(http.StatusNotFound)},
		"refuses":     {lost: "answered 422", answer: status(http.StatusUnprocessableEntity)},
		"empty":       {lost: "null", answer: func(rw http.ResponseWriter, _ time.Duration) { fmt.Fprint(rw, `{}`) }},
		"less":        {lost: "1", answer: func(rw http.ResponseWriter, _ time.Duration) { fmt.Fprint(rw, `{"n":1}`) }},
		"warms up": {answer: func(rw http.ResponseWriter, age time.Duration) {
			if age < patience/2 {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprint(rw, `{"n":2}`)
		}},
		"loss after silence": {lost: "1", answer: func(rw http.ResponseWriter, age time.Duration) {
			if age < patience/2 {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
			fmt.Fprint(rw, `{"n":1}`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { tt.answer(rw, time.Since(began)) }))
			t.Cleanup(s.Close)
			tests := []component.Test{{Name: "n", Timeout: component.Duration(50 * time.Millisecond), HTTP: &component.HTTPTest{URL: s.URL, JSON: ".n"}}}
			before := Fingerprint{At: began, Values: []Value{{Name: "n", Value: "2"}}}
			diff, err := (&Prober{Patience: patience}).Compare(t.Context(), component.Client{}, tests, before, 20*time.Millisecond)
			var silent *SilentError
			switch {
			case tt.silent != "":
				if !errors.As(err, &silent) || !strings.Contains(silent.Missing, tt.silent) || len(diff) > 0 || time.Since(began) < patience {
					t.Errorf("%v, %v after %v, expected silence with %q", diff, err, time.Since(began), tt.silent)
				}
			case tt.lost != "":
				if err != nil || len(diff) != 1 || !strings.Contains(diff[0].After, tt.lost) {
					t.Errorf("%v, %v, expected a loss with %q", diff, err, tt.lost)
				}
			case err != nil || len(diff) > 0:
				t.Errorf("%v, %v, expected the answers of before", diff, err)
			}
		})
	}
}

func status(code int) func(http.ResponseWriter, time.Duration) {
	return func(rw http.ResponseWriter, _ time.Duration) { rw.WriteHeader(code) }
}

// What differs is lost, whatever else gives no answer.
func TestLossBesideSilence(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(rw, "1")
	}))
	t.Cleanup(s.Close)
	tests := []component.Test{{Name: "a", HTTP: &component.HTTPTest{URL: s.URL + "/silent"}}, {Name: "b", HTTP: &component.HTTPTest{URL: s.URL}}}
	before := Fingerprint{At: time.Now(), Values: []Value{{Name: "a", Value: "2"}, {Name: "b", Value: "2"}}}
	diff, err := (&Prober{}).Compare(t.Context(), component.Client{}, tests, before, 0)
	if err != nil || len(diff) != 1 || diff[0].Name != "b" {
		t.Errorf("%v, %v", diff, err)
	}
}
