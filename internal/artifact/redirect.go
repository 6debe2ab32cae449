package artifact

import (
	"errors"
	"net/http"

	"github.com/observability-upgrade/observability-upgrade/internal/redirect"
)

// careful is the client with our rules for redirects: those of package redirect,
// and at another host only the headers that say what is asked for go along, no
// credentials of whatever name.
func careful(c *http.Client) *http.Client {
	own := *c
	own.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		first, last := via[0], via[len(via)-1]
		if err := redirect.Check(req.Context(), last.URL, req.URL); err != nil {
			return permanentError{err}
		}
		if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {
			for name := range req.Header {
				switch name {
				case "Accept", "Accept-Encoding", "User-Agent", "Range", "If-Range":
				default:
					req.Header.Del(name)
				}
			}
		}
		if c.CheckRedirect != nil {
			return c.CheckRedirect(req, via)
		}
		if len(via) >= 10 {
			return permanentError{errors.New("more than 10 redirects")}
		}
		return nil
	}
	return &own
}
