package redirect

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct{ from, to, want string }{
		"same host":               {"https://example.org/a", "https://example.org/b", ""},
		"another port":            {"https://example.org/a", "https://EXAMPLE.org:8443/b", ""},
		"to encryption":           {"http://192.0.2.1/a", "https://192.0.2.1/b", ""},
		"another address":         {"https://192.0.2.1/a", "https://198.51.100.1/b", ""},
		"a private network":       {"https://192.0.2.1/a", "https://10.0.0.1/b", ""},
		"here to here":            {"http://127.0.0.1:1/a", "http://localhost:2/b", ""},
		"here to the link":        {"http://[::1]:1/a", "http://169.254.169.254/b", ""},
		"here to elsewhere":       {"http://127.0.0.1/a", "http://192.0.2.1/b", ""},
		"drops encryption":        {"https://example.org/a", "http://example.org/b", "drops the encryption"},
		"drops it for a file":     {"https://example.org/a", "file:///etc/passwd", "drops the encryption"},
		"a file":                  {"http://192.0.2.1/a", "file:///etc/passwd", "only http and https"},
		"another protocol":        {"http://192.0.2.1/a", "gopher://192.0.2.1/b", "only http and https"},
		"no scheme":               {"http://192.0.2.1/a", "//192.0.2.1/b", "only http and https"},
		"loopback":                {"http://192.0.2.1/a", "http://127.0.0.1:9090/-/quit", "to this one"},
		"all of loopback":         {"https://192.0.2.1/a", "https://127.9.9.9/", "to this one"},
		"loopback, IPv6":          {"https://192.0.2.1/a", "https://[::1]/", "to this one"},
		"loopback, mapped":        {"https://192.0.2.1/a", "https://[::ffff:127.0.0.1]/", "to this one"},
		"localhost":               {"https://192.0.2.1/a", "https://LocalHost./", "to this one"},
		"a name below localhost":  {"https://192.0.2.1/a", "https://x.localhost/", "to this one"},
		"no address":              {"https://192.0.2.1/a", "https://0.0.0.0/", "to this one"},
		"the metadata of a cloud": {"http://192.0.2.1/a", "http://169.254.169.254/latest/meta-data/", "to this one"},
		"the same by IPv6":        {"http://192.0.2.1/a", "http://[fd00:ec2::254]/", "to this one"},
		"the link, with its zone": {"http://192.0.2.1/a", "http://[fe80::1%25eth0]/", "to this one"},
	} {
		t.Run(name, func(t *testing.T) {
			from, err := url.Parse(tc.from)
			if err != nil {
				t.Fatal(err)
			}
			to, err := url.Parse(tc.to)
			if err != nil {
				t.Fatal(err)
			}
			err = Check(t.Context(), from, to)
			var refused *RefusedError
			if tc.want == "" && err != nil || tc.want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), tc.want)) {
				t.Fatalf("err = %v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "passwd") {
				t.Fatalf("the error shows the path: %v", err)
			}
		})
	}
}
