package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/observability-upgrade/observability-upgrade/internal/component"
)

// ErrNotFound is wrapped when upstream answers that the repository, product or
// directory of a definition does not exist.
var ErrNotFound = errors.New("not found upstream")

// ErrNoReleases is wrapped for a component of source type package: its releases
// are the distribution's business.
var ErrNoReleases = errors.New("managed by the distribution's package manager")

func noReleases(comp *component.Component) error {
	return fmt.Errorf("%w: upgrade the package %q with it", ErrNoReleases, comp.Source.Repo)
}

func notFound(what, advice string) error {
	return fmt.Errorf("%s: %w: %s", what, ErrNotFound, advice)
}

// UnknownError says that upstream could not be asked or did not answer sense, so
// that nothing is known about newer releases: not that there are none. Of which
// component, is for the caller to say: a listing may be that of several.
type UnknownError struct {
	URL     string    // without credentials; a path for a directory
	Status  int       // HTTP status; 0 when there was no answer
	RetryAt time.Time // when upstream accepts requests again; zero when it does not say
	Err     error
}

func (e *UnknownError) Error() string {
	s := fmt.Sprintf("newer releases unknown: %s: %v", e.URL, e.Err)
	if !e.RetryAt.IsZero() {
		s += fmt.Sprintf("; upstream answers again at %s", e.RetryAt.UTC().Format(time.RFC3339))
	}
	switch {
	case e.Status == http.StatusUnauthorized:
		s += "; check the token: it is wrong or has expired"
	case e.Status == http.StatusForbidden && e.RetryAt.IsZero(): // no limit, which would say when it ends
		s += "; look at what that server lets this host read, and at the token where there is one"
	case e.Status == http.StatusForbidden, e.Status == http.StatusTooManyRequests:
		s += "; set a token (upstream.github.token or upstream.gitlab.token) for a higher limit, or use a mirror (upstream.*.api_url, or a directory or http source)"
	case e.Status == 0 && errors.Is(e.Err, context.Canceled):
	case e.Status == 0 || e.Status >= 500:
		s += "; try again later, or use a mirror (upstream.*.api_url, or a directory or http source)"
	}
	return s
}

// Unwrap gives the cause.
func (e *UnknownError) Unwrap() error { return e.Err }

// refusal is a rate limit that has not yet run out.
type refusal struct {
	status  int
	until   time.Time
	message string
}
