package artifact

import (
	"errors"
	"fmt"
	"net/http"
)

// careful is the client with our rules for redirects: at another host only the
// headers that say what is asked for go along, no credentials of whatever name,
// and encryption is never given up on the way.
func careful(c *http.Client) *http.Client {
	own := *c
	own.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		first, last := via[0], via[len(via)-1]
		if last.URL.Scheme == "https" && req.URL.Scheme != "https" {
			return permanentError{fmt.Errorf("%s redirects from https to %s://%s: refused", last.URL.Host, req.URL.Scheme, req.URL.Host)}
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
